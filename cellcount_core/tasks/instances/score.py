"""Matching counted objects with true ones by their overlap, as `stardist.matching` does (Schmidt et al. 2018).

One difference: for an image without objects in which none was counted, F1, AP and PQ are 1 here and 0 there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Match:
    """One image at one IoU threshold: `hits` are matched pairs, `misses` unmatched true objects, `extras` unmatched counted ones."""

    hits: int
    misses: int
    extras: int

    @property
    def f1(self) -> float:
        """2 hits / (2 hits + misses + extras); 1.0 if there are no objects and none was counted."""
        total = 2 * self.hits + self.misses + self.extras
        return 2 * self.hits / total if total else 1.0

    @property
    def ap(self) -> float:
        """hits / (hits + misses + extras), the average precision of the Data Science Bowl; 1.0 if there are no objects at all."""
        total = self.hits + self.misses + self.extras
        return self.hits / total if total else 1.0

    def panoptic_quality(self, matched_iou: float) -> float:
        """PQ = SQ * RQ (Kirillov et al. 2019), given the summed IoU of the hits; 1.0 if there are no objects at all."""
        total = 2 * self.hits + self.misses + self.extras
        return 2 * matched_iou / total if total else 1.0


def overlap(true: NDArray[np.integer], counted: NDArray[np.integer]) -> NDArray[np.float64]:
    """Intersection over union (n, m) of the objects of `true` with those of `counted`, both label images (H, W).

    Objects are in ascending order of their numbers; numbers that do not occur have no row or column.
    """
    return intersection_over_union(shared_pixels(true, counted))


def shared_pixels(true: NDArray[np.integer], counted: NDArray[np.integer]) -> NDArray[np.int64]:
    """Number of pixels (n + 1, m + 1) that each true object shares with each counted one; row and column 0 are background.

    Raises ValueError if the label images (H, W) differ in shape.
    """
    if true.shape != counted.shape:
        raise ValueError(f"label images of one shape expected (got {true.shape} and {counted.shape})")
    rows, height = _compact(true)
    columns, width = _compact(counted)
    flat = np.bincount(rows * width + columns, minlength=height * width)
    return np.asarray(flat.reshape(height, width), np.int64)


def intersection_over_union(shared: NDArray[np.int64]) -> NDArray[np.float64]:
    """IoU (n, m) of the objects, from the table (n + 1, m + 1) of `shared_pixels`."""
    both = shared[1:, 1:].astype(np.float64)
    union = shared.sum(axis=1)[1:, None] + shared.sum(axis=0)[None, 1:] - both
    return np.asarray(both / np.maximum(union, 1), np.float64)


def _compact(labels: NDArray[np.integer]) -> tuple[NDArray[np.int64], int]:
    """Flat labels without gaps in their numbers, and how many numbers there are, background (0) included even if no pixel has it."""
    flat = labels.ravel().astype(np.int64)
    present = np.bincount(flat, minlength=1) > 0
    present[0] = True
    return (np.cumsum(present) - 1)[flat], int(present.sum())


def match(iou: NDArray[np.float64], threshold: float) -> Match:
    """Pair objects one to one: as many pairs with IoU >= `threshold` as possible and, among those, the largest summed IoU."""
    return match_with_iou(iou, threshold)[0]


def match_with_iou(iou: NDArray[np.float64], threshold: float) -> tuple[Match, float]:
    """As `match`, with the summed IoU of the pairs."""
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
    """Number of true objects that hold two or more counted objects.

    A counted object lies in a true one that has more than half of its pixels. `shared` is the table (n + 1, m + 1) of `shared_pixels`.
    """
    inside = 2 * shared[1:, 1:] > shared.sum(axis=0)[None, 1:]
    return int((inside.sum(axis=1) >= 2).sum())


def merges(shared: NDArray[np.int64]) -> int:
    """Number of counted objects that hold two or more true objects, in the sense of `splits`."""
    return splits(shared.T)
