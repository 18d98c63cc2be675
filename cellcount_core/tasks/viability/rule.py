"""By which rule a cell counts as positive in a role: a threshold on its signal, found on control wells or as the gap between two populations.

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

from cellcount_core.domain.errors import ConfigFault

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
_MOST_SPILL = 0.4
_NARROWEST = 0.12
_ROUNDS = 60
_STARTS = (0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97, 0.99)
_STEEPEST, _FLATTEST = 40.0, 2.0
_SAFE = 0.005
"""Share of the cells at the edge of a control that do not move its threshold."""

_TOWARDS_POSITIVE = 0.75
_CONTROL_FOLD = 0.7
"""Distance on the signals' scale (a factor of about 2) that a threshold keeps from the only control at least."""

_WIDEST = 0.5
"""Standard deviation on the signals' scale that cells of one kind have at most, as far as it moves a threshold."""

_SCATTERED = 0.9
"""Standard deviation on the signals' scale from which on the cells of a control are hardly of one kind."""

_BAD_CONTROL = 0.02
"""Share of a control's cells on the wrong side of the threshold, above which the plan says so."""

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
    return RoleRule(threshold, spill, _unit(noise), _STEEPEST / 4)


def above_noise(noise: float) -> RoleRule:
    """The rule by which a cell is positive in a role if it stands above that role's noise."""
    return RoleRule(_floor(noise), 0.0, _unit(noise), _STEEPEST / 4)


def between_populations(
    signal: Floats, other: Floats, noise: float, other_noise: float, spill: float | None
) -> RoleRule:
    """The rule from the signals (n,) of cells that may be positive or not; `other` are their signals in the other role.

    `noise` and `other_noise` are standard deviations of a pixel's noise. `spill` is what was given, None to find it.
    """
    start = spill or 0.0
    plain = _split(signal - start * np.maximum(other, 0.0), other, noise)
    if plain is None:
        return _of_one(signal, other, noise, other_noise, spill)
    negative = (signal - start * np.maximum(other, 0.0)) <= plain.threshold
    found = _spill(signal[negative], other[negative], noise, other_noise) if spill is None else spill
    if spill is None and found > _MOST_SPILL:
        # No light spills over so much: the dimmer population is stained as well.
        return _of_one(signal, other, noise, other_noise, spill)
    again = _split(signal - found * np.maximum(other, 0.0), other, noise)
    return replace(plain, spill=start) if again is None else replace(again, spill=found)


@dataclass(frozen=True, slots=True, eq=False)
class ControlCells:
    """The signals (n,) of control cells in a role, and those in the other role."""

    signal: Floats
    other: Floats

    def clean(self, spill: float) -> ControlCells:
        """The same cells without what spills over from the other role."""
        return ControlCells(self.signal - spill * np.maximum(self.other, 0.0), self.other)


@dataclass(frozen=True, slots=True)
class ControlRule:
    """The rule that controls give, and the shares of negative cells above and of positive cells below its threshold.

    `scattered` says that the cells of the only control differ so much that they are hardly of one kind.
    """

    rule: RoleRule
    above: float
    below: float
    scattered: bool = False


def from_controls(negative: ControlCells, positive: ControlCells, noise: float, spill: float) -> ControlRule:
    """The rule from clean control cells that should be `negative` and `positive` (one of the two may be empty).

    A control may hold some cells of the other kind, as a live culture holds a few dead ones: where they are a population of their own, they do
    not move the threshold, and where they are a few, they move it no farther than cells of one kind differ.
    """
    unit = _unit(noise)
    low, high = (np.sort(np.arcsinh(cells.signal / unit)) for cells in (negative, positive))
    splits = [_split(cells.signal, cells.other, noise) for cells in (negative, positive)]
    lower, upper = (None if split is None else math.asinh(split.threshold / unit) for split in splits)
    steepness, scattered = _STEEPEST / 4, False
    if low.size and high.size:
        at, steepness = _between(*_of_their_kind(low, high, lower, upper))
    elif low.size:
        middle, spread = _centre(low)
        scattered, spread = lower is None and spread > _SCATTERED, min(spread, _WIDEST)
        tail = min(float(np.quantile(low, 1 - _SAFE)), middle + max(8 * spread, 2 * _CONTROL_FOLD))
        at = max(tail, middle + max(5 * spread, _CONTROL_FOLD)) if lower is None else lower
    else:
        middle, spread = _centre(high)
        scattered, spread = upper is None and spread > _SCATTERED, min(spread, _WIDEST)
        tail = max(float(np.quantile(high, _SAFE)), middle - max(5 * spread, 2 * _CONTROL_FOLD))
        at = min(tail, middle - max(3 * spread, _CONTROL_FOLD)) if upper is None else upper
    at = max(at, math.asinh(_floor(noise) / unit))
    rule = RoleRule(unit * math.sinh(at), spill, unit, steepness)
    above = float((low > at).mean()) if low.size else 0.0
    below = float((high <= at).mean()) if high.size else 0.0
    return ControlRule(rule, above, below, scattered)


def _of_their_kind(
    low: Floats, high: Floats, lower: float | None, upper: float | None
) -> tuple[Floats, Floats]:
    """Ascending signals of negative and positive controls, without populations in one that are more like the other.

    `lower` and `upper` lie between two populations of the negative and of the positive control; None where there is one.
    """
    negative = float(np.median(low if lower is None else low[low <= lower]))
    positive = float(np.median(high if upper is None else high[high > upper]))
    if lower is not None and 2 * float(np.median(low[low > lower])) > negative + positive:
        low = low[low <= lower]
    if upper is not None and 2 * float(np.median(high[high <= upper])) < negative + positive:
        high = high[high > upper]
    return low, high


def spill_of_controls(
    role: str, negative: ControlCells, positive: ControlCells, noise: float, other_noise: float
) -> float:
    """What share of the other role's signal shows in control cells that should show nothing in this role.

    Raises ConfigFault if that is more than light that spills over, and no positive control shows that it is.
    """
    split = _split(negative.signal, negative.other, noise)
    own = np.ones(negative.signal.size, np.bool_) if split is None else negative.signal <= split.threshold
    found = _spill(negative.signal[own], negative.other[own], noise, other_noise)
    if found > _MOST_SPILL and not positive.signal.size:
        raise ConfigFault(
            f"run.viability.controls: the cells of the {'live' if role == 'dead' else 'dead'} control show {found:.0%} of their other signal in the "
            f"role {role!r}, which is more than spills over (up to {_MOST_SPILL:.0%}): look whether the wells are what they should be, give a "
            f"control of the other kind too, or the share that spills over (--set run.viability.spill.{role}=SHARE)"
        )
    return found


def refuse_swapped(role: str, negative: Floats, positive: Floats) -> None:
    """Raises ConfigFault if control cells that should be negative in a role are the brighter ones."""
    if negative.size and positive.size and float(np.median(positive)) <= float(np.median(negative)):
        raise ConfigFault(
            f"run.viability.controls: in the role {role!r} the cells of the {_CONTROL_OF[role == 'dead'][0]} control are as bright as those of "
            f"the {_CONTROL_OF[role == 'dead'][1]} one or brighter (their medians are {_above(negative)} and {_above(positive)}): are the wells, or "
            "the channels, swapped?"
        )


_CONTROL_OF = {True: ("live", "dead"), False: ("dead", "live")}
"""Whose control should be negative, and whose positive: in the role `dead`, and in the others."""


def _above(signal: Floats) -> str:
    """The median of signals (n,) in words. What is below the background is none: it comes from noise, or from what spills over."""
    middle = float(np.median(signal))
    return f"{middle:.3g} above background" if middle >= 1 else "no signal above background"


def control_warning(plate: str, role: str, found: ControlRule) -> str | None:
    """In words, that a threshold leaves control cells on the wrong side, or that a control looks mixed; None if neither is so."""
    where = f"plate {plate!r}: controls are mixed in the role {role!r}"
    look = "; look whether the control wells are what they should be, or give controls of both kinds"
    if max(found.above, found.below) > _BAD_CONTROL:
        return (
            f"{where}: {found.above:.1%} of the cells that should be negative lie above the threshold ({found.rule.threshold:.3g} above background) and "
            f"{found.below:.1%} of those that should be positive below{look}"
        )
    if found.scattered:
        return (
            f"{where}: the cells of the only control differ so much that the threshold ({found.rule.threshold:.3g} above background) hardly "
            f"holds{look}"
        )
    return None


def _unit(noise: float) -> float:
    return _UNIT_NOISES * max(noise, 0.5)


def _floor(noise: float) -> float:
    return _FLOOR_NOISES * max(noise, 0.5)


def _centre(scaled: Floats) -> tuple[float, float]:
    middle = float(np.median(scaled))
    return middle, 1.4826 * float(np.median(np.abs(scaled - middle)))


def _spill(signal: Floats, other: Floats, noise: float, other_noise: float) -> float:
    """The share of the other role's signal that shows in cells without a signal of their own; 0 if it drowns in the noise."""
    shown = other > _SHOWS * max(other_noise, 0.5)
    if np.count_nonzero(shown) < _FEWEST_SPILLING:
        return 0.0
    share = float(np.median(signal[shown] / other[shown]))
    drowns = share * float(np.median(other[shown])) < _LEAST_SPILL_NOISES * max(noise, 0.5)
    return 0.0 if drowns else min(share, 0.9)


def _of_one(signal: Floats, other: Floats, noise: float, other_noise: float, spill: float | None) -> RoleRule:
    """The rule where only one population is seen."""
    unit, floor = _unit(noise), _floor(noise)
    shown = other > _SHOWS * max(other_noise, 0.5)
    # Cells that the other role hardly shows cannot owe their signal to it.
    if 2 * np.count_nonzero(shown) <= signal.size:
        return RoleRule(floor, spill or 0.0, unit, _STEEPEST / 4, populations=1)
    usual = float(np.median(other[shown]))
    share = float(np.median(signal[shown] / other[shown]))
    threshold = max(floor, _SMALL_RATIO * usual)
    if spill is None:
        spill = _spill(signal, other, noise, other_noise) if share < _RATIO else 0.0
    return RoleRule(threshold, spill, unit, _STEEPEST / 4, populations=1)


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two normal populations on the signals' scale: weights, means and standard deviations, the lower one first."""

    weights: tuple[float, float]
    means: tuple[float, float]
    sds: tuple[float, float]


def _split(signal: Floats, other: Floats, noise: float) -> RoleRule | None:
    """The rule between two populations of a signal; None if they are one."""
    unit, n = _unit(noise), signal.size
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
    if high - low < _APART * (narrow + wide) / 2 or unit * math.sinh(high) < _floor(noise):
        return None
    if math.sinh(high) < _FOLD * max(math.sinh(max(low, 0.0)), 1e-9):
        return None
    at = _crossing(pair)
    threshold = unit * math.sinh(at)
    if not _differs_beside(signal, other, threshold, noise):
        return None
    slope = (at - low) / narrow**2 + (high - at) / wide**2
    return RoleRule(
        max(threshold, _floor(noise)), 0.0, unit, float(np.clip(slope, _FLATTEST, _STEEPEST)), populations=2
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


def _between(low: Floats, high: Floats) -> tuple[float, float]:
    """A threshold between ascending control signals, and its steepness: in the gap, or where fewest cells are on the wrong side.

    In the gap it is nearer to the positive cells, because the light of bright neighbours, which a control of negative cells alone has not,
    reaches negative cells.
    """
    left, right = float(np.quantile(low, 1 - _SAFE)), float(np.quantile(high, _SAFE))
    if left < right:
        return left + _TOWARDS_POSITIVE * (right - left), float(
            np.clip(8.0 / (right - left), _FLATTEST, _STEEPEST)
        )
    tried = np.unique(np.concatenate([low, high]))
    wrong = (
        1
        - np.searchsorted(low, tried, side="right") / low.size
        + np.searchsorted(high, tried, side="right") / high.size
    )
    best = np.flatnonzero(wrong <= wrong.min() + 1e-12)
    gaps = np.append(np.diff(tried), 0.0)[best]
    widest = int(np.argmax(gaps))
    return float(tried[best[widest]] + _TOWARDS_POSITIVE * gaps[widest]), _FLATTEST
