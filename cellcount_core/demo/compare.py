"""Counted against true: what a finished run found on a plate whose counts are known.

Only fields with a count are compared, so that a file that could not be read is a failure in the ledger and no error of the count.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds

from cellcount_core.demo.truth import FileFault, Treatment, TruthField, read_truth
from cellcount_core.domain.columns import PLATE, SITE, WELL
from cellcount_core.domain.errors import ConfigFault, Status

_WELL_COLUMNS = [PLATE.name, WELL.name, "fields_expected", "fields_ok", "count"]
_FIELD_COLUMNS = [PLATE.name, WELL.name, SITE.name, "status", "reason", "reason_detail", "count"]


@dataclass(frozen=True, slots=True)
class WellResult:
    """One well. `counted` is None where no field was counted; `true` sums the fields that were counted only."""

    well: str
    treatment: Treatment
    counted: int | None
    true: int
    fields_ok: int
    fields_expected: int

    @property
    def complete(self) -> bool:
        """Whether every field was counted."""
        return self.fields_ok == self.fields_expected


@dataclass(frozen=True, slots=True)
class Uncounted:
    """A field without a count: why the run says so, and what had been done to its file."""

    well: str
    site: int
    status: str
    reason: str
    detail: str
    planted: FileFault


@dataclass(frozen=True, slots=True)
class Comparison:
    """Counted against true of one plate; wells and uncounted fields in key order.

    `unnoticed` are damaged files whose field has a count all the same: there must be none.
    """

    plate: str
    wells: tuple[WellResult, ...]
    uncounted: tuple[Uncounted, ...]
    unnoticed: tuple[TruthField, ...]

    @property
    def counted(self) -> int:
        """Objects counted."""
        return sum(well.counted or 0 for well in self.wells)

    @property
    def true(self) -> int:
        """Objects planted in the fields that were counted."""
        return sum(well.true for well in self.wells)

    @property
    def bias(self) -> float:
        """(counted - true) / true over all counted fields; nan where nothing was planted."""
        return (self.counted - self.true) / self.true if self.true else float("nan")

    @property
    def mape(self) -> float:
        """Mean over wells with cells of |counted - true| / true (a fraction); nan where there is none."""
        errors = [
            abs(well.counted - well.true) / well.true
            for well in self.wells
            if well.counted is not None and well.true
        ]
        return sum(errors) / len(errors) if errors else float("nan")

    @property
    def counted_in_empty(self) -> int:
        """Objects counted in wells that hold none."""
        return sum(well.counted or 0 for well in self.wells if well.treatment is Treatment.EMPTY)


def compare(run: Path, truth: Path) -> Comparison:
    """Compare the tables of the finished run in `run` with the true counts in the file `truth`.

    Raises ConfigFault where a table is not there, the fields of the two differ, or wells and fields contradict each other.
    """
    planted = {(each.plate, each.well, each.site): each for each in read_truth(truth)}
    fields = _rows(run / "fields", _FIELD_COLUMNS)
    found = {_key(row): row for row in fields}
    if found.keys() != planted.keys():
        odd = min(found.keys() ^ planted.keys())
        raise ConfigFault(
            f"{run}: {len(found)} fields were counted, {truth} has {len(planted)}; {odd} is in one of them only"
        )
    return Comparison(
        plate=min(plate for plate, _, _ in planted),
        wells=_wells(run, found, planted),
        uncounted=tuple(
            Uncounted(
                well=key[1],
                site=key[2],
                status=str(row["status"]),
                reason=str(row["reason"]),
                detail=str(row["reason_detail"] or ""),
                planted=planted[key].file_fault,
            )
            for key, row in sorted(found.items())
            if row["status"] != Status.OK.value
        ),
        unnoticed=tuple(
            planted[key]
            for key, row in sorted(found.items())
            if row["status"] == Status.OK.value and planted[key].file_fault is not FileFault.NONE
        ),
    )


_Key = tuple[str, str, int]
_Row = dict[str, object]


def _wells(run: Path, found: dict[_Key, _Row], planted: dict[_Key, TruthField]) -> tuple[WellResult, ...]:
    true: dict[str, int] = defaultdict(int)
    counted: dict[str, int] = defaultdict(int)
    treatment = {each.well: each.treatment for each in planted.values()}
    for key, row in found.items():
        if row["status"] == Status.OK.value:
            true[key[1]] += planted[key].true_count
            counted[key[1]] += int(str(row["count"]))
    results = []
    for row in _rows(run / "wells.parquet", _WELL_COLUMNS):
        well, count = str(row[WELL.name]), row["count"]
        total = None if count is None else int(str(count))
        if (total or 0) != counted[well]:
            raise ConfigFault(
                f"{run}: well {well} has {total} in wells.parquet, its fields have {counted[well]}; reduce the run again"
            )
        results.append(
            WellResult(
                well=well,
                treatment=treatment[well],
                counted=total,
                true=true[well],
                fields_ok=int(str(row["fields_ok"])),
                fields_expected=int(str(row["fields_expected"])),
            )
        )
    return tuple(sorted(results, key=lambda each: each.well))


def _key(row: _Row) -> _Key:
    return str(row[PLATE.name]), str(row[WELL.name]), int(str(row[SITE.name]))


def _rows(path: Path, columns: list[str]) -> list[_Row]:
    """Rows of a Parquet file, or of all files of a folder."""
    try:
        rows: list[_Row] = ds.dataset(path, format="parquet").to_table(columns=columns).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise ConfigFault(f"{path}: the table cannot be read; is the run finished? ({error})") from error
    return rows
