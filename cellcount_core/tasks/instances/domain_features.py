"""Features that tell whether a field looks like the images that a network was trained on.

They are what the network is unsure of, and the contrast, sharpness and unrest of the image around what it found.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from cellcount_core.tasks.object_size.looks import decode_diameter

FEATURES = (
    "log_doubt",
    "certainty",
    "distance",
    "size_disagreement",
    "log_unrest",
    "log_contrast",
    "log_sharpness",
    "log_texture",
    "outside_level",
)
"""Names of the features, in their order."""

_SIDE = 1024
_TINY = 1e-3


def domain_features(
    canvas: NDArray[np.float32], maps: NDArray[np.float32], labels: NDArray[np.int32]
) -> tuple[float, ...] | None:
    """The features of a field at the model's scale; None if it holds no object, or nothing but objects.

    `canvas` (H, W) is normalised, `maps` (H, W, 3) are foreground, distance and size, `labels` (H, W) the objects. Of a field
    larger than 1024 px only the middle is looked at.
    """
    window = tuple(
        slice(max(0, (side - _SIDE) // 2), max(0, (side - _SIDE) // 2) + _SIDE) for side in labels.shape
    )
    canvas, maps, labels = canvas[window], np.ascontiguousarray(maps[window]), labels[window]
    # Pixels are taken by their numbers: much cheaper than by masks of the whole window, and in the same order.
    inside = np.flatnonzero(labels > 0)
    chance = np.ascontiguousarray(maps[..., 0])
    outside = np.flatnonzero(chance < 0.1)
    if not inside.size or not outside.size:
        return None
    within, without = canvas.take(inside), canvas.take(outside)
    outside_level = without.mean()
    contrast = max(_TINY, float(within.mean() - outside_level))
    rim = np.flatnonzero(np.abs(chance - 0.5) < 0.4)
    slope = 0.0
    if rim.size:
        across, down = (cv2.Sobel(canvas, cv2.CV_32F, *step).take(rim) for step in ((1, 0), (0, 1)))
        slope = float(np.hypot(across, down).mean())
    doubt = float((chance * (1 - chance)).mean()) / max(_TINY, float(chance.mean()))
    channels = maps.reshape(-1, maps.shape[-1])
    return (
        _log(doubt),
        float(chance.take(inside).mean()),
        float(channels[inside, 1].mean()),
        _size_disagreement(labels.take(inside), channels[inside, 2]),
        _log(float(without.std())),
        _log(contrast),
        _log(slope / contrast),
        _log(float(within.std()) / contrast),
        float(outside_level),
    )


def _size_disagreement(numbers: NDArray[np.int32], sizes: NDArray[np.float32]) -> float:
    """Mean octaves between the size that the network predicts for an object and its own; all values are of object pixels."""
    area = np.bincount(numbers)[1:].astype(np.float64)
    said = np.bincount(numbers, sizes)[1:]
    there = area > 0
    area = area[there]
    diameters = decode_diameter((said[there] / area).astype(np.float32))
    octaves = np.abs(np.log2(diameters / (2 * np.sqrt(area / np.pi))))
    return float((octaves * area).sum() / area.sum())


def _log(value: float) -> float:
    return float(np.log(max(_TINY, value)))
