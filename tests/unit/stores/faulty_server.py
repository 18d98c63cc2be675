"""A tiny HTTP server on loopback that answers as told: the faults that a healthy S3 server never shows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Reply:
    """One answer. `announced` is the Content-Length where it is not the body's own; `silent_s` waits first; `part` is the
    Content-Range of some bytes."""

    status: int
    body: bytes = b""
    announced: int | None = None
    silent_s: float = 0.0
    hang_up: bool = False
    part: str = ""


@dataclass
class FaultyServer:
    """Answers request number n (from 1) with `answer(n, method)`; `requests` are (method, path, If-None-Match)."""

    answer: Callable[[int, str], Reply]
    endpoint: str = ""
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)


def error(status: int, code: str, message: str = "said the server") -> Reply:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return Reply(status, body.encode())


@contextmanager
def faulty_server(answer: Callable[[int, str], Reply]) -> Iterator[FaultyServer]:
    state = FaultyServer(answer)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def reply(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with lock:
                state.requests.append((self.command, self.path, self.headers.get("If-None-Match")))
                number = len(state.requests)
            told = state.answer(number, self.command)
            if told.silent_s:
                state.closing.wait(told.silent_s)
            if told.hang_up:
                self.close_connection = True
                return
            self.send_response(told.status)
            announced = len(told.body) if told.announced is None else told.announced
            self.send_header("Content-Length", str(announced))
            if told.part:
                self.send_header("Content-Range", told.part)
            self.send_header("ETag", '"abc"')
            self.send_header("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(told.body)
            self.close_connection = announced != len(told.body)

        def do_GET(self) -> None:
            self.reply()

        def do_PUT(self) -> None:
            self.reply()

        def do_HEAD(self) -> None:
            self.reply()

        def do_DELETE(self) -> None:
            self.reply()

        def log_message(self, *told: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    serving.start()
    state.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        state.closing.set()
        server.shutdown()
        serving.join()
        server.server_close()
