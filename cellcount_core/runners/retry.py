"""Count the failed fields of a finished run again. What is counted already is neither read nor changed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cellcount_core.config import JobConfig
from cellcount_core.domain.columns import FIELD_ID, REASON, STATUS
from cellcount_core.domain.errors import LedgerFault, OutputFault, Reason, Status
from cellcount_core.domain.fields import PlannedField, Shard, Source, parts_tag
from cellcount_core.output.planfile import read_shards
from cellcount_core.output.run_folder import load_plan
from cellcount_core.output.runfile import RunFile, read_run
from cellcount_core.pipeline.context import package_of
from cellcount_core.reduce.ledger import fields_parts, uncommitted
from cellcount_core.reduce.reducer import reduce_run
from cellcount_core.runners.events import Events, Progress, Watched
from cellcount_core.runners.fanout import Work, cluster, context_of, decided, fan_out, recorded, with_runner
from cellcount_core.runners.job import JobResult, ending
from cellcount_core.runners.lease import held
from cellcount_core.runners.places import open_job_input, open_job_output
from cellcount_core.runners.stopping import interruptible
from cellcount_core.stores.base import Store

_CRASHES = {reason.value for reason in (Reason.WORKER_DIED, Reason.TIMED_OUT, Reason.OUT_OF_MEMORY)}
"""What may end the process that counts: only a worker of the Ray runner may be lost."""

_BAD = (Status.FAILED.value, Status.MISSING.value)


@dataclass(frozen=True, slots=True)
class RetryResult:
    """The result of a retry. `retried` are the fields that were tried again, by the reason they had failed
    for. `hopeless` are those left as they are, by reason, because planning found that they cannot be
    counted or because their files were replaced. `job` is the result as a count returns it.
    """

    retried: Counter[str]
    hopeless: Counter[str]
    job: JobResult

    @property
    def mended(self) -> int:
        """How many fields failed before and are counted now."""
        return self.job.progress.statuses.get(Status.OK.value, 0)


def retry_job(job: JobConfig, events: Events, reasons: Container[str] | None = None) -> RetryResult:
    """Count the failed and missing fields of the finished run at `job.output` again, and reduce. With
    `reasons` only those that failed for one of these.

    `job.run` must be the run's own. A field whose file is not the one that was planned stays failed, as
    `changed`. If it is stopped or killed at any moment, the ledger is whole, and the same call goes on.
    Raises OutputFault if there is no run, LedgerFault if it is not finished, BusyFault if another driver
    is working on it.
    """
    with interruptible("stopped; the same command goes on where this one stopped"):
        return _retry(job, events, reasons)


def _retry(job: JobConfig, events: Events, reasons: Container[str] | None) -> RetryResult:
    began = time.perf_counter()
    source = open_job_input(job)
    output = open_job_output(job, source)
    run = read_run(output)
    _refuse_other_settings(job, run, output)
    with held(output, say=events.stage) as lease:
        _refuse_unfinished(output, run)
        chosen = _choose(source, output, run, reasons, events)
        watched = Watched(events, lambda _: lease.check())
        progress = _count(job, run, source, output, chosen, watched) if chosen.shards else Progress()
        lease.confirm()
        events.stage("reducing")
        summary = reduce_run(output, chosen.objects_parts)
    done = JobResult(run, progress, summary, time.perf_counter() - began, ending(job, summary))
    return RetryResult(chosen.retried, chosen.hopeless, done)


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The fields to count, as pieces of their shards; the objects parts that stand for these shards until
    then; and how many fields there are by reason.
    """

    shards: list[Shard] = field(default_factory=list)
    objects_parts: list[str] = field(default_factory=list)
    retried: Counter[str] = field(default_factory=Counter)
    hopeless: Counter[str] = field(default_factory=Counter)


def _choose(
    source: Store, output: Store, run: RunFile, reasons: Container[str] | None, events: Events
) -> _Chosen:
    failed: dict[int, dict[str, str]] = {}
    chosen = _Chosen()
    for part in fields_parts(output, read_run(output)):
        rows = zip(
            *(part.table.column(name).to_pylist() for name in (FIELD_ID.name, STATUS.name, REASON.name)),
            strict=True,
        )
        bad = {
            field_id: reason
            for field_id, status, reason in rows
            if status in _BAD and (reasons is None or reason in reasons)
        }
        if bad:
            failed[part.number] = bad
            if part.objects_key:
                chosen.objects_parts.append(part.objects_key)
    bad_shards = [
        replace(shard, fields=tuple(one for one in shard.fields if one.key.field_id in failed[shard.number]))
        for shard in read_shards(load_plan(output, run), failed)
    ]
    if not bad_shards:
        return chosen
    fields = sum(len(shard.fields) for shard in bad_shards)
    events.stage(f"looking whether the files of {fields} fields are still those that were planned")
    tags = _tags_now(source, bad_shards)
    for shard in bad_shards:
        again: list[PlannedField] = []
        for planned in shard.fields:
            reason = failed[shard.number][planned.key.field_id]
            now = _checked(planned, tags)
            if planned.reason is not None or now.reason is Reason.CHANGED is Reason(reason):
                chosen.hopeless[reason] += 1
            else:
                chosen.retried[reason] += 1
                again.append(now)
        if again:
            chosen.shards.append(replace(shard, fields=tuple(again)))
    return chosen


def _count(
    job: JobConfig, run: RunFile, source: Store, output: Store, chosen: _Chosen, events: Events
) -> Progress:
    if _CRASHES & set(chosen.retried) and job.execution.runner == "auto":
        job = with_runner(job, "ray")
    return count_again(job, run, source, output, chosen.shards, events)


def count_again(
    job: JobConfig, run: RunFile, source: Store, output: Store, shards: Sequence[Shard], events: Events
) -> Progress:
    """Count the fields of `shards`, which are pieces of committed shards, and replace those of their rows that are not ok."""
    fields = sum(len(shard.fields) for shard in shards)
    job = decided(job, run, package_of(job.run), source, shards, events)
    with cluster(job.execution, events):
        events.stage(
            f"{fields} of {run.numbers.fields} fields; model {run.model.name} {run.model.version} on {run.model.engine}"
        )
        context = replace(context_of(job, run, source, output), amends=True)
        with recorded(job, run, output, events) as told:
            return fan_out(job, context, Work(iter(shards), len(shards), fields, 0), told)


def _tags_now(source: Store, shards: Sequence[Shard]) -> dict[str, str]:
    """The present tags of the shards' files, by key. A file that does not exist has none."""
    wanted = {
        part.key
        for shard in shards
        for planned in shard.fields
        for one in planned.sources
        for part in one.objects
    }
    return {
        listed.key: listed.etag
        for folder in _outermost({key.rpartition("/")[0] for key in wanted})
        for batch in source.list(folder)
        for listed in batch
        if listed.key in wanted
    }


def _outermost(folders: set[str]) -> list[str]:
    """Those folders that do not lie in another one: listing a folder lists everything below it."""
    outermost: list[str] = []
    for folder in sorted(folders, key=lambda name: (len(name), name)):
        if not any(above == "" or folder.startswith(f"{above}/") for above in outermost):
            outermost.append(folder)
    return outermost


def _checked(planned: PlannedField, tags: Mapping[str, str]) -> PlannedField:
    for source in planned.sources:
        if _tag(source, tags) != source.etag:
            detail = f"{source.key}: it is not the file that was planned"
            return replace(planned, reason=Reason.CHANGED, detail=detail)
    return planned


def _tag(source: Source, tags: Mapping[str, str]) -> str:
    """The tag of what a source is read from now. If some of it does not exist it is the planned tag, because reading will report that."""
    if any(part.key not in tags for part in source.objects):
        return source.etag
    if not source.parts:
        return tags[source.key]
    return parts_tag((part.key, part.size, tags[part.key]) for part in source.parts)


def _refuse_other_settings(job: JobConfig, run: RunFile, output: Store) -> None:
    if job.run.model_dump(mode="json") != dict(run.run):
        raise OutputFault(f"{output.url}: a retry counts as the run did; its settings cannot be changed")


def _refuse_unfinished(output: Store, run: RunFile) -> None:
    left = len(uncommitted(output, run.numbers.shards))
    if left:
        raise LedgerFault(
            f"{output.url}: {left} of {run.numbers.shards} shards are not counted yet; finish the run with the command that "
            "began it, then retry what failed"
        )
