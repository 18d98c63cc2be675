"""Workers that die and workers that hang, on real Ray: the field that does it becomes one row, all others are counted."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cellcount_core.cli.progress import Quiet
from cellcount_core.domain.errors import ExitCode, ModelFault, Reason
from cellcount_core.reduce.verify import verify
from cellcount_core.runners.job import JobResult, run_job
from cellcount_core.runners.pool import Death, Task
from cellcount_core.stores.base import StorageOptions
from cellcount_core.stores.open import open_store
from tests.faults.cluster import ray_cluster
from tests.faults.packages import package_off_its_golden_tensors
from tests.jobs import job
from tests.plates import Plate, write_plate
from tests.s3_jobs import field_rows, upload
from tests.s3_proxy import Instead, Request, s3_proxy
from tests.s3_server import S3Server

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
def address(server: S3Server) -> Iterator[str]:
    with ray_cluster(server.environment()) as started:
        yield started


@pytest.fixture(scope="module")
def plate(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Plate:
    """4 wells, 2 sites: two shards of four fields; both bad fields are in the first."""
    plate = write_plate(tmp_path_factory.mktemp("workers") / "plate", well_count=4)
    upload(plate, open_store("s3://faults-workers/plate", StorageOptions(endpoint=server.endpoint)))
    return plate


class Deaths(Quiet):
    """Keeps the reason of every attempt that gave no receipt."""

    def __init__(self) -> None:
        self.reasons: list[Reason] = []

    def death(self, task: Task, death: Death) -> None:
        self.reasons.append(death.reason)


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


@pytest.fixture(scope="module")
def broken(
    plate: Plate, server: S3Server, address: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[JobResult, Path, BadObjects, list[Reason], float]:
    """A run over a plate with a field that kills its worker and one that hangs, both in one shard."""
    output = tmp_path_factory.mktemp("workers-out") / "out"
    bad, events = BadObjects(plate), Deaths()
    execution = {
        "runner": "ray",
        "address": address,
        "actors": 1,
        "max_deaths": 1,
        "shard_timeout_s": SHARD_TIMEOUT_S,
    }
    with s3_proxy(server.endpoint) as proxy:
        proxy.interfere = bad
        config = job(
            "s3://faults-workers/plate", output, execution=execution, storage={"endpoint": proxy.endpoint}
        )
        began = time.monotonic()
        result = run_job(config, events)
        return result, output, bad, events.reasons, time.monotonic() - began


Broken = tuple[JobResult, Path, BadObjects, list[Reason], float]


def test_the_field_that_kills_and_the_field_that_hangs_are_one_row_each_and_all_others_are_counted(
    plate: Plate, broken: Broken
) -> None:
    result, output, _, _, _ = broken
    rows = field_rows(output)
    assert rows.pop(KILLS) == ("failed", "worker_died", None)
    assert rows.pop(HANGS) == ("failed", "timed_out", None)
    assert rows == {
        key: ("ok", None, count) for key, count in plate.truth.items() if key not in (KILLS, HANGS)
    }
    assert result.exit_code is ExitCode.FAILURES
    assert verify(open_store(str(output), StorageOptions())).proven


def test_bisection_needs_no_more_attempts_than_it_must(broken: Broken) -> None:
    _, _, bad, reasons, seconds = broken
    # Of four fields, the second kills and the third hangs: the whole shard (twice), its halves, their halves.
    assert reasons.count(Reason.TIMED_OUT) == 2
    assert 4 <= reasons.count(Reason.WORKER_DIED) <= 5
    assert seconds < 2 * SHARD_TIMEOUT_S + 80


def test_no_worker_that_died_or_hung_is_left(broken: Broken) -> None:
    _, _, bad, _, _ = broken
    pids = {*bad.killed, *bad.hung}
    assert len(pids) >= 6
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=10)
    assert [process.pid for process in alive] == []


def test_a_package_off_its_golden_tensors_stops_the_run_from_within_a_worker(
    plate: Plate, address: str, tmp_path: Path
) -> None:
    package = package_off_its_golden_tensors(tmp_path / "package")
    execution = {"runner": "ray", "address": address, "actors": 1}
    config = job(
        plate.folder, tmp_path / "out", run={"model": {"package": str(package)}}, execution=execution
    )
    with pytest.raises(ModelFault, match="golden tensors") as fault:
        run_job(config, Quiet())
    assert fault.value.exit_code is ExitCode.MODEL
    assert not (tmp_path / "out" / "fields").exists()
