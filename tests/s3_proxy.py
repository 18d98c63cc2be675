"""A loopback proxy in front of a real S3 server: sees every request that goes over the wire, and may interfere.

It forwards requests with their headers as they are. The Host header that a client signed is therefore the one that the
server checks, so signatures hold through the proxy.
"""

from __future__ import annotations

import http.client
import os
import re
import select
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import unescape

import psutil

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "server", "date"}
_LISTED = re.compile(rb"<Contents>.*?<Key>(.*?)</Key>.*?</Contents>", re.DOTALL)
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of no seconds: a close is a reset."""


@dataclass(frozen=True)
class Request:
    """One request: `key` is bucket/key without the leading '/', `prefix` that of a listing, `port` the client's own.

    `creates` says that a put is made only where nothing is there yet (If-None-Match).
    """

    method: str
    key: str
    prefix: str | None
    port: int
    creates: bool = False

    def is_get_of(self, ending: str | tuple[str, ...]) -> bool:
        """Whether an object is read whose key ends so, or in one of these ways."""
        return self.method == "GET" and self.prefix is None and self.key.endswith(ending)

    def client_pid(self) -> int:
        """The process on this machine that sent it."""
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == self.port and connection.pid is not None:
                return int(connection.pid)
        raise ProcessLookupError(f"no process has the local port {self.port}")


@dataclass(frozen=True)
class Instead:
    """What the proxy answers itself: `body` at once, or a byte every `drip_s` seconds of an announced `length`."""

    status: int
    body: bytes = b""
    length: int | None = None
    drip_s: float | None = None


@dataclass(frozen=True)
class Reset:
    """The connection is reset and there is no reply; the server has `acted` on the request before that, or never saw it."""

    acted: bool


@dataclass(frozen=True)
class Cut:
    """The server's reply ends after this `share` of its body, which is announced whole. One without a body comes as it is."""

    share: float


@dataclass(frozen=True)
class Late:
    """The server's reply comes after so many seconds."""

    seconds: float


def refusal(status: int, code: str, message: str) -> Instead:
    """An error as S3 words it."""
    return Instead(
        status,
        f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode(),
    )


SLOW_DOWN = refusal(503, "SlowDown", "Please reduce your request rate.")
INTERNAL_ERROR = refusal(500, "InternalError", "We encountered an internal error. Please try again.")
EXPIRED = refusal(400, "ExpiredToken", "The provided token has expired.")

Interference = Instead | Reset | Cut | Late
Interfere = Callable[[Request], Interference | None]


@dataclass
class S3Proxy:
    """`endpoint` is what clients are given. `interfere` sees each request before it is forwarded, and may wait.

    `requests` are those seen with the status that the client was sent, 0 where it was sent none or no whole reply. `hidden`
    says which keys (bucket/key) every listing leaves out.
    """

    endpoint: str = ""
    interfere: Interfere = field(default=lambda request: None)
    hidden: Callable[[str], bool] = field(default=lambda key: False)
    requests: list[tuple[Request, int]] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    def operations(self, bucket: str) -> Counter[str]:
        """How many lists, reads, puts and other requests `bucket` has seen."""
        return Counter(
            _operation(request) for request, _ in list(self.requests) if request.key.split("/")[0] == bucket
        )


def _operation(request: Request) -> str:
    if request.prefix is not None:
        return "list"
    return {"GET": "read", "PUT": "put"}.get(request.method, request.method)


def _without(hidden: Callable[[str], bool], bucket: str, listing: bytes) -> bytes:
    """A listing of `bucket` without the keys that are `hidden`."""

    def shown(entry: re.Match[bytes]) -> bytes:
        key = unescape(entry.group(1).decode(), {"&quot;": '"', "&apos;": "'"})
        return b"" if hidden(f"{bucket.strip('/')}/{key}") else entry.group()

    return _LISTED.sub(shown, listing)


@contextmanager
def s3_proxy(server_endpoint: str) -> Iterator[S3Proxy]:
    """A proxy for the server at `server_endpoint`; its connections end with the context."""
    state = S3Proxy()
    target = urlsplit(server_endpoint).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        upstream: http.client.HTTPConnection | None = None

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = urlsplit(self.path)
            query = parse_qs(parts.query, keep_blank_values=True)
            prefix = query.get("prefix", [""])[0] if "list-type" in query else None
            creates = self.headers.get("If-None-Match") == "*"
            key = unquote(parts.path).lstrip("/")
            request = Request(self.command, key, prefix, self.client_address[1], creates)
            told = state.interfere(request)
            if isinstance(told, Instead):
                # Noted first: a client that was told must find it noted.
                state.requests.append((request, told.status))
                self._told(told)
                return
            if told == Reset(acted=False):
                state.requests.append((request, 0))
                self._reset()
                return
            status, headers, answer = self._asked(body)
            if prefix is not None and status == 200:
                answer = _without(state.hidden, key, answer)
            if isinstance(told, Late):
                state.closing.wait(told.seconds)
            broken = isinstance(told, Reset) or (isinstance(told, Cut) and answer) or self._hung_up()
            state.requests.append((request, 0 if broken else status))
            if isinstance(told, Reset):
                self._reset()
                return
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in _HOP_BY_HOP:
                    self.send_header(name, value)
            length = dict(headers).get("Content-Length", "0") if self.command == "HEAD" else str(len(answer))
            self.send_header("Content-Length", length)
            self.end_headers()
            if isinstance(told, Cut) and answer:
                answer = answer[: min(int(told.share * len(answer)), len(answer) - 1)]
                self.close_connection = True
            self.wfile.write(answer)

        def _hung_up(self) -> bool:
            """Whether the client has closed the connection, having waited long enough."""
            if not select.select([self.connection], [], [], 0)[0]:
                return False
            try:
                return not self.connection.recv(1, socket.MSG_PEEK)
            except ConnectionError:
                return True

        def _reset(self) -> None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            # The socket's own close would wait for its files, and the server would end the connection in peace first.
            os.close(self.connection.detach())
            self.close_connection = True

        def _asked(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            if self.upstream is None:
                self.upstream = http.client.HTTPConnection(target, timeout=60)
            self.upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                self.upstream.putheader(name, value)
            self.upstream.endheaders(body or None)
            reply = self.upstream.getresponse()
            return reply.status, reply.getheaders(), reply.read()

        def _told(self, instead: Instead) -> None:
            self.send_response_only(instead.status)
            length = len(instead.body) if instead.length is None else instead.length
            self.send_header("Content-Length", str(length))
            self.send_header("ETag", '"told"')
            self.send_header("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT")
            self.end_headers()
            if instead.drip_s is None:
                if self.command != "HEAD":
                    self.wfile.write(instead.body)
                return
            with suppress(ConnectionError):
                for _ in range(length):
                    self.wfile.write(b"\0")
                    if state.closing.wait(instead.drip_s):
                        break
            self.close_connection = True

        def handle(self) -> None:
            # A client that is killed leaves its connection open; that is the point of some tests.
            with suppress(ConnectionError):
                super().handle()

        def finish(self) -> None:
            with suppress(ConnectionError):
                super().finish()
            if self.upstream is not None:
                self.upstream.close()

        def do_GET(self) -> None:
            self.forward()

        def do_PUT(self) -> None:
            self.forward()

        def do_HEAD(self) -> None:
            self.forward()

        def do_DELETE(self) -> None:
            self.forward()

        def do_POST(self) -> None:
            self.forward()

        def log_message(self, *told: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
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
