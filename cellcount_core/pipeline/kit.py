"""What fields are counted with: a package, its engine on a device, and how a run wants them counted."""

from __future__ import annotations

from dataclasses import dataclass

from cellcount_core.config import RunConfig
from cellcount_core.domain.columns import Schema
from cellcount_core.domain.errors import ModelFault
from cellcount_core.domain.fields import Selection
from cellcount_core.models.engines import Engine, load_engine
from cellcount_core.models.golden import check_golden
from cellcount_core.models.package import Package, find_package
from cellcount_core.pipeline.clock import StageClock
from cellcount_core.pipeline.context import RunContext
from cellcount_core.pipeline.device import Device
from cellcount_core.pipeline.rows import run_schema
from cellcount_core.pipeline.scaling import Pools
from cellcount_core.stores.base import Store
from cellcount_core.stores.open import open_store
from cellcount_core.tasks.registry import task_of
from cellcount_core.tasks.task import Head, Task


@dataclass(frozen=True, slots=True)
class PlanesKit:
    """What counting a field from its planes needs.

    `task` is what the package is for and `head` what looks at fields; `counted` are the channels of the package's roles, in their order; `scales` the object sizes found when planning.
    """

    run: RunConfig
    package: Package
    task: Task
    head: Head
    schema: Schema
    scales: Pools
    counted: tuple[Selection, ...]
    device: Device
    clock: StageClock

    def close(self) -> None:
        """End the device's thread."""
        self.device.close()


@dataclass(frozen=True, slots=True)
class FieldKit(PlanesKit):
    """What counting the fields of a run needs: also the channels whose intensities are measured, and where labels go."""

    measured: tuple[Selection, ...]
    output: Store


def open_kit(context: RunContext, device: Device | None = None) -> FieldKit:
    """The kit of a run, on `device` or on a new one, whose thread is started.

    Raises ModelFault where the package here is not the one the run was planned with, or fails its golden tensors.
    """
    package = _package(context)
    return FieldKit(
        run=context.run,
        package=package,
        task=task_of(package),
        head=task_of(package).head(package),
        schema=context.schema,
        scales={(s.plate, s.height_px, s.width_px): s for s in context.scales},
        counted=context.counted,
        measured=context.measured,
        output=open_store(context.output_url, context.output_options),
        device=device or open_device(package, context.engine, context.threads),
        clock=StageClock(),
    )


def open_device(package: Package, engine: str, threads: int) -> Device:
    """The package's engine of that name on a device whose thread is started; `close` ends it.

    Raises ModelFault where it does not give the package's golden tensors.
    """
    loaded = load_engine(package, engine, threads)
    check_golden(package, loaded)
    return Device(loaded)


def planes_kit(package: Package, engine: Engine, run: RunConfig) -> PlanesKit:
    """The kit for images in memory, which stand for nothing but themselves: no object sizes are known beforehand.

    Channels are called as the package's roles are. The device's thread is started; `close` ends it.
    """
    roles = package.input.channels
    return PlanesKit(
        run=run,
        package=package,
        task=task_of(package),
        head=task_of(package).head(package),
        schema=run_schema(package, roles, roles),
        scales={},
        counted=tuple(Selection(role, "") for role in roles),
        device=Device(engine),
        clock=StageClock(),
    )


def _package(context: RunContext) -> Package:
    package = find_package(context.package)
    if package.digest != context.package_digest:
        raise ModelFault(
            f"{context.package}: the package on this machine is {package.digest[:12]}, "
            f"the run was planned with {context.package_digest[:12]}; use that package, or count into another output"
        )
    return package
