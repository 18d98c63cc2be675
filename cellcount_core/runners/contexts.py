"""What workers are told of a run, made from its run file."""

from __future__ import annotations

from dataclasses import dataclass

from cellcount_core.config import RunConfig
from cellcount_core.domain.fields import Selection
from cellcount_core.pipeline.context import RunContext
from cellcount_core.plan.channels import UNNAMED
from cellcount_core.plan.runfile import RunFile
from cellcount_core.stores.base import StorageOptions


@dataclass(frozen=True, slots=True)
class Places:
    """Where a run reads and writes."""

    input_url: str
    input_options: StorageOptions
    output_url: str
    output_options: StorageOptions


def make_context(run: RunFile, config: RunConfig, places: Places, readers: int) -> RunContext:
    """The context of `run`, with one thread for the model's arithmetic; pools replace that by their own number."""
    counted = tuple(_selection(role, channel) for role, channel in run.channels.items())
    by_name = {selection.name: selection for selection in counted}
    measured = tuple(by_name.get(name) or Selection(name, name) for name in run.features.channels)
    return RunContext(
        input_url=places.input_url,
        input_options=places.input_options,
        output_url=places.output_url,
        output_options=places.output_options,
        run=config,
        fingerprint=run.fingerprint,
        package=config.model.package,
        package_digest=run.model.digest,
        engine=run.model.engine,
        counted=counted,
        measured=measured,
        features=run.features,
        scales=run.scales,
        threads=1,
        readers=readers,
    )


def _selection(role: str, channel: str) -> Selection:
    """A channel without a name of its own goes by the role it plays."""
    return Selection(role if channel == UNNAMED else channel, channel)
