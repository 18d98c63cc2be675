"""Workers, nodes and drivers of a Ray cluster that end in the middle of a run: no row is lost, doubled or altered."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile

from cellcount_core.domain.errors import ExitCode, Reason
from cellcount_core.stores.base import StorageOptions
from cellcount_core.stores.open import open_store
from tests.faults.cluster import Nodes, ray_nodes
from tests.faults.drill import judge, read_again
from tests.faults.drivers import LONGEST_S, Ended, KillsAt, Moment, arguments, end, is_alive, kill, start
from tests.faults.memory_limit import memory_limit
from tests.faults.sabotage.sitecustomize import CLOCK, MARK, offset_bytes
from tests.jobs import count
from tests.plates import Plate, discs, write_plate
from tests.s3_jobs import Tables, tables, upload
from tests.s3_proxy import Instead, Interfere, Request, S3Proxy, s3_proxy
from tests.s3_server import S3Server

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[2]
BUCKET = "drills-cluster"
LONGEST_STOP_S = 300.0
LARGE, CRASHES = ("A02", 1), ("A03", 2)
LARGE_PX, ROOM_BYTES = 12_000, 250 << 20
"""A field of 275 MiB as it is decoded, and what its worker may take beyond what it has."""


@pytest.fixture(scope="module")
def server(s3_server: S3Server) -> Iterator[S3Server]:
    with s3_server.with_buckets(BUCKET) as ready:
        yield ready


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the clock of the cluster and its drivers is off by."""
    path = tmp_path_factory.mktemp("clock") / "offset"
    path.write_bytes(offset_bytes(0))
    return path


@pytest.fixture(scope="module")
def cluster(server: S3Server, clock: Path) -> Iterator[Nodes]:
    """Its workers crash on the file that is marked; a node that ends is missed within seconds."""
    search = os.pathsep.join((str(ROOT / "tests/faults/sabotage"), str(ROOT)))
    quick = {"RAY_health_check_period_ms": "500", "RAY_health_check_failure_threshold": "3"}
    environment = {**server.environment(), "PYTHONPATH": search, CLOCK: str(clock), **quick}
    with ray_nodes(environment) as started:
        yield started


@pytest.fixture(scope="module")
def plate(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Plate:
    """Six wells, two sites: twelve fields."""
    plate = write_plate(tmp_path_factory.mktemp("cluster") / "plate", well_count=6)
    upload(plate, open_store(f"s3://{BUCKET}/plate", StorageOptions(endpoint=server.endpoint)))
    return plate


@pytest.fixture(scope="module")
def unbroken(plate: Plate, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    output = tmp_path_factory.mktemp("cluster-unbroken") / "out"
    count(plate.folder, output)
    return tables(output)


@pytest.fixture
def proxy(server: S3Server) -> Iterator[S3Proxy]:
    with s3_proxy(server.endpoint) as between:
        yield between


def command(cluster: Nodes, proxy: S3Proxy, source: str, output: Path, *settings: str) -> list[str]:
    """Count `source` of the bucket with two workers on the cluster, two fields a shard."""
    on_cluster = [f"execution.address={cluster.address}", "execution.actors=2", "execution.shard_fields=2"]
    return arguments(f"s3://{BUCKET}/{source}", output, *on_cluster, *settings, endpoint=proxy.endpoint)


def drive(
    cluster: Nodes, proxy: S3Proxy, source: str, output: Path, *settings: str, interfere: Interfere
) -> Ended:
    proxy.interfere = interfere
    return end(start(command(cluster, proxy, source, output, *settings), cluster.environment))


def changed(plate: Plate, server: S3Server, name: str, field: tuple[str, int], body: bytes) -> None:
    """The plate again, as `name` of the bucket, with other bytes in one file."""
    store = open_store(f"s3://{BUCKET}/{name}", StorageOptions(endpoint=server.endpoint))
    upload(plate, store)
    store.put(plate.file(*field).relative_to(plate.folder).as_posix(), body)


def test_a_worker_killed_three_times_costs_nothing_but_time(
    plate: Plate, unbroken: Tables, cluster: Nodes, proxy: S3Proxy, tmp_path: Path
) -> None:
    kills = KillsAt([Moment("GET", plate.file(*at).name) for at in (("A02", 1), ("A04", 2), ("A06", 1))])
    two_at_once = "execution.in_flight=2"
    ended = drive(cluster, proxy, "plate", tmp_path / "out", two_at_once, interfere=kills)
    assert ended.code == ExitCode.OK, ended
    assert len(set(kills.killed)) == 3
    # Each shard in the worker's hands counts its death.
    assert 3 <= ended.deaths(Reason.WORKER_DIED) <= 6
    redone = read_again(proxy, BUCKET)
    judge("worker killed three times", unbroken, tmp_path / "out", redone=redone)


class AtReader:
    """For a proxy: does `act` to each process that reads `ending`, once, before it gets a byte of it."""

    def __init__(self, ending: str, act: Callable[[int], None]) -> None:
        self._ending = ending
        self._act = act
        self.readers: set[int] = set()

    def __call__(self, request: Request) -> None:
        if request.is_get_of(self._ending) and (pid := request.client_pid()) not in self.readers:
            self.readers.add(pid)
            self._act(pid)


@pytest.fixture(scope="module")
def large(plate: Plate, server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The plate with one field that is far larger than the others."""
    path = tmp_path_factory.mktemp("large") / "large.TIF"
    tifffile.imwrite(path, np.zeros((LARGE_PX, LARGE_PX), np.uint16), compression="zstd", rowsperstrip=1000)
    changed(plate, server, "large", LARGE, path.read_bytes())
    return "large"


def test_a_field_for_which_a_worker_gets_no_memory_is_one_failed_row(
    plate: Plate, large: str, unbroken: Tables, cluster: Nodes, proxy: S3Proxy, tmp_path: Path
) -> None:
    def cramp(pid: int) -> None:
        worker = psutil.Process(pid)
        most = worker.memory_info().vms + ROOM_BYTES
        worker.rlimit(psutil.RLIMIT_AS, (most, most))

    cramped = AtReader(plate.file(*LARGE).name, cramp)
    ended = drive(cluster, proxy, large, tmp_path / "out", interfere=cramped)
    assert ended.code == ExitCode.FAILURES, ended
    # The worker refuses the field and lives on; it is the one that counts the rest of its shards.
    assert len(cramped.readers) == 1
    assert ended.deaths(Reason.WORKER_DIED) == 0, ended
    judge(
        "worker gets no memory (limit of its address space)",
        unbroken,
        tmp_path / "out",
        redone=read_again(proxy, BUCKET),
        spoilt={LARGE: ("failed", "out_of_memory")},
    )


def test_a_field_for_which_the_kernel_kills_the_worker_is_one_failed_row(
    plate: Plate, large: str, unbroken: Tables, cluster: Nodes, proxy: S3Proxy, tmp_path: Path
) -> None:
    with memory_limit(ROOM_BYTES) as limit:
        bound = AtReader(plate.file(*LARGE).name, limit.bind)
        settings = ("execution.max_deaths=1", "execution.in_flight=2")
        ended = drive(cluster, proxy, large, tmp_path / "out", *settings, interfere=bound)
    assert ended.code == ExitCode.FAILURES, ended
    # In the window, alone, and the field itself; its neighbour in the window has one too.
    assert len(bound.readers) == 3
    assert 3 <= ended.deaths(Reason.WORKER_DIED) <= 4, ended
    judge(
        "worker killed by the kernel for its memory (control group)",
        unbroken,
        tmp_path / "out",
        redone=read_again(proxy, BUCKET),
        spoilt={LARGE: ("failed", "worker_died")},
    )


def test_a_file_that_crashes_the_decoder_is_found_by_halving_and_is_one_failed_row(
    plate: Plate, unbroken: Tables, cluster: Nodes, server: S3Server, proxy: S3Proxy, tmp_path: Path
) -> None:
    crash = tmp_path / "crash.TIF"
    tifffile.imwrite(crash, discs(3, 96, 1), description=MARK.decode())
    changed(plate, server, "crash", CRASHES, crash.read_bytes())
    settings = ("execution.shard_fields=4", "execution.max_deaths=1", "execution.in_flight=2")
    ended = drive(cluster, proxy, "crash", tmp_path / "out", *settings, interfere=lambda _: None)
    assert ended.code == ExitCode.FAILURES, ended
    # In the window, alone, then the half of the shard and the field itself; its neighbour in the window has one too.
    assert 4 <= ended.deaths(Reason.WORKER_DIED) <= 5, ended
    judge(
        "a file that crashes the decoder (SIGSEGV)",
        unbroken,
        tmp_path / "out",
        redone=read_again(proxy, BUCKET),
        spoilt={CRASHES: ("failed", "worker_died")},
    )


class Once:
    """For a proxy: does `act` at the first read of `ending`; every other request waits for that."""

    def __init__(self, ending: str, act: Callable[[], None]) -> None:
        self._ending = ending
        self._act = act
        self._lock = threading.Lock()
        self.done = False

    def __call__(self, request: Request) -> None:
        with self._lock:
            if not self.done and request.is_get_of(self._ending):
                # Before the act: who waits for what it does may look at once.
                self.done = True
                self._act()


class Swap:
    """For a proxy: at the first read of `ending` the reader's node ends and another is added; all reads of images then wait
    until a worker of the new node reads one."""

    def __init__(self, cluster: Nodes, ending: str) -> None:
        self._cluster = cluster
        self._ending = ending
        self._lock = threading.Lock()
        self._joined = threading.Event()
        self._added: int | None = None

    @property
    def joined(self) -> bool:
        """Whether a worker of the new node took part."""
        return self._joined.is_set()

    def __call__(self, request: Request) -> None:
        if not request.is_get_of(".TIF"):
            return
        node = psutil.Process(request.client_pid()).ppid()
        with self._lock:
            if self._added is None and request.is_get_of(self._ending):
                self._cluster.remove(node)
                self._added = self._cluster.add()
        if self._added is None:
            return
        if node == self._added:
            self._joined.set()
        self._joined.wait(LONGEST_S)


def test_a_node_that_is_lost_and_one_that_is_added_leave_no_trace_in_the_tables(
    plate: Plate, unbroken: Tables, cluster: Nodes, proxy: S3Proxy, tmp_path: Path
) -> None:
    swap = Swap(cluster, plate.file("A02", 2).name)
    # One shard in hand: else the worker that stays may hold all that is left, and the new one, whose read is waited for, has none to do.
    settings = ("execution.in_flight=1", "storage.timeout_s=90")
    ended = drive(cluster, proxy, "plate", tmp_path / "out", *settings, interfere=swap)
    assert ended.code == ExitCode.OK, ended
    assert swap.joined, "no worker of the added node took part"
    assert ended.deaths(Reason.WORKER_DIED) >= 1, ended
    judge("node lost, another added", unbroken, tmp_path / "out", redone=read_again(proxy, BUCKET))


def test_a_driver_that_is_killed_leaves_nothing_on_the_cluster_and_its_run_goes_on(
    plate: Plate, unbroken: Tables, cluster: Nodes, proxy: S3Proxy, tmp_path: Path
) -> None:
    same = command(cluster, proxy, "plate", tmp_path / "out")
    driver = start(same, cluster.environment)
    workers: list[int] = []

    def kill_driver() -> None:
        workers.extend(cluster.workers())
        assert cluster.held() >= len(workers) > 0
        kill(driver.pid)

    kills = Once(plate.file("A04", 1).name, kill_driver)
    proxy.interfere = kills
    assert end(driver).code == -signal.SIGKILL
    assert kills.done
    until = time.monotonic() + LONGEST_STOP_S
    while cluster.workers() or cluster.held():
        assert time.monotonic() < until, (cluster.workers(), cluster.held())
        time.sleep(0.1)
    assert not [pid for pid in workers if is_alive(pid)]
    ended = end(start(same, cluster.environment))
    assert ended.code == ExitCode.OK, ended
    judge("driver killed on Ray mid-run", unbroken, tmp_path / "out", redone=read_again(proxy, BUCKET))


def test_a_clock_that_jumps_fools_neither_driver_nor_worker(
    plate: Plate, unbroken: Tables, cluster: Nodes, proxy: S3Proxy, clock: Path, tmp_path: Path
) -> None:
    # The largest jump comes last and stays, so that the driver is bound to speak after it.
    hours = {plate.file("A02", 1).name: 7, plate.file("A03", 2).name: 3, plate.file("A05", 1).name: -26}
    jumps = [Once(name, partial(clock.write_bytes, offset_bytes(3600 * off))) for name, off in hours.items()]

    def interfere(request: Request) -> Instead | None:
        for jump in jumps:
            jump(request)
        return None

    # One shard in hand: the fields are asked for in the order of the plate, so the last jump is the last.
    settings = ("execution.shard_timeout_s=120", "execution.shard_fields=1", "execution.in_flight=1")
    try:
        ended = drive(cluster, proxy, "plate", tmp_path / "out", *settings, interfere=interfere)
    finally:
        clock.write_bytes(offset_bytes(0))
    assert ended.code == ExitCode.OK, ended
    assert all(jump.done for jump in jumps)
    stamps = [datetime.fromisoformat(str(event["time"])) for event in ended.events]
    assert max(stamps) - min(stamps) > timedelta(hours=20), "the driver's clock did not jump"
    assert sum(event["event"] == "death" for event in ended.events) == 0, ended
    [timings] = (tmp_path / "out" / "run" / "timings").iterdir()
    for shard in json.loads(timings.read_text())["shards"]:
        assert 0 <= shard["seconds"] < LONGEST_S, shard
        assert all(0 <= seconds < LONGEST_S for seconds in shard["stage_seconds"].values()), shard
    judge("the clock jumps", unbroken, tmp_path / "out", redone=read_again(proxy, BUCKET))
