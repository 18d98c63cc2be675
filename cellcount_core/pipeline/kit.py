"""Load what a run counts with: the package that was planned, its engine, checked by its golden tensors."""

from __future__ import annotations

from cellcount_core.domain.errors import ModelFault
from cellcount_core.models.engines import load_engine
from cellcount_core.models.golden import check_golden
from cellcount_core.models.package import Package, find_package
from cellcount_core.objects.separators import build_separator
from cellcount_core.pipeline.clock import StageClock
from cellcount_core.pipeline.context import RunContext
from cellcount_core.pipeline.device import Device
from cellcount_core.pipeline.field import FieldKit
from cellcount_core.stores.open import open_store


def open_kit(context: RunContext) -> FieldKit:
    """The kit of a run, with the device's thread started.

    Raises ModelFault where the package here is not the one the run was planned with, or fails its golden tensors.
    """
    package = _package(context)
    engine = load_engine(package, context.engine, context.threads)
    check_golden(package, engine)
    return FieldKit(
        run=context.run,
        package=package,
        separator=build_separator(package.separator),
        features=context.features,
        scales={(s.plate, s.height_px, s.width_px): s for s in context.scales},
        counted=context.counted,
        measured=context.measured,
        output=open_store(context.output_url, context.output_options),
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
