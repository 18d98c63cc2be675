"""A whole counting job: discover, plan, count what is not committed yet, reduce."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from cellcount_core.config import JobConfig, RunConfig, ViabilityConfig, accepted_failures
from cellcount_core.domain.columns import Schema
from cellcount_core.domain.errors import ConfigFault, ExitCode, Interrupted, Reason, RunFault
from cellcount_core.domain.trust import distrust
from cellcount_core.layouts.auto import AutoSettings
from cellcount_core.models.engines import resolve_engine
from cellcount_core.models.package import Package
from cellcount_core.output.parts import committed_parts, fields_key, read_fields_part
from cellcount_core.output.planfile import read_shards, shard_limits
from cellcount_core.output.run_folder import load_plan, open_or_create_run, stored_run
from cellcount_core.output.runfile import ModelIdentity, RunFile
from cellcount_core.pipeline.context import package_of
from cellcount_core.plan.findings import PlanSummary
from cellcount_core.plan.planner import (
    FoundSizes,
    NumberFinder,
    PlannedModel,
    SizeFinder,
    Survey,
    plan_survey,
    survey,
)
from cellcount_core.reduce.reducer import reduce_run
from cellcount_core.reduce.summary import Summary
from cellcount_core.runners.events import Events, Progress, Watched
from cellcount_core.runners.fanout import (
    Work,
    cluster,
    context_of,
    decided,
    engine_asks_for_gpus,
    fan_out,
    own_threads,
    recorded,
    refuse_gpus,
    with_runner,
)
from cellcount_core.runners.lease import held
from cellcount_core.runners.places import open_job_input, open_job_output, storage_options
from cellcount_core.runners.stopping import Budget, interruptible
from cellcount_core.stores.base import Store

_AHEAD = 8


@dataclass(frozen=True, slots=True)
class JobResult:
    """The result of a job. `progress` is what this call did, `summary` covers the whole run, and `warnings` are those of its plan."""

    run: RunFile
    progress: Progress
    summary: Summary
    seconds: float
    exit_code: ExitCode
    warnings: tuple[str, ...] = ()


def plan_job(job: JobConfig, say: Callable[[str], None] = lambda _: None) -> PlanSummary:
    """Plan `job` and return the summary. Nothing is written and no cluster is used. `say` is called before steps that take a while."""
    package = package_of(job.run)
    refuse_misfits(package, job.run)
    source = open_job_input(job)
    model = planned_model(package, resolve_engine(package, job.run.model.engine, gpus=0))
    limits = shard_limits(job.execution)
    options = storage_options(job.storage)
    from cellcount_core.runners.sizes import number_finder, size_finder, with_checks

    with survey(source, job.run, model.roles, options=options) as seen:
        run = seen.run
        find_sizes = size_finder(run, package, source, own_threads(job), say)
        numbers = number_finder(run, package, source, own_threads(job), say)
        numbers = with_checks(run, source, package, numbers)
        with plan_survey(seen, model, limits, find_sizes, numbers=numbers) as plan:
            return plan.summary


def run_job(job: JobConfig, events: Events, again: frozenset[Reason] = frozenset()) -> JobResult:
    """Count what is not counted yet, and reduce. If the run cannot go on, RunFault is raised; the same call
    then resumes it.

    Committed shards that contain a field which failed for one of the reasons `again` are counted once
    more.

    The output's lease is held during the job. Raises BusyFault if another driver is working on the output
    or took it over. Ctrl-C, and in the main thread SIGTERM, raise Interrupted after the workers were
    ended.
    """
    with interruptible("stopped; the same command goes on where this one stopped"):
        return _run(job, events, again)


def _run(job: JobConfig, events: Events, again: frozenset[Reason]) -> JobResult:
    began = time.perf_counter()
    refuse_gpus(job.execution)
    package = package_of(job.run)
    source = open_job_input(job)
    output = open_job_output(job, source)
    kept = stored_run(output, job.run, identity_of(package, job.run.model.engine))
    job = with_known_layout(job, kept)
    if kept is None:
        refuse_misfits(package, job.run)
    # What can be wrong with the input or the output is told before a cluster is started, which takes many seconds.
    with _survey(job, package, source, output, events) as seen, held(output, say=events.stage) as lease:
        job = job.model_copy(update={"run": seen.run})
        with ExitStack() as until_counted:
            gpus = 0.0
            if kept is None and engine_asks_for_gpus(job, package):
                gpus = until_counted.enter_context(cluster(job.execution, events))
                job = with_runner(job, "ray") if gpus else job
            engine = kept.model.engine if kept else resolve_engine(package, job.run.model.engine, gpus)
            finders = _finders(package, job, source, kept, events)
            model = planned_model(package, engine, kept)
            run, warnings = _plan(job, model, seen, output, finders, events)
            if lease.after_death and job.execution.runner == "auto":
                events.stage(
                    "the last process at work here died: counting on Ray, which survives what ends a worker"
                )
                job = with_runner(job, "ray")
            _take_back(output, again)
            try:
                progress = _count(job, run, package, source, output, Watched(events, lambda _: lease.check()))
            except RunFault as fault:
                fault.warnings = warnings
                raise
        lease.confirm()
        events.stage("reducing")
        summary = reduce_run(output)
    return JobResult(run, progress, summary, time.perf_counter() - began, ending(job, summary), warnings)


def with_known_layout(job: JobConfig, kept: RunFile | None) -> JobConfig:
    """Return the job with the layout of the run that is there already, if the job's own is "auto" and there is such a run.

    What was found out once is kept: files that come later do not make it another run.
    """
    if not isinstance(job.run.layout, AutoSettings) or kept is None:
        return job
    known = RunConfig.model_validate({"layout": kept.run["layout"]})
    return job.model_copy(update={"run": job.run.model_copy(update={"layout": known.layout})})


def ending(job: JobConfig, summary: Summary) -> ExitCode:
    """The exit code of a run: FAILURES if more fields failed or are missing than are accepted; else DOUBTS if
    `execution.strict` is set and a plate is in doubt; else OK.
    """
    bad = summary.statuses.get("failed", 0) + summary.statuses.get("missing", 0)
    if bad > accepted_failures(job.execution.max_failed, summary.fields):
        return ExitCode.FAILURES
    return ExitCode.DOUBTS if job.execution.strict and summary.doubts else ExitCode.OK


def _finders(
    package: Package, job: JobConfig, source: Store, kept: RunFile | None, events: Events
) -> tuple[SizeFinder, NumberFinder]:
    """What finds the object sizes, and what the task needs to know of plates. A run that goes on keeps what it was planned with: nothing
    is read for it again."""
    if kept is not None:
        numbers, sizes = kept.plate_numbers, FoundSizes(kept.scales, kept.shown_sizes)
        return lambda _, __: sizes, NumberFinder({}, lambda _, __, ___: (numbers, ()))
    from cellcount_core.runners.sizes import number_finder, size_finder, with_checks

    threads = own_threads(job)
    found = number_finder(job.run, package, source, threads, events.stage)
    return (
        size_finder(job.run, package, source, threads, events.stage),
        with_checks(job.run, source, package, found),
    )


def identity_of(package: Package, engine: str) -> ModelIdentity:
    """What a run's fingerprint says of a package and the engine that runs it."""
    return ModelIdentity(package.name, package.version, package.digest, engine)


def planned_model(package: Package, engine: str, kept: RunFile | None = None) -> PlannedModel:
    """What planning needs to know about a package. A run that is resumed keeps the schema it was planned with."""
    return PlannedModel(
        identity_of(package, engine),
        package.input.channels,
        schema_of(package, kept),
        package.input.diameter_px is None,
        distrust(package.name, package.accuracy),
        told_by_task(package, kept),
    )


def told_by_task(package: Package, kept: RunFile | None) -> tuple[str, ...]:
    """What the package's task tells of it before it counts. Nothing for a run that is there already, which told it when it was planned:
    a finished run loads nothing that counts."""
    if kept is not None:
        return ()
    from cellcount_core.tasks.task import notes_of

    return notes_of(package)


def schema_of(package: Package, kept: RunFile | None) -> Callable[[tuple[str, ...], tuple[str, ...]], Schema]:
    """The schema of a run, from the names of the channels that are counted and of those that are measured: that of the run that is there already, unless other channels
    are measured now."""

    def schema(counted: tuple[str, ...], measured: tuple[str, ...]) -> Schema:
        if kept is not None and kept.schema.channels == measured:
            return kept.schema
        # What makes columns is what counts, and takes long to load.
        from cellcount_core.pipeline.rows import run_schema

        return run_schema(package, counted, measured)

    return schema


def refuse_misfits(package: Package, run: RunConfig) -> None:
    """Raises ConfigFault if settings of a run do not fit its package: tiles too small, or settings of another task."""
    refuse_small_tile(package, run.tile)
    if run.viability != ViabilityConfig() and package.task != "viability":
        raise ConfigFault(
            f"run.viability is for packages that tell live cells from dead ones; `{package.name}` counts {package.object_name.lower() or 'nothing'}"
            " alone: choose another with --model (see `cellcount models`), or leave these settings out"
        )


def refuse_small_tile(package: Package, tile: int) -> None:
    """Raises ConfigFault if tiles of `tile` px are smaller than the package's network needs."""
    from cellcount_core.images.tiles import smallest_tile

    smallest = smallest_tile(package.stride, package.radius)
    if tile < smallest:
        raise ConfigFault(
            f"run.tile is {tile} px; the model {package.name!r} sees {package.radius} px around each pixel and needs at "
            f"least {smallest}"
        )


def _survey(job: JobConfig, package: Package, source: Store, output: Store, events: Events) -> Survey:
    events.stage(f"listing {source.url}")
    options = storage_options(job.storage)
    seen = survey(source, job.run, package.input.channels, own_output=output.url, options=options)
    if isinstance(job.run.layout, AutoSettings):
        events.stage(f"layout {seen.layout}")
    return seen


def _plan(
    job: JobConfig,
    model: PlannedModel,
    seen: Survey,
    output: Store,
    finders: tuple[SizeFinder, NumberFinder],
    events: Events,
) -> tuple[RunFile, tuple[str, ...]]:
    """The run, and the warnings of its plan."""
    find_sizes, numbers = finders
    with seen, plan_survey(seen, model, shard_limits(job.execution), find_sizes, numbers=numbers) as plan:
        for warning in plan.summary.warnings:
            events.warn(warning)
        return open_or_create_run(output, plan), tuple(plan.summary.warnings)


def _count(
    job: JobConfig, run: RunFile, package: Package, source: Store, output: Store, events: Events
) -> Progress:
    done = committed_parts(output)
    plan = load_plan(output, run)
    left = {number for number in range(run.numbers.shards) if number not in done}
    already = sum(len(shard.fields) for shard in read_shards(plan, done)) if done else 0
    events.stage(
        f"{run.numbers.fields} fields in {run.numbers.shards} shards"
        + (f", {already} fields already counted" if already else "")
        + f"; model {run.model.name} {run.model.version} on {run.model.engine}"
    )
    if not left:
        return Progress()
    if (most := job.execution.max_failed) is not None:
        events = budget = Budget(events, output, most, run.numbers.fields, done, read_shards(plan, left))
        budget.judge()
    job = decided(job, run, package, source, read_shards(plan, left), events)
    work = Work(read_shards(plan, left), len(left), run.numbers.fields, already)
    try:
        with cluster(job.execution, events), recorded(job, run, output, events) as told:
            return fan_out(job, context_of(job, run, source, output), work, told)
    except KeyboardInterrupt:
        raise Interrupted(_kept(output, plan, run)) from None


def _take_back(output: Store, again: frozenset[Reason]) -> None:
    """Undo the commits of shards that contain a field which failed for one of the reasons `again`."""
    if not again:
        return
    keys = [fields_key(number) for number in sorted(committed_parts(output))]
    for key, body in output.get_many(keys, ahead=_AHEAD):
        if not isinstance(body, bytes):
            continue
        reasons = read_fields_part(key, body).table.column("reason").to_pylist()
        if any(reason is not None and Reason(reason) in again for reason in reasons):
            output.delete(key)


def _kept(output: Store, plan: bytes, run: RunFile) -> str:
    """In words, what remains after a stop."""
    again = "the same command goes on where this one stopped"
    try:
        done = committed_parts(output)
    except RunFault:
        return f"stopped; {again}"
    fields = sum(len(shard.fields) for shard in read_shards(plan, done)) if done else 0
    return f"stopped; {fields} of {run.numbers.fields} fields are counted and kept in {output.url}; {again}"
