"""The columns of viability, each declared beside the code that makes its value, and the cells of a field that they are made from.

What a column of objects holds for live or dead cells alone is null for the others, so that its mean over a well is that of live or of dead cells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from cellcount_core.config import NEUBAUER_SQUARE_NL, ViabilityConfig
from cellcount_core.domain.columns import Column, Kind, Merge, Null, Value
from cellcount_core.domain.total_columns import percentage_columns
from cellcount_core.domain.totals import percentage

Floats = NDArray[np.float64]

LIVE, DEAD, BOTH, NEITHER = "live", "dead", "both", "neither"
CLASSES = (LIVE, DEAD, BOTH, NEITHER)

BIN_UM, BINS = 2.0, 30
"""Width (µm) and number of the bins of diameters; a last one holds whatever is larger."""

_TOUCH = 1.1
"""Two cells touch if their centres are no farther apart than this many times the sum of their radii."""

_UM3_PER_NL, _NL_PER_ML = 1e6, 1e6


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """The cells of a field that passed the gates (n), and what else its columns are made from.

    `kinds` (n,) are places in `CLASSES`. Diameters (n,) and boxes (n, 4: y0 x0 y1 x1, half-open) are in px of the field of shape (H, W).
    `circularity` (n,) is nan where objects are boxes. `signals` are those of the roles (n,), cleaned of what spills over. `gated_out` is the
    number of objects that the gates left out, `clumped` that of cells which touch another, in `clusters` clusters. `sample_nl` is the volume of undiluted sample that the field shows, None if unknown.
    """

    kinds: NDArray[np.int64]
    probability: Floats
    diameter_px: Floats
    boxes: Floats
    circularity: Floats
    signals: Mapping[str, Floats]
    shape: tuple[int, int]
    um_per_px: float | None
    gated_out: int
    clumped: int
    clusters: int
    sample_nl: float | None

    def number(self, kind: str) -> int:
        """How many cells are of a class."""
        return int(np.count_nonzero(self.of(kind)))

    def of(self, kind: str) -> NDArray[np.bool_]:
        """Which cells (n,) are of a class."""
        return np.equal(self.kinds, CLASSES.index(kind))

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Which cells (n,) do not reach the right or lower edge: each field of a mosaic would then count every cell once."""
        height, width = self.shape
        return (self.boxes[:, 2] < height) & (self.boxes[:, 3] < width)

    @property
    def diameter_um(self) -> Floats | None:
        """Diameters (n,) in µm; None without a pixel size."""
        return None if self.um_per_px is None else self.diameter_px * self.um_per_px


def sample_volume(settings: ViabilityConfig, shape: tuple[int, int], um_per_px: float | None) -> float | None:
    """Volume (nL) of undiluted sample above a field of `shape` (H, W); None if neither a volume nor depth and pixel size are known."""
    shown: float | None = None
    if settings.volume_nl is not None:
        shown = settings.volume_nl
    elif settings.squares is not None:
        shown = settings.squares * NEUBAUER_SQUARE_NL
    elif settings.depth is not None and um_per_px is not None:
        shown = shape[0] * shape[1] * um_per_px**2 * settings.depth / _UM3_PER_NL
    return None if shown is None else shown / settings.dilution


def touching(y: Floats, x: Floats, diameter_px: Floats) -> tuple[int, int]:
    """How many of some cells (n,) touch another, and how many clusters of touching cells there are."""
    n = diameter_px.size
    if n < 2:
        return 0, 0
    radii = diameter_px / 2
    places = np.stack([y, x], axis=1)
    pairs = cKDTree(places).query_pairs(2 * _TOUCH * float(radii.max()), output_type="ndarray")
    apart = np.linalg.norm(places[pairs[:, 0]] - places[pairs[:, 1]], axis=1)
    pairs = pairs[apart <= _TOUCH * (radii[pairs[:, 0]] + radii[pairs[:, 1]])]
    links = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    _, owner = connected_components(links, directed=False)
    sizes = np.bincount(owner)
    return int(sizes[sizes > 1].sum()), int(np.count_nonzero(sizes > 1))


@dataclass(frozen=True, slots=True)
class _OfField:
    column: Column
    value: Callable[[Cells], Value]


@dataclass(frozen=True, slots=True)
class _OfCells:
    """`values` are (n,); None if they are not known."""

    column: Column
    values: Callable[[Cells], Floats | None]


_F, _I = Kind.FLOAT, Kind.INT


def _histogram(cells: Cells) -> Value:
    diameters = cells.diameter_um
    if diameters is None:
        return None
    places = np.minimum((diameters / BIN_UM).astype(np.int64), BINS)
    return tuple(int(number) for number in np.bincount(places, minlength=BINS + 1))


def _sample_ml(cells: Cells) -> float | None:
    return None if cells.sample_nl is None else cells.sample_nl / _NL_PER_ML


def _per_ml(number: Callable[[Cells], int]) -> Callable[[Cells], Value]:
    def density(cells: Cells) -> Value:
        volume = _sample_ml(cells)
        return None if volume is None else number(cells) / volume

    return density


def _inside(cells: Cells) -> int:
    return int(np.count_nonzero(cells.inside))


def _live_inside(cells: Cells) -> int:
    return int(np.count_nonzero(cells.inside & cells.of(LIVE)))


CLASS_PROBABILITY = Column("class_probability", _F, "1", "probability of the class")
"""For tasks that find cells and have no such column."""


def _dead_inside(cells: Cells) -> int:
    return int(np.count_nonzero(cells.inside & cells.of(DEAD)))


VIABILITY = Column(
    "viability", _F, "%", "live in % of live + dead; null where there are neither", merge=Merge.PERCENT, of=(LIVE, DEAD)
)  # fmt: skip

_COUNTS = (
    _OfField(Column(LIVE, _I, LIVE, "live cells", Null.UNLESS_OK, merge=Merge.SUM, watched=True), lambda cells: cells.number(LIVE)),
    _OfField(Column(DEAD, _I, DEAD, "dead cells", Null.UNLESS_OK, merge=Merge.SUM, watched=True), lambda cells: cells.number(DEAD)),
    _OfField(Column(BOTH, _I, BOTH, "cells positive in the role live and in the role dead, which no viability counts", Null.UNLESS_OK, merge=Merge.SUM), lambda cells: cells.number(BOTH)),
    _OfField(Column(NEITHER, _I, NEITHER, "cells positive in neither role, which no viability counts", Null.UNLESS_OK, merge=Merge.SUM), lambda cells: cells.number(NEITHER)),
)  # fmt: skip

_REST = (
    _OfField(Column("gated_out", _I, "objects", "objects left out by the gates of diameter and circularity", Null.UNLESS_OK, merge=Merge.SUM), lambda cells: cells.gated_out),
    _OfField(Column("clumped", _I, "objects", "cells that touch another; their share of count is the clump index", Null.UNLESS_OK, merge=Merge.SHARE, of=("count",)), lambda cells: cells.clumped),
    _OfField(Column("clusters", _I, "clusters", "clusters of two or more touching cells", Null.UNLESS_OK, merge=Merge.SUM), lambda cells: cells.clusters),
    _OfField(Column("count_two_edges", _I, "objects", "cells that do not touch the right or lower edge, by which cells/mL are counted (the rule of two edges)", Null.UNLESS_OK, merge=Merge.SUM), _inside),
    _OfField(Column("live_two_edges", _I, "objects", "live cells that do not touch the right or lower edge", Null.UNLESS_OK, merge=Merge.SUM), _live_inside),
    _OfField(Column("dead_two_edges", _I, "objects", "dead cells that do not touch the right or lower edge", Null.UNLESS_OK, merge=Merge.SUM), _dead_inside),
    _OfField(Column("sample_ml", _F, "mL", "volume of undiluted sample above the field; null without depth and pixel size, or a volume", merge=Merge.SUM), _sample_ml),
    _OfField(Column("cells_per_ml", _F, "1/mL", "cells in a mL of undiluted sample; null where the volume is not known", merge=Merge.RATIO, of=("count_two_edges", "sample_ml")), _per_ml(_inside)),
    _OfField(Column("viable_cells_per_ml", _F, "1/mL", "live cells in a mL of undiluted sample; null where the volume is not known", merge=Merge.RATIO, of=("live_two_edges", "sample_ml")), _per_ml(_live_inside)),
    _OfField(Column("diameter_histogram", Kind.INTS, "objects", f"cells by diameter: from 0 in bins of {BIN_UM:g} um, the last for {BIN_UM * BINS:g} um and more; null without calibration", merge=Merge.BINS), _histogram),
)  # fmt: skip


def field_columns() -> tuple[Column, ...]:
    """The columns of a field, after those of counted objects."""
    counts = (made.column for made in _COUNTS)
    rest = (made.column for made in _REST)
    return (*counts, VIABILITY, *percentage_columns(VIABILITY), *rest)


def field_values(cells: Cells) -> dict[str, Value]:
    """The values of `field_columns`, by name."""
    values: dict[str, Value] = {made.column.name: made.value(cells) for made in (*_COUNTS, *_REST)}
    return values | percentage(VIABILITY.name, cells.number(LIVE), cells.number(DEAD))


def _of(kind: str, values: Callable[[Cells], Floats | None]) -> Callable[[Cells], Floats | None]:
    def some(cells: Cells) -> Floats | None:
        every = values(cells)
        return None if every is None else np.where(cells.of(kind), every, np.nan)

    return some


def _diameters_px(cells: Cells) -> Floats:
    return cells.diameter_px


def _diameters_um(cells: Cells) -> Floats | None:
    return cells.diameter_um


def _circularity(cells: Cells) -> Floats:
    return np.minimum(cells.circularity, 1.0)


def _column(name: str, unit: str, meaning: str) -> Column:
    return Column(name, _F, unit, meaning, merge=Merge.MOMENTS)


_UM = "; null without calibration"

_CELLS = (
    _OfCells(_column("diameter_um", "um", f"diameter of the circle of equal area{_UM}"), _diameters_um),
    _OfCells(_column("diameter_um_live", "um", f"diameter of live cells{_UM}"), _of(LIVE, _diameters_um)),
    _OfCells(_column("diameter_um_dead", "um", f"diameter of dead cells{_UM}"), _of(DEAD, _diameters_um)),
    _OfCells(_column("diameter_px_live", "px", "diameter of live cells"), _of(LIVE, _diameters_px)),
    _OfCells(_column("diameter_px_dead", "px", "diameter of dead cells"), _of(DEAD, _diameters_px)),
    _OfCells(_column("circularity", "1", "4 pi area / perimeter^2, at most 1; null where objects are boxes"), _circularity),
    _OfCells(_column("circularity_live", "1", "circularity of live cells"), _of(LIVE, _circularity)),
)  # fmt: skip


def signal_column(role: str) -> Column:
    """The column of the signal in a role."""
    return _column(
        f"{role}_signal",
        "raw",
        f"mean of the role {role} above the background around the cell, without what spills over",
    )


def object_columns(roles: tuple[str, ...]) -> tuple[Column, ...]:
    """The columns of a cell, after those of counted objects; `roles` are those whose signals tell the class."""
    return (*(made.column for made in _CELLS), *map(signal_column, roles))


def object_values(cells: Cells) -> dict[str, Floats]:
    """The values (n,) of `object_columns` by name; nan means unknown."""
    values = {made.column.name: found for made in _CELLS if (found := made.values(cells)) is not None}
    return values | {signal_column(role).name: signal for role, signal in cells.signals.items()}
