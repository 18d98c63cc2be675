"""Label images as files."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
import tifffile

from cellcount_core.domain.fields import Source
from cellcount_core.output.labels import label_key, label_tiff


def test_files_whose_names_differ_have_labels_whose_names_differ() -> None:
    sources = [
        Source("", 0, key, index)
        for key in ("p/A01.tif", "p/A01.TIF", "p/A01.png", "p/A01.png.tif", "p/A01", "A01.tif")
        for index in (-1, 0, 3)
    ]
    assert len({label_key(source) for source in sources}) == len(sources)


def test_labels_mirror_the_path_of_their_image() -> None:
    assert (
        label_key(Source("w1", 0, "P/TimePoint_1/P_A01_s1_w1.TIF"))
        == "labels/P/TimePoint_1/P_A01_s1_w1.TIF.labels.tif"
    )
    assert label_key(Source("", 0, "X.npz", 3)) == "labels/X.npz.000003.labels.tif"


def test_the_label_image_of_a_long_name_has_a_name_that_a_file_system_takes() -> None:
    long = ["y" * 251 + ".tif", "y" * 250 + "z.tif", "ü" * 125 + "a.tif", "ü" * 125 + "b.tif"]
    keys = [
        label_key(Source("", 0, f"{folder}{name}", index))
        for folder in ("", "p/")
        for name in long
        for index in (-1, 3)
    ]
    assert len(set(keys)) == len(keys)
    for key in keys:
        assert max(len(part.encode()) for part in key.split("/")) <= 255
        assert key.endswith(".labels.tif")
    assert label_key(Source("", 0, "y" * 240 + ".tif")) == "labels/" + "y" * 240 + ".tif.labels.tif"
    deep = "/".join(["d" * 200] * 5) + "/a.tif"
    assert len(label_key(Source("", 0, deep)).encode()) < 1000 < len(deep)


@pytest.mark.parametrize(("largest", "dtype"), [(0, "uint16"), (65_535, "uint16"), (65_536, "uint32")])
def test_labels_come_back_as_they_were(largest: int, dtype: str) -> None:
    labels = np.random.default_rng(0).integers(0, largest + 1, (37, 53), dtype=np.int32)
    labels[5, 7] = largest
    body = label_tiff(labels)
    back = tifffile.imread(io.BytesIO(body))
    assert back.dtype == dtype
    assert np.array_equal(back, labels)
    if dtype == "uint16":
        assert np.array_equal(cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_UNCHANGED), labels)


def test_equal_labels_give_equal_bytes_without_date_or_software() -> None:
    labels = np.zeros((600, 800), np.int32)
    labels[100:300, 200:400] = 7
    assert label_tiff(labels) == label_tiff(labels.copy())
    with tifffile.TiffFile(io.BytesIO(label_tiff(labels))) as file:
        tags = file.pages[0].tags  # type: ignore[union-attr]
        assert not {"DateTime", "Software", "ImageDescription"} & {tag.name for tag in tags}
    assert len(label_tiff(labels)) < labels.size / 50


@pytest.mark.parametrize("wrong", [np.zeros((2, 3, 4), int), np.zeros((0, 4), int), np.full((2, 2), -1)])
def test_what_is_no_label_image_is_refused(wrong: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> None:
    with pytest.raises(ValueError, match="label"):
        label_tiff(wrong)
