"""Every runner gives the same tables, whatever the workers, the cut into shards, the listing and the deaths on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from cellcount_core.domain.errors import ExitCode
from tests.faults.drivers import LONGEST_S
from tests.jobs import count, digest, rows
from tests.plates import Plate, write_plate


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> Plate:
    """12 wells, 2 sites, 2 channels; one file truncated, one of the counted channel missing, one with no bytes."""
    plate = write_plate(tmp_path_factory.mktemp("input") / "plate", well_count=12, channels=2)
    truncated = plate.file("A03", 1)
    truncated.write_bytes(truncated.read_bytes()[:900])
    plate.file("A05", 2).unlink()
    plate.file("A07", 1).write_bytes(b"")
    return plate


@pytest.fixture(scope="module")
def reference(plate: Plate, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Digests of an unbroken serial run."""
    output = tmp_path_factory.mktemp("reference") / "out"
    result = count(plate.folder, output, run={"channels": {"nuclei": "w1"}})
    assert result.exit_code is ExitCode.FAILURES
    return digest(output)


@pytest.mark.parametrize("shard_fields", [1, 5, 64])
def test_tables_are_byte_equal_for_every_shard_size(
    plate: Plate, reference: dict[str, str], tmp_path: Path, shard_fields: int
) -> None:
    execution = {"runner": "serial", "threads": 1, "shard_fields": shard_fields}
    count(plate.folder, tmp_path / "out", run={"channels": {"nuclei": "w1"}}, execution=execution)
    assert digest(tmp_path / "out") == reference


@pytest.mark.ray
@pytest.mark.parametrize("actors", [1, 2])
@pytest.mark.parametrize("shard_fields", [1, 5, 64])
def test_tables_on_ray_are_byte_equal_for_every_number_of_workers_and_shard_size(
    plate: Plate,
    reference: dict[str, str],
    ray_here: object,
    tmp_path: Path,
    shard_fields: int,
    actors: int,
) -> None:
    execution = {"runner": "ray", "actors": actors, "shard_fields": shard_fields}
    count(plate.folder, tmp_path / "out", run={"channels": {"nuclei": "w1"}}, execution=execution)
    assert digest(tmp_path / "out") == reference


def test_the_order_of_the_listing_does_not_matter(
    plate: Plate, reference: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    class Reversed:
        def __init__(self, path: str) -> None:
            self._entries = iter(list(scandir(path))[::-1])

        def __enter__(self) -> Iterator[os.DirEntry[str]]:
            return self._entries

        def __iter__(self) -> Iterator[os.DirEntry[str]]:
            return self._entries

        def __next__(self) -> os.DirEntry[str]:
            return next(self._entries)

        def __exit__(self, *_: object) -> None:
            pass

        def close(self) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Reversed)
    count(plate.folder, tmp_path / "out", run={"channels": {"nuclei": "w1"}})
    assert digest(tmp_path / "out") == reference


def start(source: Path, output: Path, *settings: str) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "cellcount_core.cli",
        "count",
        str(source),
        str(output),
        "--layout",
        "imagexpress",
    ]
    command += ["--channel", "w1", "--model", "threshold", "--progress", "json"]
    command += [part for setting in settings for part in ("--set", setting)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def wait_for_parts(output: Path, parts: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + LONGEST_S
    while time.monotonic() < until:
        if len(list((output / "fields").glob("*.parquet"))) >= parts:
            return
        assert process.poll() is None, process.stderr.read().decode() if process.stderr else ""
        time.sleep(0.02)
    raise AssertionError(f"no {parts} parts after {LONGEST_S:g} s")


def test_a_killed_driver_goes_on_where_it_stopped(
    plate: Plate, reference: dict[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    driver = start(
        plate.folder, output, "execution.runner=serial", "execution.shard_fields=1", "execution.in_flight=1"
    )
    wait_for_parts(output, 3, driver)
    driver.kill()
    driver.wait()
    before = {part.name: part.stat().st_mtime_ns for part in (output / "fields").glob("*.parquet")}
    result = count(plate.folder, output, run={"channels": {"nuclei": "w1"}})
    assert digest(output) == reference
    kept = {part.name: part.stat().st_mtime_ns for part in (output / "fields").glob("*.parquet")}
    assert {name: kept[name] for name in before} == before
    assert result.progress.statuses.total() == 24 - len(before)


@pytest.mark.ray
def test_a_killed_actor_costs_nothing_but_time(
    plate: Plate, reference: dict[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    driver = start(plate.folder, output, "execution.actors=2", "execution.shard_fields=1")
    killed: list[int] = []

    def kill_one_actor() -> None:
        root = psutil.Process(driver.pid)
        while driver.poll() is None and not killed:
            for child in root.children(recursive=True):
                if "CountingActor.count" in " ".join(child.cmdline() or [child.name()]):
                    os.kill(child.pid, signal.SIGKILL)
                    killed.append(child.pid)
                    return
            time.sleep(0.01)

    killer = threading.Thread(target=kill_one_actor)
    killer.start()
    log = driver.communicate(timeout=600)[1].decode()
    killer.join()
    assert killed, log
    assert '"event": "death"' in log
    assert digest(output) == reference


def test_every_expected_field_has_one_row_with_its_reason(plate: Plate, tmp_path: Path) -> None:
    count(plate.folder, tmp_path / "out", run={"channels": {"nuclei": "w1"}})
    table = rows(tmp_path / "out", "fields")
    keys = list(zip(table["Metadata_Well"].to_pylist(), table["Metadata_Site"].to_pylist(), strict=True))
    assert keys == sorted(plate.truth)
    bad = {
        key: (status, reason)
        for key, status, reason in zip(
            keys, table["status"].to_pylist(), table["reason"].to_pylist(), strict=True
        )
        if status != "ok"
    }
    assert bad == {
        ("A03", 1): ("failed", "truncated"),
        ("A05", 2): ("missing", "channel_missing"),
        ("A07", 1): ("failed", "empty_file"),
    }
    counts = dict(zip(keys, table["count"].to_pylist(), strict=True))
    assert {key: found for key, found in counts.items() if key not in bad} == {
        key: true for key, true in plate.truth.items() if key not in bad
    }
    assert all(counts[key] is None for key in bad)


def test_another_configuration_is_refused_in_the_same_folder(plate: Plate, tmp_path: Path) -> None:
    from cellcount_core.domain.errors import OutputFault

    count(plate.folder, tmp_path / "out", run={"channels": {"nuclei": "w1"}})
    with pytest.raises(OutputFault, match="belongs to another run"):
        count(plate.folder, tmp_path / "out", run={"channels": {"nuclei": "w2"}})


def test_a_second_run_does_nothing(plate: Plate, tmp_path: Path) -> None:
    count(plate.folder, tmp_path / "out", run={"channels": {"nuclei": "w1"}})
    before = digest(tmp_path / "out")
    again = count(plate.folder, tmp_path / "out", run={"channels": {"nuclei": "w1"}})
    assert again.progress.shards == 0
    assert digest(tmp_path / "out") == before


def test_fields_part_and_objects_part_agree(plate: Plate, tmp_path: Path) -> None:
    count(plate.folder, tmp_path / "out", run={"channels": {"nuclei": "w1"}})
    for part in sorted((tmp_path / "out" / "fields").glob("*.parquet")):
        fields = pq.read_table(part)
        objects = pq.read_table(tmp_path / "out" / "objects" / part.name)
        assert sum(filter(None, fields["count"].to_pylist())) == objects.num_rows
