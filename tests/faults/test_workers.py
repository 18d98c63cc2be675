"""Workers that die and workers that hang, on real Ray: the field that does it becomes one row, all others are counted."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cellcount_core.domain.errors import ExitCode, Reason
from cellcount_core.stores.base import StorageOptions
from cellcount_core.stores.open import open_store
from tests.faults.cluster import RayCluster, ray_cluster
from tests.faults.drill import judge, read_again
from tests.faults.drivers import Ended, arguments, end, start
from tests.faults.packages import package_off_its_golden_tensors
from tests.plates import Plate, write_plate
from tests.s3_jobs import Tables, tables, upload
from tests.s3_proxy import Instead, Request, s3_proxy
from tests.s3_server import S3Server

pytestmark = pytest.mark.ray

INPUT = "s3://faults-workers/plate"
KILLS, HANGS = ("A01", 1), ("A01", 2)
SHARDS = "execution.shard_fields=3"
LEAST_TIMEOUT_S = 20.0
"""A shard's time limit: a fresh worker's first shard took 1.5 s with 15 other processes on two cores, and the limit is waited for twice."""

PATIENCE = 10
"""The time limit at least, as a multiple of what the slowest whole shard takes in a process of its own on this machine as busy as it is now."""


@pytest.fixture(scope="module")
def server(s3_server: S3Server) -> Iterator[S3Server]:
    with s3_server.with_buckets("faults-workers") as ready:
        yield ready


@pytest.fixture(scope="module")
def cluster(server: S3Server) -> Iterator[RayCluster]:
    with ray_cluster(server.environment()) as started:
        yield started


@pytest.fixture(scope="module")
def plate(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Plate:
    """4 wells, 2 sites: shards of three fields, the last of two; both bad fields are in the first.

    Each death costs the start of a worker, which is most of what these tests take on a busy machine: three fields are the fewest of
    which a half is halved again.
    """
    plate = write_plate(tmp_path_factory.mktemp("workers") / "plate", well_count=4)
    upload(plate, open_store(INPUT, StorageOptions(endpoint=server.endpoint)))
    return plate


def drive(
    cluster: RayCluster, source: str | Path, output: Path, *settings: str, endpoint: str | None = None
) -> Ended:
    """`cellcount count` with one worker on the cluster."""
    on_cluster = (f"execution.address={cluster.address}", "execution.actors=1", SHARDS)
    command = arguments(source, output, *on_cluster, *settings, endpoint=endpoint)
    return end(start(command, cluster.environment))


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


Broken = tuple[Ended, Path, BadObjects, int]
"""How the driver ended, its output, the bad objects, and how often fields were read again."""


@pytest.fixture(scope="module")
def unbroken(plate: Plate, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tables, float]:
    """The tables of a run in one process in which nothing is bad, and the seconds of its slowest shard."""
    output = tmp_path_factory.mktemp("unbroken") / "out"
    ended = end(start(arguments(plate.folder, output, "execution.runner=serial", SHARDS)))
    assert ended.code == ExitCode.OK, ended
    return tables(output), max(
        float(str(event["seconds"])) for event in ended.events if event["event"] == "shard"
    )


@pytest.fixture(scope="module")
def broken(
    plate: Plate,
    server: S3Server,
    cluster: RayCluster,
    unbroken: tuple[Tables, float],
    tmp_path_factory: pytest.TempPathFactory,
) -> Broken:
    """A run over a plate with a field that kills its worker and one that hangs, both in one shard."""
    output = tmp_path_factory.mktemp("workers-out") / "out"
    bad = BadObjects(plate)
    settings = (
        "execution.max_deaths=1",
        "execution.in_flight=2",
        f"execution.shard_timeout_s={max(LEAST_TIMEOUT_S, PATIENCE * unbroken[1])}",
    )
    with s3_proxy(server.endpoint) as proxy:
        proxy.interfere = bad
        ended = drive(cluster, INPUT, output, *settings, endpoint=proxy.endpoint)
    return ended, output, bad, read_again(proxy, "faults-workers")


def test_the_field_that_kills_and_the_field_that_hangs_are_one_row_each_and_all_others_are_counted(
    broken: Broken, unbroken: tuple[Tables, float]
) -> None:
    ended, output, _, redone = broken
    assert ended.code == ExitCode.FAILURES, ended
    judge(
        "a field that kills its worker and one that hangs",
        unbroken[0],
        output,
        redone=redone,
        spoilt={KILLS: ("failed", "worker_died"), HANGS: ("failed", "timed_out")},
    )


def test_the_bad_fields_are_found_by_halving_in_a_bounded_number_of_attempts(broken: Broken) -> None:
    ended, _, bad, _ = broken
    # Of three fields the first kills and the second hangs. The whole shard dies, in the window and alone; then the first
    # half, one field, and the second, of which one field hangs.
    assert ended.deaths(Reason.TIMED_OUT) == 2
    assert ended.deaths(Reason.WORKER_DIED) - len(bad.killed) in (0, 1)
    assert len(bad.killed) == 3


def test_no_worker_that_died_or_hung_is_left(broken: Broken) -> None:
    _, _, bad, _ = broken
    pids = {*bad.killed, *bad.hung}
    assert len(pids) >= 5
    assert [pid for pid in pids if psutil.pid_exists(pid)] == []


def test_a_package_off_its_golden_tensors_stops_the_run_from_within_a_worker(
    plate: Plate, cluster: RayCluster, tmp_path: Path
) -> None:
    package = package_off_its_golden_tensors(tmp_path / "package")
    ended = drive(cluster, plate.folder, tmp_path / "out", f"run.model.package={package}")
    assert ended.code == ExitCode.MODEL
    assert len(ended.words) == 1
    assert "is off its golden tensors by 0.25" in ended.words[0]
    assert not (tmp_path / "out" / "fields").exists()
