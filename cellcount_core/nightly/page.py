"""The page of a night: one self-contained HTML file without scripts, its control charts drawn in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from cellcount_core.nightly.control import Reading
from cellcount_core.nightly.digest import Digest
from cellcount_core.nightly.ledger import Event, PlateStatus
from cellcount_core.report.html import html_page

_STYLE = """
.problem { border-left: 4px solid #b3261e; background: #fceeed; padding: 8px 12px; margin: 14px 0; }
th.text, td.text { overflow-wrap: anywhere; white-space: pre-line; min-width: 14ch; }
.bad { color: #b3261e; font-weight: 600; }
.charts { display: grid; gap: 18px; grid-template-columns: repeat(auto-fit, minmax(min(320px, 100%), 1fr)); }
figcaption { color: var(--soft); }
svg { width: 100%; height: auto; background: var(--tint); border: 1px solid var(--line); border-radius: 8px; }
@media (max-width: 640px) {
  main { padding: 20px 16px 40px; }
  thead { display: none; }
  table, tbody, tr { display: block; }
  tr { border-bottom: 1px solid var(--line); padding: 10px 0; }
  td { display: flex; justify-content: space-between; gap: 16px; padding: 2px 0; border: 0; text-align: right; }
  td::before { content: attr(data-of); color: var(--soft); flex: none; }
  td:first-child { font-weight: 600; overflow-wrap: anywhere; text-align: left; }
  td:first-child::before { content: none; }
}
"""
"""On a phone each row of a table is a list: the plate, then a line a column with its name."""

_TITLES = {
    PlateStatus.COUNTED: "Counted",
    PlateStatus.FAILED: "Failed: tried again the next night",
    PlateStatus.LATE: "Late: not complete yet, looked at again the next night",
    PlateStatus.LEFT: "Left by the budget: first the next night",
    PlateStatus.SUPERSEDED: "Superseded: other files now; the tables are kept",
    PlateStatus.DELETED: "Deleted: no longer there; the tables are kept",
}

_TEXTS = ("plate", "why", "tables in")
_BAD = ' class="bad"'

_WIDTH, _HEIGHT, _EDGE = 360.0, 150.0, 14.0


def page(digest: Digest, before: Sequence[Mapping[str, float | None]]) -> str:
    """The whole page; `before` are the statistics of the plates it was compared with. Every name in it is escaped."""
    title = f"Night {escape(digest.night)}"
    parts = [
        f"<h1>{title}</h1>",
        f'<p class="soft">{escape(digest.headline)}. Exit code {int(digest.exit_code)}. Began {escape(digest.began)}.</p>',
        *(f'<p class="problem">{escape(line)}</p>' for line in _problems(digest)),
        *(f'<p class="notice">{escape(line)}</p>' for line in _notices(digest)),
        _cards(digest),
        _counted(digest),
        *(_listed(digest, status) for status in PlateStatus if status is not PlateStatus.COUNTED),
        *_drift(digest, before),
        '<p class="soft">All of this as JSON: <code>digest.json</code> beside this page. Every plate of every night: '
        "<code>nights/datasets.parquet</code>.</p>",
    ]
    return html_page(f"{title}: cellcount", "\n".join(part for part in parts if part), _STYLE)


def _problems(digest: Digest) -> Iterable[str]:
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


def _notices(digest: Digest) -> Iterable[str]:
    problems = set(_problems(digest))
    yield from (line for line in digest.sentences if line not in problems)
    yield from digest.notices


def _cards(digest: Digest) -> str:
    counted = digest.of(PlateStatus.COUNTED)
    cards = [
        ("plates counted", str(len(counted))),
        ("fields counted", f"{sum(event.fields_now or 0 for event in counted):,}"),
        *_totals(counted),
        ("plates failed", str(len(digest.of(PlateStatus.FAILED)))),
        (
            "fields failed or missing",
            f"{sum((event.failed or 0) + (event.missing or 0) for event in counted):,}",
        ),
        ("plates in doubt", str(len(digest.doubted))),
        ("late", str(len(digest.of(PlateStatus.LATE)))),
        ("left by the budget", str(len(digest.of(PlateStatus.LEFT)))),
        ("outside limits", str(len(digest.flagged))),
        ("time", _duration(digest.seconds)),
    ]
    if digest.cost is not None:
        cards.append(("cost", f"{digest.cost:.2f}"))
    inner = "".join(f'<div class="card"><span>{name}</span><b>{value}</b></div>' for name, value in cards)
    return f'<div class="cards">{inner}</div>'


def _totals(counted: Sequence[Event]) -> Iterable[tuple[str, str]]:
    """What was counted on all plates: the statistics that are whole numbers."""
    for name in _statistics(counted):
        values = [value for event in counted if (value := event.statistics.get(name)) is not None]
        if values and all(isinstance(value, int) for value in values):
            yield escape(name.replace("_", " ")), f"{sum(values):,}"


def _statistics(counted: Sequence[Event]) -> list[str]:
    """The names of all statistics of these events, in their order."""
    return list(dict.fromkeys(name for event in counted for name in event.statistics))


def _counted(digest: Digest) -> str:
    counted = digest.of(PlateStatus.COUNTED)
    if not counted:
        return ""
    incomplete = {event.source for event in digest.incomplete}
    names = _statistics(counted)
    rows = [
        (
            escape(event.plate),
            f"{event.ok} of {event.fields}",
            f"<span{_BAD if event.source in incomplete else ''}>{(event.failed or 0) + (event.missing or 0)}</span>",
            *(_number(event.statistics.get(name)) for name in names),
            _duration(event.seconds or 0.0),
            f"<code>{escape(event.output)}</code>",
        )
        for event in counted
    ]
    heads = (
        "plate",
        "fields ok",
        "failed or missing",
        *(escape(name.replace("_", " ")) for name in names),
        "time",
        "tables in",
    )
    return _table(_TITLES[PlateStatus.COUNTED], heads, rows)


def _listed(digest: Digest, status: PlateStatus) -> str:
    rows = [(escape(event.plate), f"{event.files:,}", escape(event.detail)) for event in digest.of(status)]
    return _table(_TITLES[status], ("plate", "files", "why"), rows) if rows else ""


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose cells are HTML. Each cell bears the name of its column, which stands before it where a row is a list."""
    kinds = [' class="text"' if head in _TEXTS else "" for head in heads]
    head = "".join(f"<th{kind}>{name}</th>" for kind, name in zip(kinds, heads, strict=True))
    body = "\n".join(
        "<tr>"
        + "".join(
            f'<td{kind} data-of="{name}">{cell}</td>'
            for kind, name, cell in zip(kinds, heads, row, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return f'<h2>{title}</h2>\n<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'


def _drift(digest: Digest, before: Sequence[Mapping[str, float | None]]) -> Iterable[str]:
    if not digest.readings:
        return
    yield "<h2>Drift</h2>"
    yield (
        '<p class="soft">Plates of the last nights (grey) and of this one (blue; red where outside the limits). The band is the '
        "robust centre and its limits.</p>"
    )
    charts = []
    for name, title in {reading.statistic: reading.title for reading in digest.readings}.items():
        tonight = [reading for reading in digest.readings if reading.statistic == name]
        earlier = [value for one in before if (value := one.get(name)) is not None]
        if tonight:
            charts.append(
                f"<figure>{_chart(earlier, tonight)}<figcaption>{escape(title)}: {_compared(tonight[0])}</figcaption></figure>"
            )
    yield f'<div class="charts">{"".join(charts)}</div>'


def _chart(earlier: Sequence[float], tonight: Sequence[Reading]) -> str:
    """Values from left to right in the order they were counted; heights from the lowest to the highest of values and limits."""
    bounds = [each for each in (tonight[0].low, tonight[0].high) if each is not None]
    values = [*earlier, *(reading.value for reading in tonight), *bounds]
    low, high = min(values), max(values)
    span = (high - low) or 1.0

    def up(value: float) -> float:
        return _HEIGHT - _EDGE - (value - low) / span * (_HEIGHT - 2 * _EDGE)

    step = (_WIDTH - 2 * _EDGE) / max(1, len(earlier) + len(tonight) - 1)
    shapes = []
    if tonight[0].low is not None and tonight[0].high is not None and tonight[0].centre is not None:
        top, bottom, middle = up(tonight[0].high), up(tonight[0].low), up(tonight[0].centre)
        shapes.append(
            f'<rect x="0" y="{top:.1f}" width="{_WIDTH:g}" height="{max(bottom - top, 0.5):.1f}" fill="#dfe7f3"/>'
            f'<line x1="0" x2="{_WIDTH:g}" y1="{middle:.1f}" y2="{middle:.1f}" stroke="#8fa3c4"/>'
        )
    points = [("#8a919c", value, "") for value in earlier]
    points += [
        ("#b3261e" if reading.flagged else "#1f5fbf", reading.value, reading.plate) for reading in tonight
    ]
    for number, (colour, value, name) in enumerate(points):
        title = f"<title>{escape(name)}: {_number(value)}</title>" if name else ""
        shapes.append(
            f'<circle cx="{_EDGE + number * step:.1f}" cy="{up(value):.1f}" r="4" fill="{colour}">{title}</circle>'
        )
    return f'<svg viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" role="img">{"".join(shapes)}</svg>'


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
