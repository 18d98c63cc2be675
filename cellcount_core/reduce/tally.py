"""What a group of fields comes to: a well, a plate, the whole run. Groups merge, in key order, into larger ones."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from cellcount_core.domain.columns import MOMENTS, PLATE, SITE, TIMEPOINT, WELL, Features, measured
from cellcount_core.domain.doubts import code_of
from cellcount_core.domain.errors import LedgerFault, Status
from cellcount_core.domain.fields import FieldKey
from cellcount_core.domain.fingerprint import canonical_json
from cellcount_core.domain.moments import Moments
from cellcount_core.tables.rows import known
from cellcount_core.tables.schema import TableName, misfits, table_schema

_UM2_PER_MM2 = 1e6


@dataclass(frozen=True, slots=True)
class CountedField:
    """What the larger tables need of one row of the fields table. `area_um2` is None without calibration."""

    key: FieldKey
    status: str
    reason: str | None
    count: int | None
    area_um2: float | None
    moments: tuple[Moments, ...]
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class Tally:
    """Running totals of a group. Counts are summed as whole numbers, so mean and deviation are exact up to one rounding."""

    moments: list[Moments]
    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)
    warned: int = 0
    total: int = 0
    squares: int = 0
    area_um2: float = 0.0
    uncalibrated: int = 0

    def add(self, counted: CountedField) -> None:
        """Add one field."""
        self.statuses[counted.status] += 1
        if counted.reason is not None:
            self.reasons[counted.reason] += 1
        self.warnings.update({code_of(warning) for warning in counted.warnings})
        self.warned += bool(counted.warnings)
        if counted.count is None:
            return
        self.total += counted.count
        self.squares += counted.count**2
        if counted.area_um2 is None:
            self.uncalibrated += 1
        else:
            self.area_um2 += counted.area_um2
        self.moments = [mine.merge(its) for mine, its in zip(self.moments, counted.moments, strict=True)]

    def merge(self, other: Tally) -> None:
        """Add a group whose fields come after those of this one."""
        self.statuses.update(other.statuses)
        self.reasons.update(other.reasons)
        self.warnings.update(other.warnings)
        self.warned += other.warned
        self.total += other.total
        self.squares += other.squares
        self.area_um2 += other.area_um2
        self.uncalibrated += other.uncalibrated
        self.moments = [mine.merge(its) for mine, its in zip(self.moments, other.moments, strict=True)]

    @property
    def fields(self) -> int:
        """Fields expected."""
        return self.statuses.total()

    @property
    def ok(self) -> int:
        """Fields counted."""
        return self.statuses[Status.OK.value]

    @property
    def count(self) -> int | None:
        """Objects in the counted fields; None where no field was counted."""
        return self.total if self.ok else None

    @property
    def mean(self) -> float | None:
        """Objects a counted field."""
        return self.total / self.ok if self.ok else None

    @property
    def sd(self) -> float | None:
        """Sample standard deviation of the count over counted fields; None below two."""
        n = self.ok
        return math.sqrt((n * self.squares - self.total**2) / (n * (n - 1))) if n > 1 else None

    @property
    def area_mm2(self) -> float | None:
        """Imaged area of the counted fields; None where one of them has no calibration, or none was counted."""
        return self.area_um2 / _UM2_PER_MM2 if self.ok and not self.uncalibrated else None

    @property
    def per_mm2(self) -> float | None:
        """Objects a mm²; None without calibration."""
        return self.total / self.area_mm2 if self.area_mm2 else None

    def columns(self, features: Features) -> dict[str, object]:
        """The columns that wells and plates share, by name."""
        row: dict[str, object] = {
            "fields_expected": self.fields,
            "fields_ok": self.ok,
            "fields_failed": self.statuses[Status.FAILED.value],
            "fields_missing": self.statuses[Status.MISSING.value],
            "fields_skipped": self.statuses[Status.SKIPPED.value],
            "fields_warned": self.warned,
            "warnings": canonical_json(dict(self.warnings)),
            "count": self.count,
            "count_per_field_mean": self.mean,
            "count_per_field_sd": self.sd,
            "area_mm2": self.area_mm2,
            "count_per_mm2": self.per_mm2,
        }
        for column, moments in zip(measured(features), self.moments, strict=True):
            row[column.name] = known(moments.mean)
            row[f"sd_{column.name}"] = known(moments.sd)
        return row


def empty_tally(features: Features) -> Tally:
    """The tally of no fields."""
    return Tally([Moments()] * len(measured(features)))


def counted_fields(key: str, table: pa.Table, features: Features, fingerprint: str) -> Iterator[CountedField]:
    """The rows of a fields part, in order. Raises LedgerFault naming `key` where its columns are not those of the schema."""
    for wrong in misfits(table, table_schema(TableName.FIELDS, features, fingerprint)):
        raise LedgerFault(f"{key}: {wrong}")
    names = [column.name for column in measured(features)]
    plain = [PLATE.name, WELL.name, SITE.name, TIMEPOINT.name, "status", "reason", "count", "warnings"]
    keys = [table.column(name).to_pylist() for name in plain]
    sizes = [table.column(name).to_pylist() for name in ("width_px", "height_px", "um_per_px")]
    moments = [[table.column(f"{prefix}_{name}").to_pylist() for prefix in MOMENTS] for name in names]
    for index in range(table.num_rows):
        plate, well, site, timepoint, status, reason, count, warnings = (values[index] for values in keys)
        width, height, um_per_px = (values[index] for values in sizes)
        calibrated = None not in (width, height, um_per_px)
        yield CountedField(
            FieldKey(plate, well, site, timepoint),
            status,
            reason,
            count,
            width * height * um_per_px**2 if calibrated else None,
            tuple(_moments([values[index] for values in columns]) for columns in moments),
            tuple(warnings),
        )


def _moments(values: Sequence[float | None]) -> Moments:
    n, mean, m2, low, high = values
    if not n or mean is None or m2 is None or low is None or high is None:
        return Moments()
    return Moments(int(n), mean, m2, low, high)
