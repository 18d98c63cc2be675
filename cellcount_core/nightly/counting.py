"""Count one plate into its own folder, and record what the ledger keeps about it.

If a plate has only gained wells since it was counted, the new wells alone are counted, into a folder of
their own. This is done only if it gives the same rows as counting the whole plate would; in any doubt the
plate is counted whole.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.dataset import Dataset

from cellcount_core.config import RunConfig
from cellcount_core.domain.columns import REASON, STATUS, WARNINGS, WELL, Merge, Value
from cellcount_core.domain.doubts import Doubt, code_of
from cellcount_core.domain.errors import BudgetFault, Reason, Remedy, Status
from cellcount_core.domain.fields import Parsed
from cellcount_core.layouts.auto import AutoSettings
from cellcount_core.layouts.base import Ignored, Sidecar
from cellcount_core.layouts.registry import build_layout, kind_of
from cellcount_core.nightly.config import NightlyConfig
from cellcount_core.nightly.ledger import Event, PlateStatus
from cellcount_core.nightly.plates import PlateFolder
from cellcount_core.output.open import Output, open_output
from cellcount_core.output.parts import committed_parts
from cellcount_core.output.planfile import read_shards
from cellcount_core.output.run_folder import load_plan
from cellcount_core.output.runfile import read_run
from cellcount_core.pipeline.context import package_of
from cellcount_core.plan.derived import Suspect, suspects
from cellcount_core.plan.discover import key_reader
from cellcount_core.plan.rows import Row, row_of
from cellcount_core.reduce.summary import Summary, told_doubts
from cellcount_core.runners.events import Events
from cellcount_core.runners.job import JobResult, run_job
from cellcount_core.runners.places import storage_options
from cellcount_core.stores.base import Listed, Store
from cellcount_core.stores.open import name_of, open_store
from cellcount_core.tasks.object_size.looks import tells_sizes
from cellcount_core.tasks.task import plate_rule_of

_FOLDER_DIGITS = 20
_SHOWN_WELLS = 5
_MAY_PASS = frozenset(reason for reason in Reason if Remedy.RETRY in reason.remedies)


def folder_of(plate: PlateFolder) -> str:
    """Where the plate's tables go, below the nightly's output. There is one folder for each plate and content, so that two never mix."""
    return f"counts/{plate.name}/{plate.content[:_FOLDER_DIGITS]}"


def count_plate(
    config: NightlyConfig,
    plate: PlateFolder,
    blank: Event,
    live: Sequence[Event],
    store: Store,
    events: Events,
) -> Event:
    """Count what is not counted yet of `plate`, and return the event `blank` with the result filled in.

    `live` are the events whose outputs together are the plate as it was counted last. If the plate has
    only gained wells since then, only these are counted, and the numbers of the event are those of the
    added wells. Fields that an earlier night failed on are tried again if another attempt may succeed. The
    event's status is FAILED if more fields failed than `execution.max_failed` accepts or no field could be
    counted, and LATE if files end in zeros, as they do while they are still being copied. Other RunFaults
    of `run_job` are raised.
    """
    folder, job = folder_of(plate), config.job(plate.source, "")
    run = config.run.model_copy(
        update={"layout": plate.layout, "platemap": config.platemap(name_of(plate.source))}
    )
    job = job.model_copy(update={"run": run})
    if not run.plate and plate.name != name_of(plate.source):
        # Tables of two plates of one name are told apart as the ledger does.
        run = run.model_copy(update={"plate": plate.name})
        job = job.model_copy(update={"run": run})
    if added := _added(config, run, plate, live):
        folder += "-added"
        job = job.model_copy(update={"run": only(run, added)})
        blank = replace(
            blank,
            extends=live[-1].content,
            files=len(added),
            bytes=sum(listed.size for listed in added),
            detail=f"only the wells added to {live[-1].output}",
        )
    url = f"{store.url.rstrip('/')}/{folder}"
    options = storage_options(config.output_storage or config.storage)
    try:
        result = run_job(job.model_copy(update={"output": url}), events, _MAY_PASS)
    except BudgetFault as fault:
        told = failures_told(_ends_so_far(open_store(url, options)))
        first = str(fault).partition("\n")[0].replace("--max-failed", "execution.max_failed")
        return replace(
            blank,
            status=PlateStatus.FAILED,
            output=folder,
            detail="; ".join(filter(None, (told, first))),
            doubts="\n".join(fault.warnings),
        )
    table = open_output(url, options).fields
    if unfinished := _unfinished(result.summary, table):
        return replace(blank, status=PlateStatus.LATE, output=folder, detail=unfinished)
    event = _filled(blank, result)
    said = [blank.detail, failures_told(_ends(table))]
    if not event.ok and (event.failed or event.missing):
        event = replace(event, status=PlateStatus.FAILED)
        said.append("none of its fields could be counted")
    return replace(
        event,
        output=folder,
        statistics=_statistics(result.summary, table),
        detail="; ".join(filter(None, said)),
        doubts="\n".join((*result.warnings, *told_doubts(result.summary))),
        doubt=", ".join(sorted({one.doubt.value for one in result.summary.doubts})),
    )


def failures_told(fields: Iterable[tuple[str, str | None, str]]) -> str:
    """Say what became of the fields (status, reason, well) that were not counted, as "1 field failed
    (truncated, B02)". Returns "" if all were counted.
    """
    wells: dict[Status, dict[str, list[str]]] = {Status.FAILED: {}, Status.MISSING: {}}
    for status, reason, well in fields:
        if (of := wells.get(Status(status))) is not None:
            of.setdefault(str(reason), []).append(well)
    said = []
    for status, reasons in wells.items():
        if not reasons:
            continue
        number = sum(map(len, reasons.values()))
        verb = "failed" if status is Status.FAILED else "is missing" if number == 1 else "are missing"
        each = [f"{reason}, {_shown(names)}" for reason, names in sorted(reasons.items())]
        said.append(f"{number} {'field' if number == 1 else 'fields'} {verb} ({'; '.join(each)})")
    return ", ".join(said)


def _ends(table: Dataset) -> Iterable[tuple[str, str | None, str]]:
    """Status, reason and well of each field."""
    rows = table.to_table(columns=[STATUS.name, REASON.name, WELL.name], use_threads=False)
    return zip(*(column.to_pylist() for column in rows.columns), strict=True)


def _ends_so_far(store: Store) -> Iterable[tuple[str, str | None, str]]:
    """As `_ends`, for a run that stopped early: its committed fields, and those that planning gave up on."""
    done = committed_parts(store)
    if done:
        yield from _ends(Output(store).fields_so_far())
    for shard in read_shards(load_plan(store, read_run(store))):
        if shard.number not in done:
            yield from (
                (field.reason.status.value, field.reason.value, field.key.well)
                for field in shard.fields
                if field.reason is not None
            )


def _shown(wells: Sequence[str]) -> str:
    names = sorted(set(wells))
    return ", ".join(names[:_SHOWN_WELLS]) + (", …" if names[_SHOWN_WELLS:] else "")


def _unfinished(summary: Summary, table: Dataset) -> str:
    """Say why the plate's files seem to be still being copied (they end in zeros), or return "" if nothing suggests it."""
    number = summary.warnings.get(Doubt.ZERO_TAIL, 0)
    if not number:
        return ""
    rows = table.to_table(columns=[WARNINGS.name, WELL.name], use_threads=False).to_pylist()
    wells = [
        row[WELL.name]
        for row in rows
        if any(code_of(each) == Doubt.ZERO_TAIL for each in row[WARNINGS.name] or ())
    ]
    return f"{number} {'field ends' if number == 1 else 'fields end'} in zeros, as files do that are still being copied ({_shown(wells)})"


def _added(
    config: NightlyConfig, run: RunConfig, plate: PlateFolder, live: Sequence[Event]
) -> tuple[Listed, ...]:
    """The files of added wells if they can be counted alone; empty if the plate must be counted whole."""
    again = any(event.content == plate.content for event in live)
    if not live or again or isinstance(run.layout, AutoSettings) or not fields_are_independent(run):
        return ()
    source = open_store(plate.source, storage_options(config.storage))
    options = storage_options(config.output_storage or config.storage)
    counted = [open_store(f"{config.output.rstrip('/')}/{event.output}", options) for event in live]
    return added_files(
        run,
        run.plate or name_of(plate.source),
        (listed for batch in source.list() for listed in batch),
        counted,
    )


def _filled(blank: Event, result: JobResult) -> Event:
    summary = result.summary
    statuses = {status: summary.statuses.get(status.value, 0) for status in Status}
    return replace(
        blank,
        fingerprint=summary.fingerprint,
        fields=summary.fields,
        ok=statuses[Status.OK],
        failed=statuses[Status.FAILED],
        missing=statuses[Status.MISSING],
        skipped=statuses[Status.SKIPPED],
        fields_now=sum(result.progress.statuses.values()),
    )


def _statistics(summary: Summary, table: Dataset) -> dict[str, int | float | None]:
    """What the ledger keeps of a plate: totals and means per field of what is counted, shares, sums and medians of the watched columns."""
    found: dict[str, Value] = {}
    for column in summary.schema.fields:
        name = column.name
        if column.merge is Merge.COUNT:
            found |= {
                name: summary.totals[name],
                f"{name}_per_field": summary.totals[f"{name}_per_field_mean"],
            }
        elif column.merge is Merge.SHARE:
            found[f"{name}_share"] = summary.totals[f"{name}_share"]
        elif column.merge is Merge.PERCENT or (column.merge is Merge.SUM and column.watched):
            found[name] = summary.totals[name]
    watched = [
        column.name for column in summary.schema.fields if column.watched and column.merge is not Merge.SUM
    ]
    rows = table.to_table(columns=watched, use_threads=False)
    found |= {name: _median(rows[name]) for name in watched}
    return {name: value for name, value in found.items() if value is None or isinstance(value, int | float)}


def _median(values: pa.ChunkedArray) -> float | None:
    known = pc.drop_null(values)
    return float(pc.quantile(known, q=0.5)[0].as_py()) if len(known) else None


MOST_FILES = 1000
"""More files than this are not named one by one in run.include: the plate is counted whole."""

Well = tuple[str, str]


def fields_are_independent(run: RunConfig) -> bool:
    """Whether no row depends on other fields of its plate: neither an object size nor what the task needs to
    know is found from them, and no field is expected because of them.
    """
    package = package_of(run)
    alone = (run.diameter != "auto" or not tells_sizes(package)) and plate_rule_of(package, run) is None
    traits = kind_of(run.layout).traits
    return alone and run.expect == "observed" and not (traits.told_by_table or traits.holds_arrays)


def added_files(
    run: RunConfig, root: str, listing: Iterable[Listed], counted: Sequence[Store]
) -> tuple[Listed, ...]:
    """Return the files of wells that the outputs `counted` do not have yet, sorted by key. `counted` are all
    outputs of the plate at `root`.

    The result is empty if anything else changed: a planned file is gone or was replaced, a well that was
    counted has a new file in a counted channel, a well could not be planned whole, channels differ, a
    plate is spread over several folders, a name does not parse, there is a metadata file, or a file may be
    the mask of another.
    """
    planned: dict[str, tuple[int, str]] = {}
    wells: set[Well] = set()
    channels: set[str] = set()
    for store in counted:
        for shard in read_shards(load_plan(store, read_run(store))):
            for field in shard.fields:
                if field.reason is not None:
                    return ()
                wells.add((field.key.plate, field.key.well))
                planned |= {source.key: (source.size, source.etag) for source in field.sources}
                channels |= {source.channel for source in field.sources}
    added: dict[str, Listed] = {}
    seen: dict[bool, set[str]] = {True: set(), False: set()}
    folders: defaultdict[str, set[str]] = defaultdict(set)
    rows: list[Row] = []
    for listed, parsed in _parsed(run, root, listing):
        # A metadata file states things of all wells at once.
        if parsed is None or isinstance(parsed, Sidecar):
            return ()
        known = (parsed.field.plate, parsed.field.well) in wells
        seen[known].add(parsed.channel)
        folders[parsed.field.plate].add(parsed.folder)
        rows.append(row_of(parsed, listed.key))
        if not known:
            added[listed.key] = listed
        elif planned.pop(listed.key, None) != (listed.size, listed.etag) and parsed.channel in channels:
            return ()
    changed = planned or seen[True] != seen[False] or any(len(each) > 1 for each in folders.values())
    masks_too = run.masks == "count" or not kind_of(run.layout).traits.reads_any_name
    if not masks_too and any(isinstance(row, Suspect) for row in suspects(sorted(rows))):
        return ()
    if changed or len(added) > MOST_FILES:
        return ()
    return tuple(listed for _, listed in sorted(added.items()))


def only(run: RunConfig, files: Sequence[Listed]) -> RunConfig:
    """Return `run` limited to these files."""
    # A glob with a leading '/' is a path from the input down; brackets make a special sign stand for itself.
    include = tuple("/" + re.sub(r"([\[*?])", r"[\1]", listed.key) for listed in files)
    return run.model_copy(update={"include": include})


def _parsed(
    run: RunConfig, root: str, listing: Iterable[Listed]
) -> Iterable[tuple[Listed, Parsed | Sidecar | None]]:
    layout = build_layout(run.layout, root)
    read = key_reader(run, layout)
    for listed in listing:
        parsed = read(listed.key)
        if not isinstance(parsed, Ignored):
            yield listed, parsed
