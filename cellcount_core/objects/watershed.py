"""Touching objects parted at the necks of their outline: Otsu's threshold, distance transform, watershed.

The watershed follows the steepest ascent of the distance to the outline (every pixel climbs to a peak), then joins two peaks
where the pass between them is hardly lower than the lower peak. Both rules look at a pixel's neighbourhood and at two
touching basins only, so an object comes out the same wherever the window that shows it begins.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cellcount_core.objects.histogram_threshold import histogram, signal_threshold
from cellcount_core.objects.labels import drop_small
from cellcount_core.objects.protocol import FieldParams

_HEIGHT_STEPS = 64
"""Heights are distances in 1/64 px: integers, so that ties are ties on every machine."""
_BLUR_PX = 2
_CHUNK_PX = 2048


@dataclass(frozen=True, slots=True)
class WatershedSeparator:
    """Separator of the `threshold` family; map 0 is the smoothed normalised intensity.

    `floor`, `valley`, `correction`: see `signal_threshold`. `depth` is how far below the lower of two peaks, relative to
    it, the pass must lie for the two to be two objects. `max_radius` (px): wider necks are never parted. `min_area` in px.
    Raises ValueError for a value out of its range.
    """

    floor: float = 0.1
    valley: float = 0.35
    correction: float = 0.5
    depth: float = 0.05
    max_radius: float = 64
    min_area: float = 20

    def __post_init__(self) -> None:
        ranges = {
            "floor": (self.floor, 0.01, 1.0),
            "valley": (self.valley, 0.0, 1.0),
            "correction": (self.correction, 0.1, 2.0),
            "depth": (self.depth, 0.0, 1.0),
            "max_radius": (self.max_radius, 1.0, 500.0),
            "min_area": (self.min_area, 0.0, float("inf")),
        }
        for name, (value, least, most) in ranges.items():
            if not least <= value <= most:
                raise ValueError(f"{name}: expected {least:g} to {most:g} (got {value})")

    @property
    def reach(self) -> int:
        """The longest distance measured, plus the smoothing and one ring of neighbours."""
        return int(self.max_radius) + _BLUR_PX + 2

    @property
    def outline(self) -> None:
        """Objects are drawn as they are separated."""

    def fit(self, tiles: Iterable[NDArray[np.float32]]) -> FieldParams:
        """The field's threshold; None where it holds no signal."""
        level = signal_threshold(
            histogram(tiles), floor=self.floor, valley=self.valley, correction=self.correction
        )
        return FieldParams(level)

    def separate(self, maps: NDArray[np.float32], params: FieldParams) -> NDArray[np.int32]:
        """Label image (H, W) int32 of maps (H, W, K)."""
        if params.threshold is None or maps.size == 0:
            return np.zeros(maps.shape[:2], np.int32)
        foreground = (maps[..., 0] > params.threshold).astype(np.uint8)
        return drop_small(part_at_necks(foreground, self.depth, self.max_radius), self.min_area)


def part_at_necks(foreground: NDArray[np.uint8], depth: float, max_radius: float) -> NDArray[np.int32]:
    """Label image (H, W) int32 of a foreground (H, W) of 0 and 1, clumps parted at their necks."""
    # One ring of background, so that every pixel has eight neighbours.
    height = np.pad(outline_distance(foreground, max_radius), 1)
    pixels = np.flatnonzero(height).astype(np.int32)
    labels = np.zeros(height.shape, np.int32)
    if pixels.size:
        where = np.zeros(height.size, np.int32)
        where[pixels] = np.arange(pixels.size, dtype=np.int32)
        relief = _Relief(height.ravel(), pixels, where, height.shape[1])
        basin, peaks = _climb(relief)
        labels.ravel()[pixels] = _join(relief, basin, peaks, depth)[basin] + 1
    return labels[1:-1, 1:-1]


@dataclass(frozen=True, slots=True, eq=False)
class _Relief:
    """Heights of a padded image, flat; the flat indices of its foreground pixels; which foreground pixel an index is."""

    height: NDArray[np.uint16]
    pixels: NDArray[np.int32]
    where: NDArray[np.int32]
    width: int


def outline_distance(foreground: NDArray[np.uint8], max_radius: float) -> NDArray[np.uint16]:
    """Smoothed distance (H, W) to the nearest background pixel in 1/64 px, at most `max_radius`; 0 outside the foreground.

    What lies beyond the image counts as background. Computed in chunks: OpenCV's exact transform works in float32, which
    is exact for coordinates of a few thousand only.
    """
    height, width = foreground.shape
    margin = int(max_radius) + _BLUR_PX + 2
    padded = cv2.copyMakeBorder(foreground, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    out = np.empty(foreground.shape, np.uint16)
    for y in range(0, height, _CHUNK_PX):
        for x in range(0, width, _CHUNK_PX):
            top, left = max(0, y + 1 - margin), max(0, x + 1 - margin)
            window = np.ascontiguousarray(
                padded[top : y + 1 + _CHUNK_PX + margin, left : x + 1 + _CHUNK_PX + margin]
            )
            distance = cv2.distanceTransform(window, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            np.minimum(distance, np.float32(max_radius), out=distance)
            steps = (distance * np.float32(_HEIGHT_STEPS) + np.float32(0.5)).astype(np.uint16)
            smooth = cv2.GaussianBlur(steps, (2 * _BLUR_PX + 1,) * 2, 1.0, borderType=cv2.BORDER_CONSTANT)
            piece = out[y : y + _CHUNK_PX, x : x + _CHUNK_PX]
            piece[:] = smooth[y + 1 - top :, x + 1 - left :][: piece.shape[0], : piece.shape[1]]
    np.maximum(out, 1, out=out)
    out *= foreground
    return out


def _climb(relief: _Relief) -> tuple[NDArray[np.int32], NDArray[np.uint16]]:
    """The basin of every foreground pixel and the height of every basin's peak.

    A pixel goes to its highest neighbour; among equal ones to the first in raster order, itself included, which leaves
    no cycles and does not depend on where the image begins.
    """
    height, pixels, width = relief.height, relief.pixels, relief.width
    target = pixels - np.int32(width + 1)
    best = height[target]
    for offset in (-width, -width + 1, -1, 0, 1, width - 1, width, width + 1):
        candidate = pixels + np.int32(offset)
        value = height[candidate]
        higher = value > best
        np.copyto(best, value, where=higher)
        np.copyto(target, candidate, where=higher)
    parent = relief.where[target]
    while True:
        further = parent[parent]
        if np.array_equal(further, parent):
            break
        parent = further
    is_peak = parent == np.arange(pixels.size, dtype=np.int32)
    number = np.cumsum(is_peak, dtype=np.int32) - np.int32(1)
    return number[parent], height[pixels[is_peak]]


def _join(
    relief: _Relief, basin: NDArray[np.int32], peaks: NDArray[np.uint16], depth: float
) -> NDArray[np.int32]:
    """The object of every basin: two that touch are one unless the highest pass is `depth` below the lower peak."""
    height, pixels, width = relief.height, relief.pixels, relief.width
    keys, passes = [], []
    for offset in (1, width - 1, width, width + 1):
        neighbour = pixels + np.int32(offset)
        level = height[neighbour]
        there = basin[relief.where[neighbour]]
        apart = np.flatnonzero((level > 0) & (there != basin))
        one, other = basin[apart].astype(np.int64), there[apart].astype(np.int64)
        keys.append(np.minimum(one, other) * peaks.size + np.maximum(one, other))
        passes.append(np.minimum(height[pixels[apart]], level[apart]))
    pairs, slot = np.unique(np.concatenate(keys), return_inverse=True)
    highest = np.zeros(pairs.size, np.uint16)
    np.maximum.at(highest, slot, np.concatenate(passes))
    first, second = pairs // peaks.size, pairs % peaks.size
    lower = np.minimum(peaks[first], peaks[second]).astype(np.float64)
    joined = highest >= (1.0 - depth) * lower
    edges = (first[joined], second[joined])
    graph = coo_array((np.ones(edges[0].size, np.int8), edges), shape=(peaks.size, peaks.size))
    return connected_components(graph, directed=False)[1].astype(np.int32)
