"""The webhook: sent once it answers, tried again where that may help, told and no more where it does not."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.nightly.config import Webhook
from cellcount_core.nightly.digest import hook_url, send

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
