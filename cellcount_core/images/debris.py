"""Debris: whatever in a plane is far brighter than the objects and is none of them, such as fibres, grains, hot
pixels or a bright edge.

Full scale is a level that few pixels exceed. A little debris can therefore set it, and objects at a hundredth of full
scale are not found. Debris is recognised by numbers: if most of the pieces that stand out from the background stay
below a third of full scale, full scale is not the level of the objects. Without debris hardly any piece does
(`DebrisView.apart` then gives None).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

_VIEW_PX = 1 << 20
"""Most pixels of the reduced view."""

_STRIP_PX = 1 << 19

RUNG = 3.0
"""Pieces are sorted by their peaks into steps that differ by this factor."""

_RISES = 1.25
"""The peak of a piece must reach this many times the level at which the piece is cut out: where a slope crosses the
level, noise makes pieces that do not."""

_LEAST_PX = 16
"""Pixels (of the plane) in the smallest piece that counts; noise makes smaller ones."""

_FEWEST = 3
"""Fewer objects are no evidence against what is brighter than they are."""

_OUTNUMBERED = 2
"""Full scale is not the objects' level if there are this many objects for each piece above them; if no piece lies
between, one is enough."""

_MOST_SHARE = 0.05
"""Share of the view. Whatever covers more is no debris."""

_HALO = 3
"""Pixels of the view around debris that its light reaches. They are not used for levels."""

_LARGE = 2.5
"""Debris may be an object after all if it has at most this many times the objects' median area and is at most `_LONG`
times as long as broad."""

_LONG = 2.5

_EDGE_PX = 4

_COVERED = 0.2
"""An object is debris if at least this share of its pixels is."""


@dataclass(frozen=True, slots=True, eq=False)
class Debris:
    """The debris in a plane, without pieces that have the size and shape of an object.

    `mask` (h, w) is bool; each of its pixels stands for `step` x `step` pixels of the plane.
    """

    mask: NDArray[np.bool_]
    step: int

    def owning(self, labels: NDArray[np.int32], origin: tuple[int, int]) -> NDArray[np.bool_]:
        """Which of the labels 0 to n in a window's label image (h, w) are debris: an array (n + 1,) of bool. `origin`
        is the (y, x) of the window's first pixel in the plane."""
        places = np.flatnonzero(labels != 0)
        owners = labels.ravel()[places]
        y, x = np.divmod(places, max(1, labels.shape[1]))
        rows = np.minimum((y + origin[0]) // self.step, self.mask.shape[0] - 1)
        columns = np.minimum((x + origin[1]) // self.step, self.mask.shape[1] - 1)
        count = int(labels.max(initial=0)) + 1
        areas = np.bincount(owners, minlength=count)
        covered = np.bincount(owners[self.mask[rows, columns]], minlength=count)
        return np.asarray((covered > 0) & (covered >= _COVERED * areas), np.bool_)


class DebrisView:
    """A plane (H, W) of any integer or float type, reduced to the means of squares; at least twofold unless it is
    tiny."""

    def __init__(self, plane: NDArray[np.generic]) -> None:
        height, width = plane.shape
        self.step = max(1 if min(plane.shape) < 64 else 2, math.ceil(math.sqrt(plane.size / _VIEW_PX)))
        across = max(1, width // self.step)
        rows = max(1, _STRIP_PX // width // self.step) * self.step
        strips = [
            cv2.resize(
                strip.astype(np.float32), (across, len(strip) // self.step), interpolation=cv2.INTER_AREA
            )
            for strip in (
                plane[top : min(top + rows, height // self.step * self.step), : across * self.step]
                for top in range(0, height // self.step * self.step, rows)
            )
        ]
        self.values = np.concatenate([strip.reshape(-1, across) for strip in strips])
        # Hot pixels stand alone, also in the mean of a square.
        self._smooth = cv2.medianBlur(self.values, 3)
        self._least = max(2, _LEAST_PX // self.step**2)

    def apart(self, background: float, full: float, floor: float) -> NDArray[np.bool_] | None:
        """Where (h, w) the view is above a third of full scale, if full scale is not the level of the objects; None
        if it is.

        `full` (full scale) and `floor` (the level that noise does not reach) are both measured from `background`.
        """
        level, above, pieces = full / (RUNG * _RISES), None, []
        while True:
            level = max(level, floor)
            top = self._smooth > background + _RISES * level
            pieces.append(_count(self._smooth > background + level, top, above, self._least))
            if level <= floor:
                break
            level, above = level / RUNG, top
        below, beyond = sum(pieces[1:]), sum(pieces[2:])
        outnumbered = below >= max(_FEWEST, _OUTNUMBERED * pieces[0])
        if not outnumbered and beyond < max(_FEWEST, sum(pieces[:2])):
            return None
        mask = self.values > background + full / RUNG
        return mask if np.count_nonzero(mask) <= _MOST_SHARE * mask.size else None

    def pieces(self, level: float) -> int:
        """Number of connected pieces above `level` (in units of the plane) that are larger than noise."""
        high = self._smooth > level
        return _count(high, high, None, self._least)

    def crowd(self, background: float, height: float) -> tuple[int, float]:
        """Pieces that lie above `height` over the background and clearly rise above it, and the share of the view above it.

        Where a slope of the background crosses the height, noise makes pieces that do not rise.
        """
        high = self._smooth > background + height
        rising = self._smooth > background + _RISES * height
        return _count(high, rising, None, self._least), float(high.mean())

    def near(
        self, mask: NDArray[np.bool_], down: int, across: int, shape: tuple[int, int]
    ) -> NDArray[np.bool_]:
        """Which pixels lie in `mask` or its halo, among every `down`-th row and `across`-th column of the plane;
        `shape` is their number along each axis."""
        wide = cv2.dilate(mask.view(np.uint8), np.ones((2 * _HALO + 1, 2 * _HALO + 1), np.uint8))
        rows = np.minimum(np.arange(shape[0]) * down // self.step, wide.shape[0] - 1)
        columns = np.minimum(np.arange(shape[1]) * across // self.step, wide.shape[1] - 1)
        return np.asarray(wide[rows][:, columns], np.bool_)

    def debris(self, background: float, full: float) -> Debris:
        """What is above `RUNG` times full scale, which must now be that of the objects, and does not have the size
        and shape of an object."""
        objects = self._smooth > background + full / RUNG
        far = self._smooth > background + full * RUNG
        _, labels, stats, _ = cv2.connectedComponentsWithStats(objects.view(np.uint8), connectivity=8)
        own = stats[:, cv2.CC_STAT_AREA] >= self._least
        own[labels[far]] = False
        own[0] = False
        usual = float(np.median(stats[own, cv2.CC_STAT_AREA])) if own.any() else 0.0
        count, labels, stats, _ = cv2.connectedComponentsWithStats(far.view(np.uint8), connectivity=8)
        odd = np.zeros(count, np.bool_)
        for number in range(1, count):
            area = stats[number, cv2.CC_STAT_AREA]
            odd[number] = area >= self._least and (
                area > _LARGE * usual or _length_to_breadth(_box(labels, stats[number]) == number) > _LONG
            )
        return Debris(odd[labels], self.step)


def longest_edge(plane: NDArray[np.generic], level: float, smooth: int) -> tuple[int, int]:
    """The longest bright stretch (px) along one border of a plane (H, W), and the length of that border; (0, side) if
    there is none.

    Bright means above `level`, after averaging over `_EDGE_PX` px inwards and `smooth` px along the border.
    """
    found = (0, min(plane.shape))
    for strip in (plane[:_EDGE_PX], plane[-_EDGE_PX:], plane[:, :_EDGE_PX].T, plane[:, -_EDGE_PX:].T):
        along = strip.astype(np.float32).mean(axis=0)
        width = min(max(1, smooth), along.size)
        high = np.convolve(along, np.full(width, 1 / width, np.float32), mode="same") > level
        turns = np.flatnonzero(np.diff(high, prepend=False, append=False))
        longest = int((turns[1::2] - turns[::2]).max(initial=0))
        if longest * found[1] > found[0] * along.size:
            found = longest, along.size
    return found


def _box(labels: NDArray[np.generic], stats: NDArray[np.generic]) -> NDArray[np.generic]:
    """The part of a label image that holds the component with these statistics."""
    left, top, width, height = (int(value) for value in stats[:4])
    return labels[top : top + height, left : left + width]


def _length_to_breadth(own: NDArray[np.bool_]) -> float:
    _, (length, breadth), _ = cv2.minAreaRect(np.argwhere(own).astype(np.int32))
    # From the first pixel's centre to the last one's.
    return float((max(length, breadth) + 1) / (min(length, breadth) + 1))


def _count(
    high: NDArray[np.bool_], top: NDArray[np.bool_], above: NDArray[np.bool_] | None, least: int
) -> int:
    """Number of connected pieces of at least `least` pixels that reach into `top`, without those that hold a pixel of
    `above`."""
    count, labels = cv2.connectedComponents(high.view(np.uint8), connectivity=8)
    flat, kept = labels.ravel(), np.zeros(count, np.bool_)
    # Taken by their indices: by truth values it takes several times as long.
    kept[flat[np.flatnonzero(top)]] = True
    if above is not None:
        kept[flat[np.flatnonzero(above)]] = False
    if not kept.any():
        return 0
    kept &= np.bincount(flat[np.flatnonzero(high)], minlength=count) >= least
    return int(np.count_nonzero(kept))
