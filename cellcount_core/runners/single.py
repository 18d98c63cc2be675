"""Count one image in this process, just as a run counts a folder that contains it alone. Nothing is written."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache

from cellcount_core.config import JobConfig
from cellcount_core.domain.errors import ConfigFault, FieldFault, Reason
from cellcount_core.domain.fields import PlannedField
from cellcount_core.models.engines import resolve_engine
from cellcount_core.models.package import Package
from cellcount_core.output.planfile import shard_limits
from cellcount_core.output.runfile import RunFile
from cellcount_core.pipeline.context import package_of, prepare_process
from cellcount_core.pipeline.device import Device
from cellcount_core.pipeline.field import (
    FieldResult,
    decode,
    engine_beside,
    examine,
    open_device,
    open_kit,
    rows_of,
)
from cellcount_core.pipeline.files import read_fields
from cellcount_core.pipeline.rows import Examined
from cellcount_core.plan.planner import plan_survey, survey
from cellcount_core.runners.fanout import own_threads
from cellcount_core.runners.job import planned_model, refuse_misfits
from cellcount_core.runners.places import Places, make_context, storage_options
from cellcount_core.runners.sizes import number_finder, size_finder, with_checks
from cellcount_core.stores.base import Store

_MODELS_KEPT = 4
"""Two runs of two packages each."""


@dataclass(frozen=True, slots=True, eq=False)
class Single:
    """An image that was counted: what was found in it, its rows in the tables, the run it would be, and the warnings of its plan."""

    seen: Examined
    rows: FieldResult
    run: RunFile
    warnings: tuple[str, ...]


def count_single(job: JobConfig, source: Store) -> Single:
    """Count the only image of `source` with the run settings of `job`, and keep its label image.

    A model that was used before in this process is not loaded again. Raises FieldFault if the image cannot
    be counted, ConfigFault if `source` holds several images or a setting does not fit, ModelFault if the
    package cannot be used.
    """
    prepare_process()
    package = package_of(job.run)
    refuse_misfits(package, job.run)
    engine = resolve_engine(package, job.run.model.engine, gpus=0)
    device = _device(_Loaded(package, engine, own_threads(job), os.getpid()))
    model, limits, options = (
        planned_model(package, engine),
        shard_limits(job.execution),
        storage_options(job.storage),
    )
    with survey(source, job.run, model.roles, options=options) as found:
        settings = found.run
        find_sizes = size_finder(settings, package, source, own_threads(job), lambda _: None, device)
        numbers = number_finder(settings, package, source, own_threads(job), lambda _: None, device)
        numbers = with_checks(settings, source, package, numbers)
        with plan_survey(found, model, limits, find_sizes, numbers=numbers) as plan:
            fields = [planned for shard in plan.shards() for planned in shard.fields]
            run, warnings = plan.file, plan.summary.warnings
    planned = _only(fields)
    config = settings.model_copy(update={"labels": "tiff"})
    context = make_context(run, config, Places(source.url, options, ".", options), readers=1)
    beside = None
    if (other := package.beside) is not None:
        beside = _device(_Loaded(other, engine_beside(other, engine), own_threads(job), os.getpid()))
    kit = open_kit(context, device, beside)
    [(_, files)] = read_fields(source, [planned], ahead=1, run=config)
    try:
        seen = examine(kit, decode(kit, planned, files), planned.key.plate)
    except MemoryError as error:
        raise FieldFault(Reason.OUT_OF_MEMORY, str(error) or "no memory left for this image") from error
    return Single(seen, rows_of(kit, planned, seen), run, warnings)


@dataclass(frozen=True, slots=True)
class _Loaded:
    """The key under which a device is kept. A forked process has none of its parent's threads, so it loads its own."""

    package: Package
    engine: str
    threads: int
    process: int

    def __hash__(self) -> int:
        return hash((self.package.digest, self.engine, self.threads, self.process))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Loaded) and (
            (self.package.digest, self.engine, self.threads, self.process)
            == (other.package.digest, other.engine, other.threads, other.process)
        )


@lru_cache(maxsize=_MODELS_KEPT)
def _device(wanted: _Loaded) -> Device:
    return open_device(wanted.package, wanted.engine, wanted.threads)


def _only(fields: list[PlannedField]) -> PlannedField:
    if len(fields) != 1:
        raise ConfigFault(
            f"it holds {len(fields)} images, each of which is counted by itself: count one of them (an array's plane), or all of "
            "them as a run"
        )
    [planned] = fields
    if planned.reason is not None:
        raise FieldFault(planned.reason, planned.detail)
    return planned
