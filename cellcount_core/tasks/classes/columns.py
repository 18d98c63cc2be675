"""The columns of classes: of an image, of the tiles that it is cut into, and how many tiles are of which class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.columns import OBJECT_NUMBER, Column, Kind, Merge, Null, Value
from cellcount_core.domain.doubts import Doubt
from cellcount_core.domain.statistics import TrainingDomain, is_out_of_domain, wilson
from cellcount_core.domain.totals import element_names
from cellcount_core.output.rows import ObjectColumn

Chances = NDArray[np.float64]

_NOT_TOLD = "null unless ok, and of an image that shows nothing"

CLASS = Column("class", Kind.STRING, "", f"most likely class of the image; {_NOT_TOLD}", merge=Merge.NAMES)
CERTAINTY = Column(
    "class_probability",
    Kind.FLOAT,
    "1",
    f"probability of that class; {_NOT_TOLD}",
    merge=Merge.MOMENTS,
    watched=True,
)
PROBABILITIES = Column(
    "probability", Kind.FLOATS, "1", f"probability of each class, in the order of the package; {_NOT_TOLD}", merge=Merge.VECTOR
)  # fmt: skip

TILE = "Tile"
"""What the names of measured columns of tiles begin with."""

TILES = Column(
    "tiles", Kind.INT, "tiles", "tiles that the image was looked at in; null unless ok", Null.UNLESS_OK, Merge.SUM
)  # fmt: skip
TOLD = Column(
    "tiles_told", Kind.INT, "tiles", "tiles that show something, of which a class is told; null unless ok", Null.UNLESS_OK, Merge.SHARE, (TILES.name,)
)  # fmt: skip
TILE_EMPTY = Column(
    "empty", Kind.BOOL, "", "the tile shows nothing: its signal does not rise above the noise floor, and no class is told of it", Null.NEVER
)  # fmt: skip

UNLIKE = Column(
    "class_out_of_domain", Kind.FLOAT, "1", "how unlike the images that the network was taught with it is; above 0.5 it is none of these classes"
)  # fmt: skip

_ENDS = ("", "_low", "_high")
_CORNERS = (
    ("BoundingBoxMinimum_X", "first column"),
    ("BoundingBoxMinimum_Y", "first row"),
    ("BoundingBoxMaximum_X", "column after the last one (half-open)"),
    ("BoundingBoxMaximum_Y", "row after the last one (half-open)"),
)


def none_column(of: Column, among: Column) -> Column:
    """How many of the parts that `among` counts are none of the classes; `of` begins its name."""
    return Column(
        f"{of.name}_none_of_these",
        Kind.INT,
        "none of these, whatever is told",
        f"{among.unit} unlike the images that the network was taught with, whatever class is told of them; null unless ok",
        Null.UNLESS_OK,
        Merge.SHARE,
        (among.name,),
    )


def unlikeness_of(domain: TrainingDomain, features: NDArray[np.float64]) -> NDArray[np.float64]:
    """How unlike the images of the training each part is, (n,), from its features (n, F): the values of `UNLIKE`."""
    return np.array([domain.unlikeness(tuple(map(float, row))) for row in features], np.float64)


FEW_PARTS = 5
"""Of fewer parts than this it is not said that most are none of the classes."""


def mostly_none(unlike: NDArray[np.float64]) -> tuple[int, tuple[Doubt, ...]]:
    """How many parts are none of the classes, by how unlike each is (n,), and the doubt that most are; () if not."""
    none = int(sum(map(is_out_of_domain, unlike.tolist())))
    return none, (Doubt.NONE_OF_THESE,) if unlike.size >= FEW_PARTS and 2 * none > unlike.size else ()


def count_columns(classes: Sequence[str], of: Column, among: Column | None = None) -> tuple[Column, ...]:
    """For each class how many of the parts that `among` counts are of it, and their share with its interval. `of`, which begins the names, counts
    them too if `among` is None.
    """
    columns: list[Column] = []
    among = among or of
    for name, counted in zip(classes, count_names(classes, of), strict=True):
        meanings = (
            f"share of {among.name} that are of the class {name}",
            f"lower end of the 95 % interval of {counted}_share (Wilson), as if {of.unit} were independent",
            f"upper end of the 95 % interval of {counted}_share (Wilson), as if {of.unit} were independent",
        )
        columns += [
            Column(counted, Kind.INT, name, f"{of.unit} of the class {name}; null unless ok", Null.UNLESS_OK, Merge.SHARE, (among.name,)),
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


def part_columns(classes: Sequence[str], null: Null = Null.NEVER) -> tuple[Column, ...]:
    """The columns of what is told of a part: its class with its probability, and the probability of each class."""
    names = element_names(PROBABILITIES.name, classes)
    return (
        Column("class", Kind.STRING, "", "most likely class", null),
        Column("class_probability", Kind.FLOAT, "1", "probability of that class", null),
        *(
            Column(each, Kind.FLOAT, "1", f"probability of the class {name}", null)
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
    """The columns of a tile behind its number: its box, whether it shows nothing, and what is told of it, which is null if it does."""
    return (
        *(
            Column(f"{TILE}_AreaShape_{name}", Kind.INT, "px", f"{meaning} of the tile", Null.NEVER)
            for name, meaning in _CORNERS
        ),
        TILE_EMPTY,
        *part_columns(classes, Null.MAY_BE),
    )


def tile_values(
    windows: NDArray[np.int64],
    shown: NDArray[np.bool_],
    chances: Chances,
    classes: Sequence[str],
    unlike: NDArray[np.float64] | None,
) -> Mapping[str, ObjectColumn]:
    """The values (n,) of `tile_columns` and the numbers of the tiles, from their windows (n, 4) y0 y1 x0 x1, whether they are `shown` (n,), the
    probabilities (n, K), and how unlike the images of the training each is (n,), None if that is not known.
    """
    y0, y1, x0, x1 = windows.T
    told = part_values(chances, classes) | ({} if unlike is None else {UNLIKE.name: unlike})
    corners = {
        f"{TILE}_AreaShape_{name}": values
        for (name, _), values in zip(_CORNERS, (x0, y0, x1, y1), strict=True)
    }
    return {
        OBJECT_NUMBER.name: np.arange(1, len(windows) + 1, dtype=np.int64),
        **corners,
        TILE_EMPTY.name: ~shown,
        **{name: _where(shown, values) for name, values in told.items()},
    }


def _where(shown: NDArray[np.bool_], values: ObjectColumn) -> ObjectColumn:
    """The values (n,) of tiles that are shown; nan or None, which stand for null, of the others."""
    if isinstance(values, np.ndarray):
        return np.where(shown, values, np.nan)
    return [value if there else None for value, there in zip(values, shown, strict=True)]
