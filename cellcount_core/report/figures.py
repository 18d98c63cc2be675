"""Which fields to show of a run: its range, and what a reader should look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import pyarrow as pa

from cellcount_core.domain.columns import (
    KEY,
    PLATE,
    REASON,
    SITE,
    SOURCE,
    STATUS,
    TIMEPOINT,
    WARNINGS,
    WELL,
    Column,
    Kind,
    Schema,
    names,
)
from cellcount_core.domain.errors import Status
from cellcount_core.domain.fields import FieldKey


class Role(StrEnum):
    """Why a field is shown. Behind most and fewest stands what there is most or fewest of."""

    MOST = "most"
    MEDIAN = "median"
    FEWEST = "fewest"
    EMPTY = "empty"
    FLAGGED = "with a warning"
    FAILED = "not counted"
    BETWEEN = "in between"


@dataclass(frozen=True, slots=True)
class ShownField:
    """A field to show. `found` says in words what was found in it, or by its reason code why nothing was looked for; `why` why it
    is shown; `source` are the files counted, relative to the input."""

    key: FieldKey
    role: Role
    found: str
    why: str
    source: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def title(self) -> str:
        """Where on its plate it is and what was found, in a few words."""
        return f"{self.key.well} site {self.key.site}: {self.found} ({self.why})"


def titles(shown: Sequence[ShownField]) -> list[str]:
    """A title a field; where the fields are of several plates or time points, it names these too, on a line above."""
    plates = {field.key.plate for field in shown}
    times = {field.key.timepoint for field in shown}
    named = []
    for field in shown:
        above = [field.key.plate] if len(plates) > 1 else []
        above += [f"time point {field.key.timepoint}"] if len(times) > 1 else []
        named.append(", ".join(above) + "\n" + field.title if above else field.title)
    return named


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of the fields table; `value` is that of the result by which fields are ranked, None if it has none."""

    key: FieldKey
    status: str
    value: float | None
    found: str
    source: tuple[str, ...]
    warnings: tuple[str, ...]


def choose_fields(fields: pa.Table, schema: Schema, n: int) -> list[ShownField]:
    """At most `n` fields of a fields table, no field twice: the most objects, the median, an empty one, one with warnings, one
    without a count, the fewest (above 0), then what lies between these in count. Equal tables give equal choices, whatever
    the order of their rows: ties go to the first in key order. Fields are ranked by the first result of their task that is a number;
    where none is, they are shown in key order."""
    results = [schema.field(name) for name in schema.results]
    ranked = next((column for column in results if column.kind in (Kind.INT, Kind.FLOAT)), None)
    wanted = [*names(KEY), STATUS.name, REASON.name, SOURCE.name, WARNINGS.name, *schema.results]
    plain = fields.select(wanted).to_pylist()
    rows = sorted((_row(each, results, ranked) for each in plain), key=lambda row: row.key)
    counted = sorted((row for row in rows if row.value), key=lambda row: (row.value or 0, row.key))
    if ranked is None:
        counted = [row for row in rows if row.status == Status.OK]
    wishes: list[tuple[Role, Callable[[], _Row | None]]] = [
        (Role.MOST, lambda: counted[-1] if counted and ranked else None),
        (Role.MEDIAN, lambda: counted[(len(counted) - 1) // 2] if counted and ranked else None),
        (Role.EMPTY, lambda: _first(row for row in rows if row.value == 0)),
        (Role.FLAGGED, lambda: _first(row for row in rows if row.warnings and row.status == Status.OK)),
        (Role.FAILED, lambda: _first(row for row in rows if row.status in {Status.FAILED, Status.MISSING})),
        (Role.FEWEST, lambda: counted[0] if counted and ranked else None),
    ]
    chosen: dict[FieldKey, ShownField] = {}
    for role, find in wishes:
        row = find()
        if row is not None and len(chosen) < n and row.key not in chosen:
            chosen[row.key] = _shown(row, role, ranked)
    for row in _spread([row for row in counted if row.key not in chosen], n - len(chosen)):
        chosen[row.key] = _shown(row, Role.BETWEEN, ranked)
    return list(chosen.values())


def _row(row: dict[str, object], results: Sequence[Column], ranked: Column | None) -> _Row:
    value = None if ranked is None else row[ranked.name]
    return _Row(
        key=FieldKey(
            str(row[PLATE.name]), str(row[WELL.name]), int(str(row[SITE.name])), int(str(row[TIMEPOINT.name]))
        ),
        status=str(row[STATUS.name]),
        value=None if value is None else float(str(value)),
        found=_found(row, results),
        source=_texts(row[SOURCE.name]),
        warnings=_texts(row[WARNINGS.name]),
    )


def _found(row: dict[str, object], results: Sequence[Column]) -> str:
    """What was found, in words: "12 objects", "mitotic"; the reason code where nothing was looked for."""
    if row[STATUS.name] != Status.OK:
        return str(row[REASON.name])
    told = []
    for column in results:
        value = row[column.name]
        if column.kind is Kind.STRING and value is not None:
            told.append(str(value))
        elif isinstance(value, int | float):
            told.append(f"{value:.4g} {column.name}" if isinstance(value, float) else _many(value, column))
    return ", ".join(told)


def _many(number: int, column: Column) -> str:
    return f"{number} {column.unit.removesuffix('s') if number == 1 else column.unit}"


def _texts(value: object) -> tuple[str, ...]:
    return tuple(str(each) for each in value) if isinstance(value, list) else ()


def _first(rows: Iterable[_Row]) -> _Row | None:
    return next(iter(rows), None)


def _spread(rows: list[_Row], number: int) -> list[_Row]:
    """`number` of the rows at equal steps of their rank."""
    if number <= 0 or not rows:
        return []
    number = min(number, len(rows))
    return [rows[(2 * index + 1) * len(rows) // (2 * number)] for index in range(number)]


def _shown(row: _Row, role: Role, ranked: Column | None) -> ShownField:
    why = role.value
    if role in (Role.MOST, Role.FEWEST) and ranked is not None:
        why = f"{role.value} {ranked.unit if ranked.kind is Kind.INT else ranked.name}"
    return ShownField(row.key, role, row.found, why, row.source, row.warnings)
