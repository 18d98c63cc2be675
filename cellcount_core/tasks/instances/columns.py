"""The columns of counted objects, each declared beside the code that makes its value.

A new column is one line here: in `_PLACE`, `_SHAPE`, `_CHANNELS` or `_REST` for objects, in `FIELD` for fields.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.columns import OBJECT_NUMBER, Column, Kind, Merge, Null, Value
from cellcount_core.domain.statistics import Moments
from cellcount_core.objects.measure import ObjectTable

Values = NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class CountedObjects:
    """What the columns of a field are made from: its objects, its shape (H, W), and the interval of its count, if it has one.

    `sizes` says how many objects of which size there are, if they were counted at two scales.
    """

    table: ObjectTable
    shape: tuple[int, int]
    interval: tuple[float, float] | None
    sizes: str | None

    @property
    def area(self) -> int:
        """Number of pixels of all objects."""
        return int(self.table.area.sum())


@dataclass(frozen=True, slots=True)
class _Field:
    column: Column
    value: Callable[[CountedObjects], Value]


@dataclass(frozen=True, slots=True)
class _Object:
    """`column.name` holds {object} in place of the object's name. `values` are (n,); None if they are not measured."""

    column: Column
    values: Callable[[ObjectTable, float | None], Values | None]


@dataclass(frozen=True, slots=True)
class _Channel:
    """`column` holds {channel} in its name and meaning."""

    column: Column
    values: Callable[[ObjectTable, str], Values]


_S, _I, _F = Kind.STRING, Kind.INT, Kind.FLOAT
_CENTRE = "centroid in the original image, 0 at the first pixel's centre"

COUNT = "count"
_LOW, _HIGH = "count_low", "count_high"

COUNTED = Column(
    COUNT,
    _I,
    "objects",
    "objects counted; 0 only where the image was read and found empty; null unless ok",
    Null.UNLESS_OK,
    Merge.COUNT,
)
LOW_END = Column(_LOW, _F, "objects", "lower end of the count's interval, where the model has one")
HIGH_END = Column(_HIGH, _F, "objects", "upper end of the count's interval, where the model has one")
AT_BORDER = Column("count_border", _I, "objects", "objects that touch the field's edge")
COVERED = Column("area_fraction", _F, "1", "part of the field covered by objects")
"""The columns of a field that every task has which counts objects."""

FIELD = (
    _Field(COUNTED, lambda seen: seen.table.count),
    _Field(LOW_END, lambda seen: None if seen.interval is None else seen.interval[0]),
    _Field(HIGH_END, lambda seen: None if seen.interval is None else seen.interval[1]),
    _Field(AT_BORDER, lambda seen: int(seen.table.touches_border.sum())),
    _Field(COVERED, lambda seen: seen.area / (seen.shape[0] * seen.shape[1])),
)  # fmt: skip

TWO_SIZES = _Field(
    Column("sizes", _S, "", "objects of each size and their median diameter, where the field was counted at two scales"),
    lambda seen: seen.sizes,
)  # fmt: skip
"""Comes after the columns of the scale, which it explains."""


def _own(
    name: str, kind: Kind, unit: str, meaning: str, values: Callable[[ObjectTable], Values], null: Null = Null.NEVER
) -> _Object:  # fmt: skip
    return _Object(Column(name, kind, unit, meaning, null), lambda table, _: values(table))


def _measured(
    name: str, kind: Kind, unit: str, meaning: str, values: Callable[[ObjectTable], Values]
) -> _Object:
    return _Object(
        Column(name, kind, unit, meaning, Null.NEVER, Merge.MOMENTS), lambda table, _: values(table)
    )


CENTRE_X, CENTRE_Y = "{object}_Location_Center_X", "{object}_Location_Center_Y"

_PLACE = (
    _own(CENTRE_X, _F, "px", _CENTRE, lambda table: table.center_x),
    _own(CENTRE_Y, _F, "px", _CENTRE, lambda table: table.center_y),
    _own("{object}_AreaShape_BoundingBoxMinimum_X", _I, "px", "first column of the object", lambda table: table.min_x),
    _own("{object}_AreaShape_BoundingBoxMinimum_Y", _I, "px", "first row of the object", lambda table: table.min_y),
    _own("{object}_AreaShape_BoundingBoxMaximum_X", _I, "px", "column after the last one (half-open)", lambda table: table.max_x),
    _own("{object}_AreaShape_BoundingBoxMaximum_Y", _I, "px", "row after the last one (half-open)", lambda table: table.max_y),
)  # fmt: skip

FORM_FACTOR = "{object}_AreaShape_FormFactor"
MEAN_INTENSITY = "{object}_Intensity_MeanIntensity_{channel}"
_AREA = "{object}_AreaShape_Area"
DIAMETER = "{object}_AreaShape_EquivalentDiameter"

_SHAPE = (
    _measured(_AREA, _I, "px^2", "area in original pixels", lambda table: table.area),
    _measured(DIAMETER, _F, "px", "diameter of the circle of equal area", lambda table: table.equivalent_diameter),
    _measured("{object}_AreaShape_Eccentricity", _F, "1", "of the ellipse of equal second moments; 0 is a circle", lambda table: table.eccentricity),
    _measured(FORM_FACTOR, _F, "1", "4 pi area / perimeter^2", lambda table: table.form_factor),
    _measured("{object}_AreaShape_Solidity", _F, "1", "area / area of the convex hull", lambda table: table.solidity),
)  # fmt: skip

_CHANNELS = (
    _Channel(
        Column(MEAN_INTENSITY, _F, "raw", "mean of channel {channel}", merge=Merge.MOMENTS),
        lambda table, channel: table.mean_intensity[channel],
    ),
    _Channel(
        Column("{object}_Intensity_IntegratedIntensity_{channel}", _F, "raw", "sum of channel {channel}", merge=Merge.MOMENTS),
        lambda table, channel: table.integrated_intensity[channel],
    ),
)  # fmt: skip

_REST = (
    _Object(
        Column("area_um2", _F, "um^2", "area; null without calibration"),
        lambda table, um_per_px: None if um_per_px is None else table.area.astype(np.float64) * um_per_px**2,
    ),
    _own("score", _F, "1", "mean foreground probability of the object", lambda table: table.score, Null.MAY_BE),
    _own("touches_border", Kind.BOOL, "", "touches the field's edge", lambda table: table.touches_border),
    _Object(Column("class", _S, "", "class; null for jobs without classes"), lambda _, __: None),
    _Object(Column("class_probability", _F, "1", "probability of the class; null for jobs without classes"), lambda _, __: None),
)  # fmt: skip


def full_name(name: str, object_name: str, channel: str = "") -> str:
    """A column's name in the tables, from the one with {object} and {channel} in it."""
    # Not str.format: a channel may be called anything, braces too.
    return name.replace("{object}", object_name).replace("{channel}", channel)


def _named(column: Column, object_name: str, channel: str = "") -> Column:
    return Column(
        full_name(column.name, object_name, channel),
        column.kind,
        column.unit,
        column.meaning.replace("{channel}", channel),
        column.null,
        column.merge,
    )


def interval_in(values: Mapping[str, Value]) -> tuple[float | None, float | None]:
    """The ends of the count's interval in a field's values; None if it has none."""
    low, high = values.get(_LOW), values.get(_HIGH)
    return (low if isinstance(low, float) else None, high if isinstance(high, float) else None)


def object_columns(object_name: str, channels: tuple[str, ...]) -> tuple[Column, ...]:
    """The columns of an object after its number, in the order of the table."""
    return (
        *(_named(each.column, object_name) for each in (*_PLACE, *_SHAPE)),
        *(_named(each.column, object_name, channel) for channel in channels for each in _CHANNELS),
        *(_named(each.column, object_name) for each in _REST),
    )


def object_values(table: ObjectTable, object_name: str, um_per_px: float | None) -> dict[str, Values]:
    """The values (n,) of all known columns of objects, by full name; nan means unknown."""
    columns: dict[str, Values] = {OBJECT_NUMBER.name: table.number}
    for each in (*_PLACE, *_SHAPE):
        _put(columns, _named(each.column, object_name).name, each.values(table, um_per_px))
    columns |= _intensities(table, object_name)
    for each in _REST:
        _put(columns, _named(each.column, object_name).name, each.values(table, um_per_px))
    return columns


def _put(columns: dict[str, Values], name: str, values: Values | None) -> None:
    if values is not None:
        columns[name] = values


def _intensities(table: ObjectTable, object_name: str) -> dict[str, Values]:
    return {
        _named(each.column, object_name, channel).name: each.values(table, channel)
        for channel in table.mean_intensity
        for each in _CHANNELS
    }


def object_moments(
    columns: Mapping[str, Values | Sequence[str | None]], declared: tuple[Column, ...]
) -> dict[str, Moments]:
    """Moments over the objects of each column that is merged by moments; nan is left out."""
    return {
        column.name: moments_of(columns[column.name])
        for column in declared
        if column.merge is Merge.MOMENTS and column.name in columns
    }


def moments_of(values: Values | Sequence[str | None]) -> Moments:
    """Moments of the values (n,), nan left out. Sums are exact before they are rounded."""
    numbers = np.asarray(values).astype(np.float64)
    numbers = numbers[~np.isnan(numbers)]
    if numbers.size == 0:
        return Moments()
    mean = math.fsum(numbers.tolist()) / numbers.size
    deviations = numbers - mean
    m2 = math.fsum((deviations * deviations).tolist())
    return Moments(int(numbers.size), mean, m2, float(numbers.min()), float(numbers.max()))
