"""Image files with label files beside them, and archives of arrays: four layouts, listed without reading their
images.

- a folder with an `index.csv`, or with `images/` beside `labels/` (or `masks/`), paired by name
- a CSV or Parquet table with one row per image
- `<id>/images/x.png` with `<id>/masks/*.png`, one mask per object, as in the 2018 Data Science Bowl
- an NPZ archive with images `X` and masks or label images `y`
"""

from __future__ import annotations

import csv
import zipfile
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.errors import ConfigFault, nearest
from cellcount_core.images.imagefile import Plane
from cellcount_core.labelled.image import (
    IMAGE_SUFFIXES,
    LabelledEntry,
    Labels,
    components,
    file_entry,
    pixels_in_memory,
    plane_of,
    read_labels,
    read_mask,
    read_pixels,
    same_size,
    stack_masks,
    whole_numbers,
)
from cellcount_core.pipeline.pixels import Pixels

INDEX = "index.csv"
IMAGES = "images"
LABELS = ("labels", "masks")
SPLITS = ("train", "val", "validation", "valid", "test")
_ENDINGS = ("", "_mask", "_masks", "_label", "_labels", "_seg")


def list_folder(folder: Path) -> list[LabelledEntry]:
    """List the images of a folder: the rows of its `index.csv`, or else pairs by name, or else pairs in folders named
    after a split.

    Raises ConfigFault naming what is missing, or a file without its partner.
    """
    if (folder / INDEX).is_file():
        return entries_of_rows(
            folder / INDEX, read_rows(folder / INDEX), image="file", needed=("id", "file", "label")
        )
    if is_paired(folder):
        return _paired_entries(folder, "")
    inner = split_folders(folder)
    if not inner:
        raise ConfigFault(
            f"{folder}: neither {INDEX} (columns id, file, label) nor {IMAGES}/ beside {' or '.join(f'{n}/' for n in LABELS)}"
        )
    return [entry for part in inner for entry in _paired_entries(part, part.name)]


def is_paired(folder: Path) -> bool:
    """Whether a folder has images/ and one of labels/ and masks/."""
    return (folder / IMAGES).is_dir() and any((folder / name).is_dir() for name in LABELS)


def split_folders(folder: Path) -> list[Path]:
    """The folders train/, val/ and so on inside that hold pairs."""
    return [folder / name for name in SPLITS if is_paired(folder / name)] if folder.is_dir() else []


def by_stem(folder: Path) -> dict[str, Path]:
    """The image files of a folder by their names without extension, in order. Raises ConfigFault if two share such a
    name."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in found:
            raise ConfigFault(
                f"{path}: {found[path.stem].name} has the same name with another ending; expected only one of them"
            )
        found[path.stem] = path
    return found


def _paired_entries(folder: Path, split: str) -> list[LabelledEntry]:
    beside = next(folder / name for name in LABELS if (folder / name).is_dir())
    images, labels = by_stem(folder / IMAGES), by_stem(beside)
    partners = {stem: next((stem + end for end in _ENDINGS if stem + end in labels), "") for stem in images}
    for stem, path in images.items():
        if not partners[stem]:
            raise ConfigFault(
                f"{path}: no label file {beside / stem}.png or .tif; an image without any object has one that is all 0"
            )
    for stem in sorted(set(labels) - set(partners.values())):
        raise ConfigFault(f"{labels[stem]}: no image {folder / IMAGES / stem}.png or .tif")
    prefix = f"{split}/" if split else ""
    reader = read_mask if beside.name == "masks" else read_labels
    return [
        file_entry(prefix + stem, path, labels[partners[stem]], reader=reader, split=split)
        for stem, path in images.items()
    ]


TableRow = dict[str, str]


def list_table(path: Path) -> list[LabelledEntry]:
    """List the images of a table with the columns image and label and, optionally, id, split, modality and group.

    File names are relative to the table's folder. Raises ConfigFault naming table, row and column if something is
    wrong.
    """
    return entries_of_rows(path, read_rows(path), image="image", needed=("image", "label"))


def read_rows(path: Path) -> list[TableRow]:
    """The rows of a CSV or Parquet file as text, with "" for empty cells. Raises ConfigFault if the file is neither."""
    try:
        if path.suffix.lower() == ".parquet":
            return _read_parquet(path)
        with path.open(newline="", encoding="utf-8-sig") as stream:
            return [{key: value or "" for key, value in row.items() if key} for row in csv.DictReader(stream)]
    except OSError as error:
        raise ConfigFault(f"{path}: cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigFault(f"{path}: not a CSV table: {error}") from error


def _read_parquet(path: Path) -> list[TableRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path).to_pylist()
    except pa.ArrowInvalid as error:
        raise ConfigFault(f"{path}: not a Parquet table: {error}") from error
    return [{key: "" if value is None else str(value) for key, value in row.items()} for row in rows]


def entries_of_rows(
    path: Path, rows: Sequence[TableRow], *, image: str, needed: Sequence[str]
) -> list[LabelledEntry]:
    """The entries of a table's rows. The column named by `image` holds the image file. Raises ConfigFault naming row
    and column."""
    for column in needed:
        if not rows or column not in rows[0]:
            raise ConfigFault(
                f"{path}: no column {column!r}{nearest(column, rows[0] if rows else [])}"
                if rows
                else f"{path}: no row"
            )
    for number, row in enumerate(rows, start=2):
        if not row[image] or not row["label"]:
            raise ConfigFault(f"{path}: row {number} has no {image if not row[image] else 'label'}")
    return [
        file_entry(
            row.get("id") or Path(row[image]).stem,
            path.parent / row[image],
            path.parent / row["label"],
            split=row.get("split", ""),
            modality=row.get("modality", ""),
            group=row.get("group", ""),
        )
        for row in rows
    ]


def read_truths(path: Path, columns: Sequence[str], split: str | None) -> list[tuple[Path, TableRow]]:
    """Image files and what is true of each: the rows of a table, or of a folder's `index.csv`, with `image` (or
    `file`) and `columns`.

    `split` None takes the split "val" if the table has it and otherwise all rows; "all" takes all rows. Raises
    ConfigFault naming table, row and column if something is missing.
    """
    table = path / INDEX if path.is_dir() else path
    rows = read_rows(table)
    if not rows:
        raise ConfigFault(f"{table}: no row")
    image = "image" if "image" in rows[0] else "file"
    for column in (image, *columns):
        if column not in rows[0]:
            raise ConfigFault(f"{table}: no column {column!r}{nearest(column, rows[0])}")
    for number, row in enumerate(rows, start=2):
        lacking = [column for column in (image, *columns) if not row[column]]
        if lacking:
            raise ConfigFault(f"{table}: row {number} has no {lacking[0]}")
    wanted = ("val" if any(row.get("split") == "val" for row in rows) else "all") if split is None else split
    chosen = [row for row in rows if wanted == "all" or row.get("split", "") == wanted]
    if not chosen:
        known = ", ".join(sorted({repr(row.get("split", "")) for row in rows}))
        raise ConfigFault(f"{table}: no row of split {wanted!r}; there are {known}")
    return [(table.parent / row[image], row) for row in chosen]


MASKS = "masks"


def list_masks(folder: Path) -> list[LabelledEntry]:
    """List the images of a folder of `<id>/images/` and `<id>/masks/`. Everything above 0 in a mask is one object.

    An image without objects has an empty folder of masks. Raises ConfigFault naming a folder without its image or its
    masks.
    """
    inner = image_folders(folder)
    if not inner:
        raise ConfigFault(
            f"{folder}: no folder in it has {IMAGES}/ (one image) and {MASKS}/ (a mask an object)"
        )
    return [
        LabelledEntry(each.name, partial(_read_masks, image, _masks(each)), file=str(image))
        for each, image in zip(inner, map(_only_image, inner), strict=True)
    ]


def image_folders(folder: Path) -> list[Path]:
    """The folders inside that contain images/, in order."""
    return sorted(each for each in folder.iterdir() if (each / IMAGES).is_dir()) if folder.is_dir() else []


def _only_image(folder: Path) -> Path:
    found = list(by_stem(folder / IMAGES).values())
    if len(found) != 1:
        raise ConfigFault(f"{folder / IMAGES}: {len(found)} images; one expected")
    return found[0]


def _masks(folder: Path) -> list[Path]:
    if not (folder / MASKS).is_dir():
        raise ConfigFault(f"{folder / MASKS}: not there; an image without any object has an empty one")
    return list(by_stem(folder / MASKS).values())


def _read_masks(image: Path, masks: list[Path]) -> tuple[Pixels, Labels]:
    pixels = read_pixels(image)
    height, width = plane_of(pixels).shape
    drawn = [same_size(pixels, read_labels(mask), mask)[1] > 0 for mask in masks]
    return pixels, stack_masks(drawn, (height, width))


def list_archive(path: Path) -> list[LabelledEntry]:
    """List the images of an archive with `X` (N, H, W) or (N, H, W, 1), and masks or label images `y` of the same
    shape.

    A `y` with only two values, whatever they are, is a mask; its objects are its connected components. An optional
    array `group` (N,) names what must stay on one side of a split, such as the image that crops were cut from. Raises
    ConfigFault naming what is missing or has the wrong shape.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            missing = [name for name in ("X", "y") if name not in stored]
            if missing:
                raise ConfigFault(f"{path}: no array {missing[0]!r} (it holds {sorted(stored)})")
            images, masks = stored["X"], stored["y"]
            groups = stored.get("group")
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, ConfigFault):
            raise
        raise ConfigFault(f"{path}: not an NPZ archive: {error}") from error
    images, masks = _drop_channel(images), _drop_channel(masks)
    if images.ndim != 3 or images.shape != masks.shape:
        raise ConfigFault(
            f"{path}: X and y must both be (N, H, W) or (N, H, W, 1) (got {images.shape} and {masks.shape})"
        )
    if groups is not None and groups.shape != images.shape[:1]:
        raise ConfigFault(f"{path}: group must hold one name an image, ({len(images)},) (got {groups.shape})")
    binary = len(np.unique(masks)) <= 2
    return [
        LabelledEntry(
            f"{index:06d}",
            partial(_read_from_archive, plane, mask, "mask" if binary else "labels", path, index),
            group="" if groups is None else str(groups[index]),
        )
        for index, (plane, mask) in enumerate(zip(images, masks, strict=True))
    ]


def _read_from_archive(
    plane: Plane, mask: NDArray[np.generic], kind: str, path: Path, index: int
) -> tuple[Pixels, Labels]:
    pixels = pixels_in_memory(plane, f"{path}: X[{index}]")
    if kind == "mask":
        return pixels, components((mask.astype(np.float32) > 0.5).astype(np.uint8))
    return pixels, whole_numbers(mask, f"{path}: y[{index}]")


def _drop_channel(array: NDArray[np.generic]) -> NDArray[np.generic]:
    return array[..., 0] if array.ndim == 4 and array.shape[-1] == 1 else array
