"""Hand out shards to workers: choose the runner, join the cluster, open the pool of workers, and connect those who are told about it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cellcount_core.config import ExecutionConfig, JobConfig
from cellcount_core.domain.errors import ConfigFault, FieldFault
from cellcount_core.domain.fields import PlannedField, Selection, Shard
from cellcount_core.models.engines import ON_GPU, resolve_engine
from cellcount_core.models.package import Package
from cellcount_core.output.planfile import usable_cores
from cellcount_core.output.runfile import RunFile
from cellcount_core.pipeline.context import RunContext
from cellcount_core.runners.driver import Policy, run_shards
from cellcount_core.runners.events import Events, Progress, TimedEvents
from cellcount_core.runners.places import Places, make_context, storage_options
from cellcount_core.stores.base import Store

if TYPE_CHECKING:
    from cellcount_core.runners.pool import WorkerPool

_CLUSTER_START_S = 20.0
"""Work on one core that is done here before a local cluster of a few cores has started and loaded the model in its workers."""

_S_PER_MEGAPIXEL = 0.08
_S_PER_MEGAPIXEL_AND_MB = 0.2
"""One core's seconds a megapixel of the image, and a megapixel at the model's scale a megabyte of its network. Rough: of
`nuclei` in 8 bits on one core of 2023, see docs/explanation/performance.md."""

_GPU_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/nvidia0"), Path("/dev/dxg"), Path("/dev/kfd"))
_NO_DEVICE = ("", "-1", "NoDevFiles")
"""Values of CUDA_VISIBLE_DEVICES that hide all."""

_OPENED_TO_SEE = 64 << 20
_IN_HAND = 6
"""Fields that a worker has in hand at least: one is read, some decoded, one waits for the device, one is separated."""

_WISHES = ("address", "actors", "gpus_per_actor", "memory_mib", "shard_timeout_s")
"""Settings of execution that only the Ray runner can follow."""


@dataclass(frozen=True, slots=True)
class Work:
    """`number` shards to count, as a stream, and what a display is told: `fields` in all, `already` of them counted before."""

    shards: Iterable[Shard]
    number: int
    fields: int
    already: int

    def in_flight(self, execution: ExecutionConfig) -> int:
        """How many shards each worker has in hand: two, or more if a shard has only a few fields."""
        if execution.in_flight != "auto":
            return execution.in_flight
        fields = max(1, (self.fields - self.already) // max(1, self.number))
        return max(2, -(-_IN_HAND // fields))


def engine_asks_for_gpus(job: JobConfig, package: Package) -> bool:
    """Whether the engine of a new run depends on how many GPUs the cluster has, so that the cluster must be asked before planning."""
    execution, asked = job.execution, job.run.model.engine
    if execution.runner == "serial" or execution.gpus_per_actor == 0:
        return False
    if resolve_engine(package, asked, gpus=0) == resolve_engine(package, asked, gpus=1):
        return False
    return has_cluster(execution) or _has_gpu()


def refuse_gpus(execution: ExecutionConfig) -> None:
    """Check `gpus_per_actor` before a local cluster is started, because starting takes many seconds.

    Raises ConfigFault if it asks for a GPU and this machine has none. Runs in this process and on an
    existing cluster are not checked.
    """
    share = execution.gpus_per_actor
    if share in ("auto", 0) or execution.runner == "serial" or has_cluster(execution):
        return
    if not _has_gpu():
        raise ConfigFault(
            f"execution.gpus_per_actor is {share:g}, but this machine, where a local cluster would be started, has no GPU that can be used; "
            "set gpus_per_actor to 0 (or auto), or name a cluster that has GPUs: --address HOST:PORT"
        )


def _has_gpu() -> bool:
    """Whether this machine has a GPU that its processes may use."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in _NO_DEVICE
    return not hidden and any(device.exists() for device in _GPU_DEVICES)


def has_cluster(execution: ExecutionConfig) -> bool:
    """Whether a cluster exists already: one is named, or this process is connected to one."""
    ray = sys.modules.get("ray")
    address = execution.address or os.environ.get("RAY_ADDRESS")
    return address not in (None, "", "local") or (ray is not None and bool(ray.is_initialized()))


def with_runner(job: JobConfig, runner: Literal["ray", "serial"]) -> JobConfig:
    """Return the job with this runner."""
    execution = job.execution.model_copy(update={"runner": runner})
    return job.model_copy(update={"execution": execution})


def decided(
    job: JobConfig, run: RunFile, package: Package, source: Store, shards: Iterable[Shard], events: Events
) -> JobConfig:
    """Return the job with the runner "auto" decided: "serial" (in this process) if the work takes less time
    than a cluster needs to start, "ray" otherwise.

    It is also "ray" if a cluster exists already, or if a setting asks for something that only Ray can do.
    If "serial" was asked for, a warning names such settings.
    """
    execution, plain = job.execution, ExecutionConfig()
    wishes = [name for name in _WISHES if getattr(execution, name) != getattr(plain, name)]
    if execution.runner == "serial" and wishes:
        events.warn(
            f"runner serial counts in this process alone and does not follow {', '.join(f'execution.{name}' for name in wishes)}; "
            "for that: --runner ray"
        )
    if execution.runner != "auto":
        return job
    if has_cluster(execution) or wishes:
        return with_runner(job, "ray")
    seconds = _work_s(job, run, package, source, shards)
    if seconds > _CLUSTER_START_S:
        return with_runner(job, "ray")
    events.stage(
        f"runner serial: about {max(1, round(seconds))} s of work on one core, sooner done than a cluster starts"
    )
    return with_runner(job, "serial")


def _work_s(job: JobConfig, run: RunFile, package: Package, source: Store, shards: Iterable[Shard]) -> float:
    """A rough number of seconds that one core needs for the fields of `shards`. It stops looking once they are too many."""
    megapixels: float | None = None
    total = first = 0.0
    for shard in shards:
        for planned in shard.fields:
            if planned.reason is not None:
                continue
            if megapixels is None:
                megapixels = _megapixels(job, run, source, planned)
                first = max(1.0, planned.size)
                a_field = megapixels * s_per_megapixel(package, run.model.engine, _enlarged(run, package))
            total += a_field * max(1.0, planned.size / first)
        if total > _CLUSTER_START_S:
            break
    return total


def s_per_megapixel(package: Package, engine: str, enlarged: float = 1.0) -> float:
    """A rough number of seconds that one core needs for a megapixel of an image, of which one pixel becomes `enlarged` at the model's scale."""
    network = package.engines.get(engine, "")
    size = package.file(network).stat().st_size / 1e6 if network else 0.0
    return _S_PER_MEGAPIXEL + _S_PER_MEGAPIXEL_AND_MB * size * enlarged


def _megapixels(job: JobConfig, run: RunFile, source: Store, planned: PlannedField) -> float:
    """The megapixels of one field: from the run's object sizes, else from the file, else estimated at half a byte per pixel."""
    if images := sum(scale.images for scale in run.scales):
        return sum(s.images * s.width_px * s.height_px for s in run.scales) / images / 1e6
    if planned.size <= _OPENED_TO_SEE:
        from cellcount_core.pipeline.files import read_fields
        from cellcount_core.pipeline.pixels import load_pixels

        channel = next(iter(run.channels.values()))
        counted = Selection(channel, channel)
        try:
            for _, files in read_fields(source, [planned], ahead=1, run=job.run):
                pixels = load_pixels(planned, files, (counted,), (), job.run)
                return pixels.planes[counted.name].size / 1e6
        except (FieldFault, MemoryError):
            pass
    return 2 * planned.size / 1e6


def _enlarged(run: RunFile, package: Package) -> float:
    """How many pixels at the model's scale one pixel of the image becomes: images with small objects are enlarged."""
    sizes = [scale.diameter_px for scale in run.scales if scale.diameter_px]
    given = run.run.get("diameter")
    if isinstance(given, int | float):
        sizes = [float(given)]
    wanted = package.input.diameter_px
    if wanted is None or not sizes:
        return 1.0
    return (wanted * len(sizes) / sum(sizes)) ** 2


@contextmanager
def cluster(execution: ExecutionConfig, events: Events) -> Iterator[float]:
    """The cluster of the Ray runner, for as long as the context lasts; gives the number of its GPUs.

    Inside another such context it is the same cluster.
    """
    if execution.runner == "serial":
        yield 0.0
        return
    refuse_gpus(execution)
    known = has_cluster(execution)
    from cellcount_core.runners import ray_cluster

    if not ray_cluster.is_connected():
        events.stage("connecting to Ray" if known else "starting Ray")
    with ray_cluster.connected(execution) as resources:
        yield resources.gpus if execution.gpus_per_actor != 0 else 0.0


@contextmanager
def recorded(job: JobConfig, run: RunFile, output: Store, events: Events) -> Iterator[Events]:
    """Return `events` such that they are also recorded in `run/timings` of the output and, with Ray, as metrics of the cluster."""
    timed = TimedEvents(events, output, job.execution.runner)
    try:
        if job.execution.runner == "serial":
            yield timed
        else:
            from cellcount_core.runners.metrics import Metrics

            yield Metrics(timed, run.fingerprint)
    finally:
        timed.flush()


def context_of(job: JobConfig, run: RunFile, source: Store, output: Store) -> RunContext:
    """What the workers of `run` need to know."""
    places = Places(
        source.url,
        storage_options(job.storage),
        output.url,
        storage_options(job.output_storage or job.storage),
    )
    return make_context(run, job.run, places, job.execution.readers)


def fan_out(job: JobConfig, context: RunContext, work: Work, told: Events) -> Progress:
    """Do the work with a pool of workers, which is closed at the end. Call it inside `cluster`. Raises RunFault as `run_shards` does."""
    pool = _pool(job, context, work, told)
    try:
        told.begin(work.fields, work.already, context.fingerprint)
        policy = Policy(job.execution.max_deaths, job.execution.shard_timeout_s)
        return run_shards(pool, work.shards, policy, told)
    finally:
        pool.close()


def own_threads(job: JobConfig) -> int:
    """The number of threads for what this process computes itself."""
    return usable_cores() if job.execution.threads == "auto" else job.execution.threads


def _pool(job: JobConfig, context: RunContext, work: Work, events: Events) -> WorkerPool:
    execution = job.execution
    if execution.runner == "serial":
        from cellcount_core.runners.pool import SerialPool

        return SerialPool(replace(context, threads=own_threads(job)), work.in_flight(execution))
    from cellcount_core.runners import ray_cluster
    from cellcount_core.runners.ray_pool import RayPool

    resources = ray_cluster.resources(execution)
    if context.engine not in ON_GPU and execution.gpus_per_actor == "auto":
        resources = replace(resources, gpus=0.0)
    sizing = ray_cluster.size_workers(execution, resources, work.number)
    device = (
        f"{sizing.gpus:g} GPU"
        if sizing.gpus
        else f"{sizing.threads} thread{'s' if sizing.threads > 1 else ''}"
    )
    events.stage(f"starting {sizing.actors} worker{'s' if sizing.actors > 1 else ''}, {device} each")
    return RayPool(replace(context, threads=sizing.threads), sizing, work.in_flight(execution), events.warn)
