"""Features that tell whether a field looks like what a network was trained on: what the network is unsure of, and contrast,
sharpness and unrest of the image around what it found."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from cellcount_core.objects.size_map import decode_diameter

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


def likeness_features(
    canvas: NDArray[np.float32], maps: NDArray[np.float32], labels: NDArray[np.int32]
) -> tuple[float, ...] | None:
    """The features of a field at the model's scale; None where it holds no object, or nothing but objects.

    `canvas` (H, W) is normalised, `maps` (H, W, 3) are foreground, distance and size, `labels` (H, W) the objects. Of a field
    larger than 1024 px the middle is looked at.
    """
    window = tuple(
        slice(max(0, (side - _SIDE) // 2), max(0, (side - _SIDE) // 2) + _SIDE) for side in labels.shape
    )
    canvas, maps, labels = canvas[window], maps[window], labels[window]
    inside = labels > 0
    chance = np.ascontiguousarray(maps[..., 0])
    outside = chance < 0.1
    if not inside.any() or not outside.any():
        return None
    within, without = canvas[inside], canvas[outside]
    contrast = max(_TINY, float(within.mean() - without.mean()))
    across, down = cv2.Sobel(canvas, cv2.CV_32F, 1, 0), cv2.Sobel(canvas, cv2.CV_32F, 0, 1)
    rim = np.abs(chance - 0.5) < 0.4
    slope = float(np.hypot(across[rim], down[rim]).mean()) if rim.any() else 0.0
    doubt = float((chance * (1 - chance)).mean()) / max(_TINY, float(chance.mean()))
    return (
        _log(doubt),
        float(chance[inside].mean()),
        float(maps[..., 1][inside].mean()),
        _size_disagreement(labels, maps[..., 2]),
        _log(float(without.std())),
        _log(contrast),
        _log(slope / contrast),
        _log(float(within.std()) / contrast),
        float(without.mean()),
    )


def _size_disagreement(labels: NDArray[np.int32], sizes: NDArray[np.float32]) -> float:
    flat = labels.ravel()
    area = np.bincount(flat)[1:].astype(np.float64)
    said = np.bincount(flat, sizes.ravel())[1:]
    there = area > 0
    area = area[there]
    diameters = decode_diameter((said[there] / area).astype(np.float32))
    octaves = np.abs(np.log2(diameters / (2 * np.sqrt(area / np.pi))))
    return float((octaves * area).sum() / area.sum())


def _log(value: float) -> float:
    return float(np.log(max(_TINY, value)))
