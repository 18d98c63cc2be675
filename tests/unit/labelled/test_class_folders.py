"""Images in a folder for each class: what is read, what is left out, and what is refused with its reason."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.labelled.class_folders import list_class_folders
from cellcount_core.labelled.dataset import list_images
from cellcount_core.labelled.whole import unreadable
from cellcount_core.tasks.task import TruthKind
from tests.shapes import shape_image


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """control/ and knock-down/ of three images each, with what file systems leave behind."""
    root = tmp_path / "data"
    for name in ("control", "knock-down"):
        (root / name).mkdir(parents=True)
        for number in range(3):
            tifffile.imwrite(root / name / f"{number}.tif", shape_image("dots", number))
    (root / ".DS_Store").mkdir()
    (root / "__MACOSX").mkdir()
    (root / "control" / "._0.tif").write_bytes(b"\0\5\x16\7")
    (root / "control" / ".hidden.tif").write_bytes(b"x")
    (root / "control" / "empty.tif").write_bytes(b"")
    (root / "control" / "notes.txt").write_text("x")
    return root


def test_what_is_no_image_is_left_out_and_counted(folders: Path) -> None:
    found = list_class_folders(folders)
    assert found.classes == ("control", "knock-down")
    assert [entry.id for entry in found.entries][:3] == ["control/0.tif", "control/1.tif", "control/2.tif"]
    assert dict(found.left_out) == {"hidden": 4, "empty": 1, "not an image": 1}
    assert found.lines() == [
        f"{folders}: 6 images: 3 control, 3 knock-down",
        "every image is a group of its own: no groups.csv says which come from one photo",
        "left out: 1 empty, 4 hidden, 1 not an image",
    ]


def test_images_beside_the_class_folders_are_told_to_be_left_out(folders: Path, tmp_path: Path) -> None:
    for name in ("1.tif", "2.png", ".hidden.tif", "notes.txt"):
        (folders / name).write_bytes(b"x")
    found = list_class_folders(folders)
    assert found.left_out["beside the class folders"] == 2
    assert found.lines()[-1].startswith("left out: 2 beside the class folders, ")
    shutil.move(folders, tmp_path / "TRAIN")
    assert list_class_folders(tmp_path).left_out["beside the class folders"] == 2


def test_folders_of_splits_hold_the_classes(tmp_path: Path) -> None:
    for split in ("TRAIN", "TEST"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            tifffile.imwrite(tmp_path / split / name / "1.tif", shape_image("dots", 1))
    found = list_class_folders(tmp_path)
    assert {(entry.split, entry.values["class"]) for entry in found.entries} == {
        ("train", "a"), ("train", "b"), ("test", "a"), ("test", "b"),
    }  # fmt: skip


def test_a_table_says_which_images_belong_together(folders: Path) -> None:
    names = [f"{kind}/{number}.tif" for kind in ("control", "knock-down") for number in range(3)]
    rows = "\n".join(f"{name},photo{number // 2}" for number, name in enumerate(names))
    (folders / "groups.csv").write_text(f"file,group\n{rows}\n")
    found = list_class_folders(folders)
    assert [entry.group for entry in found.entries] == [
        "photo0",
        "photo0",
        "photo1",
        "photo1",
        "photo2",
        "photo2",
    ]
    assert "3 groups by groups.csv" in found.lines()[1]


def test_damaged_images_are_named_each(folders: Path) -> None:
    damaged = folders / "control" / "1.tif"
    damaged.write_bytes(damaged.read_bytes()[:500])
    (folders / "knock-down" / "0.tif").write_bytes(b"no image at all")
    faults = unreadable(list_class_folders(folders).entries, ())
    assert list(faults) == ["control/1.tif", "knock-down/0.tif"]
    assert all(str(folders / name) in str(fault) for name, fault in faults.items())


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("file,group\n", "groups.csv: no row"),
        (
            "image,photo\ncontrol/0.tif,1\n",
            "columns image, photo; file and one of group, original, photo expected",
        ),
        ("file,group\ncontrol/9.tif,1\n", "row 2: 'control/9.tif' is not there"),
        (
            "file,group\n0.tif,1\n",
            "row 2: '0.tif' is not there: the path from the data's folder on expected, 'control/0.tif' or 'knock-down/0.tif'",
        ),
        ("file,group\ncontrol/0.tif,1\ncontrol/0.tif,2\n", "row 3: 'control/0.tif' is in the table twice"),
        (
            "file,class,group\ncontrol/0.tif,Control,1\n",
            "is of class 'Control' here and lies in the folder 'control'",
        ),
        ("file,group\ncontrol/0.tif,1\n", "no group for 'control/1.tif' and 4 more"),
    ],
)
def test_a_table_that_contradicts_the_folders_is_refused(folders: Path, table: str, said: str) -> None:
    (folders / "groups.csv").write_text(table)
    with pytest.raises(ConfigFault) as fault:
        list_class_folders(folders)
    assert said in str(fault.value)


def test_a_class_that_cannot_be_both_trained_and_measured_is_refused(folders: Path) -> None:
    (folders / "rescue").mkdir()
    with pytest.raises(ConfigFault, match="class 'rescue' has no image"):
        list_class_folders(folders)
    tifffile.imwrite(folders / "rescue" / "1.tif", np.zeros((9, 9), np.uint8))
    with pytest.raises(ConfigFault, match="class 'rescue' has a single image"):
        list_class_folders(folders)
    assert len(list_class_folders(folders, ("control", "knock-down")).entries) == 6


def test_class_folders_without_any_image_are_named_together(tmp_path: Path) -> None:
    with pytest.raises(ConfigFault, match="no folder for the class 'a'; there is none at all"):
        list_class_folders(tmp_path, ("a", "b"))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with pytest.raises(ConfigFault, match=r"none of the class folders \(a, b\) has an image"):
        list_class_folders(tmp_path)


def test_one_image_without_a_group_is_one(folders: Path) -> None:
    names = [f"{kind}/{number}.tif" for kind in ("control", "knock-down") for number in range(3)]
    (folders / "groups.csv").write_text("file,group\n" + "".join(f"{name},1\n" for name in names[:-1]))
    with pytest.raises(ConfigFault, match=r"no group for 'knock-down/2.tif': every image"):
        list_class_folders(folders)


def test_folders_that_are_not_classes_are_told_from_those_that_are(folders: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigFault, match="no folder for the class 'controls'; did you mean 'control'"):
        list_class_folders(folders, ("controls", "knock-down"))
    with pytest.raises(ConfigFault, match="no such folder"):
        list_class_folders(tmp_path / "nowhere")
    (folders / "control" / "inner").mkdir()
    with pytest.raises(ConfigFault, match="a folder inside the class folder 'control'"):
        list_class_folders(folders)


def test_an_evaluation_takes_class_folders_and_says_what_it_expects(folders: Path) -> None:
    (folders / "control" / "2.tif").unlink()
    (folders / "control" / "1.tif").unlink()
    found = list_images(folders, TruthKind.TABLE, ("image",), ("class",))
    assert found.kind == "class_folders" and found.left_out == (
        "left out: 1 empty, 4 hidden, 1 not an image",
    )
    assert [entry.load().truth.values["class"] for entry in found.entries] == ["control", *["knock-down"] * 3]
    with pytest.raises(
        ConfigFault, match=r"0 class folders .* a CSV with the columns image and class in place"
    ):
        list_images(folders / "control", TruthKind.TABLE, ("image",), ("class",))
    with pytest.raises(
        ConfigFault, match=r"no index\.csv in it; a CSV with the columns image and live and dead"
    ):
        list_images(folders, TruthKind.TABLE, ("image",), ("live", "dead"))
