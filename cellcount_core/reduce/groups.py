"""What a group of fields comes to: a well, a plate, the whole run.

Groups are made in key order and merged in key order into larger ones, so that the same rows give the same bits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter

import pyarrow as pa

from cellcount_core.domain.columns import (
    KEY,
    MOMENTS,
    PLATE,
    REASON,
    STATUS,
    TIMEPOINT,
    WARNINGS,
    WELL,
    Column,
    Merge,
    Schema,
    Value,
)
from cellcount_core.domain.doubts import Doubt, code_of
from cellcount_core.domain.errors import LedgerFault, Status
from cellcount_core.domain.fields import FieldKey
from cellcount_core.domain.fingerprint import canonical_json
from cellcount_core.domain.statistics import Moments
from cellcount_core.domain.totals import (
    Merged,
    PercentTotal,
    SharedTotal,
    SumTotal,
    Total,
    empty_totals,
    merged_columns,
    total_values,
)
from cellcount_core.output.parts import FieldsPart
from cellcount_core.output.schema import TableName, misfits, table_schema


@dataclass(frozen=True, slots=True)
class CountedField:
    """What the larger tables need of one row of the fields table. `values` are what the row contributes to the totals, in their order."""

    key: FieldKey
    status: str
    reason: str | None
    warnings: tuple[str, ...]
    values: tuple[Merged, ...]


@dataclass(slots=True)
class Tally:
    """Running totals of a group: how many fields ended with each status, what they warn of, and what the counted ones come to."""

    totals: list[Total]
    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)
    warned: int = 0

    def add(self, counted: CountedField) -> None:
        """Add one field."""
        self.statuses[counted.status] += 1
        if counted.reason is not None:
            self.reasons[counted.reason] += 1
        self.warnings.update({code_of(warning) for warning in counted.warnings})
        self.warned += bool(counted.warnings)
        ok = counted.status == Status.OK.value
        for total, value in zip(self.totals, counted.values, strict=True):
            if ok or isinstance(total, SharedTotal):
                total.add(value)

    def merge(self, other: Tally) -> None:
        """Add a group whose fields come after those of this one."""
        self.statuses.update(other.statuses)
        self.reasons.update(other.reasons)
        self.warnings.update(other.warnings)
        self.warned += other.warned
        for mine, its in zip(self.totals, other.totals, strict=True):
            mine.merge(its)

    @property
    def fields(self) -> int:
        """Number of fields expected."""
        return self.statuses.total()

    @property
    def ok(self) -> int:
        """Number of fields counted."""
        return self.statuses[Status.OK.value]

    @property
    def counts(self) -> list[SumTotal]:
        """The totals of the columns that count something."""
        return [
            total
            for total in self.totals
            if isinstance(total, SumTotal) and total.column.merge is Merge.COUNT
        ]

    @property
    def concerns(self) -> set[str]:
        """Codes of what should be known of the group's percentages."""
        percentages = (total for total in self.totals if isinstance(total, PercentTotal))
        return {concern.value for total in percentages for concern in total.concerns}

    def columns(self) -> dict[str, Value]:
        """The cells that the wells and plates tables share, by name."""
        return {
            "fields_expected": self.fields,
            **{f"fields_{status.value}": self.statuses[status.value] for status in Status},
            "fields_warned": self.warned,
            WARNINGS.name: canonical_json(dict(self.warnings)),
            **total_values(self.totals),
        }


def empty_tally(schema: Schema) -> Tally:
    """The tally of a group that has no fields yet."""
    return Tally(empty_totals(schema))


def counted_fields(part: FieldsPart, schema: Schema) -> Iterator[CountedField]:
    """The rows of a fields part, in order. Raises LedgerFault, naming the part, if its columns are not those of the schema."""
    table = part.table
    for wrong in misfits(table, table_schema(TableName.FIELDS, schema, part.fingerprint)):
        raise LedgerFault(f"{part.key}: {wrong}")
    plain = [column.name for column in (*KEY[:4], STATUS, REASON, WARNINGS)]
    rows = zip(*(table.column(name).to_pylist() for name in plain), strict=True)
    merged = zip(*(_given(column, table, schema) for column in merged_columns(schema)), strict=True)
    values = merged if merged_columns(schema) else iter([()] * table.num_rows)
    for (plate, well, site, timepoint, status, reason, warnings), given in zip(rows, values, strict=True):
        yield CountedField(FieldKey(plate, well, site, timepoint), status, reason, tuple(warnings), given)


def _given(column: Column, table: pa.Table, schema: Schema) -> Sequence[Merged]:
    """What each row gives to the total of a column."""
    if column in schema.measured:
        parts = zip(*(table.column(f"{prefix}_{column.name}").to_pylist() for prefix in MOMENTS), strict=True)
        return [_moments(values) for values in parts]
    beside = [table.column(name).to_pylist() for name in (*column.of, column.name)]
    if column.merge is Merge.AREA:
        return [None if None in row else row[0] * row[1] * row[2] ** 2 for row in zip(*beside, strict=True)]
    if column.merge is Merge.SHARE:
        trials, hits = beside
        return list(zip(hits, trials, strict=True))
    if column.merge in (Merge.PERCENT, Merge.RATIO):
        first, second, _ = beside
        return [None if None in pair else pair for pair in zip(first, second, strict=True)]
    own: list[Merged] = beside[-1]
    return own


def _moments(values: Sequence[float | None]) -> Moments:
    n, mean, m2, low, high = values
    if not n or mean is None or m2 is None or low is None or high is None:
        return Moments()
    return Moments(int(n), mean, m2, low, high)


@dataclass(frozen=True, slots=True)
class WellTotals:
    """A well, with the tally of each of its time points in their order."""

    plate: str
    name: str
    timepoints: dict[int, Tally]


def wells(fields: Iterable[CountedField], schema: Schema) -> Iterator[WellTotals]:
    """The wells of `fields`, which must come in key order. One well is held at a time."""
    for (plate, name), group in groupby(fields, key=attrgetter("key.plate", "key.well")):
        timepoints: dict[int, Tally] = {}
        for counted in group:
            if counted.key.timepoint not in timepoints:
                timepoints[counted.key.timepoint] = empty_tally(schema)
            timepoints[counted.key.timepoint].add(counted)
        yield WellTotals(plate, name, dict(sorted(timepoints.items())))


def well_rows(well: WellTotals) -> list[dict[str, Value]]:
    """The rows of the wells table for one well, one for each time point."""
    return [
        {PLATE.name: well.plate, WELL.name: well.name, TIMEPOINT.name: timepoint, **tally.columns()}
        for timepoint, tally in well.timepoints.items()
    ]


@dataclass(slots=True)
class PlateTotals:
    """Running totals of a plate, or of the whole run. A well is `complete` if every field of it was counted. `well_concerns` counts the wells
    by what should be known of their percentages."""

    name: str
    tally: Tally
    wells: int = 0
    complete: int = 0
    well_concerns: Counter[str] = field(default_factory=Counter)

    def add(self, well: WellTotals) -> None:
        """Add a well that comes after those added so far."""
        self.wells += 1
        self.complete += all(tally.ok == tally.fields for tally in well.timepoints.values())
        for tally in well.timepoints.values():
            self.tally.merge(tally)
            self.well_concerns.update(tally.concerns)

    def merge(self, other: PlateTotals) -> None:
        """Add a plate whose wells come after those added so far."""
        self.wells += other.wells
        self.complete += other.complete
        self.well_concerns.update(other.well_concerns)
        self.tally.merge(other.tally)


_OF_MOST_FIELDS = (
    Doubt.DIAMETER_UNLIKE, Doubt.OUT_OF_DOMAIN, Doubt.BRIGHT_BACKGROUND, Doubt.DARK_BACKGROUND, Doubt.LOOKS_LIKE_MASK, Doubt.SIZE_ABSURD,
    Doubt.SIZE_UNLIKE, Doubt.NOTHING_FOUND, Doubt.FEW_FOUND, Doubt.ALL_GATED,
)  # fmt: skip
"""Doubts about a field that, where most counted fields of a plate share one, are doubts about the plate. A diameter that is wrong comes
first, because it brings others with it."""

_OF_ANY_FIELD = (Doubt.CHUNKS_MOSTLY_MISSING,)
"""Doubts about a field that are doubts about the plate where one counted field has one."""

_HUNDREDS = 100
"""A plate whose fields, at the median of the other plates, would hold so many objects should hold more than one for each hundred."""


def plates_in_doubt(plates: Sequence[PlateTotals]) -> dict[str, Doubt]:
    """The plates whose counts cannot be trusted as they are: name and reason.

    Either most counted fields share a doubt (out of domain, the wrong kind of background, masks, an absurd object size, one that the images
    contradict or the model is not made for, or things of which hardly any was found), or most of one field's image was never written, or the plate has hardly an object where
    the other plates have hundreds.
    """
    hardly = {name for number in range(_counted(plates)) for name in _hardly_any(plates, number)}
    found: dict[str, Doubt] = {}
    for plate in plates:
        tally = plate.tally
        shared = [doubt for doubt in _OF_MOST_FIELDS if 2 * tally.warnings[doubt] > tally.ok > 0]
        shared += [doubt for doubt in _OF_ANY_FIELD if tally.warnings[doubt]]
        if plate.name in hardly:
            shared.insert(0, Doubt.NO_OBJECTS)
        if shared:
            found[plate.name] = shared[0]
    return found


def _counted(plates: Sequence[PlateTotals]) -> int:
    """How many things are counted in each plate."""
    return len(plates[0].tally.counts) if plates else 0


def _hardly_any(plates: Sequence[PlateTotals], number: int) -> Iterator[str]:
    """Plates with hardly one of the things counted (the first, the second …) where the other plates have hundreds."""
    totals = [(plate.name, plate.tally.counts[number]) for plate in plates]
    ordered = sorted(mean for _, total in totals if (mean := total.mean) is not None)
    for name, total in totals:
        if (mean := total.mean) is not None:
            expected = _median_without(ordered, mean) * total.fields
            if expected >= _HUNDREDS and total.total * _HUNDREDS <= expected:
                yield name


def _median_without(ordered: Sequence[float], value: float) -> float:
    """Median of the ascending `ordered` without one `value` that is in it; 0 where nothing is left."""
    place, others = ordered.index(value), len(ordered) - 1
    middle = {(others - 1) // 2, others // 2} if others else set()
    chosen = [ordered[index if index < place else index + 1] for index in middle]
    return sum(chosen) / len(chosen) if chosen else 0.0


def plate_row(plate: PlateTotals, doubts: Mapping[str, Doubt]) -> dict[str, Value]:
    """The row of the plates table for one plate. `doubts` maps the plates in doubt to the reason."""
    return {
        PLATE.name: plate.name,
        "wells_expected": plate.wells,
        "wells_complete": plate.complete,
        "reasons": canonical_json(dict(plate.tally.reasons)),
        "doubt": doubts.get(plate.name),
        **plate.tally.columns(),
    }
