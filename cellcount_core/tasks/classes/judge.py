"""How far told classes can be relied on: confusion, calibration, whether they are told apart at all, and what a training's curves say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

CHANCE = 0.05
"""Classes are told apart if chance alone does as well in fewer cases than this."""

_SHUFFLES = 1999
_BINS = 10
_ALL_RIGHT, _BEHIND, _ABOVE = 0.98, 0.15, 0.05

_FEWEST = 10
"""Of less images than this, one more or less that is right is more than a tenth."""


def confusion(true: Integers, told: Integers, classes: int) -> Integers:
    """How many images of each true class (rows) were told as each class (columns): (K, K)."""
    return np.bincount(true * classes + told, minlength=classes**2).reshape(classes, classes)


def balanced_accuracy(true: Integers, told: Integers) -> float:
    """The mean over the classes that there are of the share of their images that is told right."""
    return float(np.mean([float((told[true == one] == one).mean()) for one in np.unique(true)]))


def calibration_error(sure: Floats, right: NDArray[np.bool_]) -> float:
    """How far the probability of the told class is off the share that is right: the mean over ten bins, weighted by their images (Naeini 2015).

    >>> calibration_error(np.full(10, 0.9), np.arange(10) < 6)  # 90 % sure, 60 % right
    0.3
    """
    bins = np.minimum((sure * _BINS).astype(int), _BINS - 1)
    off = [
        (bins == one).sum() * abs(float(sure[bins == one].mean()) - float(right[bins == one].mean()))
        for one in np.unique(bins)
    ]
    return round(float(np.sum(off)) / len(sure), 10)


def chance_of_as_good(true: Integers, told: Integers, groups: Sequence[str], seed: int = 0) -> float:
    """How often the balanced accuracy is as good as it is by chance alone (0..1): a permutation test.

    Classes are dealt out anew to whole groups of images, because images of one photo are no independent witnesses. With less than two groups of
    a class nothing can be told, and 1 is given.
    """
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    # A group whose images have several classes counts as one of the class that most of them have.
    own = np.array([np.bincount(true[member == one]).argmax() for one in range(len(names))])
    if len(np.unique(own)) < 2 or min(np.bincount(own)[np.unique(own)]) < 2:
        return 1.0
    rng = np.random.default_rng(seed)
    least = balanced_accuracy(own[member], told) - 1e-12
    as_good = sum(balanced_accuracy(rng.permutation(own)[member], told) >= least for _ in range(_SHUFFLES))
    return (1 + as_good) / (1 + _SHUFFLES)


def distinguishable(chance: float) -> str:
    """What the permutation test says, in words."""
    if chance >= CHANCE:
        return f"not distinguishable: chance alone does as well in {chance:.0%} of cases, so no class that is told means anything"
    return f"told apart: chance alone does as well in {max(chance, 0.0005):.2%} of cases"


@dataclass(frozen=True, slots=True)
class Curves:
    """How often the class was told right, as shares 0..1: of what trained (`train`) and of `watched` images that did not (`held_out`), one a
    point of the curves, and of `images` that were measured at the end (`measured`)."""

    train: Sequence[float]
    held_out: Sequence[float]
    watched: int
    measured: float
    images: int


def what_curves_say(curves: Curves, classes: int) -> str:
    """What curves say of a training, in words. Less than ten images say nothing, and the watched and the measured ones must agree."""
    if not curves.train:
        return "nothing was trained"
    last = max(1, len(curves.train) // 4)
    seen = float(np.mean(curves.train[-last:]))
    watched = (float(np.mean(curves.held_out[-last:])), curves.watched, "watched")
    others = [
        other for other in (watched, (curves.measured, curves.images, "measured")) if other[1] >= _FEWEST
    ]
    told = f"{seen:.0%} of the training images right, " + " and ".join(
        f"{share:.0%} of {number} {name} ones" for share, number, name in others
    )
    if not others:
        return (
            f"too few images to say whether it learns or remembers: {curves.watched} are watched and {curves.images} measured, {_FEWEST} or more "
            f"expected ({seen:.0%} of the training images right)"
        )
    guessed = 1 / classes + _ABOVE
    if seen < guessed and all(share < guessed for share, _, _ in others):
        return f"not learning: {told}, where guessing gives {1 / classes:.0%}"
    behind = [seen - share > _BEHIND for share, _, _ in others]
    if all(behind):
        first = next((at for at, share in enumerate(curves.train, 1) if share >= _ALL_RIGHT), None)
        when = f", and all of the training images from point {first} on" if first else ""
        return f"memorising: {told}{when}: more images or more augmentation are needed, not more steps"
    return f"undecided: {told}: the two sets of images differ" if any(behind) else f"learning: {told}"
