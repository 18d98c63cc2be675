"""Bringing a plane to the model's scale. A field is always resized whole, so that every tile sees the same pixels."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.images.imagefile import Plane

SMALLEST_FACTOR = 1 / 32
LARGEST_FACTOR = 16.0


def resized_shape(shape: tuple[int, int], factor: float) -> tuple[int, int]:
    """(H, W) after `resize`: max(1, round(side * factor)). Raises ConfigFault as `resize` does."""
    if not SMALLEST_FACTOR <= factor <= LARGEST_FACTOR:
        raise ConfigFault(
            f"an image would have to be resized by {factor:g}; {SMALLEST_FACTOR:g} to {LARGEST_FACTOR:g} are possible"
            " (run.diameter is the diameter of the objects in px of the image)"
        )
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def resize(plane: Plane, factor: float) -> Plane:
    """Plane (H, W) of uint8, uint16 or float32 resized by `factor`, same type: pixel areas down, bilinear up.

    Factor 1 gives the same array. Raises ConfigFault for a factor outside 1/32 to 16.
    """
    height, width = resized_shape((plane.shape[0], plane.shape[1]), factor)
    if factor == 1:
        return plane
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    pixels = cast("NDArray[np.float32]", plane)
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=method))


def resize_to(plane: Plane, shape: tuple[int, int]) -> Plane:
    """Plane (H, W) of uint8, uint16 or float32 brought to another `shape` (h, w), whatever its sides' ratio, same type: pixel areas
    where it becomes smaller, bilinear where it does not."""
    if plane.shape == shape:
        return plane
    method = cv2.INTER_AREA if shape[0] * shape[1] < plane.size else cv2.INTER_LINEAR
    pixels = cast("NDArray[np.float32]", plane)
    return np.asarray(cv2.resize(pixels, (shape[1], shape[0]), interpolation=method))
