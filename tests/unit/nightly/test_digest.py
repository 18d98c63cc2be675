"""The digest of a night: exit code, JSON, a page that shows names as text, control charts, and the webhook."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from cellcount_core.domain.columns import schema_3
from cellcount_core.domain.errors import ConfigFault, ExitCode
from cellcount_core.nightly.config import History, Webhook
from cellcount_core.nightly.digest import (
    Digest,
    Reading,
    digest_json,
    hook_url,
    limits,
    readings,
    send,
    statistics_of,
)
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


HISTORY = History(nights=14, sigmas=4, least=5)
TITLES = statistics_of(schema_3("Nuclei", ("w1",)))


def test_without_enough_earlier_plates_nothing_is_flagged() -> None:
    (reading,) = readings("P1", {"focus": 1e9}, [{"focus": 1.0}] * 4, HISTORY, TITLES)

    assert reading.low is None
    assert not reading.flagged


def test_limits_are_so_many_standard_deviations_about_the_centre_of_normal_values() -> None:
    values = np.random.default_rng(5).normal(100, 10, 4001).tolist()

    bounds = limits(values, HISTORY)

    assert bounds is not None
    assert bounds[0] == pytest.approx(100, abs=1)
    assert bounds[1] == pytest.approx(60, abs=3)
    assert bounds[2] == pytest.approx(140, abs=3)


def test_one_plate_out_of_control_does_not_widen_the_limits_for_the_next() -> None:
    values = [98.0, 99.0, 100.0, 101.0, 102.0]
    clean, with_outlier = limits(values, HISTORY), limits([*values, 10_000.0], HISTORY)

    assert clean is not None
    assert with_outlier is not None
    assert with_outlier[2] < 110


def test_equal_plates_do_not_flag_the_first_that_differs_a_little() -> None:
    before = [{"background": 300.0}] * 9
    near, far = (readings("P", {"background": value}, before, HISTORY, TITLES)[0] for value in (310.0, 330.0))

    assert (near.flagged, far.flagged) == (False, True)


def test_a_statistic_that_a_plate_does_not_have_is_not_compared() -> None:
    found = readings("P", {"focus": None, "count_per_field": 3.0}, [{"focus": 1.0}] * 9, HISTORY, TITLES)

    assert [(reading.statistic, reading.plates) for reading in found] == [("count_per_field", 0)]


def test_what_is_watched_is_what_the_schema_declares() -> None:
    assert TITLES == {
        "count_per_field": "objects a field",
        "focus": "median focus",
        "background": "median background (raw)",
    }


Reply = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def server(*replies: Reply) -> Iterator[tuple[str, list[object]]]:
    """A server on loopback that gives these replies in turn (the last one for ever), and what it received."""
    received: list[object] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append(json.loads(body))
            replies[min(len(received), len(replies)) - 1](self)

        def do_GET(self) -> None:
            received.append("GET")
            self.send_error(200)

        def log_message(self, *_: object) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.server_address[1]}/hooks/secret", received
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join(10)


def code(number: int) -> Reply:
    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(number)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return reply


def test_the_digest_arrives_once() -> None:
    with server(code(204)) as (url, received):
        said = send(Webhook(url=url), b'{"night": "2026-03-02"}', time.sleep)

    assert said == "sent to 127.0.0.1: 204"
    assert received == [{"night": "2026-03-02"}]


def test_a_server_in_trouble_is_asked_again_with_growing_pauses() -> None:
    pauses: list[float] = []
    with server(code(503), code(429), code(200)) as (url, received):
        said = send(Webhook(url=url, retries=3, pause_s=2), b"{}", pauses.append)

    assert said == "sent to 127.0.0.1: 200"
    assert len(received) == 3
    assert pauses == [2, 4]


def test_a_refusal_is_told_and_not_tried_again() -> None:
    with server(code(404)) as (url, received):
        said = send(Webhook(url=url, retries=3), b"{}", time.sleep)

    assert said == "not sent to 127.0.0.1: it answered 404"
    assert len(received) == 1


def test_a_redirect_is_not_followed() -> None:
    def elsewhere(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", "/elsewhere")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    with server(elsewhere) as (url, received):
        said = send(Webhook(url=url, retries=0), b"{}", time.sleep)

    assert said == "not sent to 127.0.0.1: it answered 302"
    assert received == [{}]


def test_silence_ends_by_the_time_out() -> None:
    done = threading.Event()
    with server(lambda _: done.wait(120) and None) as (url, _):
        began = time.monotonic()
        said = send(Webhook(url=url, retries=1, pause_s=0, timeout_s=0.3), b"{}", time.sleep)
        took = time.monotonic() - began
        done.set()

    assert "timed out" in said
    assert took < 10


def test_nobody_there_is_told_without_the_path_of_the_url() -> None:
    with server(code(200)) as (url, _):
        pass
    said = send(Webhook(url=url, retries=0), b"{}", time.sleep)

    assert said.startswith("not sent to 127.0.0.1: ")
    assert "secret" not in said


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x", "host/path", "http://"])
def test_only_http_and_https_are_asked(url: str) -> None:
    with pytest.raises(ConfigFault, match=r"webhook\.url must be like"):
        hook_url(Webhook(url=url))


def test_a_secret_url_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    hook = Webhook(url_from="CELLCOUNT_TEST_HOOK")
    with pytest.raises(ConfigFault, match="CELLCOUNT_TEST_HOOK is not set"):
        hook_url(hook)
    monkeypatch.setenv("CELLCOUNT_TEST_HOOK", "https://host/secret")
    assert hook_url(hook) == "https://host/secret"
