"""Configuration of a counting job: frozen, unknown keys refused, every fault of a file in one message.

`run` decides the result and is part of the fingerprint; `execution` and `storage` decide how it is obtained and are not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cellcount_core.domain.errors import likely

PLACE = "place"
Place = Annotated[str, PLACE]
"""A path or URL: where it stands in a file, `expanded` is what it means."""

_VARIABLE = re.compile(r"\$(?:(\$)|(\w+)|\{(\w*)\}|(\{[^}]*\}?))")


def expanded(place: str, variables: Mapping[str, str]) -> str:
    """`place` with `$NAME` and `${NAME}` replaced and a leading `~` made the home folder; `$$` is a plain `$`.

    Raises ValueError naming a variable that is empty or not among `variables`, or a home folder that is not known.
    """

    def value(found: re.Match[str]) -> str:
        plain, bare, braced, other = found.groups()
        if plain:
            return "$"
        name = bare or braced or ""
        if other is not None or not name:
            raise ValueError(
                f"{place!r}: only $NAME and ${{NAME}} are replaced (got {found.group()!r}); '$$' stands for a plain '$'"
            )
        if variables.get(name) == "":
            raise ValueError(
                f"{place!r} names the environment variable {name}, which is empty; '$$' stands for a plain '$'"
            )
        if name not in variables:
            raise ValueError(
                f"{place!r} names the environment variable {name}, which is not set"
                + likely(name, variables)
                + "; '$$' stands for a plain '$'"
            )
        return variables[name]

    text = _VARIABLE.sub(value, place)
    if not text.startswith("~"):
        return text
    try:
        return str(Path(text).expanduser())
    except RuntimeError:
        raise ValueError(f"{place!r}: the home folder of {text.partition('/')[0]!r} is not known") from None


def _is_number(annotation: object) -> bool:
    """Whether a setting is a number. One that is told in a text too says itself what it expects."""
    parts = get_args(annotation)
    return annotation in (int, float) or (str not in parts and any(map(_is_number, parts)))


class Section(BaseModel):
    """A part of a settings file: unknown keys are refused, a key left empty has its default, and a number is taken for a name.

    `true` and `false` are no numbers, and numbers are finite.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, coerce_numbers_to_str=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _empty_is_default(cls, given: object) -> object:
        if not isinstance(given, Mapping):
            return given
        fields = cls.model_fields
        if wrong := [
            f"{key}: {str(value).lower()}"
            for key, value in given.items()
            if isinstance(value, bool) and key in fields and _is_number(fields[key].annotation)
        ]:
            raise ValueError(f"a truth value is no number ({', '.join(wrong)})")
        return {
            key: value
            for key, value in given.items()
            if value is not None or key not in fields or type(None) in get_args(fields[key].annotation)
        }


class FlatLayout(Section):
    """Any folder of images, recursive: the folder is the plate, the file's name the well, one site a file."""

    kind: Literal["flat"] = "flat"


class ImageXpressLayout(Section):
    """ImageXpress / MetaXpress names: `<plate>_<well>[_s<site>][_w<channel>][GUID].tif`, `TimePoint_n`, `ZStep_n`."""

    kind: Literal["imagexpress"] = "imagexpress"


class PatternLayout(Section):
    """File names read by a regular expression with named groups.

    `pattern` is searched in the key (path below the input, '/' separated). Groups: `plate`, `well` (or `row` and `column`),
    `site`, `timepoint`, `channel`, `plane`; each may be absent. `plate` is the value used where no group gives it.
    """

    kind: Literal["pattern"] = "pattern"
    pattern: str
    plate: str = ""


class TableLayout(Section):
    """A manifest (CSV or Parquet) with a row a file.

    `manifest` is a path relative to the input, or a path or URL of its own. `columns` maps `key`, `plate`, `well`, `site`,
    `timepoint`, `channel`, `plane` to the names of the manifest's columns; those left out keep their own name.
    A file that the manifest names and that is not there becomes a `missing` row.
    """

    kind: Literal["table"] = "table"
    manifest: Place
    columns: dict[str, str] = {}


LayoutConfig = Annotated[
    FlatLayout | ImageXpressLayout | PatternLayout | TableLayout, Field(discriminator="kind")
]


class ExpectGrid(Section):
    """A plate of `wells` wells (6 to 1536), each with these `sites`, whether or not files of them were seen."""

    wells: Literal[6, 12, 24, 48, 96, 384, 1536]
    sites: Annotated[tuple[int, ...], Field(min_length=1)]


AXES = "YXCSZTN"
"""Letters of `run.axes`: the image's two sides, channels, samples of a colour, z planes, time points, images that are fields."""


class ModelConfig(Section):
    """The model package (name of a shipped one, or path or URL of a folder) and the engine that runs it."""

    package: Place = "nuclei"
    engine: str = "auto"


class RunConfig(Section):
    """What is counted and how: everything that can change a number in a table."""

    layout: LayoutConfig = FlatLayout()
    plate: str = ""
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    unparsed: Literal["refuse", "ignore"] = "refuse"
    expect: Literal["observed", "rectangular"] | ExpectGrid = "observed"
    channels: dict[str, str] = {}
    measure: tuple[str, ...] = ()
    z: Literal["max", "mean", "first"] | Annotated[int, Field(ge=0)] = "max"
    axes: str | None = None
    pages: Literal["z", "time", "channel"] | None = None
    model: ModelConfig = ModelConfig()
    diameter: Literal["auto", "model"] | Annotated[float, Field(gt=0, le=2000)] = "auto"
    um_per_px: Annotated[float, Field(gt=0)] | None = None
    max_pixels: Annotated[int, Field(gt=0)] = 500_000_000
    tile: Annotated[int, Field(ge=64, le=8192)] = 1280
    block: Annotated[int, Field(ge=256, le=16384)] = 2048
    whole_limit: Annotated[int, Field(ge=65_536)] = 25_000_000
    labels: Literal["none", "tiff"] = "none"
    masks: Literal["leave_out", "count"] = "leave_out"

    @field_validator("measure")
    @classmethod
    def _once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) != len(names):
            raise ValueError(f"names a channel twice: {', '.join(names)}")
        return names

    @field_validator("axes")
    @classmethod
    def _letters(cls, axes: str | None) -> str | None:
        if axes is None:
            return None
        letters = axes.upper()
        if not (
            set(letters) <= set(AXES) and {"Y", "X"} <= set(letters) and len(set(letters)) == len(letters)
        ):
            raise ValueError(
                f"must name each axis once, Y and X among them, with letters of {', '.join(AXES)}; for example YXC or ZYX, got {axes!r}"
            )
        for pair in ("NT", "CS"):
            if set(pair) <= set(letters):
                raise ValueError(f"must have one of {pair[0]} and {pair[1]} at most, got {axes!r}")
        return letters

    @model_validator(mode="after")
    def _said_once(self) -> RunConfig:
        if self.axes is not None and self.pages is not None:
            raise ValueError("axes and pages say the same thing twice; give one of them")
        return self


class ExecutionConfig(Section):
    """Where and how fast it runs. Nothing here can change a table."""

    runner: Literal["auto", "ray", "serial"] = "auto"
    address: str | None = None
    actors: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    gpus_per_actor: Literal["auto"] | Annotated[float, Field(ge=0)] = "auto"
    threads: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    memory_mib: Annotated[int, Field(ge=256)] | None = None
    shard_fields: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    shard_mib: Annotated[float, Field(gt=0)] = 256.0
    in_flight: Literal["auto"] | Annotated[int, Field(ge=1, le=8)] = "auto"
    shard_timeout_s: Annotated[float, Field(gt=0)] = 1800.0
    max_deaths: Annotated[int, Field(ge=1)] = 2
    readers: Annotated[int, Field(ge=1, le=256)] = 8
    max_failed: int | str | None = None
    strict: bool = False

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


class StorageConfig(Section):
    """Which URLs are opened, and how `s3://` is reached. Credentials come from the standard chain alone and stand in no file of ours."""

    endpoint: str | None = None
    region: str | None = None
    anonymous: bool = False
    retries: Annotated[int, Field(ge=0, le=50)] = 8
    timeout_s: Annotated[float, Field(gt=0)] = 30.0
    schemes: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[a-z][a-z0-9+.\-]*$")], ...], Field(min_length=1)
    ] = ("file", "s3")


class JobConfig(Section):
    """A whole job: from where, to where, what and how."""

    input: Place
    output: Place
    run: RunConfig = RunConfig()
    execution: ExecutionConfig = ExecutionConfig()
    storage: StorageConfig = StorageConfig()
    output_storage: StorageConfig | None = None

    @model_validator(mode="after")
    def _apart(self) -> JobConfig:
        if self.input.rstrip("/") == self.output.rstrip("/"):
            raise ValueError(f"output must not be the input folder: {self.output}")
        return self
