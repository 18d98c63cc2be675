"""Shards to workers: the cluster, the pool of workers, and who is told of what they do."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from cellcount_core.domain.config import ExecutionConfig, JobConfig
from cellcount_core.domain.fields import Shard
from cellcount_core.models.engines import ON_GPU
from cellcount_core.pipeline.context import RunContext
from cellcount_core.plan.runfile import RunFile
from cellcount_core.runners.contexts import Places, make_context
from cellcount_core.runners.driver import Policy, run_shards
from cellcount_core.runners.events import Events, Tally
from cellcount_core.runners.places import storage_options
from cellcount_core.runners.pool import WorkerPool
from cellcount_core.runners.timings import TimedEvents
from cellcount_core.stores.base import Store


@dataclass(frozen=True, slots=True)
class Work:
    """`number` shards to do, streamed, and what a display is told: `fields` in all, `already` of them done before."""

    shards: Iterable[Shard]
    number: int
    fields: int
    already: int


@contextmanager
def cluster(execution: ExecutionConfig, events: Events) -> Iterator[float]:
    """The cluster of the Ray runner for as long as it is needed; gives the number of GPUs there are."""
    if execution.runner == "serial":
        yield 0.0
        return
    from cellcount_core.runners import ray_cluster

    events.stage("connecting to Ray" if execution.address else "starting Ray")
    with ray_cluster.connected(execution) as resources:
        yield resources.gpus if execution.gpus_per_actor != 0 else 0.0


@contextmanager
def recorded(job: JobConfig, run: RunFile, output: Store, events: Events) -> Iterator[Events]:
    """`events`, recorded in `run/timings` of the output too, and for who watches the cluster where there is one."""
    timed = TimedEvents(events, output)
    try:
        if job.execution.runner == "serial":
            yield timed
        else:
            from cellcount_core.runners.metrics import Metrics

            yield Metrics(timed, run.fingerprint)
    finally:
        timed.flush()


def context_of(job: JobConfig, run: RunFile, source: Store, output: Store) -> RunContext:
    """What the workers of `run` are told."""
    places = Places(
        source.url,
        storage_options(job.storage),
        output.url,
        storage_options(job.output_storage or job.storage),
    )
    return make_context(run, job.run, places, job.execution.readers)


def fan_out(job: JobConfig, context: RunContext, work: Work, told: Events) -> Tally:
    """Do the work with a pool of workers that ends with it; inside `cluster`. Raises RunFault as `run_shards`."""
    pool = _pool(job, context, work.number, told)
    try:
        told.begin(work.fields, work.already, context.fingerprint)
        policy = Policy(job.execution.max_deaths, job.execution.shard_timeout_s)
        return run_shards(pool, work.shards, policy, told)
    finally:
        pool.close()


def own_threads(job: JobConfig) -> int:
    """Threads of what this process computes itself."""
    return (os.cpu_count() or 1) if job.execution.threads == "auto" else job.execution.threads


def _pool(job: JobConfig, context: RunContext, shards: int, events: Events) -> WorkerPool:
    execution = job.execution
    if execution.runner == "serial":
        from cellcount_core.runners.serial_pool import SerialPool

        return SerialPool(replace(context, threads=own_threads(job)), execution.in_flight)
    from cellcount_core.runners import ray_cluster
    from cellcount_core.runners.ray_pool import RayPool

    resources = ray_cluster.resources(execution)
    if context.engine not in ON_GPU and execution.gpus_per_actor == "auto":
        resources = replace(resources, gpus=0.0)
    sizing = ray_cluster.size_workers(execution, resources, shards)
    device = (
        f"{sizing.gpus:g} GPU"
        if sizing.gpus
        else f"{sizing.threads} thread{'s' if sizing.threads > 1 else ''}"
    )
    events.stage(f"starting {sizing.actors} worker{'s' if sizing.actors > 1 else ''}, {device} each")
    return RayPool(replace(context, threads=sizing.threads), sizing, execution.in_flight, events.warn)
