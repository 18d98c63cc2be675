"""Workers that die and workers that hang, on real Ray: the field that does it becomes one row, all others are counted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from cellcount_core.domain.errors import ExitCode, Reason
from cellcount_core.reduce.verify import verify
from cellcount_core.stores.base import StorageOptions
from cellcount_core.stores.open import open_store
from tests.faults.cluster import RayCluster, ray_cluster
from tests.faults.packages import package_off_its_golden_tensors
from tests.plates import Plate, write_plate
from tests.s3_jobs import field_rows, upload
from tests.s3_proxy import Instead, Request, s3_proxy
from tests.s3_server import S3Server

INPUT = "s3://faults-workers/plate"
KILLS, HANGS = ("A01", 2), ("A02", 1)
SHARD_TIMEOUT_S = 4.0


@pytest.fixture(scope="module")
def server(s3_server: S3Server) -> Iterator[S3Server]:
    s3_server.make_bucket("faults-workers")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment().items():
            patch.setenv(name, value)
        yield s3_server


@pytest.fixture(scope="module")
def cluster(server: S3Server) -> Iterator[RayCluster]:
    with ray_cluster(server.environment()) as started:
        yield started


@pytest.fixture(scope="module")
def plate(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Plate:
    """4 wells, 2 sites: two shards of four fields; both bad fields are in the first."""
    plate = write_plate(tmp_path_factory.mktemp("workers") / "plate", well_count=4)
    upload(plate, open_store(INPUT, StorageOptions(endpoint=server.endpoint)))
    return plate


@dataclass(frozen=True)
class Ended:
    """How a driver ended: exit code, seconds, and the events and other lines it logged."""

    code: int
    seconds: float
    events: list[dict[str, object]]
    words: list[str]

    def deaths(self, reason: Reason) -> int:
        """Attempts that gave no receipt for this reason."""
        return sum(event["event"] == "death" and event["reason"] == reason for event in self.events)


def drive(cluster: RayCluster, source: str | Path, output: Path, *settings: str) -> Ended:
    """`cellcount count` with one worker on the cluster."""
    arguments = ["count", str(source), str(output), "--layout", "imagexpress", "--progress", "json"]
    arguments += ["--address", cluster.address, "--actors", "1", "--set", "execution.shard_fields=4"]
    began = time.monotonic()
    driver = subprocess.run(
        [sys.executable, "-m", "cellcount_core.cli", *arguments, *settings],
        env=cluster.environment, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    lines = driver.stderr.splitlines()
    return Ended(
        driver.returncode,
        time.monotonic() - began,
        [json.loads(line) for line in lines if line.startswith("{")],
        [line for line in lines if not line.startswith("{")],
    )


class BadObjects:
    """Reading one object kills the process that does it; another object comes a byte a second, never silent, never done.

    Both happen to the worker itself: the kill is a SIGKILL by the process id that owns the connection, and the slow object
    keeps the read within every time limit of the storage layer, so that only the shard's own limit can end it.
    """

    def __init__(self, plate: Plate) -> None:
        self._kills, self._hangs = (plate.file(*bad).name for bad in (KILLS, HANGS))
        self._lock = threading.Lock()
        self.killed: list[int] = []
        self.hung: list[int] = []

    def __call__(self, request: Request) -> Instead | None:
        if request.is_get_of(self._hangs):
            with self._lock:
                self.hung.append(request.client_pid())
            return Instead(200, length=1 << 20, drip_s=1.0)
        if request.is_get_of(self._kills):
            with self._lock:
                pid = request.client_pid()
                self.killed.append(pid)
                os.kill(pid, signal.SIGKILL)
        return None


Broken = tuple[Ended, Path, BadObjects]


@pytest.fixture(scope="module")
def broken(
    plate: Plate, server: S3Server, cluster: RayCluster, tmp_path_factory: pytest.TempPathFactory
) -> Broken:
    """A run over a plate with a field that kills its worker and one that hangs, both in one shard."""
    output = tmp_path_factory.mktemp("workers-out") / "out"
    bad = BadObjects(plate)
    settings = ["execution.max_deaths=1", f"execution.shard_timeout_s={SHARD_TIMEOUT_S}"]
    with s3_proxy(server.endpoint) as proxy:
        proxy.interfere = bad
        assignments = [part for setting in settings for part in ("--set", setting)]
        ended = drive(
            cluster, INPUT, output, "--model", "threshold", "--endpoint", proxy.endpoint, *assignments
        )
    return ended, output, bad


def test_the_field_that_kills_and_the_field_that_hangs_are_one_row_each_and_all_others_are_counted(
    plate: Plate, broken: Broken
) -> None:
    ended, output, _ = broken
    assert ended.code == ExitCode.FAILURES, ended
    rows = field_rows(output)
    assert rows.pop(KILLS) == ("failed", "worker_died", None)
    assert rows.pop(HANGS) == ("failed", "timed_out", None)
    assert rows == {
        key: ("ok", None, count) for key, count in plate.truth.items() if key not in (KILLS, HANGS)
    }
    assert verify(open_store(str(output), StorageOptions())).proven


def test_the_bad_fields_are_found_by_halving_in_bounded_time(broken: Broken) -> None:
    ended, _, bad = broken
    # Of four fields the second kills and the third hangs. The whole shard dies, in the window and alone; then each
    # half has one bad field, and each half of that is one field.
    assert ended.deaths(Reason.TIMED_OUT) == 2
    assert ended.deaths(Reason.WORKER_DIED) - len(bad.killed) in (0, 1)
    assert len(bad.killed) == 4
    assert ended.seconds < 2 * SHARD_TIMEOUT_S + 90


def test_no_worker_that_died_or_hung_is_left(broken: Broken) -> None:
    _, _, bad = broken
    pids = {*bad.killed, *bad.hung}
    assert len(pids) >= 6
    assert [pid for pid in pids if psutil.pid_exists(pid)] == []


def test_a_package_off_its_golden_tensors_stops_the_run_from_within_a_worker(
    plate: Plate, cluster: RayCluster, tmp_path: Path
) -> None:
    package = package_off_its_golden_tensors(tmp_path / "package")
    ended = drive(cluster, plate.folder, tmp_path / "out", "--model", str(package))
    assert ended.code == ExitCode.MODEL
    assert len(ended.words) == 1
    assert "is off its golden tensors by 0.25" in ended.words[0]
    assert not (tmp_path / "out" / "fields").exists()
