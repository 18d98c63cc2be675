"""From the maps of a box network to boxes: a peak of a centre map is an object, whose height and width are read there.

The network is one that tells objects as points (Zhou et al. 2019). Boxes that overlap are kept, because long thin cells that cross
overlap much: a peak gives way only to a stronger one whose centre lies within a share of the box's own sides.

A peak depends on a pixel and its neighbours, and is found in the block that holds the pixel. So blocks give the same peaks as the whole.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cellcount_core.tasks.boxes.section import Boxes, BoxesSection
from cellcount_core.tasks.object_size.looks import decode_diameter
from cellcount_core.tasks.task import MapArray, Maps, Shape

_BLOCK_PX = 2048
_HALO = 1
"""Pixels around a block that tell whether a value at its edge is a peak."""

MOST_BELOW = 1000
"""Peaks below their thresholds that are looked at in a field. A network that learnt little shows tens of thousands."""

_SLACK = 1.0001
"""So much wider is searched than arithmetic demands, because of rounding."""

_LEAST = 1e-6
"""Values below are taken as this where their logarithm is needed."""


@dataclass(frozen=True, slots=True, eq=False)
class Peaks:
    """Peaks of centre maps, n of them: centres `y` and `x` and sides `height` and `width` in px, classes and scores (n,)."""

    y: NDArray[np.float64]
    x: NDArray[np.float64]
    height: NDArray[np.float64]
    width: NDArray[np.float64]
    classes: NDArray[np.int64]
    scores: NDArray[np.float64]

    def taken(self, which: NDArray[np.bool_] | NDArray[np.intp]) -> Peaks:
        """Those chosen by a mask (n,) or by indices."""
        return Peaks(*(getattr(self, each.name)[which] for each in fields(self)))

    def joined(self, other: Peaks) -> Peaks:
        """These and the others."""
        pairs = [(getattr(self, each.name), getattr(other, each.name)) for each in fields(self)]
        return Peaks(*(np.concatenate(pair) for pair in pairs))


def decode(maps: MapArray, section: BoxesSection, lowest: float = 1.0) -> Boxes:
    """The boxes in the maps (h, w, K) of a whole field.

    They are those whose score reaches the threshold of their class, or `lowest` if that is less. What a lower `lowest` adds changes
    none of the others.
    """
    found = find_peaks(maps, section, (0, maps.shape[0], 0, maps.shape[1]), (0, 0), lowest)
    return settle(found, section, (maps.shape[0], maps.shape[1]))


def decode_blocks(maps: Maps, section: BoxesSection, lowest: float = 1.0, side: int = _BLOCK_PX) -> Boxes:
    """The same boxes as `decode`, without holding the maps of more than a block of `side` px at a time."""
    height, width = maps.shape
    found = _no_peaks()
    for top in range(0, height, side):
        for left in range(0, width, side):
            core = (top, min(top + side, height), left, min(left + side, width))
            y0, x0 = max(0, core[0] - _HALO), max(0, core[2] - _HALO)
            block = maps.window(y0, min(height, core[1] + _HALO), x0, min(width, core[3] + _HALO))
            found = found.joined(find_peaks(block, section, core, (y0, x0), lowest))
    return settle(found, section, (height, width))


def find_peaks(
    maps: MapArray,
    section: BoxesSection,
    core: tuple[int, int, int, int],
    origin: tuple[int, int],
    lowest: float = 1.0,
) -> Peaks:
    """The peaks in rows and columns `core` (y0, y1, x0, x1, half-open, px of the field) of a field.

    `maps` (h, w, K) begin at `origin` (y, x) and reach at least one pixel beyond the core, except where the field ends. A pixel is a
    peak if it is above the eight around it; of equal neighbours the first in raster order is. Its centre is where a parabola through
    the logarithms of a peak and its neighbours has its top: exact for a Gaussian.
    """
    rows, columns = (
        slice(core[0] - origin[0], core[1] - origin[0]),
        slice(core[2] - origin[1], core[3] - origin[1]),
    )
    found = _no_peaks()
    for number, name in enumerate(section.classes):
        floor = min(section.thresholds[name], lowest)
        # Beyond the edge there is less than anything, and a place there moves no centre.
        centre = np.pad(maps[..., number], 1, constant_values=-1.0)
        y, x = np.nonzero(maps[rows, columns, number] >= floor)
        y, x = y + rows.start, x + columns.start
        nine = [centre[y + dy, x + dx] for dy in range(3) for dx in range(3)]
        around = np.stack(nine, axis=-1).astype(np.float64)
        own = around[:, 4:5]
        is_peak = (around[:, :4] < own).all(axis=1) & (around[:, 5:] <= own).all(axis=1)
        y, x, around = y[is_peak], x[is_peak], around[is_peak]
        found = found.joined(
            Peaks(
                origin[0] + y + 0.5 + _shift(around[:, 1], around[:, 4], around[:, 7]),
                origin[1] + x + 0.5 + _shift(around[:, 3], around[:, 4], around[:, 5]),
                decode_diameter(maps[y, x, -2]).astype(np.float64),
                decode_diameter(maps[y, x, -1]).astype(np.float64),
                np.full(y.size, number, np.int64),
                around[:, 4],
            )
        )
    return found


def _no_peaks() -> Peaks:
    none = np.zeros(0)
    return Peaks(none, none, none, none, np.zeros(0, np.int64), none)


def _shift(
    before: NDArray[np.float64], own: NDArray[np.float64], after: NDArray[np.float64]
) -> NDArray[np.float64]:
    """How far (px) the top lies from the pixel, -0.5 to 0.5, by the values of three pixels in a row; 0 at the edge of the field."""
    left, middle, right = (np.log(np.maximum(values, _LEAST)) for values in (before, own, after))
    bend = left - 2 * middle + right
    known = (bend < 0) & (before >= 0) & (after >= 0)
    moved = 0.5 * (left - right) / np.where(known, bend, -1.0)
    return np.where(known, np.clip(moved, -0.5, 0.5), 0.0)


def settle(peaks: Peaks, section: BoxesSection, shape: Shape) -> Boxes:
    """The objects of a field of `shape` (h, w) among all of its peaks, whose order does not matter.

    Of peaks that are too near to each other, of one class or of two, the one with the highest score in relation to its class's
    threshold is kept. Of those below their thresholds at most `MOST_BELOW` are looked at, or twice as many as reach theirs if that is
    more: the surest. Boxes are cut off at the edges of the field.
    """
    limits = np.array([section.thresholds[name] for name in section.classes])
    strength = peaks.scores / limits[peaks.classes]
    order = np.lexsort((peaks.classes, peaks.x, peaks.y, -strength))
    counted = int(np.count_nonzero(strength >= 1))
    # A weaker peak takes nothing from a stronger one, so those left out change none of the others.
    ordered = peaks.taken(order[: counted + max(MOST_BELOW, 2 * counted)])
    kept = ordered.taken(_apart(ordered, section.apart))
    kept = kept.taken(np.lexsort((kept.classes, kept.x, kept.y)))
    low = np.stack([kept.y - kept.height / 2, kept.x - kept.width / 2], axis=-1)
    high = np.stack([kept.y + kept.height / 2, kept.x + kept.width / 2], axis=-1)
    boxes = np.concatenate([np.maximum(low, 0), np.minimum(high, np.array(shape, np.float64))], axis=-1)
    return Boxes(boxes, kept.classes, kept.scores)


def _apart(peaks: Peaks, share: float) -> NDArray[np.bool_]:
    """Which peaks (n,), the strongest first, are kept."""
    alive = np.ones(peaks.scores.size, np.bool_)
    if alive.size < 2 or share == 0:
        return alive
    centres = np.stack([peaks.y, peaks.x], axis=-1)
    tree = cKDTree(centres)
    # Peaks too near to each other lie within this part of the smaller one's diagonal, so a peak's own reach holds all it can take away.
    # Reaching as far as the largest box would for all gives millions of pairs where a network that learnt little sees boxes of all sizes.
    reach = share * np.hypot(peaks.height, peaks.width) * _SLACK
    crowded = tree.query_ball_point(centres, reach, return_length=True) > 1
    for one in np.flatnonzero(crowded):
        # When a peak's turn comes, everything stronger has been settled.
        if not alive[one]:
            continue
        others = np.array(tree.query_ball_point(centres[one], reach[one]), np.intp)
        others = others[(others > one) & alive[others]]
        down = np.abs(peaks.y[others] - peaks.y[one]) / np.minimum(peaks.height[others], peaks.height[one])
        across = np.abs(peaks.x[others] - peaks.x[one]) / np.minimum(peaks.width[others], peaks.width[one])
        alive[others[np.hypot(down, across) < share]] = False
    return alive
