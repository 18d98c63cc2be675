"""Touching objects parted at the necks of their outline: a threshold for the whole field, distance transform, watershed.

`signal_threshold` finds one threshold from the histogram of a field's smoothed, normalised intensity. It is Otsu's (N. Otsu, IEEE
Trans. SMC 9, 1979) with two guards, because Otsu splits whatever it is given: values below the noise floor count as one level,
and a split must lie in a valley of the histogram. The histogram holds integers, so the threshold does not depend on how the
field was cut into tiles.

`part_at_necks` then lets every foreground pixel climb the distance to the outline to a peak, and joins two peaks if the pass
between them is hardly lower than the lower peak. Both rules look only at a pixel's neighbourhood and at two touching basins, so
an object comes out the same wherever the window that shows it begins.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cellcount_core.objects.labels import strips

LOW, STEPS, BINS = -1.0, 1024, 4096
"""4096 bins of 1/1024 from -1 to 3; values outside are counted in the outermost bins."""


def histogram(tiles: Iterable[NDArray[np.float32]]) -> NDArray[np.int64]:
    """Counts (4096,) of the values of map 0 over all pixels of the tiles (h, w, K)."""
    counts = np.zeros(BINS, np.int64)
    for tile in tiles:
        plane = tile[..., 0]
        for rows in strips((plane.shape[0], plane.shape[1])):
            bins = (plane[rows] - np.float32(LOW)) * np.float32(STEPS)
            np.clip(bins, 0, BINS - 1, out=bins)
            counts += np.bincount(bins.astype(np.uint16).ravel(), minlength=BINS)
    return counts


def signal_threshold(
    counts: NDArray[np.int64], *, floor: float, valley: float, correction: float
) -> float | None:
    """The level that parts objects from background; None if there is nothing but noise or a smooth gradient.

    `floor` is the lowest threshold that is given, and the least distance of two levels. Values below it count as one level, so three
    nuclei in a large field are not outvoted by noise. `valley` is the largest density at the split, relative to the denser of its two
    sides, that still counts as a valley; in a flat histogram (a gradient) it is 1. If a split is no valley, its darker side is taken
    for background and the rest is split again. `correction` scales the threshold's height above the darker side's mean.
    """
    start = _bin(floor)
    level = np.arange(BINS, dtype=np.int64)
    left = counts.copy()
    left[start - 1] = left[:start].sum()
    left[: start - 1] = 0
    while True:
        present = np.flatnonzero(left)
        if present.size == 0 or present[-1] < start:
            return None
        split = _otsu(left)
        if split is None:
            return None
        dark, bright = left[: split + 1], left[split + 1 :]
        low = float((dark * level[: split + 1]).sum() / dark.sum())
        high = float((bright * level[split + 1 :]).sum() / bright.sum())
        if high - low < floor * STEPS:
            return None
        if _is_valley(left, split, low, high, valley):
            chosen = low + correction * (split + 1 - low)
            return max(floor, LOW + chosen / STEPS)
        left[: split + 1] = 0


def _bin(value: float) -> int:
    return int((value - LOW) * STEPS)


def _otsu(counts: NDArray[np.int64]) -> int | None:
    weight = np.cumsum(counts)
    moment = np.cumsum(counts * np.arange(BINS, dtype=np.int64))
    total = int(weight[-1])
    both = (weight > 0) & (weight < total)
    if not both.any():
        return None
    dark = weight[both].astype(np.float64)
    apart = float(moment[-1]) * (dark / total) - moment[both]
    between = apart * apart / (dark * (total - dark))
    best = np.flatnonzero(both)[between == between.max()]
    return int(best[best.size // 2])


def _is_valley(counts: NDArray[np.int64], split: int, low: float, high: float, valley: float) -> bool:
    half = max(1, round((high - low) / 8))
    around = [_mass(counts, round(centre), half) for centre in (low, split, high)]
    return around[1] <= valley * max(around[0], around[2])


def _mass(counts: NDArray[np.int64], centre: int, half: int) -> int:
    return int(counts[max(0, centre - half) : centre + half + 1].sum())


_HEIGHT_STEPS = 64
"""Heights are distances in 1/64 px. They are integers, so ties are ties on every machine."""
_BLUR_PX = 2
_CHUNK_PX = 2048


def reach_of(max_radius: float) -> int:
    """How far (px) a pixel can change a label: the longest distance measured, plus the smoothing and one ring of neighbours."""
    return int(max_radius) + _BLUR_PX + 2


def part_at_necks(foreground: NDArray[np.uint8], depth: float, max_radius: float) -> NDArray[np.int32]:
    """Label image (H, W) int32 of a foreground (H, W) of 0 and 1, its clumps parted at their necks."""
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
    """Heights of a padded image (flat), flat indices of its foreground pixels, and the foreground pixel of each index."""

    height: NDArray[np.uint16]
    pixels: NDArray[np.int32]
    where: NDArray[np.int32]
    width: int


def outline_distance(foreground: NDArray[np.uint8], max_radius: float) -> NDArray[np.uint16]:
    """Smoothed distance (H, W) to the nearest background pixel in 1/64 px, at most `max_radius` px; 0 outside the foreground.

    Beyond the image counts as background. Computed in chunks, because OpenCV's exact transform works in float32, which is exact only
    for coordinates of a few thousand.
    """
    height, width = foreground.shape
    margin = reach_of(max_radius)
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
    """The basin of every foreground pixel, and the height of every basin's peak.

    A pixel goes to its highest neighbour. Among equal ones, itself included, it goes to the first in raster order: this leaves no
    cycles and does not depend on where the image begins.
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
    """The object of every basin: two touching basins are one unless the highest pass lies `depth` below the lower peak."""
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
