"""Matching of counted with true objects by their overlap, as `stardist.matching` defines it (Schmidt et al. 2018).

One difference: where an image has no object and none was counted, F1, AP and PQ are 1 here and 0 there.
"""

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

    def panoptic_quality(self, matched_iou: float) -> float:
        """PQ = SQ * RQ (Kirillov et al. 2019), given the summed IoU of the hits; 1.0 where there is nothing."""
        total = 2 * self.hits + self.misses + self.extras
        return 2 * matched_iou / total if total else 1.0


def overlap(true: NDArray[np.integer], counted: NDArray[np.integer]) -> NDArray[np.float64]:
    """Intersection over union (n, m) of the objects 1..n of `true` with the objects 1..m of `counted`, both (H, W).

    Numbers that do not occur have no row or column: objects come in ascending order of their numbers.
    """
    return intersection_over_union(shared_pixels(true, counted))


def shared_pixels(true: NDArray[np.integer], counted: NDArray[np.integer]) -> NDArray[np.int64]:
    """Pixels (n + 1, m + 1) that each true object shares with each counted one; row and column 0 are the background.

    Raises ValueError where the label images (H, W) differ in shape.
    """
    if true.shape != counted.shape:
        raise ValueError(f"label images of one shape expected (got {true.shape} and {counted.shape})")
    rows, height = _compact(true)
    columns, width = _compact(counted)
    flat = np.bincount(rows * width + columns, minlength=height * width)
    return np.asarray(flat.reshape(height, width), np.int64)


def intersection_over_union(shared: NDArray[np.int64]) -> NDArray[np.float64]:
    """IoU (n, m) of the objects of a table (n + 1, m + 1) of `shared_pixels`."""
    both = shared[1:, 1:].astype(np.float64)
    union = shared.sum(axis=1)[1:, None] + shared.sum(axis=0)[None, 1:] - both
    return np.asarray(both / np.maximum(union, 1), np.float64)


def _compact(labels: NDArray[np.integer]) -> tuple[NDArray[np.int64], int]:
    """Flat labels with their gaps closed, and their number counting the background, which keeps 0 though no pixel be it."""
    flat = labels.ravel().astype(np.int64)
    present = np.bincount(flat, minlength=1) > 0
    present[0] = True
    return (np.cumsum(present) - 1)[flat], int(present.sum())


def match(iou: NDArray[np.float64], threshold: float) -> Match:
    """Pair objects one to one so that the number of pairs with IoU >= `threshold` is largest, then their summed IoU."""
    return match_with_iou(iou, threshold)[0]


def match_with_iou(iou: NDArray[np.float64], threshold: float) -> tuple[Match, float]:
    """What `match` gives, and the summed IoU of the pairs."""
    from scipy.optimize import linear_sum_assignment

    true, counted = iou.shape
    if min(iou.shape) == 0:
        return Match(0, true, counted), 0.0
    good = iou >= threshold
    rows, columns = linear_sum_assignment(-good.astype(np.float64) - iou / (2 * min(iou.shape)))
    paired = good[rows, columns]
    hits = int(paired.sum())
    return Match(hits, true - hits, counted - hits), float(iou[rows, columns][paired].sum())


def splits(shared: NDArray[np.int64]) -> int:
    """True objects that two or more counted objects lie in; one lies in an object that has more than half of its pixels.

    `shared` is the table (n + 1, m + 1) of `shared_pixels`.
    """
    inside = 2 * shared[1:, 1:] > shared.sum(axis=0)[None, 1:]
    return int((inside.sum(axis=1) >= 2).sum())


def merges(shared: NDArray[np.int64]) -> int:
    """Counted objects that two or more true objects lie in, as `splits` understands it."""
    return splits(shared.T)
