"""By which rule a cell counts as positive in a role: a threshold on its signal, given, or found as the gap between two populations of cells
(for control wells: controls.py).

A signal is how bright a cell is above its background, in raw units of the channel. What spills over from the other role, in proportion to that
role's signal, is taken off first. Signals are compared on the scale asinh(signal / unit), which is linear within the noise and
logarithmic above it, so that a dim stain is told from none as well as a bright one.

Two populations are two only if they are far apart (`_APART`), both well filled, and differ in more than how bright the other role is:
cells with more of the other stain spill more over, and that alone makes nobody dead. Where there is one population, it is positive if its
signal is at least `_RATIO` of that in the other role, or, without another role, if it stands above the noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

Floats = NDArray[np.float64]

_UNIT_NOISES = 2.0
"""The scale of signals is linear up to about so many standard deviations of a pixel's noise."""

_FLOOR_NOISES = 1.5
"""A signal below so many standard deviations of a pixel's noise is none: the mean over a cell's pixels is far surer than a pixel."""

_FEWEST = 5
_LEAST_SHARE = 0.002
"""Cells, and share of all cells, that the smaller of two populations has at least."""

_MOST_CELLS = 20_000
"""Of more cells so many are taken, evenly spread over their signals, which bounds the time that a plate takes."""

_APART = 2.5
"""Standard deviations (the mean of both populations') that two populations are apart at least."""

_FOLD = 2.5
"""Times that the upper population's signal is above the lower one's, at least."""

_REACH = 2.75
"""Standard deviations below the mean of the upper population beyond which hardly any cell of it lies."""

_BETTER = 20.0
"""By how much two populations must explain the signals better than one, beyond what their three more numbers are worth (BIC)."""

_OTHER_FOLD = 1.8
"""Times that the upper population's signal is above the lower one's in relation to the other role's, at least."""

_RATIO = 0.2
_SMALL_RATIO = 0.1
"""One population is positive from this share of the other role's signal on; the threshold is then, or else, the smaller share."""

_SHOWS = 5.0
"""Standard deviations of noise from which on a cell's signal in the other role can tell what spills over."""

_FEWEST_SPILLING = 20
_LEAST_SPILL_NOISES = 0.3
MOST_SPILL = 0.4
_NARROWEST = 0.12
_ROUNDS = 60
_STARTS = (0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97, 0.99)
STEEPEST, FLATTEST = 40.0, 2.0
_DIGITS = 5


@dataclass(frozen=True, slots=True)
class RoleRule:
    """When a cell is positive in a role: if its signal, less `spill` times that in the other role, exceeds `threshold` (raw units).

    `unit` is that of the signals' scale. `steepness` says how fast the probability of being positive rises there. `populations` is 2 if
    the threshold lies between two populations, 1 if only one was seen, 0 if the threshold was given or found on controls.
    """

    threshold: float
    spill: float
    unit: float
    steepness: float
    populations: int = 0

    def clean(self, signal: Floats, other: Floats) -> Floats:
        """The signal (n,) without what spills over from the other role's (n,)."""
        return signal - self.spill * np.maximum(other, 0.0)

    def probability(self, clean: Floats) -> Floats:
        """How probable it is (0..1) that cells of these signals (n,) are positive; one half at the threshold."""
        away = np.arcsinh(clean / self.unit) - math.asinh(self.threshold / self.unit)
        return np.asarray(1.0 / (1.0 + np.exp(-np.clip(self.steepness * away, -50.0, 50.0))), np.float64)

    def numbers(self, role: str) -> dict[str, float]:
        """The rule as plain numbers, rounded as far as they mean something."""
        given = {
            "threshold": self.threshold, "spill": self.spill, "unit": self.unit, "steepness": self.steepness,
            "populations": float(self.populations),
        }  # fmt: skip
        return {f"{role}_{name}": float(f"{value:.{_DIGITS}g}") for name, value in given.items()}


def rule_in(numbers: Mapping[str, float], role: str) -> RoleRule | None:
    """The rule of a role that was written as `numbers`; None if there is none."""
    if f"{role}_threshold" not in numbers:
        return None
    threshold, spill, unit, steepness, populations = (
        numbers[f"{role}_{name}"] for name in ("threshold", "spill", "unit", "steepness", "populations")
    )
    return RoleRule(threshold, spill, unit, steepness, int(populations))


def given_rule(threshold: float, spill: float, noise: float) -> RoleRule:
    """The rule of a threshold that was given."""
    return RoleRule(threshold, spill, unit_of(noise), STEEPEST / 4)


def above_noise(noise: float) -> RoleRule:
    """The rule by which a cell is positive in a role if it stands above that role's noise."""
    return RoleRule(noise_floor(noise), 0.0, unit_of(noise), STEEPEST / 4)


def between_populations(
    signal: Floats, other: Floats, noise: float, other_noise: float, spill: float | None
) -> RoleRule:
    """The rule from the signals (n,) of cells that may be positive or not; `other` are their signals in the other role.

    `noise` and `other_noise` are standard deviations of a pixel's noise. `spill` is what was given, None to find it.
    """
    start = spill or 0.0
    plain = split_populations(signal - start * np.maximum(other, 0.0), other, noise)
    if plain is None:
        return _of_one(signal, other, noise, other_noise, spill)
    negative = (signal - start * np.maximum(other, 0.0)) <= plain.threshold
    found = spill_over(signal[negative], other[negative], noise, other_noise) if spill is None else spill
    if spill is None and found > MOST_SPILL:
        # No light spills over so much: the dimmer population is stained as well.
        return _of_one(signal, other, noise, other_noise, spill)
    again = split_populations(signal - found * np.maximum(other, 0.0), other, noise)
    return replace(plain, spill=start) if again is None else replace(again, spill=found)


def unit_of(noise: float) -> float:
    return _UNIT_NOISES * max(noise, 0.5)


def noise_floor(noise: float) -> float:
    return _FLOOR_NOISES * max(noise, 0.5)


def spill_over(signal: Floats, other: Floats, noise: float, other_noise: float) -> float:
    """The share of the other role's signal that shows in cells without a signal of their own; 0 if it drowns in the noise."""
    shown = other > _SHOWS * max(other_noise, 0.5)
    if np.count_nonzero(shown) < _FEWEST_SPILLING:
        return 0.0
    share = float(np.median(signal[shown] / other[shown]))
    drowns = share * float(np.median(other[shown])) < _LEAST_SPILL_NOISES * max(noise, 0.5)
    return 0.0 if drowns else min(share, 0.9)


def _of_one(signal: Floats, other: Floats, noise: float, other_noise: float, spill: float | None) -> RoleRule:
    """The rule where only one population is seen."""
    unit, floor = unit_of(noise), noise_floor(noise)
    shown = other > _SHOWS * max(other_noise, 0.5)
    # Cells that the other role hardly shows cannot owe their signal to it.
    if 2 * np.count_nonzero(shown) <= signal.size:
        return RoleRule(floor, spill or 0.0, unit, STEEPEST / 4, populations=1)
    usual = float(np.median(other[shown]))
    share = float(np.median(signal[shown] / other[shown]))
    threshold = max(floor, _SMALL_RATIO * usual)
    if spill is None:
        spill = spill_over(signal, other, noise, other_noise) if share < _RATIO else 0.0
    return RoleRule(threshold, spill, unit, STEEPEST / 4, populations=1)


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two normal populations on the signals' scale: weights, means and standard deviations, the lower one first."""

    weights: tuple[float, float]
    means: tuple[float, float]
    sds: tuple[float, float]


def split_populations(signal: Floats, other: Floats, noise: float) -> RoleRule | None:
    """The rule between two populations of a signal; None if they are one."""
    unit, n = unit_of(noise), signal.size
    if n < 2 * _FEWEST:
        return None
    scaled = np.sort(np.arcsinh(signal / unit))
    if n > _MOST_CELLS:
        scaled = scaled[np.linspace(0, n - 1, _MOST_CELLS).astype(np.int64)]
    best = _best_pair(scaled)
    if best is None:
        return None
    likelihood, pair = best
    (low, high), (narrow, wide), weights = pair.means, pair.sds, pair.weights
    if not _better_than_one(scaled, likelihood):
        return None
    if min(weights) * n < max(_FEWEST, _LEAST_SHARE * n):
        return None
    if high - low < _APART * (narrow + wide) / 2 or unit * math.sinh(high) < noise_floor(noise):
        return None
    if math.sinh(high) < _FOLD * max(math.sinh(max(low, 0.0)), 1e-9):
        return None
    at = _crossing(pair)
    threshold = unit * math.sinh(at)
    if not _differs_beside(signal, other, threshold, noise):
        return None
    slope = (at - low) / narrow**2 + (high - at) / wide**2
    return RoleRule(
        max(threshold, noise_floor(noise)),
        0.0,
        unit,
        float(np.clip(slope, FLATTEST, STEEPEST)),
        populations=2,
    )


def _differs_beside(signal: Floats, other: Floats, threshold: float, noise: float) -> bool:
    """Whether cells above the threshold are brighter than those below in relation to the other role too, not by its brightness alone."""
    upper = signal > threshold
    least = max(noise, 0.5)
    relation = np.maximum(signal, least) / np.maximum(other, least)
    if not upper.any() or upper.all():
        return False
    return float(np.median(relation[upper])) >= _OTHER_FOLD * float(np.median(relation[~upper]))


def _better_than_one(scaled: Floats, likelihood: float) -> bool:
    """Whether two populations of this log-likelihood explain the scaled signals clearly better than one does.

    Both are stated up to the same constant.
    """
    alone = -scaled.size * (math.log(max(float(scaled.std()), _NARROWEST)) + 0.5)
    return 2 * (likelihood - alone) > 3 * math.log(scaled.size) + _BETTER


def _best_pair(scaled: Floats) -> tuple[float, _Pair] | None:
    """Log-likelihood and the two normal populations that explain the scaled signals best (expectation maximisation from several starts)."""
    best: tuple[float, _Pair] | None = None
    middles = (scaled[1:] + scaled[:-1]) / 2
    gaps = np.diff(scaled)
    inner = slice(_FEWEST - 1, max(_FEWEST, scaled.size - _FEWEST))
    starts = [float(np.quantile(scaled, share)) for share in _STARTS]
    if gaps[inner].size:
        starts.append(float(middles[inner][int(np.argmax(gaps[inner]))]))
    starts.append((float(scaled[0]) + float(scaled[-1])) / 2)
    for start in starts:
        fitted = _fitted(scaled, start)
        if fitted is not None and (best is None or fitted[0] > best[0]):
            best = fitted
    return best


def _fitted(scaled: Floats, start: float) -> tuple[float, _Pair] | None:
    """Log-likelihood and populations from a first split at `start`; None if one of them vanishes."""
    belongs = np.stack([scaled <= start, scaled > start]).astype(np.float64)
    likelihood = -math.inf
    for _ in range(_ROUNDS):
        held = belongs.sum(axis=1)
        if held.min() < 2:
            return None
        weights = held / scaled.size
        means = belongs @ scaled / held
        spread = np.sqrt((belongs * (scaled - means[:, None]) ** 2).sum(axis=1) / held)
        sds = np.maximum(spread, _NARROWEST)
        density = (
            np.log(weights)[:, None]
            - np.log(sds)[:, None]
            - 0.5 * ((scaled - means[:, None]) / sds[:, None]) ** 2
        )
        total = logsumexp(density, axis=0)
        belongs = np.exp(density - total)
        now = float(total.sum())
        if now - likelihood < 1e-6 * abs(now):
            break
        likelihood = now
    order = np.argsort(means)
    pick = (int(order[0]), int(order[1]))
    pair = _Pair(
        (float(weights[pick[0]]), float(weights[pick[1]])),
        (float(means[pick[0]]), float(means[pick[1]])),
        (float(sds[pick[0]]), float(sds[pick[1]])),
    )
    return likelihood, pair


def _crossing(pair: _Pair) -> float:
    """Where both populations are equally dense between their means, however many cells each has: wells differ in their mixture.

    Not farther below the upper one than hardly any cell of it lies, though: the light of bright neighbours reaches cells of the lower one.
    """
    (low, high), (narrow, wide) = pair.means, pair.sds
    left, right = low, high
    for _ in range(60):
        at = (left + right) / 2
        lower = -math.log(narrow) - 0.5 * ((at - low) / narrow) ** 2
        upper = -math.log(wide) - 0.5 * ((at - high) / wide) ** 2
        left, right = (at, right) if lower > upper else (left, at)
    return max((left + right) / 2, min((low + high) / 2, high - _REACH * wide))
