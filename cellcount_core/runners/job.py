"""A whole counting job: discover, plan, count what is not committed, reduce."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace

from cellcount_core.domain.config import ExecutionConfig, JobConfig, StorageConfig
from cellcount_core.domain.errors import ExitCode, RunFault
from cellcount_core.domain.fields import Shard
from cellcount_core.domain.receipts import Receipt
from cellcount_core.models.engines import resolve_engine
from cellcount_core.models.package import Package, find_package
from cellcount_core.pipeline.context import RunContext
from cellcount_core.plan.census import PlanSummary
from cellcount_core.plan.planfile import read_shards
from cellcount_core.plan.planner import (
    PlannedModel,
    load_plan,
    make_plan,
    open_or_create_run,
    stored_engine,
)
from cellcount_core.plan.runfile import ModelIdentity, RunFile
from cellcount_core.plan.shards import shard_limits
from cellcount_core.reduce.reducer import reduce_run
from cellcount_core.reduce.summary import Summary
from cellcount_core.runners.contexts import Places, make_context
from cellcount_core.runners.driver import Policy, run_shards
from cellcount_core.runners.events import Events, Tally
from cellcount_core.runners.pool import Death, Task, WorkerPool
from cellcount_core.stores.base import StorageOptions, Store
from cellcount_core.stores.open import open_store
from cellcount_core.tables.parts import committed_parts


@dataclass(frozen=True, slots=True)
class JobResult:
    """What a job came to. `tally` is what this call did; `summary` covers the whole run."""

    run: RunFile
    tally: Tally
    summary: Summary
    seconds: float
    exit_code: ExitCode


def storage_options(config: StorageConfig) -> StorageOptions:
    """The options of a store from the configuration."""
    return StorageOptions(
        endpoint=config.endpoint,
        region=config.region,
        anonymous=config.anonymous,
        retries=config.retries,
        timeout_s=config.timeout_s,
    )


def plan_job(job: JobConfig) -> PlanSummary:
    """What `job` would do. Nothing is written; no cluster is asked for."""
    package = find_package(job.run.model.package)
    source = open_store(job.input, storage_options(job.storage))
    model = _planned_model(package, resolve_engine(package, job.run.model.engine, gpus=0))
    limits = shard_limits(job.execution)
    with make_plan(source, job.run, model, limits, options=storage_options(job.storage)) as plan:
        return plan.summary


def run_job(job: JobConfig, events: Events) -> JobResult:
    """Count what is not counted yet and reduce. Raises RunFault where the run cannot go on; the same call then resumes it."""
    began = time.perf_counter()
    package = find_package(job.run.model.package)
    source = open_store(job.input, storage_options(job.storage))
    output = open_store(job.output, storage_options(job.output_storage or job.storage))
    with _cluster(job.execution, events) as gpus:
        engine = _engine(package, job, output, gpus)
        run = _plan(job, package, engine, source, output, events)
        tally = _count(job, run, source, output, events)
    events.stage("reducing")
    summary = reduce_run(output)
    bad = summary.statuses.get("failed", 0) + summary.statuses.get("missing", 0)
    code = ExitCode.FAILURES if bad > job.execution.max_failed else ExitCode.OK
    return JobResult(run, tally, summary, time.perf_counter() - began, code)


@contextmanager
def _cluster(execution: ExecutionConfig, events: Events) -> Iterator[float]:
    """The cluster of the Ray runner for as long as it is needed; gives the number of GPUs there are."""
    if execution.runner == "serial":
        yield 0.0
        return
    from cellcount_core.runners import ray_cluster

    events.stage("connecting to Ray" if execution.address else "starting Ray")
    resources = ray_cluster.connect(execution)
    try:
        yield resources.gpus if execution.gpus_per_actor != 0 else 0.0
    finally:
        ray_cluster.disconnect()


def _engine(package: Package, job: JobConfig, output: Store, gpus: float) -> str:
    """The engine asked for. A run that goes on keeps its own, on whatever machine it goes on."""
    if job.run.model.engine == "auto":
        kept = stored_engine(output, package.digest)
        if kept is not None:
            return kept
    return resolve_engine(package, job.run.model.engine, gpus)


def _planned_model(package: Package, engine: str) -> PlannedModel:
    identity = ModelIdentity(package.name, package.version, package.digest, engine)
    return PlannedModel(identity, package.input.channels, package.object_name)


def _plan(
    job: JobConfig, package: Package, engine: str, source: Store, output: Store, events: Events
) -> RunFile:
    events.stage(f"listing {source.url}")
    with make_plan(
        source,
        job.run,
        _planned_model(package, engine),
        shard_limits(job.execution),
        own_output=output.url,
        options=storage_options(job.storage),
    ) as plan:
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
    recorder = _Recorder(events)
    pool = _pool(job, _context(job, run, source, output), len(left), events)
    try:
        events.begin(run.numbers.fields, already)
        shards: Iterator[Shard] = read_shards(plan, set(left))
        policy = Policy(job.execution.max_deaths, job.execution.shard_timeout_s)
        return run_shards(pool, shards, policy, recorder)
    finally:
        pool.close()
        # Timings are no part of a result: where the output takes no more files, why it stopped, or the reduction's own
        # puts, say so; a second fault here would hide the first.
        with suppress(RunFault):
            recorder.write(output)


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

        threads = (os.cpu_count() or 1) if execution.threads == "auto" else execution.threads
        return SerialPool(replace(context, threads=threads), execution.in_flight)
    from cellcount_core.runners import ray_cluster
    from cellcount_core.runners.ray_pool import RayPool

    sizing = ray_cluster.size_workers(execution, ray_cluster.resources(), shards)
    device = (
        f"{sizing.gpus:g} GPU"
        if sizing.gpus
        else f"{sizing.threads} thread{'s' if sizing.threads > 1 else ''}"
    )
    events.stage(f"starting {sizing.actors} worker{'s' if sizing.actors > 1 else ''}, {device} each")
    return RayPool(replace(context, threads=sizing.threads), sizing, execution.in_flight)


class _Recorder:
    """Passes events on and keeps the receipts' timings, to be written beside the run and never into a table."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._receipts: list[Receipt] = []
        self._deaths: list[dict[str, object]] = []
        self._began = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())

    def stage(self, text: str) -> None:
        """Passed on."""
        self._events.stage(text)

    def begin(self, fields: int, already: int) -> None:
        """Passed on."""
        self._events.begin(fields, already)

    def receipt(self, receipt: Receipt, tally: Tally) -> None:
        """Kept and passed on."""
        self._receipts.append(receipt)
        self._events.receipt(receipt, tally)

    def death(self, task: Task, death: Death) -> None:
        """Kept and passed on."""
        self._deaths.append(
            {
                "shard": task.shard.number,
                "mode": task.mode.value,
                "reason": death.reason.value,
                "detail": death.detail,
            }
        )
        self._events.death(task, death)

    def tick(self, tally: Tally) -> None:
        """Passed on."""
        self._events.tick(tally)

    def warn(self, text: str) -> None:
        """Passed on."""
        self._events.warn(text)

    def write(self, output: Store) -> None:
        """One file a driver session: `run/timings/<start>-<pid>.json`."""
        record = {
            "began": self._began,
            "shards": [{**asdict(receipt), "commit": receipt.commit.value} for receipt in self._receipts],
            "deaths": self._deaths,
        }
        output.put(f"run/timings/{self._began}-{os.getpid()}.json", (json.dumps(record) + "\n").encode())
