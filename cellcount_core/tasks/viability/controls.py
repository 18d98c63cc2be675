"""Thresholds from control wells: cells that are known to be all live or all dead, or nearly so (see rule.py for what a rule is)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.tasks.viability.rule import (
    FLATTEST,
    MOST_SPILL,
    STEEPEST,
    RoleRule,
    noise_floor,
    spill_over,
    split_populations,
    unit_of,
)

Floats = NDArray[np.float64]

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
    unit = unit_of(noise)
    low, high = (np.sort(np.arcsinh(cells.signal / unit)) for cells in (negative, positive))
    splits = [split_populations(cells.signal, cells.other, noise) for cells in (negative, positive)]
    lower, upper = (None if split is None else math.asinh(split.threshold / unit) for split in splits)
    steepness, scattered = STEEPEST / 4, False
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
    at = max(at, math.asinh(noise_floor(noise) / unit))
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
    split = split_populations(negative.signal, negative.other, noise)
    own = np.ones(negative.signal.size, np.bool_) if split is None else negative.signal <= split.threshold
    found = spill_over(negative.signal[own], negative.other[own], noise, other_noise)
    if found > MOST_SPILL and not positive.signal.size:
        raise ConfigFault(
            f"run.viability.controls: the cells of the {'live' if role == 'dead' else 'dead'} control show {found:.0%} of their other signal in the "
            f"role {role!r}, which is more than spills over (up to {MOST_SPILL:.0%}): look whether the wells are what they should be, give a "
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


def _centre(scaled: Floats) -> tuple[float, float]:
    middle = float(np.median(scaled))
    return middle, 1.4826 * float(np.median(np.abs(scaled - middle)))


def _between(low: Floats, high: Floats) -> tuple[float, float]:
    """A threshold between ascending control signals, and its steepness: in the gap, or where fewest cells are on the wrong side.

    In the gap it is nearer to the positive cells, because the light of bright neighbours, which a control of negative cells alone has not,
    reaches negative cells.
    """
    left, right = float(np.quantile(low, 1 - _SAFE)), float(np.quantile(high, _SAFE))
    if left < right:
        return left + _TOWARDS_POSITIVE * (right - left), float(
            np.clip(8.0 / (right - left), FLATTEST, STEEPEST)
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
    return float(tried[best[widest]] + _TOWARDS_POSITIVE * gaps[widest]), FLATTEST
