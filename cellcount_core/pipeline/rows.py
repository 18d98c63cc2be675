"""A field that was examined, and the columns that every task's fields have: each is declared here, beside what makes its value.

A new column that all tasks share is a line in `_READ`, `_IMAGE`, `_SCALE` or `_QUALITY`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cellcount_core.domain.columns import Column, Kind, Merge, Schema, Value
from cellcount_core.domain.scales import FieldScale
from cellcount_core.images.quality import Quality
from cellcount_core.models.package import Package
from cellcount_core.pipeline.pixels import Pixels
from cellcount_core.pipeline.separate import Counted
from cellcount_core.tasks.instances.columns import COUNT, FIELD, TWO_SIZES, object_columns


@dataclass(frozen=True, slots=True, eq=False)
class Examined:
    """A field that was counted: its pixels, their quality, the scale it was counted at, its objects, and how unlike the training
    images it is (None where the package does not say)."""

    pixels: Pixels
    quality: Quality
    scale: FieldScale
    found: Counted
    unlike: float | None
    warnings: tuple[str, ...]
    shape: tuple[int, int]
    values: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class _Made:
    column: Column
    value: Callable[[Examined], Value]


_S, _I, _F = Kind.STRING, Kind.INT, Kind.FLOAT

CHANNEL = Column(
    "channel", _S, "", "channel that was counted; luminance where it is that of a colour image; the role's name where files name none"
)  # fmt: skip
"""The one of these columns that is known of a field that was not read, too."""

WIDTH = Column("width_px", _I, "px", "width of the image")
HEIGHT = Column("height_px", _I, "px", "height of the image")

_PLANES = _Made(
    Column("planes", _I, "planes", "z planes that were joined into the one that was counted; 1 where there is one"),
    lambda seen: seen.pixels.joined,
)  # fmt: skip

_IMAGE = (
    _Made(WIDTH, lambda seen: seen.shape[1]),
    _Made(HEIGHT, lambda seen: seen.shape[0]),
    _Made(
        Column("um_per_px", _F, "um/px", "pixel size; null if unknown", merge=Merge.AREA, of=(WIDTH.name, HEIGHT.name)),
        lambda seen: seen.pixels.um_per_px,
    ),
)  # fmt: skip

_SCALE = (
    _Made(Column("scale", _F, "1", "factor by which the image was resized to the model's scale"), lambda seen: seen.scale.factor),
    _Made(
        Column("diameter_px", _F, "px", "object diameter the scale stands for; null where the image was counted as it is"),
        lambda seen: seen.scale.diameter_px,
    ),
    _Made(
        Column("diameter_source", _S, "", "where the scale comes from: model (as it is), given, calibration, pool (plate and image size), image, unknown"),
        lambda seen: seen.scale.source.value,
    ),
    _Made(Column("diameter_images", _I, "images", "images that the estimated diameter rests on"), lambda seen: seen.scale.images),
    _Made(Column("diameter_objects", _I, "objects", "objects that the estimated diameter rests on"), lambda seen: seen.scale.objects),
)  # fmt: skip

_QUALITY = (
    _Made(Column("focus", _F, "1", "sharpness; independent of brightness", watched=True), lambda seen: seen.quality.focus),
    _Made(Column("saturation", _F, "1", "part of the pixels at the largest value"), lambda seen: seen.quality.saturation),
    _Made(Column("background", _F, "raw", "background level of the counted channel", watched=True), lambda seen: seen.quality.background),
    _Made(Column("noise", _F, "raw", "standard deviation of the noise"), lambda seen: seen.quality.noise),
    _Made(Column("signal", _F, "raw", "bright level above the background"), lambda seen: seen.quality.signal),
    _Made(Column("empty", Kind.BOOL, "", "signal does not rise above the noise floor"), lambda seen: seen.quality.empty),
)  # fmt: skip

_UNLIKE = _Made(
    Column("out_of_domain", _F, "1", "how unlike the training data, where the model tells"), lambda seen: seen.unlike
)  # fmt: skip


def run_schema(package: Package, measured: tuple[str, ...]) -> Schema:
    """The schema of a run of a package, whose `measured` channels are called so in the tables."""
    name = package.object_name
    shared = (*_IMAGE, *_SCALE)
    fields = (
        CHANNEL,
        _PLANES.column,
        *(made.column for made in FIELD),
        *(made.column for made in shared),
        TWO_SIZES.column,
        *(made.column for made in _QUALITY),
        _UNLIKE.column,
    )
    return Schema("instances", name, measured, fields, object_columns(name, measured), (COUNT,), COUNT)


def field_values(seen: Examined, channel: str, schema: Schema) -> dict[str, Value]:
    """The values of the columns of a field that was counted. `channel` is the one counted, where the image does not say another.

    A run that was planned by an earlier version has a schema with fewer columns: what it does not have is left out.
    """
    made = (_PLANES, *_IMAGE, *_SCALE, *_QUALITY, _UNLIKE)
    values = {
        CHANNEL.name: seen.pixels.channel or channel,
        **{each.column.name: each.value(seen) for each in made},
        **seen.values,
    }
    wanted = {column.name for column in schema.fields}
    return {name: value for name, value in values.items() if name in wanted}
