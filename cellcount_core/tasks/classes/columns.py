"""The columns of classes: of an image, of the tiles that it is cut into, and how many tiles are of which class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.columns import OBJECT_NUMBER, Column, Kind, Merge, Null, Value
from cellcount_core.domain.statistics import wilson
from cellcount_core.domain.totals import element_names
from cellcount_core.output.rows import ObjectColumn

Chances = NDArray[np.float64]

CLASS = Column(
    "class", Kind.STRING, "", "most likely class of the image; null unless ok", Null.UNLESS_OK, Merge.NAMES
)
CERTAINTY = Column(
    "class_probability",
    Kind.FLOAT,
    "1",
    "probability of that class",
    Null.UNLESS_OK,
    Merge.MOMENTS,
    watched=True,
)
PROBABILITIES = Column(
    "probability", Kind.FLOATS, "1", "probability of each class, in the order of the package", Null.UNLESS_OK, Merge.VECTOR
)  # fmt: skip

TILE = "Tile"
"""What the names of measured columns of tiles begin with."""

TILES = Column(
    "tiles", Kind.INT, "tiles", "tiles that the image was looked at in; null unless ok", Null.UNLESS_OK, Merge.SUM
)  # fmt: skip

_ENDS = ("", "_low", "_high")
_OF_PART = (
    Column("class", Kind.STRING, "", "most likely class", Null.NEVER),
    Column("class_probability", Kind.FLOAT, "1", "probability of that class", Null.NEVER),
)
_CORNERS = (
    ("BoundingBoxMinimum_X", "first column"),
    ("BoundingBoxMinimum_Y", "first row"),
    ("BoundingBoxMaximum_X", "column after the last one (half-open)"),
    ("BoundingBoxMaximum_Y", "row after the last one (half-open)"),
)


def count_columns(classes: Sequence[str], of: Column) -> tuple[Column, ...]:
    """For each class how many of the parts that `of` counts are of it, and their share with its interval."""
    columns: list[Column] = []
    for name, counted in zip(classes, count_names(classes, of), strict=True):
        meanings = (
            f"share of the {of.unit} that are of the class {name}",
            f"lower end of the 95 % interval of {counted}_share (Wilson), as if {of.unit} were independent",
            f"upper end of the 95 % interval of {counted}_share (Wilson), as if {of.unit} were independent",
        )
        columns += [
            Column(counted, Kind.INT, name, f"{of.unit} of the class {name}; null unless ok", Null.UNLESS_OK, Merge.SHARE, (of.name,)),
            *(Column(f"{counted}_share{end}", Kind.FLOAT, "1", meaning) for end, meaning in zip(_ENDS, meanings, strict=True)),
        ]  # fmt: skip
    return tuple(columns)


def count_names(classes: Sequence[str], of: Column) -> list[str]:
    """The names of the columns that count the parts of each class."""
    return element_names(of.name, classes)


def count_values(told: NDArray[np.int64], classes: Sequence[str], of: Column) -> dict[str, Value]:
    """The values of `count_columns`, from the places of the classes (n,) that were told."""
    values: dict[str, Value] = {}
    numbers = np.bincount(told, minlength=len(classes)).tolist()
    for counted, number in zip(count_names(classes, of), numbers, strict=True):
        low, high = wilson(number, told.size) or (None, None)
        share = number / told.size if told.size else None
        ends = {f"{counted}_share{end}": value for end, value in zip(_ENDS, (share, low, high), strict=True)}
        values |= {counted: number, **ends}
    return values


def part_columns(classes: Sequence[str]) -> tuple[Column, ...]:
    """The columns of what is told of a part: its class with its probability, and the probability of each class."""
    names = element_names(PROBABILITIES.name, classes)
    return (
        *_OF_PART,
        *(
            Column(each, Kind.FLOAT, "1", f"probability of the class {name}", Null.NEVER)
            for each, name in zip(names, classes, strict=True)
        ),
    )


def part_values(chances: Chances, classes: Sequence[str]) -> dict[str, ObjectColumn]:
    """The values (n,) of `part_columns`, from the probabilities (n, K) of the classes."""
    told = chances.argmax(axis=1)
    names = element_names(PROBABILITIES.name, classes)
    return {
        "class": [classes[place] for place in told],
        "class_probability": chances.max(axis=1),
        **{name: chances[:, place] for place, name in enumerate(names)},
    }


def tile_columns(classes: Sequence[str]) -> tuple[Column, ...]:
    """The columns of a tile behind its number: its box, and what is told of it."""
    return (
        *(
            Column(f"{TILE}_AreaShape_{name}", Kind.INT, "px", f"{meaning} of the tile", Null.NEVER)
            for name, meaning in _CORNERS
        ),
        *part_columns(classes),
    )


def tile_values(
    windows: NDArray[np.int64], chances: Chances, classes: Sequence[str]
) -> Mapping[str, ObjectColumn]:
    """The values (n,) of `tile_columns` and the numbers of the tiles, from their windows (n, 4) y0 y1 x0 x1 and probabilities (n, K)."""
    y0, y1, x0, x1 = windows.T
    corners = {
        f"{TILE}_AreaShape_{name}": values
        for (name, _), values in zip(_CORNERS, (x0, y0, x1, y1), strict=True)
    }
    return {
        OBJECT_NUMBER.name: np.arange(1, len(windows) + 1, dtype=np.int64),
        **corners,
        **part_values(chances, classes),
    }
