"""A worker that cannot start is spoken of; a Ray that the program uses itself is used too, and left as it is."""

from __future__ import annotations

import time

import pytest

from cellcount_core.config import ExecutionConfig
from cellcount_core.domain.fields import Receipt, Shard
from cellcount_core.output.runfile import read_run
from cellcount_core.pipeline.context import RunContext
from cellcount_core.runners.places import Places, make_context
from cellcount_core.runners.pool import EndedAttempt, Mode, ShardTask
from cellcount_core.runners.ray_cluster import Resources, Sizing, connected
from cellcount_core.runners.ray_pool import RayPool
from cellcount_core.stores.base import StorageOptions
from cellcount_core.stores.open import open_store
from tests.jobs import count, job
from tests.plates import write_plate

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> RunContext:
    folder = tmp_path_factory.mktemp("run")
    plate = write_plate(folder / "plate", well_count=1, sites=1)
    count(plate.folder, folder / "out")
    options = StorageOptions()
    run = read_run(open_store(folder / "out", options))
    places = Places(str(plate.folder), options, str(folder / "elsewhere"), options)
    return make_context(run, job(plate.folder, folder / "out").run, places, readers=1)


def test_a_worker_for_which_there_is_no_room_is_spoken_of_and_the_others_count(
    context: RunContext, ray_here: Resources
) -> None:
    said: list[str] = []
    more_than_half = ray_here.cpus / 2 + 0.5 if ray_here.cpus > 1 else 0.6
    sizing = Sizing(actors=2, cpus=float(int(more_than_half + 0.5)), gpus=0.0, threads=1, memory_bytes=None)
    pool = RayPool(context, sizing, in_flight=1, warn=said.append, patience_s=0.5)
    ended: list[EndedAttempt] = []
    try:
        until = time.monotonic() + 60
        while not said or pool.capacity() == 0:
            pool.wait(0.2)
            assert time.monotonic() < until
        pool.submit(ShardTask(Shard(0, ()), Mode.PROBE, 60.0))
        while not ended:
            ended += pool.wait(1.0)
            assert time.monotonic() < until
    finally:
        pool.close()
    assert isinstance(ended[0].end, Receipt)
    assert (
        f"of 2 workers have not started yet; each asks for {sizing.cpus:g} CPU (the cluster has {ray_here.cpus:g} CPU, free"
        in said[-1]
    )


def test_a_ray_that_is_connected_already_is_used_and_left(ray_here: Resources) -> None:
    import ray

    with connected(ExecutionConfig()) as inner:
        assert inner == ray_here
    assert ray.is_initialized()
