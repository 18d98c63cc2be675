"""What a group of fields comes to: a well, a plate, the whole run. Groups merge, in key order, into larger ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from cellcount_core.domain.columns import KEY, MOMENTS, REASON, STATUS, WARNINGS, Column, Merge, Schema, Value
from cellcount_core.domain.doubts import code_of
from cellcount_core.domain.errors import LedgerFault, Status
from cellcount_core.domain.fields import FieldKey
from cellcount_core.domain.fingerprint import canonical_json
from cellcount_core.domain.moments import Moments
from cellcount_core.domain.totals import (
    Merged,
    SumTotal,
    Total,
    empty_totals,
    merged_columns,
    total_values,
)
from cellcount_core.tables.schema import TableName, misfits, table_schema


@dataclass(frozen=True, slots=True)
class CountedField:
    """What the larger tables need of one row of the fields table; `values` are what it gives to the totals, in their order."""

    key: FieldKey
    status: str
    reason: str | None
    warnings: tuple[str, ...]
    values: tuple[Merged, ...]


@dataclass(slots=True)
class Tally:
    """Running totals of a group: how its fields ended, what they warn of, and what those that were counted come to."""

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
        if counted.status == Status.OK.value:
            for total, value in zip(self.totals, counted.values, strict=True):
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
        """Fields expected."""
        return self.statuses.total()

    @property
    def ok(self) -> int:
        """Fields counted."""
        return self.statuses[Status.OK.value]

    @property
    def counts(self) -> list[SumTotal]:
        """The totals of what is counted."""
        return [
            total
            for total in self.totals
            if isinstance(total, SumTotal) and total.column.merge is Merge.COUNT
        ]

    def columns(self) -> dict[str, Value]:
        """The columns that wells and plates share, by name."""
        return {
            "fields_expected": self.fields,
            **{f"fields_{status.value}": self.statuses[status.value] for status in Status},
            "fields_warned": self.warned,
            WARNINGS.name: canonical_json(dict(self.warnings)),
            **total_values(self.totals),
        }


def empty_tally(schema: Schema) -> Tally:
    """The tally of no fields."""
    return Tally(empty_totals(schema))


def counted_fields(key: str, table: pa.Table, schema: Schema, fingerprint: str) -> Iterator[CountedField]:
    """The rows of a fields part, in order. Raises LedgerFault naming `key` if its columns are not those of the schema."""
    for wrong in misfits(table, table_schema(TableName.FIELDS, schema, fingerprint)):
        raise LedgerFault(f"{key}: {wrong}")
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
    own: list[Merged] = beside[-1]
    return own


def _moments(values: Sequence[float | None]) -> Moments:
    n, mean, m2, low, high = values
    if not n or mean is None or m2 is None or low is None or high is None:
        return Moments()
    return Moments(int(n), mean, m2, low, high)
