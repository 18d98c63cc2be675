"""The digest: its exit code, its JSON, and a page that shows names as text."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser

from cellcount_core.domain.errors import ExitCode
from cellcount_core.nightly.digest import Digest, Reading, digest_json
from cellcount_core.nightly.ledger import Event, PlateStatus
from cellcount_core.nightly.page import night_html, night_page

COUNTED = Event(
    "2026-03-02", "P1", "/scope/P1", "aa", PlateStatus.COUNTED, "2026-03-02T22:00:00+00:00", fields=4, ok=4, failed=0,
    missing=0, skipped=0, fields_now=4, statistics={"count": 1234, "count_per_field": 308.5, "focus": 0.5, "background": 300.0}, seconds=75.0,
)  # fmt: skip
LATE = replace(COUNTED, plate="P2", status=PlateStatus.LATE, detail="no file DONE", statistics={})
INSIDE = Reading("P1", "focus", "median focus", 0.5, 0.5, 0.4, 0.6, 9)
OUTSIDE = replace(
    INSIDE,
    statistic="background",
    title="median background (raw)",
    value=900.0,
    centre=300.0,
    low=280.0,
    high=320.0,
)
NIGHT = Digest(
    "2026-03-02", "2026-03-02T22:00:00+00:00", 80.0, None, (COUNTED, LATE), 3, (INSIDE,), (), (), (), 0
)


def test_a_night_without_trouble_exits_with_0_though_a_plate_is_late() -> None:
    assert NIGHT.exit_code is ExitCode.OK
    assert NIGHT.headline == "1 counted, 1 late, 3 unchanged"


def test_what_somebody_must_look_at_exits_with_3() -> None:
    failed = replace(COUNTED, status=PlateStatus.FAILED)
    incomplete = replace(COUNTED, ok=3, missing=1)
    assert replace(NIGHT, events=(failed,)).exit_code is ExitCode.FAILURES
    assert replace(NIGHT, events=(incomplete,)).exit_code is ExitCode.FAILURES
    assert replace(NIGHT, events=(incomplete,), max_failed=1).exit_code is ExitCode.OK
    assert replace(NIGHT, readings=(INSIDE, OUTSIDE)).exit_code is ExitCode.FAILURES
    assert replace(NIGHT, problems=("a root lists nothing",)).exit_code is ExitCode.FAILURES


def test_work_left_and_a_stop_exit_with_75() -> None:
    left = replace(COUNTED, status=PlateStatus.LEFT)
    assert replace(NIGHT, events=(left,)).exit_code is ExitCode.INTERRUPTED
    assert replace(NIGHT, interrupted=True).exit_code is ExitCode.INTERRUPTED
    assert (
        replace(NIGHT, events=(left, replace(COUNTED, status=PlateStatus.FAILED))).exit_code
        is ExitCode.FAILURES
    )


def test_the_json_has_every_plate_under_its_status_and_what_was_flagged() -> None:
    data = json.loads(digest_json(replace(NIGHT, readings=(INSIDE, OUTSIDE), cost=1.25)))

    assert [event["plate"] for event in data["counted"]] == ["P1"]
    assert [event["detail"] for event in data["late"]] == ["no file DONE"]
    assert [(reading["statistic"], reading["flagged"]) for reading in data["drift"]] == [
        ("focus", False), ("background", True),
    ]  # fmt: skip
    assert (data["exit_code"], data["cost"], data["fields_counted"], data["unchanged"]) == (3, 1.25, 4, 3)


def test_no_name_or_message_can_become_markup() -> None:
    evil = "<script>alert(1)</script>\"'&"
    events = tuple(
        replace(COUNTED, plate=evil, source=evil, output=evil, detail=evil, status=status)
        for status in PlateStatus
    )
    html = night_html(
        replace(
            NIGHT, events=events, problems=(evil,), notices=(evil,), webhook=evil,
            readings=(replace(OUTSIDE, plate=evil),),
        ),
        [{"background": 300.0}],
    )  # fmt: skip

    assert "<script" not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 2 * len(PlateStatus)


def test_every_element_of_the_page_is_closed() -> None:
    class Nesting(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []

        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag != "meta":
                self.open.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert self.open.pop() == tag

    parser = Nesting()
    parser.feed(night_html(replace(NIGHT, readings=(INSIDE, OUTSIDE), notices=("a",)), [{"focus": 0.5}] * 9))

    assert parser.open == []


def test_the_chart_marks_what_is_outside_its_limits() -> None:
    quiet, drifting = night_html(NIGHT, []), night_html(replace(NIGHT, readings=(OUTSIDE,)), [])

    assert 'fill="#b3261e"' not in quiet
    assert 'fill="#b3261e"' in drifting
    assert "median background (raw) is 900, outside 280 to 320" in drifting


def test_what_the_page_shows_is_a_value_before_it_is_a_page() -> None:
    incomplete = replace(COUNTED, plate="P3", source="/scope/P3", ok=3, missing=1)

    shown = night_page(
        replace(NIGHT, events=(COUNTED, incomplete, LATE), readings=(INSIDE, OUTSIDE), cost=1.25),
        [{"focus": 0.45}] * 3,
    )

    assert shown.title == "Night 2026-03-02"
    assert {card.name: card.value for card in shown.cards}["fields failed or missing"] == "1"
    assert shown.cards[-1].value == "1.25"
    assert [table.title.partition(":")[0] for table in shown.tables] == ["Counted", "Late"]
    counted = shown.tables[0]
    assert [cell.text for cell in counted.rows[1] if cell.is_bad] == ["1"]
    assert [cell.of for cell in counted.rows[0]] == list(counted.heads)
    assert shown.problems == ("P1: median background (raw) is 900, outside 280 to 320",)
    focus, background = shown.charts
    assert len(focus.points) == 4
    assert [point.title for point in background.points] == ["P1: 900"]
    assert background.band is not None


def test_the_page_asks_for_nothing_outside_it() -> None:
    html = night_html(replace(NIGHT, readings=(INSIDE, OUTSIDE)), [{"focus": 0.5}] * 9)

    assert not any(word in html for word in ("http", "src=", "href=", "@import", "url("))
