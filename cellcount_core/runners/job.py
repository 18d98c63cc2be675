"""A whole counting job: discover, plan, count what is not committed, reduce."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from cellcount_core.domain.config import ExecutionConfig, JobConfig, accepted_failures
from cellcount_core.domain.errors import ConfigFault, ExitCode
from cellcount_core.domain.fields import Shard
from cellcount_core.images.tiles import smallest_tile
from cellcount_core.models.engines import ON_GPU, resolve_engine
from cellcount_core.models.package import Package, find_package
from cellcount_core.pipeline.context import RunContext
from cellcount_core.plan.census import PlanSummary
from cellcount_core.plan.planfile import read_shards
from cellcount_core.plan.planner import (
    Measure,
    PlannedModel,
    Survey,
    load_plan,
    make_plan,
    open_or_create_run,
    plan_survey,
    stored_run,
    survey,
)
from cellcount_core.plan.runfile import ModelIdentity, RunFile
from cellcount_core.plan.shards import shard_limits
from cellcount_core.reduce.reducer import reduce_run
from cellcount_core.reduce.summary import Summary
from cellcount_core.runners.budget import Budget
from cellcount_core.runners.contexts import Places, make_context
from cellcount_core.runners.driver import Policy, run_shards
from cellcount_core.runners.events import Events, Tally, Watched
from cellcount_core.runners.lease import held
from cellcount_core.runners.places import open_input, open_output, storage_options
from cellcount_core.runners.pool import WorkerPool
from cellcount_core.runners.sizes import measure_of
from cellcount_core.runners.stopping import interruptible
from cellcount_core.runners.timings import TimedEvents
from cellcount_core.stores.base import Store
from cellcount_core.tables.parts import committed_parts


@dataclass(frozen=True, slots=True)
class JobResult:
    """What a job came to. `tally` is what this call did; `summary` covers the whole run."""

    run: RunFile
    tally: Tally
    summary: Summary
    seconds: float
    exit_code: ExitCode


def plan_job(job: JobConfig, say: Callable[[str], None] = lambda _: None) -> PlanSummary:
    """What `job` would do. Nothing is written; no cluster is asked for. `say` is told what takes a while."""
    package = find_package(job.run.model.package)
    _refuse_small_tile(package, job.run.tile)
    source = open_input(job)
    model = _planned_model(package, resolve_engine(package, job.run.model.engine, gpus=0))
    limits = shard_limits(job.execution)
    options = storage_options(job.storage)
    measure = measure_of(job.run, package, source, _own_threads(job), say)
    with make_plan(source, job.run, model, limits, options=options, measure=measure) as plan:
        return plan.summary


def run_job(job: JobConfig, events: Events) -> JobResult:
    """Count what is not counted yet and reduce. Raises RunFault where the run cannot go on; the same call then resumes it.

    The output's lease is held meanwhile: BusyFault where another driver is at work on it, or took it over.
    Ctrl-C, and in the main thread SIGTERM, raise Interrupted once the workers are ended.
    """
    with interruptible("stopped; the same command goes on where this one stopped"):
        return _run(job, events)


def _run(job: JobConfig, events: Events) -> JobResult:
    began = time.perf_counter()
    package = find_package(job.run.model.package)
    _refuse_small_tile(package, job.run.tile)
    source = open_input(job)
    output = open_output(job, source)
    # The input is listed before a cluster is asked for: what is wrong with it is told at once.
    with _survey(job, package, source, output, events) as seen, held(output, say=events.stage) as lease:
        with _cluster(job.execution, events) as gpus:
            kept = stored_run(output, package.digest)
            engine = _engine(package, job, kept, gpus)
            measure = _measure(package, job, source, kept, events)
            run = _plan(job, package, engine, seen, output, measure, events)
            tally = _count(job, run, source, output, Watched(events, lambda _: lease.check()))
        lease.confirm()
        events.stage("reducing")
        summary = reduce_run(output)
    bad = summary.statuses.get("failed", 0) + summary.statuses.get("missing", 0)
    accepted = accepted_failures(job.execution.max_failed, summary.fields)
    code = ExitCode.FAILURES if bad > accepted else ExitCode.OK
    return JobResult(run, tally, summary, time.perf_counter() - began, code)


@contextmanager
def _cluster(execution: ExecutionConfig, events: Events) -> Iterator[float]:
    """The cluster of the Ray runner for as long as it is needed; gives the number of GPUs there are."""
    if execution.runner == "serial":
        yield 0.0
        return
    from cellcount_core.runners import ray_cluster

    events.stage("connecting to Ray" if execution.address else "starting Ray")
    with ray_cluster.connected(execution) as resources:
        yield resources.gpus if execution.gpus_per_actor != 0 else 0.0


def _engine(package: Package, job: JobConfig, kept: RunFile | None, gpus: float) -> str:
    """The engine asked for. A run that goes on keeps its own, on whatever machine it goes on."""
    if job.run.model.engine == "auto" and kept is not None:
        return kept.model.engine
    return resolve_engine(package, job.run.model.engine, gpus)


def _measure(
    package: Package, job: JobConfig, source: Store, kept: RunFile | None, events: Events
) -> Measure:
    """What finds the object sizes. A run that goes on keeps those it was planned with: nothing is read for them again."""
    if kept is not None and kept.run == job.run.model_dump(mode="json"):
        return lambda _, __: kept.scales
    return measure_of(job.run, package, source, _own_threads(job), events.stage)


def _own_threads(job: JobConfig) -> int:
    """Threads of what this process computes itself."""
    return (os.cpu_count() or 1) if job.execution.threads == "auto" else job.execution.threads


def _planned_model(package: Package, engine: str) -> PlannedModel:
    identity = ModelIdentity(package.name, package.version, package.digest, engine)
    return PlannedModel(identity, package.input.channels, package.object_name)


def _refuse_small_tile(package: Package, tile: int) -> None:
    smallest = smallest_tile(package.stride, package.radius)
    if tile < smallest:
        raise ConfigFault(
            f"run.tile is {tile} px; the model {package.name!r} sees {package.radius} px around each pixel and needs at "
            f"least {smallest}"
        )


def _survey(job: JobConfig, package: Package, source: Store, output: Store, events: Events) -> Survey:
    events.stage(f"listing {source.url}")
    options = storage_options(job.storage)
    return survey(source, job.run, package.input.channels, own_output=output.url, options=options)


def _plan(
    job: JobConfig,
    package: Package,
    engine: str,
    seen: Survey,
    output: Store,
    measure: Measure,
    events: Events,
) -> RunFile:
    model, limits = _planned_model(package, engine), shard_limits(job.execution)
    with seen, plan_survey(seen, model, limits, measure) as plan:
        for warning in plan.summary.warnings:
            events.warn(warning)
        return open_or_create_run(output, plan)


def _count(job: JobConfig, run: RunFile, source: Store, output: Store, events: Events) -> Tally:
    done = committed_parts(output)
    plan = load_plan(output, run)
    left = [number for number in range(run.numbers.shards) if number not in done]
    already = sum(len(shard.fields) for shard in read_shards(plan, done)) if done else 0
    events.stage(
        f"{run.numbers.fields} fields in {run.numbers.shards} shards"
        + (f", {already} fields already counted" if already else "")
        + f"; model {run.model.name} {run.model.version} on {run.model.engine}"
    )
    if not left:
        return Tally()
    timed = TimedEvents(events, output)
    told = _with_metrics(job, run, timed)
    if job.execution.max_failed is not None:
        planned = read_shards(plan, set(left))
        told = budget = Budget(told, output, job.execution.max_failed, run.numbers.fields, done, planned)
        budget.judge()
    pool = _pool(job, _context(job, run, source, output), len(left), events)
    try:
        told.begin(run.numbers.fields, already)
        shards: Iterator[Shard] = read_shards(plan, set(left))
        policy = Policy(job.execution.max_deaths, job.execution.shard_timeout_s)
        return run_shards(pool, shards, policy, told)
    finally:
        pool.close()
        timed.flush()


def _with_metrics(job: JobConfig, run: RunFile, events: Events) -> Events:
    """`events`, recorded for who watches the cluster too where there is one."""
    if job.execution.runner == "serial":
        return events
    from cellcount_core.runners.metrics import Metrics

    return Metrics(events, run.fingerprint)


def _context(job: JobConfig, run: RunFile, source: Store, output: Store) -> RunContext:
    places = Places(
        source.url,
        storage_options(job.storage),
        output.url,
        storage_options(job.output_storage or job.storage),
    )
    return make_context(run, job.run, places, job.execution.readers)


def _pool(job: JobConfig, context: RunContext, shards: int, events: Events) -> WorkerPool:
    execution = job.execution
    if execution.runner == "serial":
        from cellcount_core.runners.serial_pool import SerialPool

        return SerialPool(replace(context, threads=_own_threads(job)), execution.in_flight)
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
