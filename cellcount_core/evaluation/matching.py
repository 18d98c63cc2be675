"""Matching of counted with true objects by their overlap, as `stardist.matching` defines it (Schmidt et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Match:
    """Objects of one image at one IoU threshold: `hits` pairs, `misses` (true, unmatched), `extras` (counted, unmatched)."""

    hits: int
    misses: int
    extras: int

    @property
    def f1(self) -> float:
        """2 hits / (2 hits + misses + extras); 1.0 where there is nothing and nothing was counted."""
        total = 2 * self.hits + self.misses + self.extras
        return 2 * self.hits / total if total else 1.0

    @property
    def ap(self) -> float:
        """hits / (hits + misses + extras), the average precision of the Data Science Bowl; 1.0 where there is nothing."""
        total = self.hits + self.misses + self.extras
        return self.hits / total if total else 1.0


def overlap(true: NDArray[np.integer], counted: NDArray[np.integer]) -> NDArray[np.float64]:
    """Intersection over union (n, m) of the objects 1..n of `true` with the objects 1..m of `counted`, both (H, W).

    Numbers that do not occur have no row or column: objects come in ascending order of their numbers.
    """
    if true.shape != counted.shape:
        raise ValueError(f"label images of one shape expected (got {true.shape} and {counted.shape})")
    rows, height = _compact(true)
    columns, width = _compact(counted)
    table = np.bincount(rows * width + columns, minlength=height * width).reshape(height, width)
    both = table[1:, 1:].astype(np.float64)
    union = table.sum(axis=1)[1:, None] + table.sum(axis=0)[None, 1:] - both
    return np.asarray(both / np.maximum(union, 1), np.float64)


def _compact(labels: NDArray[np.integer]) -> tuple[NDArray[np.int64], int]:
    """Flat labels with their gaps closed, and their number counting the background, which keeps 0 though no pixel be it."""
    flat = labels.ravel().astype(np.int64)
    present = np.bincount(flat, minlength=1) > 0
    present[0] = True
    return (np.cumsum(present) - 1)[flat], int(present.sum())


def match(iou: NDArray[np.float64], threshold: float) -> Match:
    """Pair objects one to one so that the number of pairs with IoU >= `threshold` is largest, then their summed IoU."""
    from scipy.optimize import linear_sum_assignment

    true, counted = iou.shape
    if min(iou.shape) == 0:
        return Match(0, true, counted)
    good = (iou >= threshold).astype(np.float64)
    rows, columns = linear_sum_assignment(-good - iou / (2 * min(iou.shape)))
    hits = int(good[rows, columns].sum())
    return Match(hits, true - hits, counted - hits)
