"""Which fields to show of a run: its range, and what a reader should look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import pyarrow as pa

from cellcount_core.domain.columns import FIELD_ID, PLATE, SITE, TIMEPOINT, WELL
from cellcount_core.domain.errors import Status
from cellcount_core.domain.fields import FieldKey

_COLUMNS = [
    PLATE.name, WELL.name, SITE.name, TIMEPOINT.name, FIELD_ID.name, "status", "reason", "source", "count", "warnings",
]  # fmt: skip


class Role(StrEnum):
    """Why a field is shown."""

    MOST = "most objects"
    MEDIAN = "median"
    FEWEST = "fewest objects"
    EMPTY = "empty"
    FLAGGED = "with a warning"
    FAILED = "not counted"
    BETWEEN = "in between"


@dataclass(frozen=True, slots=True)
class ShownField:
    """A field to show. `count` and `reason` as in its row; `source` the files counted, relative to the input."""

    key: FieldKey
    role: Role
    count: int | None
    reason: str | None
    source: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def title(self) -> str:
        """Where on its plate it is and what was found, in a few words."""
        found = self.reason if self.count is None else f"{self.count} object{'' if self.count == 1 else 's'}"
        return f"{self.key.well} site {self.key.site}: {found} ({self.role.value})"


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
    key: FieldKey
    status: str
    reason: str | None
    count: int | None
    source: tuple[str, ...]
    warnings: tuple[str, ...]


def choose_fields(fields: pa.Table, n: int) -> list[ShownField]:
    """At most `n` fields of a fields table, no field twice: the most objects, the median, an empty one, one with warnings, one
    without a count, the fewest (above 0), then what lies between these in count. Equal tables give equal choices, whatever
    the order of their rows: ties go to the first in key order."""
    rows = sorted((_row(each) for each in fields.select(_COLUMNS).to_pylist()), key=lambda row: row.key)
    counted = sorted((row for row in rows if row.count), key=lambda row: (row.count or 0, row.key))
    wishes: list[tuple[Role, Callable[[], _Row | None]]] = [
        (Role.MOST, lambda: counted[-1] if counted else None),
        (Role.MEDIAN, lambda: counted[(len(counted) - 1) // 2] if counted else None),
        (Role.EMPTY, lambda: _first(row for row in rows if row.count == 0)),
        (Role.FLAGGED, lambda: _first(row for row in rows if row.warnings and row.count is not None)),
        (Role.FAILED, lambda: _first(row for row in rows if row.status in {Status.FAILED, Status.MISSING})),
        (Role.FEWEST, lambda: counted[0] if counted else None),
    ]
    chosen: dict[FieldKey, ShownField] = {}
    for role, find in wishes:
        row = find()
        if row is not None and len(chosen) < n and row.key not in chosen:
            chosen[row.key] = _shown(row, role)
    for row in _spread([row for row in counted if row.key not in chosen], n - len(chosen)):
        chosen[row.key] = _shown(row, Role.BETWEEN)
    return list(chosen.values())


def _row(row: dict[str, object]) -> _Row:
    count, reason = row["count"], row["reason"]
    return _Row(
        key=FieldKey(
            str(row[PLATE.name]), str(row[WELL.name]), int(str(row[SITE.name])), int(str(row[TIMEPOINT.name]))
        ),
        status=str(row["status"]),
        reason=None if reason is None else str(reason),
        count=None if count is None else int(str(count)),
        source=_texts(row["source"]),
        warnings=_texts(row["warnings"]),
    )


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


def _shown(row: _Row, role: Role) -> ShownField:
    return ShownField(row.key, role, row.count, row.reason, row.source, row.warnings)
