"""A URL of a scheme that is not allowed is refused wherever it stands, before anything is opened."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from cellcount_core.cli.main import main
from cellcount_core.domain.errors import ExitCode
from tests.plates import write_plate

COUNT = ["--model", "threshold", "--runner", "serial", "--progress", "quiet"]


@pytest.fixture
def asked() -> Iterator[tuple[str, list[str]]]:
    """URL of a server on loopback, and the requests that it got."""
    paths: list[str] = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_response(404)
            self.end_headers()

        do_HEAD = do_PUT = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", paths
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_url_of_another_scheme_is_refused_unasked_as_input_output_and_manifest(
    asked: tuple[str, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, paths = asked
    plate = write_plate(tmp_path / "plate", well_count=2).folder
    table = ["--layout", "table", "--set", f"run.layout.manifest={url}/table.csv"]
    for command in (
        ["count", f"{url}/plate", str(tmp_path / "out"), *COUNT],
        ["count", str(plate), f"{url}/out", *COUNT],
        ["count", str(plate), str(tmp_path / "out"), *table, *COUNT],
        ["plan", f"{url}/plate", "--model", "threshold"],
    ):
        assert main(command) == ExitCode.CONFIG
        told = capsys.readouterr().err
        assert told.count("\n") == 1
        assert "'http://' is not among storage.schemes, which allow file, s3" in told
    assert paths == []
    assert not (tmp_path / "out" / "fields").exists()


def test_a_root_of_a_nightly_is_held_to_the_same(
    asked: tuple[str, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, paths = asked
    config = tmp_path / "nightly.yaml"
    config.write_text(f"roots: ['{url}/plates']\noutput: {tmp_path / 'nights'}\n")
    assert main(["nightly", str(config)]) != ExitCode.OK
    captured = capsys.readouterr()
    assert "'http://' is not among storage.schemes" in captured.out + captured.err
    assert paths == []


def test_it_is_asked_once_it_is_allowed(asked: tuple[str, list[str]], tmp_path: Path) -> None:
    url, paths = asked
    allowed = ["--set", "storage.schemes=[file, http]"]
    assert main(["count", f"{url}/plate", str(tmp_path / "out"), *COUNT, *allowed]) != ExitCode.OK
    assert paths


@pytest.mark.parametrize("schemes", ["[]", "['S3']", "['s3://']", "file"])
def test_what_is_no_scheme_cannot_be_allowed(
    schemes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["count", str(tmp_path), str(tmp_path / "out"), *COUNT, "--set", f"storage.schemes={schemes}"]
    assert main(command) == ExitCode.CONFIG
    assert "storage.schemes" in capsys.readouterr().err
