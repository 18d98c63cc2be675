"""Thresholds of patterns: each the probability from which on an image is said to show it, fitted so that F1 is highest.

A threshold that is fitted to a few images is fitted to chance. So it is the mean over folds of images, and it is shrunk towards one threshold
of all patterns: the more, the fewer images show the pattern. How much, is found by trying it on images that the thresholds were not fitted to.
Everything is averaged as logits, since probabilities of rare patterns are small.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellcount_core.tasks.patterns.score import NEVER, Chances, Shown, macro_f1
from cellcount_core.training.stratify import stratified_folds

STRENGTHS = (0.0, 3.0, 10.0, 30.0, 100.0, 1000.0)
"""Numbers of images that the common threshold weighs as much as, among which one is chosen."""

FEWEST_IMAGES = 5
"""Thresholds cannot be fitted to fewer images: each fold needs one."""

_FOLDS, _REPEATS = FEWEST_IMAGES, 4
_FEWEST = 3
"""A pattern that fewer images show has the common threshold."""
_NEAR = 0.002
"""A stronger pull to the common threshold is taken if it costs no more macro F1 than this."""
_EDGE = 1e-4


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Fitted thresholds.

    `values` are those of the patterns. `common` is the one that they are shrunk to, and `strength` the number of images that it weighs as
    much as. `shown` is the number of images that show each pattern, and `macro_f1` what was reached on images that were not fitted to.
    """

    values: tuple[float, ...]
    common: float
    strength: float
    shown: tuple[int, ...]
    macro_f1: float


def fit_thresholds(chances: Chances, shown: Shown, seed: int = 0) -> Thresholds:
    """Fit thresholds to the probabilities of images that did not train. The same arguments give the same thresholds.

    None of them is above all the probabilities of the images that show its pattern: a rare pattern is never silently said to be nowhere. A
    pattern that no image shows is never found (`NEVER`): nothing is known of the probabilities at which it would be right.
    """
    logits = _logits(chances)
    groups = [str(number) for number in range(len(shown))]
    folds = [stratified_folds(shown, groups, _FOLDS, seed + number) for number in range(_REPEATS)]
    tried = dict.fromkeys(STRENGTHS, 0.0)
    own = []
    for fold in folds:
        told = {strength: np.zeros_like(shown) for strength in STRENGTHS}
        for number in range(_FOLDS):
            kept = fold != number
            best, common = _best(logits[kept], shown[kept]), _common(logits[kept], shown[kept])
            own.append(best)
            for strength in STRENGTHS:
                at = shrunk(best, common, shown[kept].sum(axis=0), strength)
                told[strength][~kept] = logits[~kept] >= at
        for strength in STRENGTHS:
            tried[strength] += macro_f1(told[strength], shown) / _REPEATS
    enough = max(tried.values()) - _NEAR
    strength = max(each for each in STRENGTHS if tried[each] >= enough)
    common = _common(logits, shown)
    some = np.array(own)
    known = np.isfinite(some).any(axis=0)
    means = np.full(shown.shape[1], np.nan)
    means[known] = np.nanmean(some[:, known], axis=0)
    at = shrunk(means, common, shown.sum(axis=0), strength)
    highest = np.where(shown, logits, -np.inf).max(axis=0, initial=-np.inf)
    at = np.where(np.isfinite(highest), np.minimum(at, highest), at)
    fitted = np.where(shown.any(axis=0), np.clip(_chances(at) - 1e-6, _EDGE, 1 - _EDGE), NEVER)
    values = tuple(round(float(each), 6) for each in fitted)
    return Thresholds(
        values,
        round(float(_chances(np.array(common))), 6),
        strength,
        tuple(int(number) for number in shown.sum(axis=0)),
        round(tried[strength], 4),
    )


def _logits(chances: Chances) -> NDArray[np.float64]:
    inner = np.clip(chances.astype(np.float64), 1e-7, 1 - 1e-7)
    return np.asarray(np.log(inner / (1 - inner)), np.float64)


def _chances(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-logits)), np.float64)


def _best(logits: NDArray[np.float64], shown: Shown) -> NDArray[np.float64]:
    """The threshold (K,) at which each pattern's F1 is highest: in the middle of two probabilities; nan for a pattern of too few images."""
    found = np.full(shown.shape[1], np.nan)
    for pattern in np.flatnonzero(shown.sum(axis=0) >= _FEWEST):
        order = np.argsort(-logits[:, pattern], kind="stable")
        falling, right = logits[order, pattern], np.cumsum(shown[order, pattern])
        f1 = 2 * right / (np.arange(1, len(order) + 1) + right[-1])
        # Equal probabilities are told together.
        last = np.append(np.diff(falling) < 0, True)
        at = int(np.argmax(np.where(last, f1, -1.0)))
        below = falling[at + 1] if at + 1 < len(order) else falling[at] - 1.0
        found[pattern] = (falling[at] + below) / 2
    return found


def _common(logits: NDArray[np.float64], shown: Shown) -> float:
    """The one threshold at which macro F1 is highest: the middle of the best ones of a grid."""
    grid = np.linspace(-5.0, 3.0, 65)
    reached = np.array([macro_f1(logits >= at, shown) for at in grid])
    return float(grid[reached >= np.nanmax(reached) - 1e-3].mean()) if np.isfinite(reached).any() else 0.0


def shrunk(
    own: NDArray[np.float64], common: float, images: NDArray[np.int64], strength: float
) -> NDArray[np.float64]:
    """Thresholds (K,) between the patterns' own, nan where there is none, and the common one, which weighs as much as `strength` images."""
    weight = images / np.maximum(images + strength, 1e-9)
    return np.where(np.isfinite(own), weight * np.nan_to_num(own) + (1 - weight) * common, common)
