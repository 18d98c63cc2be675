"""Image and label folders: with an `index.csv`, or `images/` beside `labels/` (or `masks/`) paired by their names."""

from __future__ import annotations

from pathlib import Path

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.evaluation.labelled import IMAGE_SUFFIXES, Entry, file_entry, read_labels, read_mask
from cellcount_core.evaluation.loaders.table import entries_of_rows, read_rows

INDEX = "index.csv"
IMAGES = "images"
LABELS = ("labels", "masks")
SPLITS = ("train", "val", "validation", "valid", "test")
_ENDINGS = ("", "_mask", "_masks", "_label", "_labels", "_seg")


def list_entries(folder: Path) -> list[Entry]:
    """Entries of a folder: the rows of its `index.csv`, else pairs, else pairs in folders named by a split.

    Raises ConfigFault naming what is missing, or a file without its partner.
    """
    if (folder / INDEX).is_file():
        return entries_of_rows(
            folder / INDEX, read_rows(folder / INDEX), image="file", needed=("id", "file", "label")
        )
    if is_paired(folder):
        return _pairs(folder, "")
    inner = split_folders(folder)
    if not inner:
        raise ConfigFault(
            f"{folder}: neither {INDEX} (columns id, file, label) nor {IMAGES}/ beside {' or '.join(f'{n}/' for n in LABELS)}"
        )
    return [entry for part in inner for entry in _pairs(part, part.name)]


def is_paired(folder: Path) -> bool:
    """Whether a folder has images/ and labels/ or masks/."""
    return (folder / IMAGES).is_dir() and any((folder / name).is_dir() for name in LABELS)


def split_folders(folder: Path) -> list[Path]:
    """The folders train/, val/ … inside that hold pairs."""
    return [folder / name for name in SPLITS if is_paired(folder / name)] if folder.is_dir() else []


def by_stem(folder: Path) -> dict[str, Path]:
    """Image files of a folder by their names without the ending, in order. Raises ConfigFault where two share one."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in found:
            raise ConfigFault(
                f"{path}: {found[path.stem].name} has the same name but for the ending; one of them expected"
            )
        found[path.stem] = path
    return found


def _pairs(folder: Path, split: str) -> list[Entry]:
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
