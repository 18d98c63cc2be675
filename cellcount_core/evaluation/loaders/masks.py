"""One mask a file: `<id>/images/x.png` and `<id>/masks/*.png`, as the 2018 Data Science Bowl gave its nuclei."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.evaluation.labelled import (
    Entry,
    Labels,
    plane_of,
    read_labels,
    read_pixels,
    same_size,
    stack_masks,
)
from cellcount_core.evaluation.loaders.folder import IMAGES, by_stem
from cellcount_core.pipeline.pixels import Pixels

MASKS = "masks"


def list_entries(folder: Path) -> list[Entry]:
    """Entries of a folder of such folders. Raises ConfigFault naming one that lacks its image or its masks.

    An image without any object has an empty folder of masks. Everything above 0 in a mask is one object.
    """
    inner = image_folders(folder)
    if not inner:
        raise ConfigFault(
            f"{folder}: no folder in it has {IMAGES}/ (one image) and {MASKS}/ (a mask an object)"
        )
    return [Entry(each.name, partial(_read, _only_image(each), _masks(each))) for each in inner]


def image_folders(folder: Path) -> list[Path]:
    """The folders inside that have images/, in order."""
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


def _read(image: Path, masks: list[Path]) -> tuple[Pixels, Labels]:
    pixels = read_pixels(image)
    height, width = plane_of(pixels).shape
    drawn = [same_size(pixels, read_labels(mask), mask)[1] > 0 for mask in masks]
    return pixels, stack_masks(drawn, (height, width))
