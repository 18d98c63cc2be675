"""An NPZ archive with images `X` and masks or label images `y`."""

from __future__ import annotations

import zipfile
import zlib
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.evaluation.labelled import (
    Entry,
    Labels,
    components,
    pixels_in_memory,
    whole_numbers,
)
from cellcount_core.images.imagefile import Plane
from cellcount_core.pipeline.pixels import Pixels


def list_entries(path: Path) -> list[Entry]:
    """Entries of an archive with `X` (N, H, W[, 1]) and masks or label images `y` of the same shape.

    A `y` of two values, whatever they are, is a mask: its objects are the connected components. `group` (N,), where it is
    there, names what must stay on one side of a split: the image that crops were cut from. Raises ConfigFault naming what is
    missing.
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
        Entry(
            f"{index:06d}",
            partial(_take, plane, mask, "mask" if binary else "labels", path, index),
            group="" if groups is None else str(groups[index]),
        )
        for index, (plane, mask) in enumerate(zip(images, masks, strict=True))
    ]


def _take(
    plane: Plane, mask: NDArray[np.generic], kind: str, path: Path, index: int
) -> tuple[Pixels, Labels]:
    pixels = pixels_in_memory(plane, f"{path}: X[{index}]")
    if kind == "mask":
        return pixels, components((mask.astype(np.float32) > 0.5).astype(np.uint8))
    return pixels, whole_numbers(mask, f"{path}: y[{index}]")


def _drop_channel(array: NDArray[np.generic]) -> NDArray[np.generic]:
    return array[..., 0] if array.ndim == 4 and array.shape[-1] == 1 else array
