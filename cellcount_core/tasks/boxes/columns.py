"""The columns of objects that are found as boxes, each declared beside the code that makes its value.

A new column is one line here: in `_PLACE`, `_SHAPE`, `_CHANNEL` or `_REST` for objects, in `_FIELD` for fields.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.columns import OBJECT_NUMBER, Column, Kind, Merge, Null, Value
from cellcount_core.domain.statistics import Moments
from cellcount_core.output.rows import ObjectColumn
from cellcount_core.tasks.boxes.section import Boxes, Corners
from cellcount_core.tasks.instances.columns import (
    AT_BORDER,
    COUNT,
    COUNTED,
    COVERED,
    HIGH_END,
    LOW_END,
    object_moments,
)

_STRIPS = 64
"""Strips between edges of boxes that are looked at together."""

Shape = tuple[int, int]
Values = NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class BoxTable:
    """The boxes of a field of `shape` (H, W), in px of the field and within it, in the order of their numbers.

    `names` are the classes, by their places. `intensity` holds the mean (n,) of each measured channel within each box, in raw units.
    """

    found: Boxes
    shape: Shape
    names: tuple[str, ...]
    intensity: Mapping[str, NDArray[np.float64]]

    @property
    def sides(self) -> NDArray[np.float64]:
        """(n, 2): height and width of each box in px."""
        return self.found.sides

    @property
    def area(self) -> NDArray[np.float64]:
        """(n,): area of each box in px²."""
        return np.asarray(self.sides.prod(axis=1), np.float64)

    @property
    def at_edge(self) -> NDArray[np.bool_]:
        """(n,): which boxes touch the field's edge."""
        boxes, (height, width) = self.found.boxes, self.shape
        low, high = (boxes[:, :2] <= 0).any(axis=1), (boxes[:, 2:] >= (height, width)).any(axis=1)
        return np.asarray(low | high, np.bool_)

    @property
    def covered_px(self) -> float:
        """Area in px² that the boxes cover together."""
        return covered(self.found.boxes)


def covered(boxes: Corners) -> float:
    """Area that boxes (n, 4) cover together, in px²; what several cover counts once.

    >>> covered(np.array([[0.0, 0.0, 2.0, 2.0], [1.0, 1.0, 3.0, 3.0]]))
    7.0
    """
    edges = np.unique(boxes[:, (0, 2)])
    total = 0.0
    ordered = boxes[np.argsort(boxes[:, 1], kind="stable")]
    for first in range(0, len(edges) - 1, _STRIPS):
        strips = edges[first : first + _STRIPS + 1]
        # Few of many boxes reach into a few strips.
        near = ordered[(ordered[:, 0] < strips[-1]) & (ordered[:, 2] > strips[0])]
        for top, bottom in pairwise(strips.tolist()):
            here = near[(near[:, 0] <= top) & (near[:, 2] >= bottom)]
            if not here.size:
                continue
            reached = np.maximum.accumulate(here[:, 3])
            before = np.concatenate([[-np.inf], reached[:-1]])
            lengths = np.maximum(0.0, here[:, 3] - np.maximum(here[:, 1], before))
            total += float((bottom - top) * lengths.sum())
    return total


@dataclass(frozen=True, slots=True)
class CountedBoxes:
    """What the columns of a field are made from: its boxes, and the interval of their count, if it has one."""

    table: BoxTable
    interval: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class _BoxesColumn:
    column: Column
    value: Callable[[CountedBoxes], Value]


@dataclass(frozen=True, slots=True)
class _BoxColumn:
    """`column.name` holds {object} in place of the object's name. `values` are (n,); None if they are not known."""

    column: Column
    values: Callable[[BoxTable, float | None], ObjectColumn | None]


_I, _F = Kind.INT, Kind.FLOAT
_MOMENTS = Merge.MOMENTS

_FIELD = (
    _BoxesColumn(COUNTED, lambda seen: seen.table.found.count),
    _BoxesColumn(LOW_END, lambda seen: None if seen.interval is None else seen.interval[0]),
    _BoxesColumn(HIGH_END, lambda seen: None if seen.interval is None else seen.interval[1]),
    _BoxesColumn(AT_BORDER, lambda seen: int(seen.table.at_edge.sum())),
    _BoxesColumn(
        replace(COVERED, meaning="part of the field that lies in boxes"),
        lambda seen: seen.table.covered_px / (seen.table.shape[0] * seen.table.shape[1]),
    ),
)


def _of_class(name: str) -> Column:
    return Column(
        f"{COUNT}_{name}",
        _I,
        name,
        f"objects of the class {name}; null unless ok",
        Null.UNLESS_OK,
        Merge.COUNT,
    )


def field_columns(classes: tuple[str, ...]) -> tuple[Column, ...]:
    """The columns of a field: the count with its interval, that of each class, and how the boxes lie."""
    first, *others = (made.column for made in _FIELD)
    return (first, *map(_of_class, _told_apart(classes)), *others)


def _told_apart(classes: tuple[str, ...]) -> tuple[str, ...]:
    """The classes that have a count of their own: all, but not a single one, whose count is that of the field."""
    return classes if len(classes) > 1 else ()


def class_counts(classes: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the columns that count a class each; () for a single class."""
    return tuple(_of_class(name).name for name in _told_apart(classes))


def field_values(seen: CountedBoxes) -> dict[str, Value]:
    """The values of a field, by column."""
    table = seen.table
    numbers = np.bincount(table.found.classes, minlength=len(table.names))
    return {
        **{made.column.name: made.value(seen) for made in _FIELD},
        **{_of_class(name).name: int(numbers[table.names.index(name)]) for name in _told_apart(table.names)},
    }


def _own(name: str, unit: str, meaning: str, values: Callable[[BoxTable], Values]) -> _BoxColumn:
    return _BoxColumn(Column(name, _F, unit, meaning, Null.NEVER), lambda table, _: values(table))


def _measured(name: str, unit: str, meaning: str, values: Callable[[BoxTable], Values]) -> _BoxColumn:
    return _BoxColumn(Column(name, _F, unit, meaning, Null.NEVER, _MOMENTS), lambda table, _: values(table))


_CENTRE = "middle of the box in the original image, 0 at the first pixel's centre"

_PLACE = (
    _own("{object}_Location_Center_X", "px", _CENTRE, lambda table: table.found.centres[:, 1] - 0.5),
    _own("{object}_Location_Center_Y", "px", _CENTRE, lambda table: table.found.centres[:, 0] - 0.5),
    _own("{object}_AreaShape_BoundingBoxMinimum_X", "px", "left side of the box, 0 at the image's edge", lambda table: table.found.boxes[:, 1]),
    _own("{object}_AreaShape_BoundingBoxMinimum_Y", "px", "upper side of the box, 0 at the image's edge", lambda table: table.found.boxes[:, 0]),
    _own("{object}_AreaShape_BoundingBoxMaximum_X", "px", "right side of the box", lambda table: table.found.boxes[:, 3]),
    _own("{object}_AreaShape_BoundingBoxMaximum_Y", "px", "lower side of the box", lambda table: table.found.boxes[:, 2]),
)  # fmt: skip

_SHAPE = (
    _measured("{object}_AreaShape_BoundingBoxArea", "px^2", "area of the box", lambda table: table.area),
    _measured("{object}_AreaShape_BoundingBoxHeight", "px", "height of the box", lambda table: table.sides[:, 0]),
    _measured("{object}_AreaShape_BoundingBoxWidth", "px", "width of the box", lambda table: table.sides[:, 1]),
)  # fmt: skip

_CHANNEL = Column("{object}_Intensity_MeanIntensity_{channel}", _F, "raw", "mean of channel {channel} in the box", Null.MAY_BE, _MOMENTS)  # fmt: skip

_REST = (
    _BoxColumn(
        Column("area_um2", _F, "um^2", "area of the box; null without calibration"),
        lambda table, um_per_px: None if um_per_px is None else table.area * um_per_px**2,
    ),
    _own("score", "1", "how sure the network is of the object and its class", lambda table: table.found.scores),
    _BoxColumn(Column("touches_border", Kind.BOOL, "", "the box touches the field's edge", Null.NEVER), lambda table, _: table.at_edge),
    _BoxColumn(
        Column("class", Kind.STRING, "", "class of the object", Null.NEVER),
        lambda table, _: [table.names[place] for place in table.found.classes],
    ),
)  # fmt: skip


def _named(column: Column, object_name: str, channel: str = "") -> Column:
    # Not str.format: a channel may be called anything, braces too.
    name = column.name.replace("{object}", object_name).replace("{channel}", channel)
    return replace(column, name=name, meaning=column.meaning.replace("{channel}", channel))


def object_columns(object_name: str, channels: tuple[str, ...]) -> tuple[Column, ...]:
    """The columns of an object after its number, in the order of the table."""
    return (
        *(_named(each.column, object_name) for each in (*_PLACE, *_SHAPE)),
        *(_named(_CHANNEL, object_name, channel) for channel in channels),
        *(_named(each.column, object_name) for each in _REST),
    )


def object_rows(
    table: BoxTable, object_name: str, um_per_px: float | None, declared: tuple[Column, ...]
) -> tuple[Mapping[str, ObjectColumn], Mapping[str, Moments]]:
    """The values (n,) of all known columns of the objects, by full name, and the moments of the measured ones among `declared`."""
    columns: dict[str, ObjectColumn] = {
        OBJECT_NUMBER.name: np.arange(1, table.found.count + 1, dtype=np.int64)
    }
    for each in (*_PLACE, *_SHAPE, *_REST):
        values = each.values(table, um_per_px)
        if values is not None:
            columns[_named(each.column, object_name).name] = values
    for channel, means in table.intensity.items():
        columns[_named(_CHANNEL, object_name, channel).name] = means
    return columns, object_moments(columns, declared)


def corner_columns(object_name: str) -> Sequence[str]:
    """The names of the columns that hold y0, x0, y1 and x1 of a box."""
    parts = ("Minimum_Y", "Minimum_X", "Maximum_Y", "Maximum_X")
    return [f"{object_name}_AreaShape_BoundingBox{part}" for part in parts]
