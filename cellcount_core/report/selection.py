"""Select the fields of a run that a reader should look at: its extremes, its problems, and some in between."""

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
    Merge,
    Schema,
    Value,
    names,
)
from cellcount_core.domain.errors import Status
from cellcount_core.domain.fields import FieldKey


class Role(StrEnum):
    """Why a field is shown. MOST and FEWEST are followed by the name of what was counted."""

    MOST = "most"
    MEDIAN = "median"
    FEWEST = "fewest"
    EMPTY = "empty"
    FLAGGED = "with a warning"
    FAILED = "not counted"
    BETWEEN = "in between"


@dataclass(frozen=True, slots=True)
class ShownField:
    """A field to show. `found` says in words what was found, or gives the reason code if it was not counted;
    `why` says why it is shown; `source` are the counted files, relative to the input.
    """

    key: FieldKey
    role: Role
    found: str
    why: str
    source: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def title(self) -> str:
        """Its place on the plate and what was found, in a few words."""
        return f"{self.key.well} site {self.key.site}: {self.found} ({self.why})"


def titles(shown: Sequence[ShownField]) -> list[str]:
    """One title for each field. If the fields come from several plates or time points, a line above names these too."""
    plates = {field.key.plate for field in shown}
    times = {field.key.timepoint for field in shown}
    named = []
    for field in shown:
        above = [field.key.plate] if len(plates) > 1 else []
        above += [f"time point {field.key.timepoint}"] if len(times) > 1 else []
        named.append(", ".join(above) + "\n" + field.title if above else field.title)
    return named


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A row of the fields table. `value` is the result by which fields are ranked, None if there is none."""

    key: FieldKey
    status: str
    value: float | None
    found: str
    source: tuple[str, ...]
    warnings: tuple[str, ...]


def choose_fields(fields: pa.Table, schema: Schema, n: int) -> list[ShownField]:
    """Choose at most `n` different fields of a fields table: the one with the most objects, the median, an
    empty one, one with a warning, one that was not counted, the one with the fewest objects (above 0), and
    then fields in between.

    Fields are ranked by the first result of their task that is a whole number, or else a number; if there is none, they are taken
    in key order. The order of the rows makes no difference: among equals the first in key order is taken.
    """
    results = [schema.field(name) for name in schema.results]
    numbers = [column for column in results if column.kind in (Kind.INT, Kind.FLOAT)]
    ranked = next((column for column in numbers if column.kind is Kind.INT), next(iter(numbers), None))
    finds = ranked is not None and ranked.merge is Merge.COUNT
    rows = _candidates(fields, results, ranked, schema.classes)
    counted = sorted((row for row in rows if row.value), key=lambda row: (row.value or 0, row.key))
    if ranked is None:
        counted = [row for row in rows if row.status == Status.OK]
    wishes: list[tuple[Role, Callable[[], _Candidate | None]]] = [
        (Role.MOST, lambda: counted[-1] if counted and ranked else None),
        (Role.MEDIAN, lambda: counted[(len(counted) - 1) // 2] if counted and ranked else None),
        (Role.EMPTY, lambda: _first(row for row in rows if finds and row.value == 0)),
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


def _candidates(
    fields: pa.Table, results: Sequence[Column], ranked: Column | None, classes: Sequence[str]
) -> list[_Candidate]:
    """All rows of the fields table, in key order."""
    wanted = [*names(KEY), STATUS.name, REASON.name, SOURCE.name, WARNINGS.name]
    found = []
    for row in fields.select([*wanted, *(column.name for column in results)]).to_pylist():
        counted = row[STATUS.name] == Status.OK
        answers: list[Value] = [row[column.name] for column in results]
        found.append(
            _Candidate(
                key=FieldKey(row[PLATE.name], row[WELL.name], row[SITE.name], row[TIMEPOINT.name]),
                status=row[STATUS.name],
                value=None if ranked is None or row[ranked.name] is None else float(row[ranked.name]),
                found=_in_words(results, answers, classes) if counted else str(row[REASON.name]),
                source=tuple(row[SOURCE.name] or ()),
                warnings=tuple(row[WARNINGS.name] or ()),
            )
        )
    return sorted(found, key=lambda one: one.key)


_SHOWN_NAMES = 3
"""Of several classes, as many are named in a title."""


def _in_words(results: Sequence[Column], answers: Sequence[Value], classes: Sequence[str]) -> str:
    """What was found: "12 objects", "mitotic", "Cytosol, Nucleoli, Golgi apparatus and 2 more patterns": of several, the surest first."""
    vectors = [value for column, value in zip(results, answers, strict=True) if column.kind is Kind.FLOATS]
    sure = (
        dict(zip(classes, map(str, vectors[0]), strict=False))
        if vectors and isinstance(vectors[0], Sequence)
        else {}
    )
    told = []
    for column, value in zip(results, answers, strict=True):
        if column.kind is Kind.STRING and value is not None:
            told.append(str(value))
        elif column.kind is Kind.STRINGS and isinstance(value, Sequence):
            named = sorted(map(str, value), key=lambda name: -float(sure.get(name, "0")))
            more = len(named) - _SHOWN_NAMES
            rest = f" and {more} more {column.name}" if more > 0 else ""
            told.append(f"{', '.join(named[:_SHOWN_NAMES])}{rest}" if named else f"no {column.name}")
        elif isinstance(value, int | float):
            told.append(_number(value, column) if isinstance(value, float) else _many(value, column))
    return ", ".join(told)


def _number(value: float, column: Column) -> str:
    return f"{column.name} {value:.1f} %" if column.unit == "%" else f"{value:.4g} {column.name}"


def _many(number: int, column: Column) -> str:
    return f"{number} {column.unit.removesuffix('s') if number == 1 else column.unit}"


def _first(rows: Iterable[_Candidate]) -> _Candidate | None:
    return next(iter(rows), None)


def _spread(rows: list[_Candidate], number: int) -> list[_Candidate]:
    """`number` of the rows, at equal steps of their rank."""
    if number <= 0 or not rows:
        return []
    number = min(number, len(rows))
    return [rows[(2 * index + 1) * len(rows) // (2 * number)] for index in range(number)]


def _shown(row: _Candidate, role: Role, ranked: Column | None) -> ShownField:
    why = role.value
    if role in (Role.MOST, Role.FEWEST) and ranked is not None:
        why = f"{role.value} {ranked.unit if ranked.kind is Kind.INT else ranked.name}"
    return ShownField(row.key, role, row.found, why, row.source, row.warnings)
