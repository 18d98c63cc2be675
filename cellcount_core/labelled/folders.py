"""Image files with label files beside them, and archives of arrays: four layouts, listed without reading their
images.

- a folder with an `index.csv`, or with `images/` beside `labels/` (or `masks/`), paired by name
- a CSV or Parquet table with one row per image
- `<id>/images/x.png` with `<id>/masks/*.png`, one mask per object, as in the 2018 Data Science Bowl
- an NPZ archive with images `X` and masks or label images `y`

Of an image with several channels, the channels lie in one file, or each in a file of its own: in a table in a column named after the
role, in a folder in `images/<role>/`.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.delimited import TableRow, read_table, refuse_twins
from cellcount_core.domain.errors import ConfigFault, nearest
from cellcount_core.labelled.image import (
    IMAGE_SUFFIXES,
    Files,
    LabelledEntry,
    file_entry,
    first_file,
    pixels_in_memory,
    plane_of,
    read_pixels,
    same_size,
)
from cellcount_core.labelled.label_files import (
    Labels,
    components,
    read_labels,
    read_mask,
    stack_masks,
    whole_numbers,
)
from cellcount_core.labelled.whole import WholeEntry
from cellcount_core.pipeline.pixels import Pixels

INDEX = "index.csv"
IMAGES = "images"
LABELS = ("labels", "masks")
SPLITS = ("train", "val", "validation", "valid", "test")
_ENDINGS = ("", "_mask", "_masks", "_label", "_labels", "_seg")


def list_folder(folder: Path, roles: Sequence[str] = ()) -> list[LabelledEntry]:
    """List the images of a folder: the rows of its `index.csv`, or else pairs by name, or else pairs in folders named
    after a split. `roles` are the channels that may lie in files of their own.

    Raises ConfigFault naming what is missing, or a file without its partner.
    """
    if (folder / INDEX).is_file():
        return entries_of_rows(
            folder / INDEX, read_rows(folder / INDEX), roles, image="file", needed=("id", "label")
        )
    if is_paired(folder):
        return _paired_entries(folder, "", roles)
    inner = split_folders(folder)
    if not inner:
        raise ConfigFault(
            f"{folder}: neither {INDEX} (columns id, file, label) nor {IMAGES}/ beside {' or '.join(f'{n}/' for n in LABELS)}"
        )
    return [entry for part in inner for entry in _paired_entries(part, part.name, roles)]


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


def _paired_entries(folder: Path, split: str, roles: Sequence[str]) -> list[LabelledEntry]:
    beside = next(folder / name for name in LABELS if (folder / name).is_dir())
    images, labels = _images(folder / IMAGES, roles), by_stem(beside)
    partners = {stem: next((stem + end for end in _ENDINGS if stem + end in labels), "") for stem in images}
    for stem, files in images.items():
        if not partners[stem]:
            raise ConfigFault(
                f"{first_file(files)}: no label file {beside / stem}.png or .tif; an image without any object has one that is all 0"
            )
    for stem in sorted(set(labels) - set(partners.values())):
        raise ConfigFault(f"{labels[stem]}: no image {folder / IMAGES / stem}.png or .tif")
    prefix = f"{split}/" if split else ""
    reader = read_mask if beside.name == "masks" else read_labels
    return [
        file_entry(prefix + stem, files, labels[partners[stem]], reader=reader, split=split)
        for stem, files in images.items()
    ]


def _images(folder: Path, roles: Sequence[str]) -> Mapping[str, Files]:
    """The images of a folder by name: each a file, or a file in the folder of each role. Raises ConfigFault if one is missing there."""
    if not roles or not any((folder / role).is_dir() for role in roles):
        return by_stem(folder)
    for role in roles:
        if not (folder / role).is_dir():
            raise ConfigFault(
                f"{folder / role}: not there; a folder for each channel expected ({', '.join(roles)})"
            )
    found = {role: by_stem(folder / role) for role in roles}
    for stem in sorted({stem for files in found.values() for stem in files}):
        for role, files in found.items():
            if stem not in files:
                raise ConfigFault(
                    f"{folder / role / stem}.png or .tif: not there, though another channel has it"
                )
    return {stem: {role: found[role][stem] for role in roles} for stem in found[roles[0]]}


def list_table(path: Path, roles: Sequence[str] = ()) -> list[LabelledEntry]:
    """List the images of a table with the columns image and label and, optionally, id, split, modality and group.

    In place of the column image there may be one for each of `roles`. File names are relative to the table's folder. Raises ConfigFault naming table, row and column if something is
    wrong.
    """
    return entries_of_rows(path, read_rows(path), roles, image="image", needed=("label",))


def read_rows(path: Path) -> list[TableRow]:
    """The rows of a CSV (with commas, semicolons or tabs) or Parquet file as text, with "" for empty cells.

    Raises ConfigFault naming the file if it is neither, if two columns have one name, or if a row has more cells than the header.
    """
    return _read_parquet(path) if path.suffix.lower() == ".parquet" else list(read_table(path).rows)


def _read_parquet(path: Path) -> list[TableRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            refuse_twins(file.schema_arrow.names, str(path))
            rows = file.read(use_threads=False).to_pylist()
    except OSError as error:
        raise ConfigFault(f"{path}: cannot be read: {error.strerror or error}") from error
    except pa.ArrowInvalid as error:
        raise ConfigFault(f"{path}: not a Parquet table: {error}") from error
    # As if there was a header above them, since tables are often written from spreadsheets.
    return [
        TableRow({key: "" if value is None else str(value) for key, value in row.items()}, number)
        for number, row in enumerate(rows, 2)
    ]


def entries_of_rows(
    path: Path, rows: Sequence[TableRow], roles: Sequence[str], *, image: str, needed: Sequence[str]
) -> list[LabelledEntry]:
    """The entries of a table's rows. The column named by `image` holds the image file, or those named by `roles` hold the files of its
    channels. Raises ConfigFault naming row and column."""
    if not rows:
        raise ConfigFault(f"{path}: no row")
    files = image_columns(path, rows[0], roles, image, needed)
    for column in needed:
        if column not in rows[0]:
            raise ConfigFault(f"{path}: no column {column!r}{nearest(column, rows[0])}")
    for row in rows:
        lacking = [column for column in (*files.values(), "label") if not row[column]]
        if lacking:
            raise ConfigFault(f"{path}: row {row.number} has no {lacking[0]}")
    return [
        file_entry(
            row.get("id") or _stem(row, files),
            files_of(path, row, files),
            path.parent / row["label"],
            split=row.get("split", ""),
            modality=row.get("modality", ""),
            group=row.get("group", ""),
        )
        for row in rows
    ]


def image_columns(
    path: Path, row: TableRow, roles: Sequence[str], image: str, taken: Sequence[str] = ()
) -> dict[str, str]:
    """The columns of a table that name image files, by role: one for each role, called as the role is or `image_<role>`; or else the one
    called `image`, under "".

    `taken` are columns that say something else, such as the number of dead cells in `dead`: files of a role of that name are in
    `image_dead`. Raises ConfigFault if there are neither, or not all roles have one.
    """
    named = {
        role: column
        for role in roles
        for column in (role, f"{image}_{role}")
        if column in row and column not in taken
    }
    if image in row:
        return {"": image}
    if not named:
        channels = (
            f", or one for each channel ({_role_columns(roles, image, taken)})" if len(roles) > 1 else ""
        )
        raise ConfigFault(f"{path}: no column {image!r}{channels}{nearest(image, row)}")
    for role in roles:
        if role not in named:
            column = _role_columns([role], image, taken)
            raise ConfigFault(
                f"{path}: no column {column!r} with the files of that channel{nearest(column, row)}"
            )
    return {role: named[role] for role in roles}


def _role_columns(roles: Sequence[str], image: str, taken: Sequence[str]) -> str:
    return ", ".join(f"{image}_{role}" if role in taken else role for role in roles)


def _stem(row: TableRow, columns: Mapping[str, str]) -> str:
    """The name of an image without ending, or that of its first channel."""
    return Path(row[next(iter(columns.values()))]).stem


def files_of(path: Path, row: TableRow, columns: Mapping[str, str]) -> Files:
    """The files that a row names in `columns` (see `image_columns`), relative to the folder of the table `path`."""
    files = {role: path.parent / row[column] for role, column in columns.items()}
    return files.get("", files)


def list_truths(path: Path, roles: Sequence[str], columns: Sequence[str]) -> list[WholeEntry]:
    """List the images of a table, or of a folder's `index.csv`, that says in `columns` what is true of each.

    The files are in the column image (or file), or in one for each of `roles` (see `image_columns`), relative to the table's folder. Raises ConfigFault naming
    table, row and column if something is missing.
    """
    table = path / INDEX if path.is_dir() else path
    rows = read_rows(table)
    if not rows:
        raise ConfigFault(f"{table}: no row")
    image = "file" if "file" in rows[0] and "image" not in rows[0] else "image"
    files = image_columns(table, rows[0], roles, image, columns)
    for column in columns:
        if column not in rows[0]:
            raise ConfigFault(f"{table}: no column {column!r}{nearest(column, rows[0])}")
    for row in rows:
        lacking = [column for column in (*files.values(), *columns) if not row[column]]
        if lacking:
            raise ConfigFault(f"{table}: row {row.number} has no {lacking[0]}")
    return [
        WholeEntry(
            row.get("id") or _stem(row, files),
            files_of(table, row, files),
            row,
            row.get("split", ""),
            row.get("modality", ""),
            row.get("group", ""),
        )
        for row in rows
    ]


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


def _read_masks(image: Path, masks: list[Path], roles: Sequence[str]) -> tuple[Pixels, Labels]:
    pixels = read_pixels(image, roles)
    height, width = plane_of(pixels).shape
    drawn = [same_size(pixels, read_labels(mask), mask)[1] > 0 for mask in masks]
    return pixels, stack_masks(drawn, (height, width))


def list_archive(path: Path) -> list[LabelledEntry]:
    """List the images of an archive with `X` (N, H, W) or (N, H, W, C), and masks or label images `y` (N, H, W) or (N, H, W, 1).

    The C channels are in the order of the roles that are asked for. A `y` with only two values, whatever they are, is a mask; its objects are its connected components. An optional
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
    shapes = f"{images.shape} and {masks.shape}"
    images, masks = images[..., None] if images.ndim == 3 else images, _drop_channel(masks)
    if images.ndim != 4 or images.shape[:3] != masks.shape:
        raise ConfigFault(
            f"{path}: X must be (N, H, W) or (N, H, W, C) and y (N, H, W) or (N, H, W, 1) (got {shapes})"
        )
    if groups is not None and groups.shape != images.shape[:1]:
        raise ConfigFault(f"{path}: group must hold one name an image, ({len(images)},) (got {groups.shape})")
    binary = len(np.unique(masks)) <= 2
    return [
        LabelledEntry(
            f"{index:06d}",
            partial(_read_from_archive, image, mask, "mask" if binary else "labels", path, index),
            group="" if groups is None else str(groups[index]),
        )
        for index, (image, mask) in enumerate(zip(images, masks, strict=True))
    ]


def _read_from_archive(
    image: NDArray[np.generic],
    mask: NDArray[np.generic],
    kind: str,
    path: Path,
    index: int,
    roles: Sequence[str],
) -> tuple[Pixels, Labels]:
    names = [""] if image.shape[-1] == 1 else list(roles) or [str(at) for at in range(image.shape[-1])]
    if len(names) != image.shape[-1]:
        raise ConfigFault(
            f"{path}: X has {image.shape[-1]} channels; {len(names)} expected ({', '.join(names)})"
        )
    planes = [np.ascontiguousarray(image[..., at]) for at in range(image.shape[-1])]
    pixels = pixels_in_memory(dict(zip(names, planes, strict=True)), f"{path}: X[{index}]")
    if kind == "mask":
        return pixels, components((mask.astype(np.float32) > 0.5).astype(np.uint8))
    return pixels, whole_numbers(mask, f"{path}: y[{index}]")


def _drop_channel(array: NDArray[np.generic]) -> NDArray[np.generic]:
    return array[..., 0] if array.ndim == 4 and array.shape[-1] == 1 else array
