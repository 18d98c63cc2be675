"""A rehearsed week: plates arrive, late, corrected and deleted, a night is killed, another skipped, and nothing is lost or doubled."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
import yaml

from cellcount_core.config import StorageConfig
from cellcount_core.domain.errors import ExitCode, Interrupted
from cellcount_core.domain.fields import Receipt
from cellcount_core.nightly.digest import Digest
from cellcount_core.nightly.ledger import PlateStatus
from cellcount_core.reduce.verify import verify
from cellcount_core.runners.events import Progress
from cellcount_core.stores.base import StorageOptions
from cellcount_core.stores.local import open_local
from cellcount_core.stores.open import open_store
from tests.nights import MONDAY, SimulatedClock, Witness, night, settings
from tests.plates import Plate, discs, write_plate
from tests.s3_jobs import upload
from tests.s3_server import S3Server

ROOT = Path(__file__).parents[2]
FIELDS = 4


def arrives(scope: Path, name: str, marked: bool = True) -> Plate:
    plate = write_plate(scope / name, well_count=2)
    if marked:
        (plate.folder / "DONE").touch()
    return plate


def names(digest: Digest, status: PlateStatus) -> list[str]:
    return [event.plate for event in digest.of(status)]


class Stopped(Witness):
    """Somebody stops the night when the second plate begins."""

    def stage(self, text: str) -> None:
        super().stage(text)
        if text.startswith("plate ") and "(2 of" in text:
            raise KeyboardInterrupt


def test_a_week_of_nights_counts_every_field_once_per_content(tmp_path: Path) -> None:
    scope, output = tmp_path / "scope", tmp_path / "counts"
    config = settings(scope, output)
    seen = Counter[str]()

    def one(day: int, witness: Witness | None = None) -> Digest:
        witness = witness or Witness()
        digest = night(config, SimulatedClock(MONDAY + timedelta(days=day)), witness)
        seen.update(witness.fields)
        return digest

    # Monday: two plates are there, a third is still being written.
    corrected = arrives(scope, "P1")
    arrives(scope, "P2")
    arrives(scope, "P3", marked=False)
    monday = one(0)
    assert names(monday, PlateStatus.COUNTED) == ["P1", "P2"]
    assert names(monday, PlateStatus.LATE) == ["P3"]
    assert monday.exit_code is ExitCode.OK

    # Tuesday: the late one is complete.
    (scope / "P3" / "DONE").touch()
    tuesday = one(1)
    assert names(tuesday, PlateStatus.COUNTED) == ["P3"]
    assert tuesday.unchanged == 2

    # Wednesday: an image of the first is replaced by a corrected one, and a fourth arrives.
    tifffile.imwrite(corrected.file("A02", 1), discs(7, 96, 99), compression="zlib")
    arrives(scope, "P4")
    wednesday = one(2)
    assert names(wednesday, PlateStatus.COUNTED) == ["P1", "P4"]
    assert names(wednesday, PlateStatus.SUPERSEDED) == ["P1"]

    # Thursday: the night is killed after one of two shards of the first of two new plates.
    arrives(scope, "P5")
    arrives(scope, "P6")
    seen.update(killed_night(tmp_path, config.model_dump(mode="json"), 3))
    assert not list((output / "counts" / "P6").glob("*"))

    # Friday: nobody starts it. Saturday: what was left is completed, and a plate is gone.
    shutil.rmtree(scope / "P2")
    saturday = one(5)
    assert names(saturday, PlateStatus.COUNTED) == ["P5", "P6"]
    assert names(saturday, PlateStatus.DELETED) == ["P2"]
    assert [event.fields_now for event in saturday.of(PlateStatus.COUNTED)] == [FIELDS - 2, FIELDS]
    assert any("2026-03-05 did not end" in notice for notice in saturday.notices)

    # Sunday: stopped between two new plates, and started once more.
    arrives(scope, "P7")
    arrives(scope, "P8")
    stopped = one(6, Stopped())
    assert stopped.exit_code is ExitCode.INTERRUPTED
    assert names(stopped, PlateStatus.COUNTED) == ["P7"]
    again = one(6)
    assert again.night == "2026-03-08-2"
    assert names(again, PlateStatus.COUNTED) == ["P8"]
    assert again.exit_code is ExitCode.OK

    # Every field once for each content: two contents of P1, one of the others.
    assert seen == {f"P{number}": FIELDS * (2 if number == 1 else 1) for number in range(1, 9)}
    rows = pq.read_table(output / "nights" / "datasets.parquet").to_pylist()
    assert sorted((row["plate"], row["status"]) for row in rows) == [
        ("P1", "counted"), ("P1", "superseded"), ("P2", "deleted"), *((f"P{number}", "counted") for number in range(3, 9)),
    ]  # fmt: skip
    for row in rows:
        assert (row["fields"], row["ok"]) == (FIELDS, FIELDS)
        assert verify(open_local(output / row["output"])).proven
    runs = {path.parent.parent.relative_to(output).as_posix() for path in output.rglob("run/run.json")}
    assert runs == {row["output"] for row in rows}
    live = {row["plate"]: row["count"] for row in rows if row["status"] == "counted"}
    assert live["P1"] == sum(corrected.truth.values()) - corrected.truth["A02", 1] + 7
    assert live["P8"] == sum(corrected.truth.values())


def test_a_night_stopped_inside_a_plate_says_so_and_the_next_one_counts_the_rest(tmp_path: Path) -> None:
    class StoppedInside(Witness):
        def receipt(self, receipt: Receipt, progress: Progress) -> None:
            super().receipt(receipt, progress)
            raise Interrupted("stopped")

    arrives(tmp_path / "scope", "P1")
    execution = {"runner": "serial", "threads": 1, "shard_fields": 1, "in_flight": 1}
    config = settings(tmp_path / "scope", tmp_path / "counts", execution=execution)
    first = StoppedInside()
    digest = night(config, witness=first)
    assert digest.exit_code is ExitCode.INTERRUPTED
    assert json.loads((tmp_path / "counts/nights/latest.json").read_bytes())["interrupted"] is True

    second = Witness()
    digest = night(config, SimulatedClock(MONDAY + timedelta(days=1)), second)
    assert names(digest, PlateStatus.COUNTED) == ["P1"]
    assert first.fields["P1"] + second.fields["P1"] == FIELDS


def killed_night(folder: Path, config: dict[str, object], day: int) -> dict[str, int]:
    """A night in a process of its own that SIGKILL ends after its first shard; gives the fields it had counted by then."""
    file = folder / "nightly.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    date = (MONDAY + timedelta(days=day)).isoformat()
    done = subprocess.run(
        [sys.executable, "-m", "tests.nights", str(file), date, "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode != -signal.SIGKILL:
        pytest.fail(f"the night was to be killed: {done.returncode}\n{done.stderr}")
    counted: dict[str, int] = yaml.safe_load(done.stdout)
    return counted


def test_nights_over_s3_go_by_content_and_not_by_dates(
    tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    s3_server.make_bucket("scope")
    s3_server.make_bucket("nightly")
    options = StorageOptions(endpoint=s3_server.endpoint)
    plate = write_plate(tmp_path / "P1", well_count=2)
    scope = open_store("s3://scope/plates/P1", options)
    upload(plate, scope)
    scope.put("DONE", b"")
    config = settings(
        "s3://scope/plates", "s3://nightly/counts", storage=StorageConfig(endpoint=s3_server.endpoint)
    )
    nights = (SimulatedClock(MONDAY + timedelta(days=day)) for day in range(3))

    first = night(config, next(nights))
    upload(plate, scope)
    second = night(config, next(nights))
    plate.file("A02", 1).write_bytes(plate.file("A02", 2).read_bytes())
    upload(plate, scope)
    third = night(config, next(nights))

    assert names(first, PlateStatus.COUNTED) == ["P1"]
    assert (second.events, second.unchanged) == ((), 1)
    assert names(third, PlateStatus.COUNTED) == names(third, PlateStatus.SUPERSEDED) == ["P1"]
    output = open_store("s3://nightly/counts", options)
    rows = pq.read_table(pa.BufferReader(output.get("nights/datasets.parquet"))).to_pylist()
    truth = sum(plate.truth.values())
    assert [(row["status"], row["count"]) for row in rows] == [
        ("counted", truth - plate.truth["A02", 1] + plate.truth["A02", 2]),
        ("superseded", truth),
    ]
