"""The settings of a counting job. They are frozen, unknown keys are refused, and all faults of a file come in one message.

The section `run` decides the result and is part of the fingerprint. The sections `execution` and `storage` decide how the result is
obtained and are not part of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from cellcount_core.domain.plates import canonical_well
from cellcount_core.domain.scales import LARGEST_UM_PER_PX, SMALLEST_UM_PER_PX
from cellcount_core.domain.settings import Place, Section
from cellcount_core.layouts.auto import AutoSettings
from cellcount_core.layouts.base import LayoutSettings
from cellcount_core.layouts.registry import kinds

if TYPE_CHECKING:
    LayoutConfig = LayoutSettings
else:
    LayoutConfig = Annotated[
        reduce(or_, (kind.settings for kind in kinds()), AutoSettings), Field(discriminator="kind")
    ]


class ExpectGrid(Section):
    """A plate of `wells` wells (6 to 1536), each with these `sites`, whether or not files of them are there."""

    wells: Literal[6, 12, 24, 48, 96, 384, 1536]
    sites: Annotated[tuple[int, ...], Field(min_length=1)]


AXES = "YXCSZTN"
"""Letters of `run.axes`: the image's two sides, channels, samples of a colour, z planes, time points, images that are fields."""


class ModelConfig(Section):
    """The model package (the name of a shipped one, or the path or URL of a folder) and the engine that runs it.

    `objects` is the package that finds the objects of which `package` tells the classes (`run.classes.per` is "object"); None for nuclei.
    """

    package: Place = "nuclei"
    engine: str = "auto"
    objects: Place | None = None

    @model_serializer(mode="wrap")
    def _without_unused(self, plain: SerializerFunctionWrapHandler) -> dict[str, object]:
        data: dict[str, object] = plain(self)
        if self.objects is None:
            data.pop("objects", None)
        return data


_LENGTH = re.compile(r"(\d+(?:\.\d+)?)\s*(um|µm|μm|px)")


@dataclass(frozen=True, slots=True)
class Length:
    """A length as it was given: in µm, which needs the image's pixel size, or in px of the image."""

    value: float
    unit: Literal["um", "px"]

    def in_px(self, um_per_px: float) -> float:
        """The length in px of an image with this pixel size."""
        return self.value if self.unit == "px" else self.value / um_per_px


def length(text: str) -> Length:
    """The length that a text such as "7um" or "20 px" states. Raises ValueError if it states none."""
    found = _LENGTH.fullmatch(text.strip().lower())
    if found is None:
        raise ValueError(f"must be a length with its unit, for example 7um or 20px, got {text!r}")
    return Length(float(found[1]), "px" if found[2] == "px" else "um")


class ViabilityConfig(Section):
    """How cells are told apart as live and dead, which of them are counted, and what volume an image shows. For packages of the task viability."""

    thresholds: dict[str, Annotated[float, Field(gt=0)]] = {}  # noqa: RUF012 (pydantic gives each section its own)
    spill: dict[str, Annotated[float, Field(ge=0, lt=1)]] = {}  # noqa: RUF012
    controls: dict[Literal["live", "dead"], Annotated[tuple[str, ...], Field(min_length=1)]] = {}  # noqa: RUF012
    min_diameter: str | None = None
    max_diameter: str | None = None
    min_circularity: Annotated[float, Field(ge=0, le=1)] | None = None
    chamber: Literal["improved_neubauer"] | None = None
    squares: Annotated[float, Field(ge=0.001, le=1000)] | None = None
    depth_um: Annotated[float, Field(ge=0.01, le=100_000)] | None = None
    volume_nl: Annotated[float, Field(ge=1e-6, le=1e9)] | None = None
    dilution: Annotated[float, Field(ge=1, le=1e9)] = 1.0

    @field_validator("min_diameter", "max_diameter")
    @classmethod
    def _is_length(cls, text: str | None) -> str | None:
        if text is not None:
            length(text)
        return text

    @field_validator("controls")
    @classmethod
    def _wells(cls, controls: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        controls = {name: tuple(map(canonical_well, group)) for name, group in controls.items()}
        wells = [well for group in controls.values() for well in group]
        if both := sorted(set(controls.get("live", ())) & set(controls.get("dead", ()))):
            raise ValueError(
                f"names {', '.join(both)} as live and as dead; a well is a control of one of them"
            )
        if twice := sorted({well for well in wells if wells.count(well) > 1}):
            raise ValueError(f"names wells twice: {', '.join(twice)}")
        return controls

    @model_validator(mode="after")
    def _one_volume(self) -> ViabilityConfig:
        given = [name for name in ("chamber", "depth_um", "volume_nl") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"the volume is said twice, by {' and '.join(given)}; give one of them")
        if self.squares is not None and self.chamber is None:
            raise ValueError("squares are those of a chamber: give chamber: improved_neubauer with them")
        return self

    @model_validator(mode="after")
    def _gates_in_order(self) -> ViabilityConfig:
        if said := self.contradiction(None):
            raise ValueError(said)
        return self

    def contradiction(self, um_per_px: float | None) -> str:
        """That no object can pass both gates of diameter in an image of this pixel size, in words; "" if some can, or that cannot be told
        because the gates have different units and the pixel size is not known.
        """
        if self.min_diameter is None or self.max_diameter is None:
            return ""
        least, most = length(self.min_diameter), length(self.max_diameter)
        if least.unit == most.unit:
            if least.value <= most.value:
                return ""
            where = ""
        elif um_per_px is None or least.in_px(um_per_px) <= most.in_px(um_per_px):
            return ""
        else:
            where = f" at {um_per_px:g} µm per px"
        return f"min_diameter ({self.min_diameter}) is larger than max_diameter ({self.max_diameter}){where}: no cell would be counted"

    @property
    def depth(self) -> float | None:
        """Depth (µm) of the layer of sample that an image shows, as far as it is told."""
        return NEUBAUER_DEPTH_UM if self.chamber == "improved_neubauer" else self.depth_um


class RunClassesConfig(Section):
    """What is told a class. For packages of the task classes.

    `per` is "image"; "tile", which gives a row to each tile of an image too; "object", of the objects that the package `run.model.objects` finds;
    or "auto": per tile if the package looks at tiles. `crop_px` is the side in px of what is shown to the network of a tile or around an object; None
    for what it was taught with. `of` are the classes of that package whose objects are meant; () means all.
    """

    per: Literal["auto", "image", "tile", "object"] = "auto"
    of: tuple[str, ...] = ()
    crop_px: Annotated[int, Field(ge=8, le=65_536)] | None = None


NEUBAUER_DEPTH_UM = 100.0
NEUBAUER_SQUARE_NL = 100.0
"""An improved Neubauer chamber is 0.1 mm deep, and its large squares are 1 mm wide: 0.1 µL lies above each."""


_OF_TASKS: dict[str, Section] = {"viability": ViabilityConfig(), "classes": RunClassesConfig()}
"""The sections of a run that belong to a task, as they are where they are not used."""


class RunConfig(Section):
    """What is counted, and how: everything that can change a number in a table."""

    layout: LayoutConfig = AutoSettings()
    plate: str = ""
    plate_format: Literal[6, 12, 24, 48, 96, 384, 1536] | None = None
    platemap: Place | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    unparsed: Literal["refuse", "ignore"] = "refuse"
    expect: Literal["observed", "rectangular"] | ExpectGrid = "observed"
    channels: dict[str, str] = {}  # noqa: RUF012 (pydantic gives each section its own)
    measure: tuple[str, ...] = ()
    z: Literal["max", "mean", "first"] | Annotated[int, Field(ge=0)] = "max"
    axes: str | None = None
    pages: Literal["z", "time", "channel"] | None = None
    model: ModelConfig = ModelConfig()
    diameter: Literal["auto", "model"] | Annotated[float, Field(gt=0, le=2000)] = "auto"
    um_per_px: Annotated[float, Field(ge=SMALLEST_UM_PER_PX, le=LARGEST_UM_PER_PX)] | None = None
    max_pixels: Annotated[int, Field(gt=0)] = 500_000_000
    tile: Annotated[int, Field(ge=64, le=8192)] = 1280
    block: Annotated[int, Field(ge=256, le=16384)] = 2048
    whole_limit: Annotated[int, Field(ge=65_536)] = 25_000_000
    labels: Literal["none", "tiff"] = "none"
    masks: Literal["leave_out", "count"] = "leave_out"
    viability: ViabilityConfig = ViabilityConfig()
    classes: RunClassesConfig = RunClassesConfig()

    @model_serializer(mode="wrap")
    def _without_unused(self, plain: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Settings that the run does not use are left out, so that they do not change the fingerprint of other runs."""
        data: dict[str, object] = plain(self)
        for name in ("plate_format", "platemap"):
            if getattr(self, name) is None:
                data.pop(name, None)
        for name, unused in _OF_TASKS.items():
            if getattr(self, name) == unused:
                data.pop(name, None)
        return data

    @classmethod
    def complete(cls, run: Mapping[str, object]) -> dict[str, object]:
        """A run section as it was written, with what it leaves out because the run does not use it."""
        of_tasks = {name: unused.model_dump(mode="json") for name, unused in _OF_TASKS.items()}
        return {"plate_format": None, **of_tasks, **run}

    @field_validator("measure")
    @classmethod
    def _once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) != len(names):
            raise ValueError(f"names a channel twice: {', '.join(names)}")
        return names

    @field_validator("um_per_px", mode="before")
    @classmethod
    def _of_a_microscope(cls, size: object) -> object:
        if isinstance(size, int | float) and not SMALLEST_UM_PER_PX <= size <= LARGEST_UM_PER_PX:
            raise ValueError(
                f"should be {SMALLEST_UM_PER_PX:g} to {LARGEST_UM_PER_PX:g} µm of the sample per px, as microscopes have; 650 nm are 0.65 µm"
            )
        return size

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
    def _gates_in_order(self) -> RunConfig:
        if self.um_per_px is not None and (said := self.viability.contradiction(self.um_per_px)):
            raise ValueError(said)
        return self

    @model_validator(mode="after")
    def _said_once(self) -> RunConfig:
        if self.axes is not None and self.pages is not None:
            raise ValueError("axes and pages say the same thing twice; give one of them")
        return self


class ExecutionConfig(Section):
    """Where a job runs and how fast. Nothing here can change a table."""

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
    """How many of `fields` may fail or be missing under `execution.max_failed`. A share is rounded down."""
    if isinstance(max_failed, str):
        return math.floor(fields * Fraction(max_failed.rstrip("%")) / 100)
    return max_failed or 0


class StorageConfig(Section):
    """Which kinds of URL are opened, and how `s3://` is reached. Credentials come from the standard chain alone; no file of ours holds any."""

    endpoint: str | None = None
    region: str | None = None
    anonymous: bool = False
    retries: Annotated[int, Field(ge=0, le=50)] = 8
    timeout_s: Annotated[float, Field(gt=0)] = 30.0
    schemes: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[a-z][a-z0-9+.\-]*$")], ...], Field(min_length=1)
    ] = ("file", "s3")


class JobConfig(Section):
    """A whole job: where it reads, where it writes, what it counts and how it runs."""

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
