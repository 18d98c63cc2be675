"""How patterns that were found are compared with those that are shown: F1 of each, their mean with its interval, and which are weak.

Two flat thresholds for all patterns stand beside the package's own, since a fitted threshold can be worse than none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.columns import Value
from cellcount_core.domain.errors import ConfigFault, nearest
from cellcount_core.tasks.matching import ImageScore
from cellcount_core.tasks.task import Compared, Found, Truth, TruthKind

Chances = NDArray[np.float64]
"""Probabilities (N, K) of N images and K patterns."""
NEVER = 2.0
"""The threshold, above every probability, of a pattern that is never found: no image that thresholds were fitted to shows it."""

Shown = NDArray[np.bool_]
"""Which image shows which pattern (N, K)."""

COLUMN, SEPARATOR = "patterns", "; "
"""Where what is true of an image names its patterns, and what stands between them."""

FLAT = (0.5, 0.15)
"""Thresholds for all patterns that the package's own are compared with."""

WEAK_F1, FEW_IMAGES = 0.5, 10
"""A pattern below this F1, or shown by fewer images than that, is named as weak."""


def f1_of(told: Shown, shown: Shown) -> NDArray[np.float64]:
    """F1 of each pattern (K,) from what was told and what is shown; nan for a pattern that is neither.

    >>> f1_of(np.array([[True, False], [True, False]]), np.array([[True, False], [False, False]])).round(2).tolist()
    [0.67, nan]
    """
    right, either = (told & shown).sum(axis=0), told.sum(axis=0) + shown.sum(axis=0)
    f1: NDArray[np.float64] = np.divide(
        2.0 * right, either, out=np.full(shown.shape[1], np.nan), where=either > 0
    )
    return f1


def macro_f1(told: Shown, shown: Shown) -> float:
    """The mean of F1 over the patterns that some image shows; nan if there is none."""
    there = shown.any(axis=0)
    return float(f1_of(told, shown)[there].mean()) if there.any() else float("nan")


def bootstrap_macro_f1(
    told: Shown, shown: Shown, *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """The ends of the bootstrap interval of macro F1 over images (percentiles), for what was told of them. (nan, nan) without patterns.

    A pattern that no image of a resample shows is left out of that resample's mean.
    """
    there = shown.any(axis=0)
    if not there.any():
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    count = len(shown)
    drawn = rng.multinomial(count, np.full(count, 1 / count), resamples).astype(np.float64)
    right = drawn @ (told & shown)[:, there].astype(np.float64)
    positives = drawn @ shown[:, there].astype(np.float64)
    either = drawn @ told[:, there].astype(np.float64) + positives
    f1 = np.divide(2 * right, either, out=np.full(right.shape, np.nan), where=positives > 0)
    some = f1[np.isfinite(f1).any(axis=1)]
    low, high = np.quantile(np.nanmean(some, axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def flat(chances: Chances, threshold: float) -> Shown:
    """What one threshold for all patterns says."""
    return np.asarray(chances >= threshold, np.bool_)


def at_thresholds(chances: Chances, thresholds: Sequence[float] | NDArray[np.float64]) -> Shown:
    """What the patterns' own thresholds (K,) say."""
    return np.asarray(chances >= np.asarray(thresholds, np.float64), np.bool_)


@dataclass(frozen=True, slots=True, eq=False)
class ComparedPatterns(Compared):
    """One image: beside its values, the probability of each pattern (K,) and which it shows (K,)."""

    values: Mapping[str, Value] = field(default_factory=dict)
    objects: ImageScore | None = None
    chances: tuple[float, ...] = ()
    shown: tuple[bool, ...] = ()


class PatternScoring:
    """Compares the patterns found in an image with those that it shows."""

    truth = TruthKind.PATTERNS
    headline = "macro_f1"

    def __init__(self, patterns: tuple[str, ...], thresholds: Sequence[float]) -> None:
        self.names = patterns
        self._thresholds = np.asarray(thresholds, np.float64)

    def score(self, truth: Truth, found: Found) -> ComparedPatterns:
        """The values of one image: its patterns, those found, those missed, and those found in excess.

        Raises ConfigFault if the truth names a pattern that the package does not tell.
        """
        true = truth.values[COLUMN].split(SEPARATOR) if truth.values[COLUMN] else []
        for name in true:
            if name not in self.names:
                raise ConfigFault(f"pattern {name!r} is none of the package's{nearest(name, self.names)}")
        chances, told = found.values["probability"], found.values["patterns"]
        assert isinstance(chances, Sequence) and isinstance(told, Sequence)
        missed = [name for name in true if name not in told]
        excess = [str(name) for name in told if name not in true]
        values: dict[str, Value] = {
            "true": SEPARATOR.join(true), "found": SEPARATOR.join(map(str, told)), "missed": SEPARATOR.join(missed), "excess": SEPARATOR.join(excess),
            "right": not missed and not excess,
        }  # fmt: skip
        return ComparedPatterns(
            values,
            chances=tuple(float(chance) for chance in chances),
            shown=tuple(name in true for name in self.names),
        )

    def figures(self, scored: Sequence[Compared]) -> dict[str, Value]:
        """Over all images: macro F1 with its bootstrap interval, that at flat thresholds, F1 and images of each pattern, and the weak ones.

        Macro F1 is the mean over the patterns that some image shows; `patterns` is their number.
        """
        if not scored:
            return {"images": 0, "macro_f1": None}
        chances, shown = _arrays(scored)
        told = at_thresholds(chances, self._thresholds)
        low, high = bootstrap_macro_f1(told, shown)
        each, support = f1_of(told, shown), shown.sum(axis=0)
        return {
            "images": len(scored),
            "patterns": int((support > 0).sum()),
            "macro_f1": _known(macro_f1(told, shown)), "macro_f1_low": _known(low), "macro_f1_high": _known(high),
            **{f"macro_f1_flat_{at:g}": _known(macro_f1(flat(chances, at), shown)) for at in FLAT},
            "micro_f1": _known(2.0 * (told & shown).sum() / max(1, told.sum() + shown.sum())),
            "all_right": sum(bool(one.values["right"]) for one in scored) / len(scored),
            "weak_patterns": len(weak_patterns(self.names, each, support)),
            **{f"f1_{name}": _known(f1) for name, f1 in zip(self.names, each, strict=True)},
            **{f"images_{name}": int(number) for name, number in zip(self.names, support, strict=True)},
        }  # fmt: skip

    def words(self, scored: Sequence[Compared]) -> list[str]:
        """The patterns that are never found, and the weak ones by name, each with its F1 and its number of images."""
        told = never_found(self.names, self._thresholds.tolist())
        if not scored:
            return told
        chances, shown = _arrays(scored)
        f1 = f1_of(at_thresholds(chances, self._thresholds), shown)
        weak = weak_patterns(self.names, f1, shown.sum(axis=0))
        return [*told, f"weak patterns: {SEPARATOR.join(weak)}"] if weak else told


def _arrays(scored: Sequence[Compared]) -> tuple[Chances, Shown]:
    """Probabilities (N, K) of images, and which patterns they show (N, K)."""
    images = [one for one in scored if isinstance(one, ComparedPatterns)]
    return np.array([one.chances for one in images]), np.array([one.shown for one in images], bool)


def never_found(names: Sequence[str], thresholds: Sequence[float]) -> list[str]:
    """In words, the patterns that are never found, whatever an image shows (`NEVER`); [] if there is none."""
    never = [name for name, at in zip(names, thresholds, strict=True) if at == NEVER]
    if not never:
        return []
    return [f"never found, since no image that thresholds were fitted to shows them: {SEPARATOR.join(never)}"]


def weak_patterns(names: Sequence[str], f1: NDArray[np.float64], images: NDArray[np.int64]) -> list[str]:
    """In words, the patterns that are not to be trusted: told badly, or shown by too few images to say; those that no image shows too."""
    told = []
    for name, value, number in zip(names, f1, images, strict=True):
        if not number:
            told.append(f"{name} (no image shows it)")
        elif value < WEAK_F1 or number < FEW_IMAGES:
            told.append(f"{name} (F1 {value:.2f} on {number} image{'s' if number > 1 else ''})")
    return told


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
