"""Features that tell whether a field looks like the images that a box network was trained on.

They are what the network is unsure of, and the contrast, sharpness, unrest and colour of the image within boxes and around them.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from cellcount_core.images.imagefile import Plane
from cellcount_core.images.pixels import resize_to
from cellcount_core.tasks.boxes.section import Boxes
from cellcount_core.tasks.task import View

_OF_ALL = ("log_doubt", "certainty", "log_density")
_OF_PLANE = ("log_contrast", "log_unrest", "log_texture", "log_sharpness")
_OF_PAIR = ("colour_inside", "colour_outside")

_SIDE = 512
"""Px: the longer side of what is looked at; larger fields are reduced to it."""

_TINY = 1e-3


def feature_names(channels: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the features of a package that looks at these channels, in their order."""
    planes = [f"{name}_{channel}" for channel in channels for name in _OF_PLANE]
    pairs = [f"{name}_{channel}" for channel in channels[1:] for name in _OF_PAIR]
    return (*_OF_ALL, *planes, *pairs)


def box_features(view: View, found: Boxes) -> tuple[float, ...] | None:
    """The features of a field with these boxes, in px of the field; None if there is none, or nothing around them.

    Intensities are taken relative to the brightest level of all counted planes, so they depend on no unit.
    """
    height, width = view.shape
    factor = min(1.0, _SIDE / max(height, width))
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    inside = _painted(found, factor, size)
    if not inside.any() or inside.all():
        return None
    planes = [_small(view.planes[name], size) for name in view.counted]
    full = max(_TINY, *(float(np.percentile(plane, 99.5)) for plane in planes))
    shown = [plane / np.float32(full) for plane in planes]
    scores = found.scores
    told = [
        _log(float((scores * (1 - scores)).mean())),
        float(scores.mean()),
        _log(float(inside.mean())),
    ]
    for plane in shown:
        told += _of_plane(plane, inside)
    for plane in shown[1:]:
        apart = shown[0] - plane
        told += [float(apart[inside].mean()), float(apart[~inside].mean())]
    return tuple(told)


def _painted(found: Boxes, factor: float, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels (h, w) that lie in a box, of a field reduced by `factor` to `size`."""
    inside = np.zeros(size, np.bool_)
    for y0, x0, y1, x1 in np.rint(found.boxes * factor).astype(int).tolist():
        inside[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)] = True
    return inside


def _small(plane: Plane, size: tuple[int, int]) -> NDArray[np.float32]:
    return np.asarray(plane if plane.shape == size else resize_to(plane, size), np.float32)


def _of_plane(plane: NDArray[np.float32], inside: NDArray[np.bool_]) -> list[float]:
    within, without = plane[inside], plane[~inside]
    contrast = max(_TINY, abs(float(within.mean() - without.mean())))
    slope = np.hypot(cv2.Sobel(plane, cv2.CV_32F, 1, 0), cv2.Sobel(plane, cv2.CV_32F, 0, 1))
    return [
        _log(contrast),
        _log(float(without.std())),
        _log(float(within.std())),
        _log(float(slope[inside].mean())),
    ]


def _log(value: float) -> float:
    return float(np.log(max(_TINY, value)))
