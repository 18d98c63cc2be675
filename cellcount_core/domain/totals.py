"""How fields are added up to a well, a plate and the run: a total for each rule of merging (their columns: domain/total_columns.py).

Totals are added up and merged in key order, so the same rows give the same bits however they are cut into parts.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

from cellcount_core.domain.columns import (
    Column,
    Kind,
    Merge,
    Schema,
    Value,
)
from cellcount_core.domain.doubts import Doubt
from cellcount_core.domain.fingerprint import canonical_json
from cellcount_core.domain.statistics import Moments, wilson

AREA = Column("area_mm2", Kind.FLOAT, "mm^2", "imaged area of the counted fields; null without calibration")

_UM2_PER_MM2 = 1e6

Merged = (
    int | float | str | Moments | tuple[int | float, int | float] | Sequence[float] | Sequence[str] | None
)
"""What one field gives to a total: its value; the moments of its objects; a number and what it is a number out of; for the area,
that of the field in µm², None without calibration."""

FEW_CELLS = 100
"""With fewer cells a percentage is told with a warning: the interval of 90 % is then wider than from 82 % to 95 %."""

LOW_PERCENT = 50.0
"""A percentage below this is told with a warning."""


class Total(Protocol):
    """The running total of one column over the fields that were counted."""

    column: Column

    def add(self, value: Merged) -> None:
        """Add what one field contributes."""

    def merge(self, other: Total) -> None:
        """Add the total of fields that come after those of this one."""

    def values(self) -> dict[str, Value]:
        """The cells of a row of wells or plates, by the names that `total_columns` gives them."""
        ...


@dataclass(slots=True)
class KnownTotal(ABC):
    """A total that is not known as soon as one of its fields has no value: the base of sums, pairs, bins and the area.

    `fields` are all that were added, `unknown` those of them without a value.
    """

    column: Column
    fields: int = 0
    unknown: int = 0

    def add(self, value: Merged) -> None:
        self.fields += 1
        if value is None:
            self.unknown += 1
        else:
            self._add(value)

    def merge(self, other: Total) -> None:
        assert isinstance(other, type(self))
        self.fields += other.fields
        self.unknown += other.unknown
        self._merge(other)

    @property
    def known(self) -> bool:
        """Whether there are fields, and all of them have a value."""
        return self.fields > 0 and not self.unknown

    @abstractmethod
    def _add(self, value: Merged) -> None:
        """Add the value of a field that has one."""

    @abstractmethod
    def _merge(self, other: Self) -> None:
        """Add the values of fields that come after those of this total."""

    @abstractmethod
    def values(self) -> dict[str, Value]:
        """See `Total`."""


@dataclass(slots=True)
class SumTotal(KnownTotal):
    """A sum; for COUNT also mean and deviation over fields. Whole numbers are summed exactly, so the results are exact up to one rounding."""

    total: int | float = 0
    squares: int | float = 0

    def _add(self, value: Merged) -> None:
        assert isinstance(value, int | float)
        self.total += value
        self.squares += value**2

    def _merge(self, other: Self) -> None:
        self.total += other.total
        self.squares += other.squares

    @property
    def mean(self) -> float | None:
        """Mean over counted fields; None if no field was counted."""
        return self.total / self.fields if self.fields else None

    @property
    def sd(self) -> float | None:
        """Sample standard deviation over counted fields; None for less than two."""
        n = self.fields
        return math.sqrt((n * self.squares - self.total**2) / (n * (n - 1))) if n > 1 else None

    def values(self) -> dict[str, Value]:
        name = self.column.name
        row: dict[str, Value] = {name: self.total if self.known else None}
        if self.column.merge is Merge.COUNT:
            row |= {f"{name}_per_field_mean": self.mean, f"{name}_per_field_sd": self.sd}
        return row


@dataclass(slots=True)
class PairTotal(KnownTotal):
    """Two numbers of each field, each added up: the base of the totals that compare the two sums."""

    first: int | float = 0
    second: int | float = 0

    def _add(self, value: Merged) -> None:
        assert isinstance(value, tuple)
        self.first += value[0]
        self.second += value[1]

    def _merge(self, other: Self) -> None:
        self.first += other.first
        self.second += other.second

    @property
    def whole(self) -> tuple[int, int]:
        """The two sums, of things that are counted; (0, 0) if a field has none."""
        return (0, 0) if self.unknown else (int(self.first), int(self.second))


class ShareTotal(PairTotal):
    """The first number out of the second, which contains it."""

    def values(self) -> dict[str, Value]:
        name = self.column.name
        hits, trials = self.whole
        return {name: hits if self.known else None, **_share(name, hits, trials)}


def _share(name: str, hits: int, trials: int) -> dict[str, Value]:
    """The cells of a share: hits / trials and the ends of its Wilson interval. Null without any."""
    low, high = wilson(hits, trials) or (None, None)
    return {
        f"{name}_share": hits / trials if trials else None,
        f"{name}_share_low": low,
        f"{name}_share_high": high,
    }


class PercentTotal(PairTotal):
    """The first number in percent of both together."""

    @property
    def concerns(self) -> tuple[Doubt, ...]:
        """What a reader should know of the percentage; () if nothing, or if no field was counted."""
        hits, others = self.whole
        n = hits + others
        few = (Doubt.FEW_CELLS,) if self.fields and n < FEW_CELLS else ()
        low = (Doubt.LOW_VIABILITY,) if n and 100 * hits / n < LOW_PERCENT else ()
        return (*few, *low)

    def values(self) -> dict[str, Value]:
        name = self.column.name
        row: dict[str, Value] = dict(percentage(name, *self.whole))
        return {**row, f"{name}_warnings": "; ".join(_IN_WORDS[each] for each in self.concerns) or None}


class RatioTotal(PairTotal):
    """The first number divided by the second."""

    def values(self) -> dict[str, Value]:
        known_ratio = self.second > 0 and not self.unknown
        return {self.column.name: self.first / self.second if known_ratio else None}


_IN_WORDS = {
    Doubt.FEW_CELLS: f"fewer than {FEW_CELLS} cells",
    Doubt.LOW_VIABILITY: f"below {LOW_PERCENT:.0f} %",
}


def percentage(name: str, hits: int, others: int) -> dict[str, int | float | None]:
    """The cells of a percentage: 100 hits / (hits + others), the ends of its Wilson interval and the number it rests on. Null without any."""
    n = hits + others
    low, high = wilson(hits, n) or (None, None)
    return {
        name: 100 * hits / n if n else None,
        f"{name}_low": None if low is None else 100 * low,
        f"{name}_high": None if high is None else 100 * high,
        f"{name}_n": n,
    }


@dataclass(slots=True)
class BinsTotal(KnownTotal):
    """A list of whole numbers, added up element by element."""

    bins: list[int] = field(default_factory=list)

    def _add(self, value: Merged) -> None:
        assert isinstance(value, Sequence) and not isinstance(value, str)
        self._join([int(each) for each in value])

    def _merge(self, other: Self) -> None:
        self._join(other.bins)

    def _join(self, bins: Sequence[int]) -> None:
        if bins:
            self.bins = [a + b for a, b in zip(self.bins, bins, strict=True)] if self.bins else [*bins]

    def values(self) -> dict[str, Value]:
        return {self.column.name: self.bins if self.known else None}


@dataclass(slots=True)
class VectorTotal:
    """The mean of each element of a list over the fields that have one."""

    column: Column
    classes: tuple[str, ...]
    fields: int = 0
    sums: list[float] = field(default_factory=list)

    def add(self, value: Merged) -> None:
        if value is None:
            return
        assert isinstance(value, Sequence) and not isinstance(value, str)
        self._add([float(each) for each in value], 1)

    def merge(self, other: Total) -> None:
        assert isinstance(other, VectorTotal)
        if other.fields:
            self._add(other.sums, other.fields)

    def _add(self, sums: Sequence[float], fields: int) -> None:
        self.fields += fields
        self.sums = [mine + its for mine, its in zip(self.sums, sums, strict=True)] if self.sums else [*sums]

    def values(self) -> dict[str, Value]:
        names = element_names(self.column.name, self.classes)
        if not self.fields:
            return dict.fromkeys(names)
        return dict(zip(names, (total / self.fields for total in self.sums), strict=True))


@dataclass(slots=True)
class WordTotal:
    """How many fields have each word."""

    column: Column
    words: Counter[str] = field(default_factory=Counter)

    def add(self, value: Merged) -> None:
        self.words[str(value)] += 1

    def merge(self, other: Total) -> None:
        assert isinstance(other, WordTotal)
        self.words.update(other.words)

    def values(self) -> dict[str, Value]:
        return {self.column.name: canonical_json(dict(self.words)) if self.words else None}


_DIFFERENT = 2
"""So many values say that fields do not have the same one; more are not kept."""


@dataclass(slots=True)
class SharedTotal:
    """The value that all fields have, counted or not; null if they have different ones."""

    column: Column
    found: set[str | int | float | None] = field(default_factory=set)

    def add(self, value: Merged) -> None:
        assert value is None or isinstance(value, str | int | float)
        self._join({value})

    def merge(self, other: Total) -> None:
        assert isinstance(other, SharedTotal)
        self._join(other.found)

    def _join(self, values: set[str | int | float | None]) -> None:
        if len(self.found) < _DIFFERENT:
            self.found |= values

    def values(self) -> dict[str, Value]:
        return {self.column.name: next(iter(self.found)) if len(self.found) == 1 else None}


@dataclass(slots=True)
class NamesTotal:
    """How many fields have each of the schema's classes; a field may have none, one or several.

    `told` are those of `fields` of which it is told what they have: a field without a value is part of no share.
    """

    column: Column
    classes: tuple[str, ...]
    fields: int = 0
    told: int = 0
    named: Counter[str] = field(default_factory=Counter)

    def add(self, value: Merged) -> None:
        self.fields += 1
        self.told += value is not None
        self.named.update({str(each) for each in names_of(value)})

    def merge(self, other: Total) -> None:
        assert isinstance(other, NamesTotal)
        self.fields += other.fields
        self.told += other.told
        self.named.update(other.named)

    def values(self) -> dict[str, Value]:
        row: dict[str, Value] = {}
        for one, name in zip(self.classes, element_names(self.column.name, self.classes), strict=True):
            number = self.named[one]
            row |= {name: number if self.fields else None, **_share(name, number, self.told)}
        return row


def names_of(value: Merged) -> Sequence[object]:
    """The names in the cell of a column of names; () for an empty cell."""
    if isinstance(value, str):
        return (value,)
    return value if isinstance(value, Sequence) else ()


@dataclass(slots=True)
class AreaTotal(KnownTotal):
    """The imaged area; not known if one of the fields has no calibration."""

    um2: float = 0.0

    def _add(self, value: Merged) -> None:
        assert isinstance(value, int | float)
        self.um2 += value

    def _merge(self, other: Self) -> None:
        self.um2 += other.um2

    @property
    def mm2(self) -> float | None:
        """Area of the counted fields in mm²; None if one of them has no calibration, or none was counted."""
        return self.um2 / _UM2_PER_MM2 if self.known else None

    def values(self) -> dict[str, Value]:
        return {AREA.name: self.mm2}


@dataclass(slots=True)
class MomentsTotal:
    """Moments over objects, or over fields if the column is one of a field."""

    column: Column
    moments: Moments = field(default_factory=Moments)

    def add(self, value: Merged) -> None:
        if isinstance(value, Moments):
            self.moments = self.moments.merge(value)
        elif value is not None:
            assert isinstance(value, int | float)
            self.moments = self.moments.merge(Moments(1, float(value), 0.0, value, value))

    def merge(self, other: Total) -> None:
        assert isinstance(other, MomentsTotal)
        self.moments = self.moments.merge(other.moments)

    def values(self) -> dict[str, Value]:
        name = self.column.name
        return {name: known(self.moments.mean), f"sd_{name}": known(self.moments.sd)}


def known(value: float | None) -> float | None:
    """The value, or None if it is nan: tables say in one way only that something is not known."""
    return None if value is None or math.isnan(value) else float(value)


def merged_columns(schema: Schema) -> tuple[Column, ...]:
    """The columns that have a total: those of fields, then the measured ones of objects."""
    return (*(column for column in schema.fields if column.merge is not Merge.NONE), *schema.measured)


def empty_totals(schema: Schema) -> list[Total]:
    """Totals of no fields yet, one for each of `merged_columns`."""
    return [_empty(column, schema) for column in merged_columns(schema)]


def _empty(column: Column, schema: Schema) -> Total:
    match column.merge:
        case Merge.COUNT | Merge.SUM:
            return SumTotal(column)
        case Merge.SHARE:
            return ShareTotal(column)
        case Merge.PERCENT:
            return PercentTotal(column)
        case Merge.RATIO:
            return RatioTotal(column)
        case Merge.BINS:
            return BinsTotal(column)
        case Merge.VECTOR:
            return VectorTotal(column, schema.classes)
        case Merge.TALLY:
            return WordTotal(column)
        case Merge.NAMES:
            return NamesTotal(column, schema.classes)
        case Merge.SHARED:
            return SharedTotal(column)
        case Merge.AREA:
            return AreaTotal(column)
        case _:
            return MomentsTotal(column)


def total_values(totals: Sequence[Total]) -> dict[str, Value]:
    """The cells that the totals of a group come to, by name. What is counted also appears per mm²."""
    row: dict[str, Value] = {}
    for total in totals:
        row |= total.values()
    for area in totals:
        if isinstance(area, AreaTotal):
            row |= {
                f"{one.column.name}_per_mm2": one.total / area.mm2 if area.mm2 else None
                for one in totals
                if isinstance(one, SumTotal) and one.column.merge is Merge.COUNT
            }
    return row


def element_names(name: str, classes: Sequence[str]) -> list[str]:
    """The names of the elements of a list of numbers, where each has a column of its own."""
    return [f"{name}_{one}" for one in classes]
