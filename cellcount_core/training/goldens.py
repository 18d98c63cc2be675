"""Golden tensors of a new package: small crops full of objects, and what each engine makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cellcount_core.labelled.image import LabelledImage
from cellcount_core.models.package import InputSpec
from cellcount_core.objects.separators import Separator
from cellcount_core.pipeline.maps import whole_canvas
from cellcount_core.tasks.instances.task import separate_whole

Crops = NDArray[np.float32]

_CROP_PX = 96
_CROPS = 2


def golden_input(images: Sequence[LabelledImage], spec: InputSpec, stride: int) -> Crops:
    """Crops (2, h, w, 1) of the two images with the most objects, normalised as part of their whole image.

    Each is where the image has the most objects: an engine that is off shows it on objects, not on background.
    """
    crowded = sorted(images, key=lambda image: (-int(image.labels.max(initial=0)), image.id))[:_CROPS]
    size = max(stride, _CROP_PX - _CROP_PX % stride)
    return np.stack([_busiest(image, spec, size) for image in crowded])


def _busiest(image: LabelledImage, spec: InputSpec, size: int) -> NDArray[np.float32]:
    canvas = whole_canvas([image.plane], spec, size)
    places = [
        (top, left)
        for top in range(0, canvas.shape[0] - size + 1, size // 2)
        for left in range(0, canvas.shape[1] - size + 1, size // 2)
    ]
    top, left = max(places, key=lambda place: _objects(image.labels, place, size))
    return np.ascontiguousarray(canvas[top : top + size, left : left + size])


def _objects(labels: NDArray[np.int32], place: tuple[int, int], size: int) -> int:
    window = labels[place[0] : place[0] + size, place[1] : place[1] + size]
    return int(np.unique(window[window > 0]).size)


def write_golden(path: Path, crops: Crops, maps: Crops, separator: Separator) -> None:
    """Write the input, the network's maps (N, h, w, K) in float32 and the labels they give."""
    labels = np.stack([separate_whole(separator, found) for found in maps])
    np.savez_compressed(path, allow_pickle=False, input=crops, maps=maps, labels=labels)


def put_maps(path: Path, name: str, maps: Crops | None) -> None:
    """Add an array to a golden file, or take it out (None)."""
    with np.load(path, allow_pickle=False) as stored:
        arrays = {key: stored[key] for key in stored.files if key != name}
    if maps is not None:
        arrays[name] = maps
    np.savez_compressed(path, allow_pickle=False, **arrays)


def read_input(path: Path) -> Crops:
    """The input (N, h, w, C) of a golden file."""
    with np.load(path, allow_pickle=False) as stored:
        return np.asarray(stored["input"], np.float32)


def put_labels(path: Path, separator: Separator) -> None:
    """Separate the maps of a golden file anew."""
    with np.load(path, allow_pickle=False) as stored:
        arrays = {key: stored[key] for key in stored.files}
    arrays["labels"] = np.stack([separate_whole(separator, found) for found in arrays["maps"]])
    np.savez_compressed(path, allow_pickle=False, **arrays)
