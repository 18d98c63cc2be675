"""One plate counted into its own folder, and what the ledger keeps of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyarrow.compute as pc

from cellcount_core.domain.errors import Status
from cellcount_core.nightly.added import added_files, fields_are_independent, only
from cellcount_core.nightly.config import NightlyConfig
from cellcount_core.nightly.ledger import Event
from cellcount_core.nightly.plates import Plate
from cellcount_core.runners.events import Events
from cellcount_core.runners.job import JobResult, run_job
from cellcount_core.runners.places import storage_options
from cellcount_core.stores.base import Listed, Store
from cellcount_core.stores.open import name_of, open_store
from cellcount_core.tables.open import open_output

_FOLDER_DIGITS = 20


def folder_of(plate: Plate) -> str:
    """Where the plate's tables go, below the nightly's output: one folder a plate and content, so that no two ever mix."""
    return f"counts/{plate.name}/{plate.content[:_FOLDER_DIGITS]}"


def count_plate(
    config: NightlyConfig, plate: Plate, blank: Event, live: Sequence[Event], store: Store, events: Events
) -> Event:
    """Count what is not counted yet of `plate`; `blank` filled in with what came of it. Raises RunFault as `run_job`.

    `live` are the events whose outputs are the plate as it was counted last. Where it has only gained wells since, these are
    counted into a folder of their own, and the event says what it extends.
    """
    folder, job = folder_of(plate), config.job(plate.source, "")
    if added := _added(config, plate, live):
        folder += "-added"
        job = job.model_copy(update={"run": only(config.run, added)})
        blank = replace(
            blank,
            extends=live[-1].content,
            files=len(added),
            bytes=sum(listed.size for listed in added),
            detail=f"only the wells added to {live[-1].output}",
        )
    url = f"{store.url.rstrip('/')}/{folder}"
    result = run_job(job.model_copy(update={"output": url}), events)
    focus, background = _medians(config, url)
    return replace(_filled(blank, result), output=folder, focus=focus, background=background)


def _added(config: NightlyConfig, plate: Plate, live: Sequence[Event]) -> tuple[Listed, ...]:
    """The files of added wells where these can be counted alone; empty where the plate is to be counted whole."""
    again = any(event.content == plate.content for event in live)
    if not live or again or not fields_are_independent(config.run):
        return ()
    source = open_store(plate.source, storage_options(config.storage))
    options = storage_options(config.output_storage or config.storage)
    counted = [open_store(f"{config.output.rstrip('/')}/{event.output}", options) for event in live]
    root = config.run.plate or name_of(plate.source)
    return added_files(config.run, root, (listed for batch in source.list() for listed in batch), counted)


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
        fields_now=sum(result.tally.statuses.values()),
        count=summary.count,
        count_per_field=summary.count_per_field_mean,
    )


def _medians(config: NightlyConfig, url: str) -> tuple[float | None, float | None]:
    """Median focus and background of the counted fields."""
    options = storage_options(config.output_storage or config.storage)
    table = open_output(url, options).fields.to_table(columns=["focus", "background"])
    focus, background = (_median(table[name]) for name in ("focus", "background"))
    return focus, background


def _median(values: object) -> float | None:
    known = pc.drop_null(values)
    return float(pc.quantile(known, q=0.5)[0].as_py()) if len(known) else None
