"""Every layout that labelled images come in gives the same images and labels."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.labelled.dataset import guess_kind, list_labelled, load_labelled

SHAPE = (30, 40)


def labels() -> np.ndarray:
    found = np.zeros(SHAPE, np.int32)
    found[2:12, 3:13], found[2:12, 13:20], found[20:28, 25:39] = 1, 2, 3
    return found


def plane() -> np.ndarray:
    return (100 + 500 * labels()).astype(np.uint16)


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, pixels)
    else:
        cv2.imwrite(str(path), pixels)


def write_palette(path: Path, indices: np.ndarray) -> None:
    """A palette PNG of 8 bits, as Pascal VOC's tools write it."""
    path.parent.mkdir(parents=True, exist_ok=True)

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    height, width = indices.shape
    rows = b"".join(b"\0" + row.astype(np.uint8).tobytes() for row in indices)
    colours = np.random.default_rng(0).integers(0, 256, (256, 3)).astype(np.uint8).tobytes()
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0))
        + chunk(b"PLTE", colours)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def as_index(root: Path) -> Path:
    write(root / "images" / "a.png", plane())
    write(root / "labels" / "a.png", labels().astype(np.uint16))
    (root / "index.csv").write_text("id,file,label\na,images/a.png,labels/a.png\n")
    return root


def as_pairs(root: Path) -> Path:
    write(root / "images" / "a.tif", plane())
    write(root / "labels" / "a_label.tif", labels().astype(np.float32))
    return root


def as_masks_beside(root: Path) -> Path:
    write(root / "images" / "a.png", plane())
    write(root / "masks" / "a.png", labels().astype(np.uint8))
    return root


def as_split_folders(root: Path) -> Path:
    write(root / "train" / "images" / "a.tif", plane())
    write(root / "train" / "masks" / "a.tif", labels().astype(np.uint16))
    return root


def as_archive(root: Path) -> Path:
    np.savez(root / "a.npz", X=plane()[None], y=labels()[None].astype(np.float64))
    return root / "a.npz"


def as_table(root: Path) -> Path:
    write(root / "x" / "a.png", plane())
    write(root / "y" / "a.png", labels().astype(np.uint16))
    (root / "cells.csv").write_text("image,label,split,group\nx/a.png,y/a.png,train,g\n")
    return root / "cells.csv"


def as_parquet(root: Path) -> Path:
    as_table(root)
    pq.write_table(
        pa.table({"image": ["x/a.png"], "label": ["y/a.png"], "split": [None]}), root / "cells.parquet"
    )
    return root / "cells.parquet"


def as_mask_files(root: Path) -> Path:
    write(root / "case1" / "images" / "a.png", plane())
    for number in (1, 2, 3):
        write(root / "case1" / "masks" / f"m{number}.png", (labels() == number).astype(np.uint8) * 255)
    return root


def as_voc(root: Path) -> Path:
    write(root / "JPEGImages" / "a.png", plane())
    with_void = labels().copy()
    with_void[0, :5] = 255
    write_palette(root / "SegmentationObject" / "a.png", with_void)
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text("a\n")
    return root


def runs(mask: np.ndarray) -> list[int]:
    """Run lengths down the columns, background first."""
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat.astype(int))) + 1
    found = np.diff([0, *edges, flat.size]).tolist()
    return [0, *found] if flat[0] else found


def compressed(counts: list[int]) -> str:
    """COCO's compressed text (rleToString of pycocotools)."""
    text = ""
    for index, count in enumerate(counts):
        value = count - counts[index - 2] if index > 2 else count
        more = True
        while more:
            five, value = value & 0x1F, value >> 5
            more = value != (-1 if five & 0x10 else 0)
            text += chr((five | (0x20 if more else 0)) + 48)
    return text


def as_coco(root: Path) -> Path:
    write(root / "images" / "a.png", plane())
    first, second = labels() == 1, labels() == 2
    assert first.any()
    drawings = [
        [[3, 2, 13, 2, 13, 12, 3, 12]],
        {"size": list(SHAPE), "counts": runs(second)},
        {"size": list(SHAPE), "counts": compressed(runs(labels() == 3))},
    ]
    data = {
        "images": [{"id": 7, "file_name": "a.png", "height": SHAPE[0], "width": SHAPE[1]}],
        "annotations": [{"id": n, "image_id": 7, "segmentation": each} for n, each in enumerate(drawings)],
    }
    (root / "cells.json").write_text(json.dumps(data))
    return root / "cells.json"


LAYOUTS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "index": (as_index, "folder"),
    "pairs": (as_pairs, "folder"),
    "masks beside": (as_masks_beside, "folder"),
    "split folders": (as_split_folders, "folder"),
    "archive": (as_archive, "npz"),
    "table": (as_table, "table"),
    "parquet": (as_parquet, "table"),
    "mask files": (as_mask_files, "masks"),
    "voc": (as_voc, "voc"),
    "coco": (as_coco, "coco"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_recognised_and_gives_the_same_image_and_objects(tmp_path: Path, name: str) -> None:
    make, kind = LAYOUTS[name]
    path = make(tmp_path)
    assert guess_kind(path) == kind
    (image,) = load_labelled(path)
    np.testing.assert_array_equal(image.plane, plane())
    assert (image.plane.dtype, image.labels.dtype) == (np.uint16, np.int32)
    np.testing.assert_array_equal(image.labels, labels())
    assert image.diameter_px == pytest.approx(2 * np.sqrt(100 / np.pi))


@pytest.mark.parametrize(("name", "inside"), [("coco", "."), ("archive", ".")])
def test_a_folder_may_be_given_for_the_only_file_in_it(tmp_path: Path, name: str, inside: str) -> None:
    LAYOUTS[name][0](tmp_path)
    assert len(load_labelled(tmp_path / inside)) == 1


def test_splits_come_from_folders_lists_tables_and_names_of_annotation_files(tmp_path: Path) -> None:
    for name in ("split folders", "voc", "table"):
        root = tmp_path / name
        root.mkdir()
        listing = list_labelled(LAYOUTS[name][0](root))
        assert [entry.split for entry in listing.entries] == ["train"]
        assert listing.has_splits
    root = tmp_path / "coco"
    text = as_coco(root).read_text()
    (root / "annotations").mkdir()
    (root / "cells.json").unlink()
    for split in ("train", "val"):
        (root / "annotations" / f"instances_{split}2017.json").write_text(text)
    assert [entry.split for entry in list_labelled(root).entries] == ["train", "val"]
    assert len(load_labelled(root, "coco", "val")) == 1


@pytest.mark.parametrize("name", ["coco", "voc", "table"])
def test_texts_as_spreadsheets_and_tools_of_windows_write_them_are_read(tmp_path: Path, name: str) -> None:
    data = LAYOUTS[name][0](tmp_path)
    for path in tmp_path.rglob("*.*"):
        if path.suffix in (".json", ".txt", ".csv"):
            text = path.read_text()
            path.write_text(
                text.replace(",", ";") if path.suffix == ".csv" else text,
                encoding="utf-8-sig",
                newline="\r\n",
            )
    (image,) = load_labelled(data)
    np.testing.assert_array_equal(image.labels, labels())


def test_an_image_without_any_object_is_an_empty_image(tmp_path: Path) -> None:
    nothing = np.zeros(SHAPE, np.uint16)
    write(tmp_path / "images" / "a.png", plane())
    write(tmp_path / "labels" / "a.png", nothing)
    (image,) = load_labelled(tmp_path)
    assert (image.labels.max(), image.diameter_px) == (0, 0.0)
    (tmp_path / "dsb" / "one" / "masks").mkdir(parents=True)
    write(tmp_path / "dsb" / "one" / "images" / "a.png", plane())
    (image,) = load_labelled(tmp_path / "dsb")
    assert image.labels.max() == 0


def test_an_image_that_holds_nothing_but_an_undecided_rim_is_empty(tmp_path: Path) -> None:
    as_voc(tmp_path)
    write_palette(tmp_path / "SegmentationObject" / "a.png", np.where(labels() > 0, 255, 0))
    assert load_labelled(tmp_path)[0].labels.max() == 0


def test_masks_become_their_connected_components(tmp_path: Path) -> None:
    apart = np.where(np.isin(labels(), (1, 3)), 255, 0).astype(np.uint8)
    write(tmp_path / "images" / "a.png", plane())
    write(tmp_path / "labels" / "a.png", apart)
    assert load_labelled(tmp_path)[0].labels.max() == 2
    (tmp_path / "labels").rename(tmp_path / "masks")
    write(tmp_path / "masks" / "a.png", apart // 255)
    assert load_labelled(tmp_path)[0].labels.max() == 2


def test_objects_that_overlap_keep_the_smaller_one_whole(tmp_path: Path) -> None:
    write(tmp_path / "c" / "images" / "a.png", plane())
    large, small = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    large[2:25, 2:25], small[10:15, 10:15] = 1, 1
    write(tmp_path / "c" / "masks" / "a.png", small)
    write(tmp_path / "c" / "masks" / "b.png", large)
    found = load_labelled(tmp_path, "masks")[0].labels
    assert (found == 1).sum() == 25
    assert (found == 2).sum() == 23 * 23 - 25


def test_label_numbers_far_apart_are_closed_up(tmp_path: Path) -> None:
    write(tmp_path / "images" / "a.tif", plane())
    write(tmp_path / "labels" / "a.tif", labels().astype(np.uint32) * 1_000_000)
    np.testing.assert_array_equal(load_labelled(tmp_path)[0].labels, labels())


def test_greys_saved_as_colours_are_numbers_and_colours_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "images" / "a.png", plane())
    write(tmp_path / "labels" / "a.png", np.repeat(labels()[..., None], 3, axis=2).astype(np.uint8))
    np.testing.assert_array_equal(load_labelled(tmp_path)[0].labels, labels())
    coloured = np.zeros((*SHAPE, 3), np.uint8)
    coloured[..., 0] = labels()
    write(tmp_path / "labels" / "a.png", coloured)
    with pytest.raises(ConfigFault, match=r"a\.png: a label image in colours; expected one number an object"):
        load_labelled(tmp_path)


def spoil_half_labels(root: Path) -> None:
    write(root / "labels" / "a.tif", labels() + np.float32(0.5))


def spoil_negative(root: Path) -> None:
    write(root / "labels" / "a.tif", labels() - 1)


def spoil_size(root: Path) -> None:
    write(root / "labels" / "a.tif", labels()[:20].astype(np.uint16))


def spoil_truncated(root: Path) -> None:
    body = (root / "images" / "a.tif").read_bytes()
    (root / "images" / "a.tif").write_bytes(body[:200])


def spoil_planes(root: Path) -> None:
    write(root / "images" / "a.tif", np.zeros((5, *SHAPE), np.uint16))


def spoil_missing_label(root: Path) -> None:
    (root / "labels" / "a.tif").unlink()


def spoil_missing_image(root: Path) -> None:
    write(root / "labels" / "b.tif", labels().astype(np.uint16))


def spoil_twice(root: Path) -> None:
    write(root / "images" / "a.png", plane())


def spoil_nan(root: Path) -> None:
    write(root / "images" / "a.tif", np.full(SHAPE, np.nan, np.float32))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_half_labels, r"labels/a\.tif: label 0\.5; whole numbers expected"),
        (spoil_negative, r"labels/a\.tif: labels from -1 to 2"),
        (spoil_size, r"labels/a\.tif: labels are \(20, 40\).*the image \(30, 40\)"),
        (spoil_truncated, r"images/a\.tif: .*(ends|bytes)"),
        (spoil_planes, r"images/a\.tif: an image of 5 channels .*one plane"),
        (spoil_missing_label, r"images/a\.tif: no label file"),
        (spoil_missing_image, r"labels/b\.tif: no image"),
        (spoil_twice, "has the same name with another ending"),
        (spoil_nan, r"images/a\.tif: 1200 of 1200 pixels are not finite"),
    ],
)
def test_a_file_that_does_not_fit_is_named_with_what_was_expected(
    tmp_path: Path, spoil: Callable[[Path], None], said: str
) -> None:
    write(tmp_path / "images" / "a.tif", plane())
    write(tmp_path / "labels" / "a.tif", labels().astype(np.uint16))
    spoil(tmp_path)
    with pytest.raises(ConfigFault, match=said):
        load_labelled(tmp_path)


@pytest.mark.parametrize(
    ("segmentation", "said"),
    [
        (None, "annotation 0: no segmentation"),
        ([[1, 1, 5, 5]], "annotation 0: segmentation: a polygon of 4 numbers"),
        ({"size": [30, 41], "counts": [1230]}, r"size \[30, 41\], the image is \[30, 40\]"),
        ({"size": [30, 40], "counts": [3, 4]}, "run lengths of 7 pixels"),
        ({"size": [30, 40], "counts": "aé"}, "character"),
    ],
)
def test_an_annotation_without_an_outline_is_named(tmp_path: Path, segmentation: object, said: str) -> None:
    path = as_coco(tmp_path)
    data = json.loads(path.read_text())
    data["annotations"] = [{"id": 0, "image_id": 7, "segmentation": segmentation}]
    path.write_text(json.dumps(data))
    with pytest.raises(ConfigFault, match=said):
        load_labelled(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"images": [{"id": 7, "file_name": "b.png"}]}, r"b\.png: not there, nor in"),
        (
            {"images": [{"id": 7, "file_name": "a.png", "height": 31, "width": 40}]},
            r"cells\.json says 31 x 40",
        ),
        ({"images": [{"id": 8, "file_name": "a.png"}]}, "annotations of image 7"),
        ({"images": 3}, "lists `images` and `annotations`"),
    ],
)
def test_annotations_that_do_not_fit_their_images_are_refused(
    tmp_path: Path, change: dict[str, object], said: str
) -> None:
    path = as_coco(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ConfigFault, match=said):
        load_labelled(path)


def test_boxes_alone_train_nothing(tmp_path: Path) -> None:
    (tmp_path / "Annotations").mkdir()
    with pytest.raises(ConfigFault, match="boxes, which give no outlines"):
        load_labelled(tmp_path, "voc")


def test_a_kind_or_a_path_that_is_none_is_answered_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigFault, match="did you mean 'coco'"):
        load_labelled(tmp_path, "cocoo")
    with pytest.raises(ConfigFault, match="looks like no layout"):
        load_labelled(tmp_path)
    with pytest.raises(ConfigFault, match="absent: not there"):
        load_labelled(tmp_path / "absent")
