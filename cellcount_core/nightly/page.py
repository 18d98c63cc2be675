"""The page of a night: what it shows, as one value, and that value as one HTML file without scripts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cellcount_core.nightly.digest import Digest, Reading
from cellcount_core.nightly.ledger import Event, PlateStatus
from cellcount_core.report.html import Card, render

_TITLES = {
    PlateStatus.COUNTED: "Counted",
    PlateStatus.FAILED: "Failed: tried again the next night",
    PlateStatus.LATE: "Late: not complete yet, looked at again the next night",
    PlateStatus.LEFT: "Not begun within the budget: first in line the next night",
    PlateStatus.SUPERSEDED: "Superseded: other files now; the tables are kept",
    PlateStatus.DELETED: "Deleted: no longer there; the tables are kept",
}

_TEXTS = ("plate", "why", "tables in")
"""Columns that hold text; numbers stand at the right."""

_WIDTH, _HEIGHT, _EDGE = 360, 150, 14
_EARLIER, _TONIGHT, _OUTSIDE = "#8a919c", "#1f5fbf", "#b3261e"


@dataclass(frozen=True, slots=True)
class TableCell:
    """One cell of a table: the name of its column, its text, and whether that is a path or something to look at."""

    of: str
    text: str
    is_path: bool = False
    is_bad: bool = False


@dataclass(frozen=True, slots=True)
class PlateTable:
    """A table of plates: its title, the names of its columns, and one row for each plate."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[TableCell, ...], ...]


@dataclass(frozen=True, slots=True)
class ChartPoint:
    """A plate in a chart, at a position in px. Only plates of tonight have a title: their name and value."""

    x: str
    y: str
    colour: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class Band:
    """The limits of a chart and their centre, as positions in px."""

    top: str
    height: str
    middle: str


@dataclass(frozen=True, slots=True)
class Chart:
    """One statistic of tonight's plates next to those of earlier nights. `compared` says how many those are and what the limits are."""

    title: str
    compared: str
    points: tuple[ChartPoint, ...]
    band: Band | None
    width: int = _WIDTH
    height: int = _HEIGHT


@dataclass(frozen=True, slots=True)
class NightPage:
    """Everything that the page of a night shows. `problems` are what somebody must look at, `notices` what is worth knowing."""

    title: str
    headline: str
    exit_code: int
    began: str
    problems: tuple[str, ...]
    notices: tuple[str, ...]
    cards: tuple[Card, ...]
    tables: tuple[PlateTable, ...]
    charts: tuple[Chart, ...]


def night_html(digest: Digest, before: Sequence[Mapping[str, float | None]]) -> str:
    """The whole page as HTML. `before` are the statistics of the plates that tonight's are compared with."""
    return render("night.html", page=night_page(digest, before), texts=_TEXTS)


def night_page(digest: Digest, before: Sequence[Mapping[str, float | None]]) -> NightPage:
    """What the page shows. `before` are the statistics of the plates that tonight's are compared with."""
    problems = tuple(_problems(digest))
    lists = (_listed(digest, status) for status in PlateStatus if status is not PlateStatus.COUNTED)
    return NightPage(
        title=f"Night {digest.night}",
        headline=digest.headline,
        exit_code=int(digest.exit_code),
        began=digest.began,
        problems=problems,
        notices=(*(line for line in digest.sentences if line not in problems), *digest.notices),
        cards=_cards(digest),
        tables=tuple(table for table in (_counted(digest), *lists) if table.rows),
        charts=tuple(_charts(digest, before)),
    )


def _problems(digest: Digest) -> Iterator[str]:
    if digest.interrupted:
        yield "The night was stopped before its end; the next one goes on where it stopped."
    yield from digest.problems
    yield from digest.empty
    doubted = digest.doubted if digest.strict else ()
    bad = {event.plate for event in (*digest.of(PlateStatus.FAILED), *digest.incomplete, *doubted)}
    yield from (line for line in digest.sentences if line.partition(": ")[0] in bad)
    for reading in digest.flagged:
        yield f"{reading.plate}: {reading.title} is {_number(reading.value)}, outside {_limits(reading)}"
    if digest.webhook and not digest.webhook.startswith("sent"):
        yield f"Webhook: {digest.webhook}"


def _cards(digest: Digest) -> tuple[Card, ...]:
    counted = digest.of(PlateStatus.COUNTED)
    bad = sum((event.failed or 0) + (event.missing or 0) for event in counted)
    cards = (
        Card("plates counted", str(len(counted))),
        Card("fields counted", f"{sum(event.fields_now or 0 for event in counted):,}"),
        *_totals(counted),
        Card("plates failed", str(len(digest.of(PlateStatus.FAILED)))),
        Card("fields failed or missing", f"{bad:,}"),
        Card("plates in doubt", str(len(digest.doubted))),
        Card("late", str(len(digest.of(PlateStatus.LATE)))),
        Card("not begun within the budget", str(len(digest.of(PlateStatus.LEFT)))),
        Card("outside limits", str(len(digest.flagged))),
        Card("time", _duration(digest.seconds)),
    )
    return cards if digest.cost is None else (*cards, Card("cost", f"{digest.cost:.2f}"))


def _totals(counted: Sequence[Event]) -> Iterator[Card]:
    """What was counted on all plates: the statistics that are whole numbers."""
    for name in _statistics(counted):
        values = [value for event in counted if (value := event.statistics.get(name)) is not None]
        if values and all(isinstance(value, int) for value in values):
            yield Card(_words(name), f"{sum(values):,}")


def _statistics(counted: Sequence[Event]) -> list[str]:
    """The names of all statistics of these events, in their order."""
    return list(dict.fromkeys(name for event in counted for name in event.statistics))


def _words(name: str) -> str:
    return name.replace("_", " ")


def _counted(digest: Digest) -> PlateTable:
    counted = digest.of(PlateStatus.COUNTED)
    names = _statistics(counted)
    incomplete = {event.source for event in digest.incomplete}
    rows = tuple(
        (
            TableCell("plate", event.plate),
            TableCell("fields ok", f"{event.ok} of {event.fields}"),
            TableCell(
                "failed or missing",
                str((event.failed or 0) + (event.missing or 0)),
                is_bad=event.source in incomplete,
            ),
            *(TableCell(_words(name), _number(event.statistics.get(name))) for name in names),
            TableCell("time", _duration(event.seconds or 0.0)),
            TableCell("tables in", event.output, is_path=True),
        )
        for event in counted
    )
    return PlateTable(_TITLES[PlateStatus.COUNTED], _heads(rows), rows)


def _heads(rows: Sequence[Sequence[TableCell]]) -> tuple[str, ...]:
    return tuple(cell.of for cell in rows[0]) if rows else ()


def _listed(digest: Digest, status: PlateStatus) -> PlateTable:
    rows = tuple(
        (
            TableCell("plate", event.plate),
            TableCell("files", f"{event.files:,}"),
            TableCell("why", event.detail),
        )
        for event in digest.of(status)
    )
    return PlateTable(_TITLES[status], _heads(rows), rows)


def _charts(digest: Digest, before: Sequence[Mapping[str, float | None]]) -> Iterator[Chart]:
    for name, title in {reading.statistic: reading.title for reading in digest.readings}.items():
        tonight = [reading for reading in digest.readings if reading.statistic == name]
        earlier = [value for one in before if (value := one.get(name)) is not None]
        yield _chart(title, earlier, tonight)


def _chart(title: str, earlier: Sequence[float], tonight: Sequence[Reading]) -> Chart:
    """Values from left to right in the order of counting; the height runs from the lowest to the highest of values and limits."""
    first = tonight[0]
    bounds = [each for each in (first.low, first.high) if each is not None]
    values = [*earlier, *(reading.value for reading in tonight), *bounds]
    low, high = min(values), max(values)
    span = (high - low) or 1.0

    def up(value: float) -> float:
        return _HEIGHT - _EDGE - (value - low) / span * (_HEIGHT - 2 * _EDGE)

    band = None
    if first.low is not None and first.high is not None and first.centre is not None:
        top, bottom = up(first.high), up(first.low)
        band = Band(f"{top:.1f}", f"{max(bottom - top, 0.5):.1f}", f"{up(first.centre):.1f}")
    step = (_WIDTH - 2 * _EDGE) / max(1, len(earlier) + len(tonight) - 1)
    drawn = [(value, _EARLIER, "") for value in earlier]
    drawn += [
        (each.value, _OUTSIDE if each.flagged else _TONIGHT, f"{each.plate}: {_number(each.value)}")
        for each in tonight
    ]
    points = tuple(
        ChartPoint(f"{_EDGE + number * step:.1f}", f"{up(value):.1f}", colour, name)
        for number, (value, colour, name) in enumerate(drawn)
    )
    return Chart(title, _compared(first), points, band)


def _compared(reading: Reading) -> str:
    if reading.low is None:
        return f"{reading.plates} earlier plates, too few for limits"
    return f"{reading.plates} earlier plates, limits {_limits(reading)}"


def _limits(reading: Reading) -> str:
    return f"{_number(reading.low)} to {_number(reading.high)}"


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
