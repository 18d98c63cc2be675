"""A field as a task sees it, what was found in it, and the columns that the fields of every task have.

Each column is declared beside the code that makes its value. A new column that all tasks share is one line in `_PLANES`, `_IMAGE`,
`_SCALE`, `_QUALITY` or `_UNLIKE`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cellcount_core.config import RunConfig
from cellcount_core.domain.columns import Column, Kind, Merge, Schema, Value
from cellcount_core.domain.scales import FieldScale, ScaleSource
from cellcount_core.images.imagefile import Plane
from cellcount_core.images.normalise import Normalisation
from cellcount_core.images.quality import Quality
from cellcount_core.models.package import Package
from cellcount_core.pipeline.maps import FieldVectors
from cellcount_core.pipeline.pixels import Pixels
from cellcount_core.tasks.task import Clock, Found, Levels, Maps, Preparation, Shape, task_of

AS_IT_IS = FieldScale(1.0, ScaleSource.MODEL)


@dataclass(frozen=True, slots=True, eq=False)
class FieldView:
    """A field that is prepared: a `tasks.task.View`, and what else is known of it.

    `norms` and `qualities` are those of the counted planes, in their order. `seen` are the raw planes that the network sees. `numbers` were
    found on the field's plate when the run was planned. `scale` is the scale at which the field is counted. Maps, or a vector, are
    made when they are asked for.
    """

    planes: Mapping[str, Plane]
    counted: tuple[str, ...]
    measured: tuple[str, ...]
    um_per_px: float | None
    run: RunConfig
    clock: Clock
    norms: tuple[Normalisation, ...]
    qualities: tuple[Quality, ...]
    seen: tuple[Plane, ...]
    numbers: Mapping[str, float]
    scale: FieldScale = AS_IT_IS
    warnings: tuple[str, ...] = ()
    field_maps: Maps | None = None
    field_vectors: FieldVectors | None = None

    @property
    def shape(self) -> Shape:
        """(H, W) of the raw planes."""
        height, width = self.planes[self.counted[0]].shape
        return height, width

    @property
    def empty(self) -> bool:
        """Whether the signal of no counted plane rises above its noise."""
        return all(quality.empty for quality in self.qualities)

    @property
    def maps(self) -> Maps:
        """The network's maps. Raises TypeError if the task's network sees a field as one image."""
        if self.field_maps is None:
            raise TypeError("the network of this task gives no map of a field")
        return self.field_maps

    def vector(self) -> NDArray[np.float32]:
        """The network's output (K,) for the whole image. Raises TypeError if the task's network gives maps."""
        height, width = self.shape
        vector: NDArray[np.float32] = self.vectors(np.array([[0, height, 0, width]]))[0]
        return vector

    def vectors(self, windows: NDArray[np.int64], levels: Levels = Levels.FIELD) -> NDArray[np.float32]:
        """The network's outputs (n, K) for windows (n, 4) y0 y1 x0 x1 of the field. Raises TypeError if the task's network gives maps."""
        if self.field_vectors is None:
            raise TypeError("the network of this task gives maps of a field")
        return self.field_vectors.of(windows, levels)


@dataclass(frozen=True, slots=True, eq=False)
class Examined:
    """A field that was looked at: its planes, the quality of each counted plane, its scale, and what was found."""

    pixels: Pixels
    qualities: tuple[Quality, ...]
    scale: FieldScale
    shape: Shape
    found: Found
    warnings: tuple[str, ...]

    @property
    def quality(self) -> Quality:
        """Quality of the first counted plane."""
        return self.qualities[0]


@dataclass(frozen=True, slots=True)
class _Made:
    column: Column
    value: Callable[[Examined], Value]


@dataclass(frozen=True, slots=True)
class _OfPlane:
    """A column of the first counted plane. Every further one has a column of its own, with the channel's name at the end."""

    column: Column
    value: Callable[[Quality], Value]


_S, _I, _F = Kind.STRING, Kind.INT, Kind.FLOAT

CHANNEL = Column(
    "channel", _S, "", "channel that was counted; luminance where it is that of a colour image; the role's name where files name none"
)  # fmt: skip
"""The only one of these columns that is known even of a field that could not be read."""

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
    _OfPlane(Column("focus", _F, "1", "sharpness; independent of brightness", watched=True), lambda quality: quality.focus),
    _OfPlane(Column("saturation", _F, "1", "part of the pixels at the largest value"), lambda quality: quality.saturation),
    _OfPlane(Column("background", _F, "raw", "background level of the counted channel", watched=True), lambda quality: quality.background),
    _OfPlane(Column("noise", _F, "raw", "standard deviation of the noise"), lambda quality: quality.noise),
    _OfPlane(Column("signal", _F, "raw", "bright level above the background"), lambda quality: quality.signal),
    _OfPlane(Column("empty", Kind.BOOL, "", "signal does not rise above the noise floor"), lambda quality: quality.empty),
)  # fmt: skip

_UNLIKE = _Made(
    Column("out_of_domain", _F, "1", "how unlike the training data, where the model tells"), lambda seen: seen.found.unlike
)  # fmt: skip


def run_schema(package: Package, counted: tuple[str, ...], measured: tuple[str, ...]) -> Schema:
    """The schema of a run of a package; `counted` and `measured` are the channels' names in the tables."""
    task = task_of(package)
    own = task.columns(package, measured)
    scale = (*(made.column for made in _SCALE), *own.scale)
    fields = (
        CHANNEL,
        _PLANES.column,
        *own.field,
        *(made.column for made in _IMAGE),
        *(scale if task.preparation is Preparation.OBJECT_SIZE else ()),
        *(made.column for made in _QUALITY),
        *(_of_channel(made.column, channel) for channel in counted[1:] for made in _QUALITY),
        _UNLIKE.column,
    )
    return Schema(
        task.name,
        (own.object_name or package.object_name) if own.objects else "",
        measured,
        fields,
        own.objects,
        own.results,
        own.object_count,
        own.classes,
    )


def _of_channel(column: Column, channel: str) -> Column:
    return replace(
        column, name=f"{column.name}_{channel}", meaning=f"{column.meaning.removesuffix(' of the counted channel')}, of channel {channel}"
    )  # fmt: skip


def field_values(seen: Examined, counted: tuple[str, ...], schema: Schema) -> dict[str, Value]:
    """Values, by column, of a field that was looked at; `counted` are the names of its counted channels.

    A run planned by an earlier version has a schema with fewer columns: values of other columns are left out.
    """
    values = {
        CHANNEL.name: seen.pixels.channel or counted[0],
        **{each.column.name: each.value(seen) for each in (_PLANES, *_IMAGE, *_SCALE, _UNLIKE)},
        **{each.column.name: each.value(seen.quality) for each in _QUALITY},
        **seen.found.values,
    }
    for channel, quality in zip(counted[1:], seen.qualities[1:], strict=True):
        values |= {_of_channel(each.column, channel).name: each.value(quality) for each in _QUALITY}
    wanted = {column.name for column in schema.fields}
    return {name: value for name, value in values.items() if name in wanted}
