"""The comparison as a plate on a terminal: 8 x 12 wells, counted over true, and below it what failed."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cellcount_core.demo.compare import Comparison, Uncounted, WellResult
from cellcount_core.demo.truth import Treatment
from cellcount_core.domain.plates import FORMATS, WellPosition, row_name

_WIDE = 112
_CLOSE, _FAR = 0.05, 0.15


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print plate, legend, totals and failures; "counted/true" a well where the console is at least 112 columns wide, the
    count alone below that (down to about 70)."""
    console.print(plate_table(comparison, console.width))
    console.print(_legend(comparison, console))
    console.print()
    for line in (*summary_lines(comparison), *failure_lines(comparison)):
        # What stands in brackets is a reason or a name, no markup.
        console.print(line, markup=False, highlight=False)


def plate_table(comparison: Comparison, width: int) -> Table:
    """The plate for a console of `width` columns; wells that were not rendered stay blank."""
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
    """Totals in plain words."""
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
    """One line a field without a count, and one a damaged file that was counted all the same."""
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
