"""Features that tell whether a field looks like the images that a box network was trained on.

They are what the network is unsure of, and the contrast, sharpness, unrest and colour of the image within boxes and around them.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cellcount_core.images.imagefile import Plane
from cellcount_core.images.pixels import resize_to
from cellcount_core.tasks.boxes.section import Boxes
from cellcount_core.tasks.task import Shape, View

_OF_ALL = ("log_doubt", "certainty", "log_density")
_OF_PLANE = ("log_contrast", "log_unrest", "log_texture", "log_sharpness")
_OF_PAIR = ("colour_inside", "colour_outside")

_SIDE = 1024
"""Px at the model's scale: of larger fields the middle is looked at."""

_TINY = 1e-3


def feature_names(channels: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the features of a package that looks at these channels, in their order."""
    planes = [f"{name}_{channel}" for channel in channels for name in _OF_PLANE]
    pairs = [f"{name}_{channel}" for channel in channels[1:] for name in _OF_PAIR]
    return (*_OF_ALL, *planes, *pairs)


def box_features(view: View, found: Boxes) -> tuple[float, ...] | None:
    """The features of a field with these boxes, in px of the field; None if there is none, or nothing around them.

    The image is looked at as the network sees it, at the model's scale; of a field larger than 1024 px there only the middle is.
    Intensities are taken relative to the brightest level of all counted planes, so they depend on no unit.
    """
    middle = _middle(view.maps.shape, view.shape)
    inside = middle.painted(found)
    if not inside.any() or inside.all():
        return None
    planes = [middle.shown(view.planes[name]) for name in view.counted]
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


@dataclass(frozen=True, slots=True)
class _Middle:
    """The middle of a field: rows and columns in px of the field, and its (h, w) at the model's scale."""

    rows: tuple[int, int]
    columns: tuple[int, int]
    size: Shape

    def shown(self, plane: Plane) -> NDArray[np.float32]:
        """The middle of a plane (H, W) at the model's scale."""
        window = np.ascontiguousarray(plane[slice(*self.rows), slice(*self.columns)])
        return np.asarray(resize_to(window, self.size), np.float32)

    def painted(self, found: Boxes) -> NDArray[np.bool_]:
        """The pixels (h, w) of the middle, at the model's scale, that lie in a box."""
        inside = np.zeros(self.size, np.bool_)
        factors = [
            side / (end - start)
            for side, (start, end) in zip(self.size, (self.rows, self.columns), strict=True)
        ]
        moved = found.moved(-self.rows[0], -self.columns[0]).boxes * np.array(factors * 2)
        for y0, x0, y1, x1 in np.rint(np.maximum(moved, 0)).astype(int).tolist():
            inside[y0:y1, x0:x1] = True
        return inside


def _middle(model_shape: Shape, shape: Shape) -> _Middle:
    spans, sizes = [], []
    for side, full in zip(model_shape, shape, strict=True):
        size = min(side, _SIDE)
        length = max(1, round(full * size / side))
        start = (full - length) // 2
        spans.append((start, start + length))
        sizes.append(size)
    return _Middle(spans[0], spans[1], (sizes[0], sizes[1]))


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
