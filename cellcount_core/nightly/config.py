"""The settings of a nightly: one YAML file, which is checked whole. Unknown keys are refused."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from cellcount_core.config import ExecutionConfig, JobConfig, RunConfig, StorageConfig
from cellcount_core.domain.settings import Place, Section
from cellcount_core.layouts.auto import AutoSettings
from cellcount_core.layouts.registry import kind_of


class Complete(Section):
    """When a plate is complete. All conditions that are given must hold; without this section it is
    `unchanged_min: 30`.

    `marker`: the plate's folder contains a file with this name. `fields`: there are at least this many
    fields that have as many files as the fullest one. `unchanged_min`: the files stay the same for this
    many minutes, measured between two listings, never by the dates of files.
    """

    marker: str | None = None
    fields: Annotated[int, Field(ge=1)] | None = None
    unchanged_min: Annotated[float, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _some(self) -> Complete:
        if self.marker is None and self.fields is None and self.unchanged_min is None:
            raise ValueError("should have one of marker, fields, unchanged_min")
        if self.marker is not None and ("/" in self.marker or not self.marker):
            raise ValueError(f"marker should be the name of a file, without '/' (got {self.marker!r})")
        return self


class NightBudget(Section):
    """No further plate is begun after `max_hours`, or once the cost reaches `max_cost`. The cost is hours
    times `cost_per_hour`, in any currency.
    """

    max_hours: Annotated[float, Field(gt=0)] | None = None
    max_cost: Annotated[float, Field(gt=0)] | None = None
    cost_per_hour: Annotated[float, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _priced(self) -> NightBudget:
        if self.max_cost is not None and not self.cost_per_hour:
            raise ValueError("max_cost needs a cost_per_hour above 0")
        return self


class Webhook(Section):
    """Where the digest is sent as JSON. If the URL is a secret, put it in an environment variable and name
    that in `url_from` instead of giving `url`.
    """

    url: str | None = None
    url_from: str | None = None
    retries: Annotated[int, Field(ge=0, le=20)] = 3
    pause_s: Annotated[float, Field(ge=0)] = 2.0
    timeout_s: Annotated[float, Field(gt=0)] = 10.0

    @model_validator(mode="after")
    def _one(self) -> Webhook:
        if (self.url is None) == (self.url_from is None):
            raise ValueError("should have either url or url_from")
        return self


class History(Section):
    """What a plate is compared with: plates counted in the last `nights`. It is flagged outside of `sigmas`
    robust standard deviations.

    Nothing is flagged before there are `least` plates to compare with.
    """

    nights: Annotated[int, Field(ge=1)] = 14
    sigmas: Annotated[float, Field(gt=0)] = 4.0
    least: Annotated[int, Field(ge=2)] = 5


class NightlyConfig(Section):
    """A nightly: where plates appear, when they are complete, how they are counted, and what a night may cost."""

    roots: Annotated[tuple[Place, ...], Field(min_length=1)]
    depth: Annotated[int, Field(ge=1, le=8)] = 1
    output: Place
    complete: Complete = Complete(unchanged_min=30)
    run: RunConfig = RunConfig()
    execution: ExecutionConfig = ExecutionConfig()
    storage: StorageConfig = StorageConfig()
    output_storage: StorageConfig | None = None
    budget: NightBudget = NightBudget()
    history: History = History()
    webhook: Webhook | None = None

    @model_validator(mode="after")
    def _consistent(self) -> NightlyConfig:
        if isinstance(self.run.layout, AutoSettings):
            return self
        traits = kind_of(self.run.layout).traits
        if self.complete.fields is not None and (traits.told_by_table or traits.holds_arrays):
            what = "a table" if traits.told_by_table else "the metadata of arrays"
            raise ValueError(
                f"complete.fields cannot be told from names where {what} lays the plate out; use marker or unchanged_min"
            )
        return self

    def platemap(self, plate: str) -> str | None:
        """The plate map of the plate in a folder of this name: `{plate}` in `run.platemap` stands for it."""
        return None if self.run.platemap is None else self.run.platemap.replace("{plate}", plate)

    def job(self, source: str, output: str) -> JobConfig:
        """The job that counts the plate at `source` into `output`."""
        return JobConfig(
            input=source,
            output=output,
            run=self.run,
            execution=self.execution,
            storage=self.storage,
            output_storage=self.output_storage,
        )
