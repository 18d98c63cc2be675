"""Compare what a finished run counted with a plate's true counts, and show the comparison as a plate on a terminal.

Only fields with a count are compared, so a file that could not be read is a failure in the ledger and not a counting
error.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cellcount_core.demo.plate import FileFault, Treatment, TruthField, read_truth
from cellcount_core.domain.columns import PLATE, SITE, WELL
from cellcount_core.domain.errors import ConfigFault, Status
from cellcount_core.domain.plates import FORMATS, WellPosition, row_name

_WELL_COLUMNS = [PLATE.name, WELL.name, "fields_expected", "fields_ok", "count"]
_FIELD_COLUMNS = [PLATE.name, WELL.name, SITE.name, "status", "reason", "reason_detail", "count"]


@dataclass(frozen=True, slots=True)
class WellResult:
    """One well. `counted` is None if none of its fields was counted; `true` sums only the fields that were counted."""

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
    """A field without a count: why, according to the run, and what had been done to its file."""

    well: str
    site: int
    status: str
    reason: str
    detail: str
    planted: FileFault


@dataclass(frozen=True, slots=True)
class Comparison:
    """Counted and true numbers of one plate, with wells and uncounted fields in key order.

    `unnoticed` are damaged files whose field has a count all the same; there must be none.
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
        """(counted - true) / true over all counted fields; NaN if nothing was planted."""
        return (self.counted - self.true) / self.true if self.true else float("nan")

    @property
    def mape(self) -> float:
        """Mean of |counted - true| / true over the wells with cells, as a fraction; NaN if there is no such well."""
        errors = [
            abs(well.counted - well.true) / well.true
            for well in self.wells
            if well.counted is not None and well.true
        ]
        return sum(errors) / len(errors) if errors else float("nan")

    @property
    def counted_in_empty(self) -> int:
        """Objects counted in wells that hold no cells."""
        return sum(well.counted or 0 for well in self.wells if well.treatment is Treatment.EMPTY)


def compare(run: Path, truth: Path) -> Comparison:
    """Compare the tables of the finished run in `run` with the true counts in the file `truth`.

    Raises ConfigFault if a table cannot be read, if the fields of the two differ, or if the run's wells and fields
    contradict each other.
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
_TableRow = dict[str, object]


def _wells(
    run: Path, found: dict[_Key, _TableRow], planted: dict[_Key, TruthField]
) -> tuple[WellResult, ...]:
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


def _key(row: _TableRow) -> _Key:
    return str(row[PLATE.name]), str(row[WELL.name]), int(str(row[SITE.name]))


def _rows(path: Path, columns: list[str]) -> list[_TableRow]:
    """The rows of a Parquet file, or of all files of a folder."""
    try:
        rows: list[_TableRow] = (
            ds.dataset(path, format="parquet").to_table(columns=columns, use_threads=False).to_pylist()
        )
    except (OSError, pa.ArrowException) as error:
        raise ConfigFault(f"{path}: the table cannot be read; is the run finished? ({error})") from error
    return rows


_WIDE = 112
_CLOSE, _FAR = 0.05, 0.15


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print plate, legend, totals and failures.

    A console of at least 112 columns shows "counted/true" for each well; a narrower one (down to about 70) shows the
    count alone.
    """
    console.print(plate_table(comparison, console.width))
    console.print(_legend(comparison, console))
    console.print()
    for line in (*summary_lines(comparison), *failure_lines(comparison)):
        # What stands in brackets is a reason or a name, no markup.
        console.print(line, markup=False, highlight=False)


def plate_table(comparison: Comparison, width: int) -> Table:
    """The plate for a console of `width` columns. Wells that were not rendered stay blank."""
    rows, columns = FORMATS[96]
    wells = {well.well: well for well in comparison.wells}
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        title=comparison.plate,
        title_justify="left",
    )
    table.add_column("", style="bold", justify="right")
    for column in range(columns):
        table.add_column(str(column + 1), justify="right", no_wrap=True)
    for row in range(rows):
        cells = [wells.get(WellPosition(row, column).name) for column in range(columns)]
        table.add_row(row_name(row), *(_cell(well, width) for well in cells))
    return table


def summary_lines(comparison: Comparison) -> list[str]:
    """The totals in plain words."""
    empty = [well for well in comparison.wells if well.treatment is Treatment.EMPTY]
    fields = sum(well.fields_expected for well in comparison.wells)
    counted = sum(well.fields_ok for well in comparison.wells)
    lines = [
        f"{counted} of {fields} fields counted: {comparison.counted:,} nuclei, true {comparison.true:,} "
        f"({comparison.bias:+.1%}); mean error of a well {comparison.mape:.1%}",
    ]
    if empty:
        lines.append(
            f"{len(empty)} empty wells: {comparison.counted_in_empty} nuclei counted in them, true 0"
        )
    return lines


def failure_lines(comparison: Comparison) -> list[str]:
    """One line for each field without a count, and one for each damaged file that was counted all the same."""
    lines = [_failure(each) for each in comparison.uncounted]
    lines += [
        f"well {each.well} site {each.site}: the file was {each.file_fault.value} and was counted all the same"
        for each in comparison.unnoticed
    ]
    return lines


def _failure(each: Uncounted) -> str:
    planted = f" (planted: {each.planted.value} file)" if each.planted.value != "none" else ""
    detail = f": {each.detail}" if each.detail else ""
    return f"well {each.well} site {each.site}: {each.status}, {each.reason}{planted}{detail}"


def _cell(well: WellResult | None, width: int) -> Text:
    if well is None:
        return Text("")
    if well.counted is None:
        return Text("failed", style="bold red")
    mark = "" if well.complete else "!"
    count = f"{well.counted}/{well.true}" if width >= _WIDE else str(well.counted)
    return Text(count + mark, style=_style(well))


def _style(well: WellResult) -> str:
    if well.treatment is Treatment.EMPTY:
        return "dim" if well.counted == 0 else "bold red"
    style = "bold " if not well.complete else ""
    error = abs((well.counted or 0) - well.true) / well.true if well.true else 0.0
    colour = "green" if error <= _CLOSE else "yellow" if error <= _FAR else "red"
    return style + colour


def _legend(comparison: Comparison, console: Console) -> Text:
    wide = console.width >= _WIDE
    legend = Text("counted/true nuclei of a well" if wide else "counted nuclei of a well")
    if console.color_system is not None:
        for text, style in (("within 5 %", "green"), ("within 15 %", "yellow"), ("beyond", "red")):
            legend.append("  ").append(text, style=style)
    legend.append("  " if wide else "\n").append(
        "0/0 = empty well" if wide else "0 = empty well", style="dim"
    )
    if any(not well.complete for well in comparison.wells):
        legend.append("  ! = a field not counted")
    return legend
