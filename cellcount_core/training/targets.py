"""What the network is to predict: foreground, and each object's distance to its boundary, from 0 to 1."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_REFERENCE_DIAMETER = 20.0


def foreground(labels: NDArray[np.int32]) -> NDArray[np.float32]:
    """1 inside objects, 0 outside: (H, W) float32."""
    return (labels > 0).astype(np.float32)


def normalised_distance(labels: NDArray[np.int32]) -> NDArray[np.float32]:
    """Distance (H, W) float32 to the object's boundary over that object's largest one; 0 in the background.

    Touching objects each have their own boundary. The edge of the image is no boundary: an object that it cuts rises
    towards it. On the boundary's own pixels the value is 0.5 / (largest + 0.5), so it stays above the background's 0.
    """
    inside = (labels > 0).astype(np.uint8)
    down = labels[1:] != labels[:-1]
    right = labels[:, 1:] != labels[:, :-1]
    inside[1:][down] = 0
    inside[:-1][down] = 0
    inside[:, 1:][right] = 0
    inside[:, :-1][right] = 0
    if inside.all():
        # One object fills the image: no boundary is in sight, and OpenCV would give its largest number.
        return np.ones(labels.shape, np.float32)
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, 5)
    largest = np.zeros(int(labels.max(initial=0)) + 1, np.float32)
    np.maximum.at(largest, labels.ravel(), distance.ravel())
    result = (distance + 0.5) / (largest[labels] + 0.5)
    result[labels == 0] = 0
    return np.asarray(result, dtype=np.float32)


def object_weights(labels: NDArray[np.int32]) -> NDArray[np.float32]:
    """Weights (H, W) float32 of the pixels: small objects up, large ones down, so that each counts for something.

    The weight of an object's pixels is 20 px over its equivalent diameter, within 0.6..3; the background's is 1.
    """
    areas = np.bincount(labels.ravel(), minlength=1).astype(np.float64)
    diameters = 2 * np.sqrt(np.maximum(areas, 1) / np.pi)
    weights = np.clip(_REFERENCE_DIAMETER / diameters, 0.6, 3.0)
    weights[0] = 1.0
    return np.asarray(weights.astype(np.float32)[labels], dtype=np.float32)


def stack_targets(labels: NDArray[np.int32], maps: tuple[str, ...], weighting: str) -> NDArray[np.float32]:
    """Targets (H, W, len(maps) + 1) float32: the maps in their order, then the pixels' weights."""
    made = [foreground(labels) if name == "foreground" else normalised_distance(labels) for name in maps]
    weights = object_weights(labels) if weighting == "small_up" else np.ones(labels.shape, np.float32)
    return np.stack([*made, weights], axis=-1)
