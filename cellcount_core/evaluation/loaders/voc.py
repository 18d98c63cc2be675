"""Pascal VOC segmentation: `JPEGImages/`, `SegmentationObject/` (palette PNG), `ImageSets/Segmentation/<split>.txt`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.evaluation.labelled import Entry, Labels, read_indices, read_pixels, same_size
from cellcount_core.evaluation.loaders.folder import by_stem
from cellcount_core.pipeline.pixels import Pixels

IMAGES = "JPEGImages"
OBJECTS = "SegmentationObject"
_SETS = Path("ImageSets") / "Segmentation"
_VOID = 255
"""Index of the rim that the annotators left undecided; it counts as background."""


def list_entries(folder: Path) -> list[Entry]:
    """Entries of every object mask. Raises ConfigFault where there are boxes only, or a mask has no image."""
    if not (folder / OBJECTS).is_dir():
        boxes = (
            " (Annotations/ has boxes, which give no outlines)" if (folder / "Annotations").is_dir() else ""
        )
        raise ConfigFault(f"{folder / OBJECTS}: not there; a palette PNG an image is expected{boxes}")
    if not (folder / IMAGES).is_dir():
        raise ConfigFault(f"{folder / IMAGES}: not there")
    images, masks = by_stem(folder / IMAGES), by_stem(folder / OBJECTS)
    splits = _splits(folder)
    for stem in {**splits, **masks}:
        if stem not in images:
            raise ConfigFault(
                f"{folder / IMAGES / stem}.jpg: not there, though {OBJECTS} or a list of images names it"
            )
        if stem not in masks:
            raise ConfigFault(f"{folder / OBJECTS / stem}.png: not there, though a list of images names it")
    return [
        Entry(stem, partial(_read, images[stem], masks[stem]), split=splits.get(stem, ""))
        for stem in sorted(masks)
    ]


def _splits(folder: Path) -> dict[str, str]:
    """Split by image, of the lists train.txt, val.txt … (trainval.txt, which joins two, is left out)."""
    return {
        line.split()[0]: path.stem
        for path in sorted((folder / _SETS).glob("*.txt"))
        if path.stem != "trainval"
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip()
    }


def _read(image: Path, mask: Path) -> tuple[Pixels, Labels]:
    pixels, labels = same_size(read_pixels(image), read_indices(mask), mask)
    return pixels, np.where(labels == _VOID, 0, labels).astype(np.int32)
