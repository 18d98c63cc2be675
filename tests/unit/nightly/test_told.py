"""What a night says of plates that did not simply go well, and where its paths lead."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import tifffile
import yaml

from cellcount_core.cli.main import main
from cellcount_core.domain.errors import ExitCode
from cellcount_core.nightly.counting import failures_told
from cellcount_core.nightly.ledger import PlateStatus
from tests.nights import night, settings
from tests.plates import discs, write_plate


@contextmanager
def receiver() -> Iterator[tuple[str, list[str]]]:
    bodies: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", bodies
    finally:
        server.shutdown()
        server.server_close()


def text_of(page: Path) -> str:
    return re.sub(r"<[^>]+>", " ", page.read_text())


def test_each_plate_with_a_failure_has_its_sentence_on_page_console_and_webhook(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scope = tmp_path / "scope"
    for name in ("Plate04", "Plate05", "Plate06"):
        plate = write_plate(scope / name, well_count=2, sites=1)
        (plate.folder / "DONE").touch()
        if name == "Plate05":
            plate.file("A02", 1).write_bytes(plate.file("A02", 1).read_bytes()[:900])
        if name == "Plate06":
            (plate.folder / "nonsense.tif").write_bytes(b"x")
    file = tmp_path / "nightly.yaml"
    with receiver() as (url, bodies):
        config = settings(scope, tmp_path / "out", webhook={"url": url})
        file.write_text(yaml.safe_dump(config.model_dump(mode="json")), encoding="utf-8")
        assert main(["nightly", str(file), "--progress", "quiet"]) == ExitCode.FAILURES
    console = capsys.readouterr().out
    (body,) = bodies
    page = text_of(tmp_path / "out/nights/latest.html")
    for sentence in (
        "Plate05: 1 field failed (truncated, A02)",
        "Plate06: not counted: the layout cannot read the name",
    ):
        assert sentence in console
        assert sentence in page
        assert any(sentence in line for line in json.loads(body)["sentences"])
    assert "2 counted, 1 failed, 0 unchanged, 1 with failed or missing fields" in console
    assert "Plate04:" not in console
    assert re.search(r"fields failed or missing\s+1\b", page)


def test_a_plate_whose_files_end_in_zeros_is_late_until_they_are_whole(tmp_path: Path) -> None:
    plate = write_plate(tmp_path / "scope" / "P1", well_count=2, sites=1)
    (plate.folder / "DONE").touch()
    file = plate.file("A02", 1)
    image = tifffile.imread(file)
    tifffile.imwrite(file, image)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) * 2 // 3] + bytes(len(whole) - len(whole) * 2 // 3))
    config = settings(tmp_path / "scope", tmp_path / "out")
    for _ in range(2):
        digest = night(config)
        assert digest.exit_code is ExitCode.OK
        assert [event.detail for event in digest.of(PlateStatus.LATE)] == [
            "1 field ends in zeros, as files do that are still being copied (A02)"
        ]
    file.write_bytes(whole)
    os.utime(file, (1, 1))
    (event,) = night(config).of(PlateStatus.COUNTED)
    assert (event.fields, event.ok, event.detail) == (2, 2, "")


def test_late_plates_are_named_with_why_and_what_a_plan_warns_of_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, marker in (("P1", "done.txt"), ("P2", "DONE"), ("P3", "DONE")):
        plate = write_plate(tmp_path / "scope" / name, well_count=2, sites=1 if name == "P2" else 2)
        (plate.folder / marker).touch()
        (plate.folder / "scan.czi").write_bytes(b"x")
    config = settings(tmp_path / "scope", tmp_path / "out", complete={"marker": "DONE", "fields": 4})
    file = tmp_path / "nightly.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")), encoding="utf-8")
    assert main(["nightly", str(file), "--progress", "quiet"]) == ExitCode.OK
    console = capsys.readouterr().out
    page = text_of(tmp_path / "out/nights/latest.html")
    for sentence in (
        "P1: late, not counted tonight: no file DONE (complete.marker)",
        "P2: late, not counted tonight: 2 of 4 fields (complete.fields)",
        "P3: left out: 1 file, ",
    ):
        assert sentence in console
        assert sentence in page


def test_a_plate_that_is_stopped_early_tells_what_failed(tmp_path: Path) -> None:
    for name in ("P1", "P2"):
        plate = write_plate(tmp_path / "scope" / name, well_count=4, sites=1)
        (plate.folder / "DONE").touch()
        plate.file("A02", 1).write_bytes(plate.file("A02", 1).read_bytes()[: 900 if name == "P1" else 0])
    execution = {"runner": "serial", "threads": 1, "shard_fields": 1, "max_failed": 0, "in_flight": 1}
    digest = night(settings(tmp_path / "scope", tmp_path / "out", execution=execution))
    found = sorted(digest.sentences)
    assert found[0].startswith(
        "P1: not counted: 1 field failed (truncated, A02); stopped early: 1 of 4 fields"
    )
    assert found[1].startswith("P2: not counted: 1 field failed (empty_file, A02); stopped early")
    assert all("execution.max_failed is 0" in line and "\n" not in line for line in found)


def test_failures_are_told_by_reason_with_their_wells() -> None:
    rows = [
        ("ok", None, "A01"),
        ("failed", "truncated", "B02"),
        ("failed", "truncated", "B02"),
        ("missing", "absent", "C01"),
    ]
    rows += [("failed", "unreadable", f"D{number:02}") for number in range(1, 8)]
    assert failures_told(rows[:1]) == ""
    assert failures_told(rows[:2]) == "1 field failed (truncated, B02)"
    assert failures_told(rows) == (
        "9 fields failed (truncated, B02; unreadable, D01, D02, D03, D04, D05, …), 1 field is missing (absent, C01)"
    )


def test_relative_paths_are_those_of_the_file_wherever_the_night_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home, other = tmp_path / "lab", tmp_path / "cron"
    other.mkdir()
    plate = write_plate(home / "plates" / "P1", well_count=1, sites=1)
    (plate.folder / "DONE").touch()
    tree = settings("./plates", "counts").model_dump(mode="json")
    (home / "nightly.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    for folder, file in (
        (home, "nightly.yaml"),
        (other, "../lab/nightly.yaml"),
        (Path("/"), str(home / "nightly.yaml")),
    ):
        monkeypatch.chdir(folder)
        assert main(["nightly", file, "--progress", "line"]) == ExitCode.OK
    told = capsys.readouterr()
    assert told.out.count("1 unchanged") == 2
    assert f"{home}/counts" in told.out
    assert "relative paths in ../lab/nightly.yaml are taken from its own folder" in told.err
    assert len(list(tmp_path.rglob("datasets.parquet"))) == 1
    assert not list(other.iterdir())
    monkeypatch.chdir(other)
    assert (
        main(["nightly", str(home / "nightly.yaml"), "--progress", "quiet", "--set", "output=mine"])
        == ExitCode.OK
    )
    assert (other / "mine" / "nights").is_dir()


def test_what_a_plan_warns_of_is_told_of_plates_that_are_stopped_early_too(tmp_path: Path) -> None:
    plate = write_plate(tmp_path / "scope" / "P1", well_count=4, sites=1)
    (plate.folder / "DONE").touch()
    (plate.folder / "scan.czi").write_bytes(b"x")
    plate.file("A02", 1).write_bytes(b"")
    execution = {"runner": "serial", "threads": 1, "shard_fields": 1, "max_failed": 0}
    digest = night(settings(tmp_path / "scope", tmp_path / "out", execution=execution))
    assert [event.status for event in digest.events] == [PlateStatus.FAILED]
    assert any(line.startswith("P1: left out: 1 file, ") for line in digest.sentences)
    assert "P1: left out: 1 file, " in text_of(tmp_path / "out/nights/latest.html")


def test_a_plate_of_which_no_field_could_be_counted_is_failed_until_one_can(tmp_path: Path) -> None:
    plate = write_plate(tmp_path / "scope" / "P1", well_count=2, sites=1)
    (plate.folder / "DONE").touch()
    files = [plate.file(well, 1) for well in ("A01", "A02")]
    whole = files[0].read_bytes()
    for file in files:
        file.write_bytes(file.read_bytes()[:900])
    config = settings(tmp_path / "scope", tmp_path / "out")
    for _ in range(2):
        digest = night(config)
        assert digest.sentences == [
            "P1: not counted: 2 fields failed (truncated, A01, A02); none of its fields could be counted"
        ]
        assert digest.exit_code is ExitCode.FAILURES
        assert digest.headline == "0 counted, 1 failed, 0 unchanged"
    files[0].write_bytes(whole)
    (event,) = night(config).of(PlateStatus.COUNTED)
    assert (event.ok, event.failed) == (1, 1)
    assert night(config).unchanged == 1


def test_fields_that_failed_for_what_may_pass_are_tried_again_the_next_night(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, wells in (("P1", 2), ("P2", 1)):
        plate = write_plate(tmp_path / "scope" / name, well_count=wells, sites=1)
        (plate.folder / "DONE").touch()
    opened = os.open

    def denied(path: str | Path, *rest: int, **more: int) -> int:
        if str(path).endswith("A01_s1_w1.TIF"):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *rest, **more)

    # P1 is stopped early, P2 is done to its end and no field of it is read.
    execution = {"runner": "serial", "threads": 1, "shard_fields": 1, "in_flight": 1}
    config = settings(tmp_path / "scope", tmp_path / "out", execution=execution | {"max_failed": 0})
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", denied)
        first = night(config)
    assert [(event.plate, event.status) for event in first.events] == [
        ("P1", PlateStatus.FAILED),
        ("P2", PlateStatus.FAILED),
    ]
    assert "access_denied, A01); stopped early" in first.sentences[0]
    assert "access_denied, A01); none of its fields" in first.sentences[1]
    second = night(config)
    assert [(event.plate, event.status, event.ok) for event in second.events] == [
        ("P1", PlateStatus.COUNTED, 2),
        ("P2", PlateStatus.COUNTED, 1),
    ]
    assert second.exit_code is ExitCode.OK


def test_a_night_with_a_plate_in_doubt_has_its_own_exit_code_where_strict_asks_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plate = write_plate(tmp_path / "scope" / "P1", well_count=2, sites=1)
    (plate.folder / "DONE").touch()
    for well in ("A01", "A02"):
        # Large dark discs on white: the package is for bright objects.
        tifffile.imwrite(plate.file(well, 1), 60000 - 20 * discs(6, 96, 1).astype("int64").clip(0, 2900))
    for strict, code in ((False, ExitCode.OK), (True, ExitCode.DOUBTS)):
        execution = {"runner": "serial", "threads": 1, "strict": strict}
        config = settings(tmp_path / "scope", tmp_path / f"out-{strict}", execution=execution)
        file = tmp_path / f"nightly-{strict}.yaml"
        file.write_text(yaml.safe_dump(config.model_dump(mode="json")), encoding="utf-8")
        assert main(["nightly", str(file), "--progress", "quiet"]) == code
        console = capsys.readouterr().out
        assert "1 counted, 0 unchanged, 1 in doubt" in console
        assert ("exit code 10: 1 plate in doubt (execution.strict)" in console) == strict
        data = json.loads((tmp_path / f"out-{strict}/nights/latest.json").read_text())
        assert data["in_doubt"] == {"P1": "bright_background"}
        assert data["exit_code"] == int(code)
