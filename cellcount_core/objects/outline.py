"""Objects drawn to their outline: to where a map crosses a level between its pixels, at the original image's own pixels.

Objects are found where the network is certain of them, and at the model's scale. Their outline lies further out, and between
the pixels there: a nucleus of 47 px is separated with a diameter of 20. So found objects are grown by a pixel, and from that
the original pixels are taken at which the map, read between its pixels, is above the level. What is grown depends on the
objects next to it and what is taken on the map's nearest pixels alone, so a window is drawn as it is within the whole image.

Last, its light is asked: where people draw a nucleus it has some two fifths of its own brightness, and the network, to which a small one is
shown enlarged and blurred, draws further out (`bounded_by_light`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cellcount_core.objects.labels import Pixels, number_in_raster_order
from cellcount_core.objects.protocol import FieldParams, Separator
from cellcount_core.objects.runs import Indices

MARGIN = 1
"""Px by which objects are grown, to all eight sides."""

_LIGHT = 0.4
"""Of an object's own brightness: annotators of fluorescent nuclei draw at 0.39 to 0.42 of it."""

_BRIGHTEST = 3.0
"""Times full scale: what is brighter, such as a hot pixel, counts as this."""

_RIM = 2
"""Px of an object's edge that are asked: what is darker further in is its texture."""

_PIXELS_AT_ONCE = 1 << 19
_NEIGHBOURS = np.ones((2 * MARGIN + 1, 2 * MARGIN + 1), np.uint8)


def grown(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """The label image (H, W) with each object grown into the background by `MARGIN`, its number as it was.

    Where two objects reach the same pixel the one with the larger number has it.
    """
    # OpenCV dilates no int32; both types hold every number that occurs.
    exact: NDArray[np.uint16] | NDArray[np.float64] = (
        labels.astype(np.uint16)
        if labels.max(initial=0) <= np.iinfo(np.uint16).max
        else labels.astype(np.float64)
    )
    spread = cv2.dilate(exact, _NEIGHBOURS, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    spread = cv2.copyTo(exact, (exact > 0).view(np.uint8), spread)
    return np.asarray(spread.astype(np.int32), np.int32)


@dataclass(frozen=True, slots=True)
class GrownSeparator:
    """A separator whose objects are `grown`, each as it is in the whole field."""

    separator: Separator

    @property
    def reach(self) -> int:
        """How far the end of a window can change a label: that of the separator, and what objects and neighbours grow by."""
        return self.separator.reach + 2 * MARGIN

    @property
    def outline(self) -> float | None:
        """That of the separator."""
        return self.separator.outline

    def fit(self, tiles: Iterable[NDArray[np.float32]]) -> FieldParams:
        """That of the separator."""
        return self.separator.fit(tiles)

    def separate(self, maps: NDArray[np.float32], params: FieldParams) -> NDArray[np.int32]:
        """Label image (H, W) int32 of maps (H, W, K)."""
        return number_in_raster_order(grown(self.separator.separate(maps, params)))


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """A map at the model's scale and the level that objects are drawn to.

    `values` (h, w) is a window of the map of a field of `model_shape`, with its first pixel at `origin` (y, x). It shows the
    pixels around every object by one more than `MARGIN`, where the field has them.
    """

    values: NDArray[np.float32]
    origin: tuple[int, int]
    model_shape: tuple[int, int]
    level: float

    def above(self, start: tuple[int, int], shape: tuple[int, int]) -> NDArray[np.bool_]:
        """Whether the map is above the level, at its own pixels, in a window of `shape` (H, W) from `start` (y, x)."""
        top, left = start[0] - self.origin[0], start[1] - self.origin[1]
        return self.values[top : top + shape[0], left : left + shape[1]] > np.float32(self.level)

    def inside(
        self, places: Indices, width: int, start: tuple[int, int], shape: tuple[int, int]
    ) -> NDArray[np.bool_]:
        """Whether the map is above the level at original pixels (n,) of a field of `shape`: `places` are flat indices in an
        image `width` wide that begins at `start` (y, x).

        The map is read at a pixel's centre, linearly between the four pixels around it, as float32.
        """
        y = places // width
        x = places - y * width
        height = int(y[-1]) + 1 if y.size else 0
        rows, columns = (
            _Taps.of(start[axis], size, self.model_shape[axis], shape[axis]).seen_from(
                self.origin[axis], self.values.shape[axis]
            )
            for axis, size in ((0, height), (1, width))
        )
        values = np.ascontiguousarray(self.values)
        inside = np.empty(places.size, np.bool_)
        for begin in range(0, places.size, _PIXELS_AT_ONCE):
            some = slice(begin, begin + _PIXELS_AT_ONCE)
            inside[some] = _read(values, rows, columns, y[some], x[some]) > np.float32(self.level)
        return inside


@dataclass(frozen=True, slots=True, eq=False)
class _Taps:
    """For pixels of an axis: the pixels (n,) of the map before and after their centres, and how far (0..1) they are between."""

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    share: NDArray[np.float32]

    @staticmethod
    def of(start: int, length: int, n: int, full: int) -> _Taps:
        """`length` of the `full` original pixels of an axis that the map shows with `n` pixels, from `start`.

        Integers up to the share, so that a pixel's is the same in any window.
        """
        place = (2 * np.arange(start, start + length, dtype=np.int64) + 1) * n - full
        low, rest = np.divmod(place, 2 * full)
        share = (rest.astype(np.float64) / (2 * full)).astype(np.float32)
        return _Taps(np.clip(low, 0, n - 1), np.clip(low + 1, 0, n - 1), share)

    def seen_from(self, origin: int, length: int) -> _Taps:
        """The same in a window of the map of `length` px from `origin`; what lies beside it is taken for its last pixel."""
        low, high = (np.clip(side - origin, 0, length - 1) for side in (self.low, self.high))
        return _Taps(low, high, self.share)


def _read(
    values: NDArray[np.float32], rows: _Taps, columns: _Taps, y: Indices, x: Indices
) -> NDArray[np.float32]:
    """A map between its pixels, at rows and columns (n,)."""
    flat, width = values.ravel(), values.shape[1]
    top, bottom = (rows.low * width)[y], (rows.high * width)[y]
    down, across = rows.share[y], columns.share[x]

    def column(at: Indices) -> NDArray[np.float32]:
        above, below = flat[top + at], flat[bottom + at]
        return np.asarray(above + (below - above) * down, np.float32)

    left, right = column(columns.low[x]), column(columns.high[x])
    return np.asarray(left + (right - left) * across, np.float32)


def bounded_by_light(objects: Pixels, plane: NDArray[np.generic], background: float, full: float) -> Pixels:
    """Objects, each in one piece, without those pixels of their rims in which `plane` (h, w) is dark.

    `background` and `full` scale above it (below 0 where objects are darker) are the plane's levels. A pixel of a rim goes where it is
    less than `_LIGHT` as far from the background as the object's brighter part, the pixels above its mean, is on average. Of what
    is left an object keeps the largest piece. Depends on the object alone, and on where others begin.
    """
    if not objects.places.size:
        return objects
    owners = objects.numbers.astype(np.intp)
    light = (plane.ravel()[objects.places].astype(np.float32) - np.float32(background)) / np.float32(full)
    np.clip(light, 0, _BRIGHTEST, out=light)
    area = np.bincount(objects.runs.owners, objects.runs.lengths)
    mean = np.bincount(owners, light) / np.maximum(area, 1)
    bright = light >= mean[owners]
    # Nothing is added for what is not bright: much cheaper than to take what is.
    count = np.bincount(owners, bright)
    own = np.bincount(owners, light * bright) / np.maximum(count, 1)
    dark = np.flatnonzero(light < (_LIGHT * own)[owners])
    gone = dark[_on_rim(objects, dark)] if dark.size else dark
    if not gone.size:
        return objects
    kept = np.ones(owners.size, np.bool_)
    kept[gone] = False
    return objects.taken(kept).in_one_piece()


def _on_rim(objects: Pixels, which: Indices) -> NDArray[np.bool_]:
    """Which of some of the pixels have one that is not of their object at most `_RIM` px to a side, up or down; beside the image is none."""
    places, owners = objects.places[which], objects.numbers[which]
    height, width = objects.shape
    # A frame of background: the columns to the right of a row stand to the left of the next one.
    framed = np.zeros((height + 2 * _RIM, width + _RIM), np.int32)
    first, across, flat = _RIM * framed.shape[1], framed.shape[1], framed.ravel()
    flat[first + objects.places + objects.places // width * _RIM] = objects.numbers
    at = first + places + places // width * _RIM
    rim = np.zeros(places.size, np.bool_)
    for step in range(1, _RIM + 1):
        for offset in (-step, step, -step * across, step * across):
            rim |= flat[at + offset] != owners
    return rim
