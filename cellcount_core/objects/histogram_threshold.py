"""One threshold for a whole field, from the histogram of its smoothed, normalised intensity.

Otsu's threshold (N. Otsu, IEEE Trans. SMC 9, 1979) with two guards, because Otsu splits whatever it is given: values below
the noise floor count as one level, and a split must lie in a valley of the histogram. The histogram holds integers, so the
threshold does not depend on how the field was cut into tiles.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from cellcount_core.objects.labels import strips

LOW, STEPS, BINS = -1.0, 1024, 4096
"""4096 bins of 1/1024 from -1 to 3; values outside count in the outermost bins."""


def histogram(tiles: Iterable[NDArray[np.float32]]) -> NDArray[np.int64]:
    """Counts (4096,) of map 0 over all pixels of the tiles (h, w, K)."""
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
    """The level that parts objects from background, or None where there is nothing but noise or a smooth gradient.

    `floor` is the lowest threshold given and the least distance of two levels; what is below it counts as one level, so
    that three nuclei in a large field are not outvoted by noise. `valley` is the largest density at the split, relative to
    the denser of the two sides, that still counts as a valley: a flat histogram (a gradient) has 1. Where a split is no
    valley, its darker side is taken for background and the rest is split again. `correction` scales the threshold's
    height above the darker side's mean.
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
