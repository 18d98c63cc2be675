"""Control charts: is a plate's statistic where those of the last nights were?

Centre and spread are robust (median, and 1.4826 times the median absolute deviation), so that a plate which was out of
control does not widen the limits for the next one (Rousseeuw & Croux, J. Am. Stat. Assoc. 88, 1993).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from cellcount_core.domain.columns import Merge, Schema
from cellcount_core.nightly.config import History

_TO_SD = 1.4826
_LEAST_SPREAD = 0.02


def statistics_of(schema: Schema) -> dict[str, str]:
    """What is watched of a plate, by name, and what it is called: the mean of what is counted, shares, and medians of what is
    declared to be watched."""
    counts = {
        f"{one.name}_per_field": f"{one.unit} a field" for one in schema.fields if one.merge is Merge.COUNT
    }
    shares = {
        f"{one.name}_share": f"share of {one.name}" for one in schema.fields if one.merge is Merge.SHARE
    }
    medians = {
        one.name: f"median {one.name}" + (f" ({one.unit})" if one.unit not in ("", "1") else "")
        for one in schema.fields
        if one.watched
    }
    return counts | shares | medians


@dataclass(frozen=True, slots=True)
class Reading:
    """One statistic of one plate against its limits; without limits where there is too little to compare with. `title` is what the
    statistic is called."""

    plate: str
    statistic: str
    title: str
    value: float
    centre: float | None
    low: float | None
    high: float | None
    plates: int

    @property
    def flagged(self) -> bool:
        """Outside its limits."""
        return self.low is not None and self.high is not None and not self.low <= self.value <= self.high


def limits(values: Sequence[float], history: History) -> tuple[float, float, float] | None:
    """Centre, lower and upper limit from earlier plates, or None where they are too few.

    The spread is taken to be at least 2 % of the centre: a handful of equal plates must not flag the first that differs.
    """
    if len(values) < history.least:
        return None
    centre = median(values)
    spread = _TO_SD * median(abs(value - centre) for value in values)
    half = history.sigmas * max(spread, _LEAST_SPREAD * abs(centre))
    return centre, centre - half, centre + half


def readings(
    plate: str,
    statistics: Mapping[str, float | None],
    before: Sequence[Mapping[str, float | None]],
    history: History,
    titles: Mapping[str, str],
) -> list[Reading]:
    """Every statistic of `titles` (what they are called, by name) that `plate` has, against the plates `before`."""
    found = []
    for name, title in titles.items():
        value = statistics.get(name)
        if value is None:
            continue
        earlier = [each for one in before if (each := one.get(name)) is not None]
        bounds = limits(earlier, history)
        centre, low, high = bounds or (None, None, None)
        found.append(Reading(plate, name, title, value, centre, low, high, len(earlier)))
    return found
