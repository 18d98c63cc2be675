"""Reading labelled images."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.labelled.dataset import load_folder, load_npz
from cellcount_core.labelled.folders import list_table
from tests.data_dir import data_dir, needs_data


def write_folder(folder: Path, rows: list[str], header: str = "id,file,label,split,modality,group") -> Path:
    labels = np.zeros((30, 40), np.uint16)
    labels[2:12, 2:12], labels[15:25, 20:30] = 1, 2
    cv2.imwrite(str(folder / "image.png"), labels.astype(np.uint8) * 100)
    cv2.imwrite(str(folder / "colour.png"), np.full((30, 40, 3), 90, np.uint8))
    cv2.imwrite(str(folder / "label.png"), labels)
    cv2.imwrite(str(folder / "small.png"), labels[:20])
    (folder / "index.csv").write_text("\n".join([header, *rows, ""]))
    return folder


def test_rows_are_chosen_by_split_and_modality(tmp_path: Path) -> None:
    rows = [
        "a,image.png,label.png,train,fluorescence,g1",
        "b,image.png,label.png,val,fluorescence,g2",
        "c,colour.png,label.png,train,histology,g3",
    ]
    folder = write_folder(tmp_path, rows)
    assert [image.id for image in load_folder(folder, split="train")] == ["a", "c"]
    (image,) = load_folder(folder, split="train", modality=["fluorescence"])
    assert (image.group, image.plane.shape, image.labels.dtype) == ("g1", (30, 40), np.int32)
    assert image.diameter_px == pytest.approx(2 * np.sqrt(100 / np.pi))


def test_colour_images_become_grey(tmp_path: Path) -> None:
    (image,) = load_folder(write_folder(tmp_path, ["c,colour.png,label.png,train,histology,g"]))
    assert image.plane.shape == (30, 40)


@pytest.mark.parametrize(
    ("rows", "header", "split", "said"),
    [
        (["a,image.png,label.png"], "id,file,mask", "", "no column 'label'"),
        (
            ["a,image.png,label.png,train,f,g"],
            "id,file,label,split,modality,group",
            "test",
            "splits \\['train'\\]",
        ),
        (["a,image.png,small.png,train,f,g"], "id,file,label,split,modality,group", "", "labels are"),
        (["a,absent.png,label.png,train,f,g"], "id,file,label,split,modality,group", "", "absent.png"),
        (
            ["a,index.csv,label.png,train,f,g"],
            "id,file,label,split,modality,group",
            "",
            "index.csv: the file looks like text; PNG",
        ),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(
    tmp_path: Path, rows: list[str], header: str, split: str, said: str
) -> None:
    with pytest.raises(ConfigFault, match=said):
        load_folder(write_folder(tmp_path, rows, header), split=split)


def test_a_folder_without_an_index_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigFault, match=r"index\.csv"):
        load_folder(tmp_path)


def test_masks_of_an_archive_become_components(tmp_path: Path) -> None:
    images, masks = np.zeros((3, 16, 16, 1), np.float32), np.zeros((3, 16, 16, 1), np.uint8)
    masks[1, 2:5, 2:5], masks[1, 9:12, 9:12] = 255, 255
    np.savez(tmp_path / "X_and_y.npz", X=images, y=masks)
    loaded = load_npz(tmp_path / "X_and_y.npz")
    assert [int(image.labels.max()) for image in loaded] == [0, 2, 0]
    assert loaded[0].diameter_px == 0.0


def test_label_images_of_an_archive_keep_their_objects(tmp_path: Path) -> None:
    labels = np.zeros((1, 16, 16), np.int64)
    labels[0, 2:5, 2:5], labels[0, 2:5, 5:9] = 1, 2
    np.savez(tmp_path / "a.npz", X=labels, y=labels)
    np.testing.assert_array_equal(load_npz(tmp_path / "a.npz")[0].labels, labels[0])


def test_crops_of_one_image_in_an_archive_are_one_group(tmp_path: Path) -> None:
    labels = np.zeros((3, 8, 8), np.uint16)
    labels[:, 1:3, 1:3] = 7
    for group in (["a", "b", "a"], ["a", "b"]):
        np.savez(tmp_path / f"{len(group)}.npz", X=labels, y=labels, group=np.array(group))
    assert [image.group for image in load_npz(tmp_path / "3.npz")] == ["a", "b", "a"]
    with pytest.raises(ConfigFault, match=r"group must hold one name an image, \(3,\) \(got \(2,\)\)"):
        load_npz(tmp_path / "2.npz")


def test_an_archive_without_y_or_of_other_shapes_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", X=np.zeros((2, 8, 8)))
    np.savez(tmp_path / "b.npz", X=np.zeros((2, 8, 8)), y=np.zeros((2, 8, 9)))
    (tmp_path / "c.npz").write_bytes(b"no archive")
    for name, said in (
        ("a", "no array 'y'"),
        ("b", r"X must be \(N, H, W\).*got \(2, 8, 8\) and \(2, 8, 9\)"),
        ("c", "not an NPZ"),
        ("d", "not there; an NPZ archive"),
    ):
        with pytest.raises(ConfigFault, match=said):
            load_npz(tmp_path / f"{name}.npz")


@pytest.mark.slow
@needs_data("dsb2018_nuclei")
def test_the_data_science_bowl_folder_reads_as_its_readme_says() -> None:
    root = data_dir()
    assert root is not None
    images = load_folder(root / "dsb2018_nuclei", split="val", modality=["fluorescence"])
    assert len(images) == 108
    assert sum(len(np.unique(image.labels)) - 1 for image in images) == 4759


def test_a_parquet_table_with_two_columns_of_one_name_is_refused(tmp_path: Path) -> None:
    columns = [pa.array(["a.png"]), pa.array(["a_label.png"]), pa.array(["b_label.png"])]
    pq.write_table(
        pa.Table.from_arrays(columns, names=["image", "label", "label"]), tmp_path / "table.parquet"
    )
    with pytest.raises(ConfigFault, match=r"table.parquet: 2 columns are called 'label'; one expected"):
        list_table(tmp_path / "table.parquet")
