"""Bring an output up to date with its input (`cellcount count --update`): count what is new or changed, and
keep the other rows.

The updated run is made next to the old one, in OUT/run/update, as an output of its own with its own plan.
A row is kept if its field was counted from the files that exist now, at the object size it would have now.
Every other field gets a row that waits, and is counted as a retry counts it. Once no row waits, the marker
OUT/run/update/ready.json is written and the new run is put in place: its files replace those of the old
one, run.json last; then come the merged tables; then the marker is removed. If the process is killed
before the marker exists, the old output is unchanged and the same command goes on. If it is killed later,
the same command finishes what was begun (ADR 0011).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

import pyarrow as pa

from cellcount_core.config import JobConfig
from cellcount_core.domain.columns import DETAIL, FIELD_ID, STATUS
from cellcount_core.domain.errors import ConfigFault, LedgerFault, Reason, Status
from cellcount_core.domain.fields import PlannedField, Shard
from cellcount_core.domain.scales import ALL_PLATES, PlateNumbers, PlateSize
from cellcount_core.domain.trust import distrust
from cellcount_core.output.labels import LABELS, label_key
from cellcount_core.output.parts import (
    READY,
    UPDATE,
    FieldsPart,
    Part,
    commit_part,
    committed_parts,
    fields_key,
    object_counts,
    part_of_tables,
    read_fields_part,
)
from cellcount_core.output.planfile import PLAN_KEY, is_gone, paired, read_shards, shard_limits
from cellcount_core.output.rows import FieldRow, fields_table, objects_table
from cellcount_core.output.run_folder import Changes, changes, load_plan, open_or_create_run, stored_run
from cellcount_core.output.runfile import RUN_KEY, ModelIdentity, RunFile, read_run
from cellcount_core.output.schema import TableName, read_table_bytes, table_schema
from cellcount_core.pipeline.context import package_of
from cellcount_core.pipeline.rows import HEIGHT, WIDTH
from cellcount_core.plan.fields import ChannelChoice
from cellcount_core.plan.planner import (
    FoundNumbers,
    FoundSizes,
    NumberFinder,
    Plan,
    PlannedModel,
    Samples,
    SizeFinder,
    plan_survey,
    survey,
)
from cellcount_core.reduce.ledger import fields_parts
from cellcount_core.reduce.reducer import reduce_run
from cellcount_core.runners.events import Events, Progress, Watched
from cellcount_core.runners.fanout import own_threads
from cellcount_core.runners.job import (
    JobResult,
    ending,
    run_job,
    schema_of,
    told_by_task,
    with_known_layout,
)
from cellcount_core.runners.lease import Lease, held
from cellcount_core.runners.places import open_job_input, open_job_output, storage_options
from cellcount_core.runners.retry import count_again
from cellcount_core.runners.sizes import number_finder, size_finder
from cellcount_core.runners.stopping import interruptible
from cellcount_core.stores.base import Store
from cellcount_core.stores.open import open_store

_WAITING = "not counted yet"
_OF_A_SET = (".ome.tif", ".ome.tiff")

_Pools = dict[tuple[str, int, int], PlateSize]


@dataclass(frozen=True, slots=True)
class UpdateResult:
    """The result of an update. `changes` is how the input changed (None if nothing was counted before),
    `taken` the number of rows that were kept, and `job` the result as a count returns it; its progress is
    what was counted now. `sizes` are the object sizes that were found before and kept.
    """

    changes: Changes | None
    taken: int
    job: JobResult
    sizes: tuple[PlateSize, ...] = ()


def update_job(job: JobConfig, events: Events) -> UpdateResult:
    """Bring the output up to date with the input by the run's own settings. If there is no run, count as
    `run_job` does.

    Fields whose files are gone stay as `missing`, `absent`. Raises OutputFault if settings or model are
    not the run's own, ConfigFault if none of the run's files is in the input, and as `run_job` does.
    """
    with interruptible("stopped; the same command goes on where this one stopped"):
        done = _update(job, events)
    if done is not None:
        return done
    result = run_job(job, events)
    already = result.run.numbers.fields - result.progress.statuses.total()
    return UpdateResult(Changes() if already else None, already, result)


def _update(job: JobConfig, events: Events) -> UpdateResult | None:
    """The update; None if there is nothing to update, so that counting goes on."""
    began = time.perf_counter()
    source = open_job_input(job)
    output = open_job_output(job, source)
    package = package_of(job.run)
    model = ModelIdentity(package.name, package.version, package.digest, job.run.model.engine)
    stored = stored_run(output, job.run, model)
    if stored is None:
        return None
    job = with_known_layout(job, stored)
    events.stage(f"listing {source.url}")
    seen = survey(
        source,
        job.run,
        package.input.channels,
        own_output=output.url,
        options=storage_options(job.storage),
    )
    with seen, held(output, say=events.stage) as lease:
        staging = open_store(
            f"{output.url.rstrip('/')}/{UPDATE}", storage_options(job.output_storage or job.storage)
        )
        if staging.size_of(READY) is not None:
            events.stage("ending an update that was interrupted while it was put in place")
            _put_in_place(output, staging)
            reduce_run(output)
            _discard(staging)
        kept = read_run(output)
        before = load_plan(output, kept)
        find_sizes = _for_new_plates(
            kept, before, size_finder(job.run, package, source, own_threads(job), events.stage)
        )
        numbers = _numbers_for_new_plates(
            kept, number_finder(job.run, package, source, own_threads(job), events.stage)
        )
        planned = PlannedModel(
            kept.model,
            package.input.channels,
            schema_of(package, kept),
            package.input.diameter_px is None,
            distrust(package.name, package.accuracy),
            told_by_task(package, None),
        )
        limits = shard_limits(job.execution)
        with plan_survey(seen, planned, limits, find_sizes, before, numbers) as plan:
            since = changes(read_shards(before), plan.shards())
            if plan.file.fingerprint == kept.fingerprint or since.none:
                _discard(staging)
                return None
            if since.elsewhere:
                raise ConfigFault(f"{source.url}: {since.elsewhere}")
            for line in since.lines():
                events.stage(line)
            for warning in plan.summary.warnings:
                events.warn(warning)
            run = _begin(staging, plan)
            taken = _take_over(output, before, staging, run, since)
        progress = _count(job, run, source, staging, output, Watched(events, lambda _: lease.check()))
        sizes = tuple(scale for scale in kept.scales if scale.diameter_px is not None)
        return _end(job, run, output, staging, lease, _Done(since, taken, progress, sizes, began), events)


@dataclass(frozen=True, slots=True)
class _Done:
    """What is known about an update before it is put in place."""

    since: Changes
    taken: int
    progress: Progress
    sizes: tuple[PlateSize, ...]
    began: float


def _end(
    job: JobConfig,
    run: RunFile,
    output: Store,
    staging: Store,
    lease: Lease,
    done: _Done,
    events: Events,
) -> UpdateResult:
    lease.confirm()
    events.stage("putting the update in place")
    staging.put(READY, b"{}\n")
    _put_in_place(output, staging)
    lease.confirm()
    events.stage("reducing")
    summary = reduce_run(output)
    _discard(staging)
    result = JobResult(run, done.progress, summary, time.perf_counter() - done.began, ending(job, summary))
    return UpdateResult(done.since, done.taken, result, done.sizes)


def _for_new_plates(kept: RunFile, before: bytes, find_sizes: SizeFinder) -> SizeFinder:
    """Keep what the run knows of object sizes, and find out about plates that it does not know.

    Of a run whose object size is given, these are the plates that the plan `before` does not have: it says nothing of those that agree.
    """
    known = {scale.plate for scale in kept.scales}
    if kept.run.get("diameter") != "auto":
        known = {planned.key.plate for shard in read_shards(before) for planned in shard.fields}

    def found_anew(sample: Sequence[PlannedField], choice: ChannelChoice) -> FoundSizes:
        new = [planned for planned in sample if planned.key.plate not in known]
        found = find_sizes(new, choice) if new else FoundSizes()
        pools = sorted((*kept.scales, *found.pools), key=lambda one: (one.plate, one.height_px, one.width_px))
        shown = sorted((*kept.shown_sizes, *found.shown), key=lambda one: one.plate)
        return FoundSizes(tuple(pools), tuple(shown))

    return found_anew


def _numbers_for_new_plates(kept: RunFile, finder: NumberFinder) -> NumberFinder:
    """Keep the numbers of plates that the run knows, and find those of plates that it does not know."""
    known = {found.plate for found in kept.plate_numbers}

    def found_anew(samples: Samples, choice: ChannelChoice, scales: tuple[PlateSize, ...]) -> FoundNumbers:
        new = {
            name: [one for one in fields if one.key.plate not in known] for name, fields in samples.items()
        }
        found, warnings = finder.find(new, choice, scales) if any(new.values()) else ((), ())
        added = (one for one in found if one.plate not in known)
        return tuple(sorted((*kept.plate_numbers, *added), key=lambda one: one.plate)), warnings

    return NumberFinder(finder.groups, found_anew)


def _begin(staging: Store, plan: Plan) -> RunFile:
    """The updated run in its own folder. One that was begun for other files is discarded."""
    if staging.size_of(RUN_KEY) is not None and read_run(staging).fingerprint != plan.file.fingerprint:
        _discard(staging)
    return open_or_create_run(staging, plan)


class _OldShard:
    """A shard of the old run: its rows, and the objects of each row. Objects are read when they are asked for."""

    def __init__(self, store: Store, part: FieldsPart, object_count: str) -> None:
        self._store, self._part = store, part
        self._starts = list(accumulate(object_counts(part.table, object_count), initial=0))

    def fields(self, index: int) -> pa.Table:
        """One row."""
        return self._part.table.slice(index, 1)

    def objects(self, index: int) -> pa.Table:
        """The objects of one row."""
        start, end = self._starts[index], self._starts[index + 1]
        return self._all.slice(start, end - start)

    @cached_property
    def _all(self) -> pa.Table:
        key = self._part.objects_key
        return read_table_bytes(key, self._store.get(key))


@dataclass(frozen=True, slots=True)
class _KeptRow:
    """A row that was counted well, with what was planned for it and its pool (plate, height and width)."""

    planned: PlannedField
    part: _OldShard
    index: int
    pool: tuple[str, int, int]


def _take_over(output: Store, before: bytes, staging: Store, run: RunFile, since: Changes) -> int:
    """Commit each shard of the updated run that is not committed yet, from rows of the old run and rows that
    wait. Returns how many rows were kept, including those of an earlier attempt.
    """
    kept, done = read_run(output), committed_parts(staging)
    then, now = _pools(kept), _pools(run)
    numbers_then, numbers_now = _numbers(kept), _numbers(run)
    shown_then, shown_now = ({shown.plate: shown for shown in its.shown_sizes} for its in (kept, run))
    rows = _rows(output, kept, before) if kept.schema == run.schema else iter(())
    old = next(rows, None)
    taken = 0
    for shard in read_shards(load_plan(staging, run)):
        chosen: list[_KeptRow | None] = []
        for planned in shard.fields:
            while old is not None and old.planned.key < planned.key:
                old = next(rows, None)
            same = (
                old is not None
                and old.planned == planned
                and then.get(old.pool) == now.get(old.pool)
                and _numbers_of(planned, numbers_then) == _numbers_of(planned, numbers_now)
                and shown_then.get(planned.key.plate) == shown_now.get(planned.key.plate)
            )
            chosen.append(old if same and not _in_changed_set(planned, since) else None)
        taken += sum(row is not None for row in chosen)
        if shard.number not in done:
            commit_part(staging, _assembled(shard, chosen, run))
    return taken


def _in_changed_set(planned: PlannedField, since: Changes) -> bool:
    """Whether a field may lie in files that were not planned for it and that changed: the files of an OME set, which name each other."""
    return any(
        source.key.lower().endswith(_OF_A_SET) and source.key.rpartition("/")[0] in since.folders
        for source in planned.sources
    )


def _pools(run: RunFile) -> _Pools:
    return {(scale.plate, scale.height_px, scale.width_px): scale for scale in run.scales}


def _numbers(run: RunFile) -> dict[str, PlateNumbers]:
    return {found.plate: found for found in run.plate_numbers}


def _numbers_of(planned: PlannedField, found: Mapping[str, PlateNumbers]) -> PlateNumbers | None:
    """What a field was judged by."""
    return found.get(planned.key.plate) or found.get(ALL_PLATES)


def _rows(output: Store, kept: RunFile, before: bytes) -> Iterator[_KeptRow]:
    """The rows of the old run that were counted, in key order. One shard at a time is in memory."""
    for shard in read_shards(before, committed_parts(output)):
        key = fields_key(shard.number)
        part = read_fields_part(key, output.get(key))
        if part.fingerprint != kept.fingerprint:
            raise LedgerFault(
                f"{key}: belongs to run {part.fingerprint[:12]}, expected {kept.fingerprint[:12]}"
            )
        counted = _OldShard(output, part, kept.schema.object_count)
        names = (FIELD_ID.name, STATUS.name, HEIGHT.name, WIDTH.name)
        columns = zip(*(part.table.column(name).to_pylist() for name in names), strict=True)
        for index, (planned, (field_id, status, height, width)) in enumerate(
            zip(shard.fields, columns, strict=True)
        ):
            if planned.key.field_id != field_id:
                raise LedgerFault(f"{key}: row {index} is of field {field_id}, planned is {planned.key}")
            if status == Status.OK.value:
                yield _KeptRow(planned, counted, index, (planned.key.plate, height, width))


def _assembled(shard: Shard, chosen: Sequence[_KeptRow | None], run: RunFile) -> Part:
    schema, fingerprint = run.schema, run.fingerprint
    fields: list[pa.Table] = []
    objects: list[pa.Table] = [objects_table([], schema, fingerprint)] if schema.objects else []
    for planned, row in zip(shard.fields, chosen, strict=True):
        if row is None:
            labels = dict(planned.labels)
            waiting = FieldRow(
                planned.key, "", Reason.INTERNAL.status, Reason.INTERNAL, _WAITING, values=labels
            )
            fields.append(fields_table([waiting], schema, fingerprint))
        else:
            fields.append(row.part.fields(row.index))
            if schema.objects:
                objects.append(row.part.objects(row.index))
    return part_of_tables(
        shard.number,
        _joined(fields, table_schema(TableName.FIELDS, schema, fingerprint)),
        _joined(objects, table_schema(TableName.OBJECTS, schema, fingerprint)) if objects else None,
        schema,
    )


def _joined(tables: Sequence[pa.Table], schema: pa.Schema) -> pa.Table:
    plain = pa.concat_tables([table.replace_schema_metadata(None) for table in tables]).combine_chunks()
    return pa.Table.from_arrays(plain.columns, schema=schema)


def _count(
    job: JobConfig, run: RunFile, source: Store, staging: Store, output: Store, events: Events
) -> Progress:
    """Count the fields whose rows wait."""
    waiting = _waiting(staging, run)
    progress = count_again(job, run, source, staging, waiting, events) if waiting else Progress()
    if left := sum(len(shard.fields) for shard in _waiting(staging, run)):
        raise LedgerFault(
            f"{output.url}: {left} fields of the update are not counted yet, since another process wrote there; "
            "the same command goes on"
        )
    return progress


def _waiting(staging: Store, run: RunFile) -> list[Shard]:
    wanted: dict[int, set[str]] = {}
    for part in fields_parts(staging, read_run(staging)):
        ids, details = (part.table.column(name).to_pylist() for name in (FIELD_ID.name, DETAIL.name))
        if waits := {one for one, detail in zip(ids, details, strict=True) if detail == _WAITING}:
            wanted[part.number] = waits
    return [
        replace(shard, fields=tuple(one for one in shard.fields if one.key.field_id in wanted[shard.number]))
        for shard in read_shards(load_plan(staging, run), wanted)
    ]


def _put_in_place(output: Store, staging: Store) -> None:
    """Make the updated run the run of the output. Doing this twice, or again after a kill, gives the same result."""
    run = read_run(staging)
    plan = load_plan(staging, run)
    # The plan is replaced after all but run.json: one that is the update's already says nothing of what is gone, and need not.
    for key in _labels_gone(output.get(PLAN_KEY), plan):
        output.delete(key)
    for number in range(run.numbers.shards):
        body = staging.get(fields_key(number))
        if objects := read_fields_part(fields_key(number), body).objects_key:
            output.put(objects, staging.get(objects))
        output.put(fields_key(number), body)
    for listed in [one for batch in staging.list(LABELS) for one in batch]:
        output.put(listed.key, staging.get(listed.key))
    for number in committed_parts(output):
        if number >= run.numbers.shards:
            output.delete(fields_key(number))
    output.put(PLAN_KEY, plan)
    output.put(RUN_KEY, staging.get(RUN_KEY))


def _labels_gone(before: bytes, plan: bytes) -> Iterator[str]:
    """The label images of fields whose files are gone."""
    old = (planned for shard in read_shards(before) for planned in shard.fields)
    new = (planned for shard in read_shards(plan) for planned in shard.fields)
    for was, now in paired(old, new):
        if was is not None and was.sources and (now is None or is_gone(now)):
            yield from (label_key(one) for one in was.sources)


def _discard(staging: Store) -> None:
    """Remove the contents of an update's folder: the marker first and run.json last, so that a kill leaves nothing that looks complete."""
    last = (RUN_KEY, PLAN_KEY)
    keys = [listed.key for batch in staging.list() for listed in batch]
    for key in sorted(keys, key=lambda one: (one != READY, one in last, one)):
        staging.delete(key)
