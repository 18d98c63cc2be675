"""Configuration of a counting job: frozen, unknown keys refused, every fault of a file in one message.

`run` decides the result and is part of the fingerprint; `execution` and `storage` decide how it is obtained and are not.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class FlatLayout(_Section):
    """Any folder of images, recursive: the folder is the plate, the file's name the well, one site a file."""

    kind: Literal["flat"] = "flat"


class ImageXpressLayout(_Section):
    """ImageXpress / MetaXpress names: `<plate>_<well>[_s<site>][_w<channel>][GUID].tif`, `TimePoint_n`, `ZStep_n`."""

    kind: Literal["imagexpress"] = "imagexpress"


class PatternLayout(_Section):
    """File names read by a regular expression with named groups.

    `pattern` is searched in the key (path below the input, '/' separated). Groups: `plate`, `well` (or `row` and `column`),
    `site`, `timepoint`, `channel`, `plane`; each may be absent. `plate` is the value used where no group gives it.
    """

    kind: Literal["pattern"] = "pattern"
    pattern: str
    plate: str = ""


class TableLayout(_Section):
    """A manifest (CSV or Parquet) with a row a file.

    `manifest` is a path relative to the input, or a path or URL of its own. `columns` maps `key`, `plate`, `well`, `site`,
    `timepoint`, `channel`, `plane` to the names of the manifest's columns; those left out keep their own name.
    A file that the manifest names and that is not there becomes a `missing` row.
    """

    kind: Literal["table"] = "table"
    manifest: str
    columns: dict[str, str] = {}


LayoutConfig = Annotated[
    FlatLayout | ImageXpressLayout | PatternLayout | TableLayout, Field(discriminator="kind")
]


class ExpectGrid(_Section):
    """A plate of `wells` wells (6 to 1536), each with these `sites`, whether or not files of them were seen."""

    wells: Literal[6, 12, 24, 48, 96, 384, 1536]
    sites: Annotated[tuple[int, ...], Field(min_length=1)]


class ModelConfig(_Section):
    """The model package (name of a shipped one, or path or URL of a folder) and the engine that runs it."""

    package: str = "nuclei"
    engine: str = "auto"


class RunConfig(_Section):
    """What is counted and how: everything that can change a number in a table."""

    layout: LayoutConfig = FlatLayout()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    unparsed: Literal["refuse", "ignore"] = "refuse"
    expect: Literal["observed", "rectangular"] | ExpectGrid = "observed"
    channels: dict[str, str] = {}
    measure: tuple[str, ...] = ()
    z: Literal["max", "mean", "first"] | Annotated[int, Field(ge=0)] = "max"
    model: ModelConfig = ModelConfig()
    diameter: Literal["auto", "model"] | Annotated[float, Field(gt=0, le=2000)] = "auto"
    um_per_px: Annotated[float, Field(gt=0)] | None = None
    max_pixels: Annotated[int, Field(gt=0)] = 500_000_000
    tile: Annotated[int, Field(ge=64, le=8192)] = 1280
    block: Annotated[int, Field(ge=256, le=16384)] = 2048
    whole_limit: Annotated[int, Field(ge=65_536)] = 25_000_000
    labels: Literal["none", "tiff"] = "none"

    @field_validator("measure")
    @classmethod
    def _once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) != len(names):
            raise ValueError(f"names a channel twice: {', '.join(names)}")
        return names


class ExecutionConfig(_Section):
    """Where and how fast it runs. Nothing here can change a table."""

    runner: Literal["ray", "serial"] = "ray"
    address: str | None = None
    actors: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    gpus_per_actor: Literal["auto"] | Annotated[float, Field(ge=0)] = "auto"
    threads: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    memory_mib: Annotated[int, Field(ge=256)] | None = None
    shard_fields: Annotated[int, Field(ge=1)] = 64
    shard_mib: Annotated[float, Field(gt=0)] = 256.0
    in_flight: Annotated[int, Field(ge=1, le=8)] = 2
    shard_timeout_s: Annotated[float, Field(gt=0)] = 1800.0
    max_deaths: Annotated[int, Field(ge=1)] = 2
    readers: Annotated[int, Field(ge=1, le=256)] = 8
    max_failed: int | str | None = None

    @field_validator("max_failed", mode="before")
    @classmethod
    def _number_or_share(cls, value: object) -> object:
        if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
            return value
        text = value.strip() if isinstance(value, str) else ""
        if re.fullmatch(r"\d+", text):
            return int(text)
        if re.fullmatch(r"\d+(\.\d+)?%", text) and float(text[:-1]) <= 100:
            return text
        raise ValueError("must be a number of fields such as 20, or a share of them such as 5%")


def accepted_failures(max_failed: int | str | None, fields: int) -> int:
    """How many of `fields` may fail or be missing under `execution.max_failed`; a share is rounded down."""
    if isinstance(max_failed, str):
        return math.floor(fields * Fraction(max_failed.rstrip("%")) / 100)
    return max_failed or 0


class StorageConfig(_Section):
    """Which URLs are opened, and how `s3://` is reached. Credentials come from the standard chain alone and stand in no file of ours."""

    endpoint: str | None = None
    region: str | None = None
    anonymous: bool = False
    retries: Annotated[int, Field(ge=0, le=50)] = 8
    timeout_s: Annotated[float, Field(gt=0)] = 30.0
    schemes: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[a-z][a-z0-9+.\-]*$")], ...], Field(min_length=1)
    ] = ("file", "s3")


class JobConfig(_Section):
    """A whole job: from where, to where, what and how."""

    input: str
    output: str
    run: RunConfig = RunConfig()
    execution: ExecutionConfig = ExecutionConfig()
    storage: StorageConfig = StorageConfig()
    output_storage: StorageConfig | None = None

    @model_validator(mode="after")
    def _apart(self) -> JobConfig:
        if self.input.rstrip("/") == self.output.rstrip("/"):
            raise ValueError(f"output must not be the input folder: {self.output}")
        return self
