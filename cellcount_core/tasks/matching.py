"""Matching found objects with true ones by their overlap, as `stardist.matching` does (Schmidt et al. 2018), and what follows from it.

Overlap is intersection over union (IoU), of pixels or of boxes: a task says which (its `score.py`), and everything here follows. One
difference to stardist: for an image without objects in which none was found, F1, AP and PQ are 1 here and 0 there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""The IoU from which on a found object counts as a true one, in the order of `ImageScore.matches`."""


@dataclass(frozen=True, slots=True)
class Match:
    """One image at one IoU threshold: `hits` are matched pairs, `misses` unmatched true objects, `extras` unmatched found ones."""

    hits: int
    misses: int
    extras: int

    @property
    def f1(self) -> float:
        """2 hits / (2 hits + misses + extras); 1.0 if there are no objects and none was found."""
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


def match(iou: NDArray[np.float64], threshold: float) -> Match:
    """Pair objects one to one: as many pairs with IoU >= `threshold` as possible and, among those, the largest summed IoU."""
    return match_with_iou(iou, threshold)[0]


def match_with_iou(iou: NDArray[np.float64], threshold: float) -> tuple[Match, float]:
    """As `match`, with the summed IoU of the pairs. `iou` (n, m) is that of n true objects with m found ones."""
    rows, _, found = matched_pairs(iou, threshold)
    true, counted = iou.shape
    hits = rows.size
    return Match(hits, true - hits, counted - hits), found


def matched_pairs(
    iou: NDArray[np.float64], threshold: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], float]:
    """The numbers of the true and of the found objects of the pairs that `match` counts, and the summed IoU of the pairs."""
    from scipy.optimize import linear_sum_assignment

    none = np.zeros(0, np.int64)
    if min(iou.shape) == 0:
        return none, none, 0.0
    good = iou >= threshold
    rows, columns = linear_sum_assignment(-good.astype(np.float64) - iou / (2 * min(iou.shape)))
    paired = good[rows, columns]
    return rows[paired], columns[paired], float(iou[rows, columns][paired].sum())


@dataclass(frozen=True, slots=True)
class ImageScore:
    """The score of one image: true objects, counted objects, and the match at each of `THRESHOLDS`.

    `matched_iou` is the summed IoU of the pairs at IoU 0.5. `splits` are true objects that hold two or more counted ones, `merges`
    counted objects that hold two or more true ones; 0 where the task's overlap does not say. `diameter_px` is the median diameter of
    the true objects, 0.0 if there are none.
    """

    id: str
    modality: str
    true: int
    counted: int
    matches: tuple[Match, ...]
    matched_iou: float = 0.0
    splits: int = 0
    merges: int = 0
    diameter_px: float = 0.0

    @property
    def panoptic_quality(self) -> float:
        """Panoptic quality at IoU 0.5; 1.0 if the image holds no object and none was counted."""
        return self.matches[0].panoptic_quality(self.matched_iou)


@dataclass(frozen=True, slots=True)
class Report:
    """The scores of a set of images. Means are over images, as in published comparisons on this kind of data."""

    images: tuple[ImageScore, ...]

    def f1(self, threshold: float = 0.5) -> float:
        """Mean F1 at an IoU threshold, one of `THRESHOLDS`."""
        return _mean([score.matches[THRESHOLDS.index(threshold)].f1 for score in self.images])

    def ap(self, threshold: float = 0.5) -> float:
        """Mean average precision, hits / (hits + misses + extras), at an IoU threshold, one of `THRESHOLDS`."""
        return _mean([score.matches[THRESHOLDS.index(threshold)].ap for score in self.images])

    def mean_ap(self) -> float:
        """Mean of `ap` over all `THRESHOLDS`."""
        return _mean([self.ap(threshold) for threshold in THRESHOLDS])

    def count_mape(self) -> float:
        """Mean of |counted - true| / true over the images with objects, as a fraction."""
        return _mean([abs(s.counted - s.true) / s.true for s in self.images if s.true])

    def count_bias(self) -> float:
        """(counted - true) / true over all objects of all images, as a signed fraction; 0.0 if there are no true objects."""
        true = sum(score.true for score in self.images)
        return (sum(score.counted for score in self.images) - true) / true if true else 0.0

    def summary(self) -> dict[str, float | int]:
        """The figures that a package states, rounded to four digits."""
        return {
            "images": len(self.images),
            "objects": sum(score.true for score in self.images),
            "f1_50": round(self.f1(), 4),
            "ap_50": round(self.ap(), 4),
            "ap_70": round(self.ap(0.7), 4),
            "ap_mean": round(self.mean_ap(), 4),
            "count_mape": round(self.count_mape(), 4),
            "count_bias": round(self.count_bias(), 4),
        }


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else 0.0
