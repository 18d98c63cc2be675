"""Exported boxes: all files or none, and never among the boxes of another run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cellcount_core.domain.errors import ConfigFault, OutputFault
from cellcount_core.labelled.box_folder import OWNER, put_boxes, put_file
from cellcount_core.labelled.box_writers import BoxedFile, write_boxes
from tests.unit.labelled.test_boxes import boxed

BLOOD, CELLS = ("RBC", "WBC"), ("live", "dead")


def put(place: Path, kind: str, run: str, names: tuple[str, ...], *images: str) -> int:
    files: list[BoxedFile] = [boxed(f"{image}.png", [[1, 2, 30, 40]], [names[1]]) for image in images]
    return put_boxes(place, kind, run, write_boxes(kind, files, names))


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["yolo", "voc", "coco"])
def test_boxes_of_another_run_or_format_are_never_mixed_in(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "mix"
    put(place, kind, "f" * 64, BLOOD, "a", "b")
    before = content(place)
    with pytest.raises(
        ConfigFault, match=rf"mix: holds an export of another run \(f+\) as {kind}.*name a new"
    ):
        put(place, kind, "e" * 64, CELLS, "b", "c")
    other = "voc" if kind != "voc" else "yolo"
    with pytest.raises(ConfigFault, match=f"holds an export of this run as {kind}"):
        put(place, other, "f" * 64, BLOOD, "a")
    assert content(place) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mix"]


def test_files_that_no_export_wrote_are_not_mixed_in(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    with pytest.raises(ConfigFault, match=r"not of an export of this run \(labels\).*name a new folder"):
        put(tmp_path, "yolo", "f" * 64, BLOOD, "a")


@pytest.mark.parametrize(
    ("kind", "folder", "ending"), [("yolo", "labels", "txt"), ("voc", "Annotations", "xml")]
)
def test_an_export_that_is_repeated_loses_the_images_that_left_the_run_and_keeps_the_users(
    tmp_path: Path, kind: str, folder: str, ending: str
) -> None:
    place = tmp_path / "boxes"
    place.mkdir()
    put(place, kind, "f" * 64, BLOOD, "a", "b")
    (place / "images").mkdir()
    (place / "images" / "a.png").write_bytes(b"photo")
    put(place, kind, "f" * 64, BLOOD, "b", "c")
    assert {path.name for path in (place / folder).iterdir()} == {f"b.{ending}", f"c.{ending}"}
    assert (place / "images" / "a.png").read_bytes() == b"photo"


def test_labels_that_were_corrected_are_not_overwritten(tmp_path: Path) -> None:
    place = tmp_path / "boxes"
    put(place, "voc", "f" * 64, BLOOD, "a", "b")
    (place / "Annotations" / "b.xml").write_text("corrected")
    with pytest.raises(ConfigFault, match=r"b\.xml: was changed since it was exported"):
        put(place, "voc", "f" * 64, BLOOD, "a", "b")
    assert (place / "Annotations" / "b.xml").read_text() == "corrected"


def test_a_list_of_files_that_names_others_removes_nothing_outside(tmp_path: Path) -> None:
    place, outside = tmp_path / "boxes", tmp_path / "mine.txt"
    put(place, "yolo", "f" * 64, BLOOD, "a")
    outside.write_text("mine")
    (place / OWNER).write_text(json.dumps({"run": "f" * 64, "kind": "yolo", "files": {"../mine.txt": ""}}))
    put(place, "yolo", "f" * 64, BLOOD, "b")
    assert outside.read_text() == "mine"


def test_names_that_clash_leave_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ConfigFault, match=r"a\.png and x/a\.png would both be written to a\.xml"):
        put(tmp_path / "boxes", "voc", "f" * 64, BLOOD, "b", "a", "x/a")
    assert list(tmp_path.iterdir()) == []


def test_the_name_of_a_file_is_a_file_or_refused(tmp_path: Path) -> None:
    assert put(tmp_path / "boxes.json", "coco", "f" * 64, BLOOD, "a") == 1
    assert (tmp_path / "boxes.json").is_file()
    assert put(tmp_path / "boxes.json", "coco", "f" * 64, BLOOD, "a") == 1
    with pytest.raises(ConfigFault, match=r"boxes\.json: is there already.*name another file"):
        put(tmp_path / "boxes.json", "coco", "f" * 64, BLOOD, "b")
    for kind, name in (("voc", "boxes.xml"), ("yolo", "boxes.json"), ("coco", "boxes.csv")):
        with pytest.raises(ConfigFault, match=rf"{name}: the name of a folder expected"):
            put(tmp_path / "new" / name, kind, "f" * 64, BLOOD, "a")
    (tmp_path / "plain").write_text("")
    with pytest.raises(ConfigFault, match="plain: is a file; --to voc writes a folder"):
        put(tmp_path / "plain", "voc", "f" * 64, BLOOD, "a")
    assert not (tmp_path / "new").exists()


def test_a_file_is_replaced_whole_through_a_link_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "real.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    put_file(tmp_path / "link.csv", b"new")
    assert (tmp_path / "real.csv").read_text() == "new"
    assert (tmp_path / "link.csv").is_symlink()
    with pytest.raises(OutputFault, match=r"nowhere/x\.csv: cannot be written"):
        put_file(tmp_path / "nowhere" / "x.csv", b"new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.csv", "real.csv"]
