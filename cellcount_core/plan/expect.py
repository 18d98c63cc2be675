"""Which fields are expected: those observed, the rectangle they span, or a whole plate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, product
from operator import itemgetter
from typing import Literal

from cellcount_core.config import ExpectGrid
from cellcount_core.domain.wells import FORMATS, WellPosition
from cellcount_core.plan.rows import Place, Row, by_field

Expectation = Literal["observed", "rectangular"] | ExpectGrid


def expected_groups(
    rows: Callable[[], Iterator[Row]], expect: Expectation
) -> Iterator[tuple[Place, list[Row]]]:
    """Fields with their rows, in key order; a field that is expected and has no file comes with no rows.

    `rows` gives the sorted rows anew at each call. "rectangular" expects, in each plate, every well seen x every site seen x
    every time point seen; a grid expects every well of its format x its sites x the time points seen. Fields that were
    seen are always given, also outside a grid. What is held is the wells, sites and time points of one plate.
    """
    seen = by_field(rows())
    if expect == "observed":
        return seen
    return _with_unseen(seen, _expected_places(rows(), expect))


def sentence(expect: Expectation) -> str:
    """Why a field without a file is expected, for its row."""
    if isinstance(expect, ExpectGrid):
        sites = ", ".join(str(site) for site in expect.sites)
        return f"no file; run.expect asks for every well of {expect.wells}, sites {sites}"
    return "no file; run.expect=rectangular: other wells of this plate have this site and time point"


def grid_wells(expect: ExpectGrid) -> frozenset[str]:
    """Names of all wells of the grid's plate format."""
    rows, columns = FORMATS[expect.wells]
    return frozenset(WellPosition(row, column).name for row in range(rows) for column in range(columns))


def _expected_places(rows: Iterable[Row], expect: Expectation) -> Iterator[Place]:
    for plate, group in groupby(rows, itemgetter(0)):
        wells: set[str] = set()
        sites: set[int] = set()
        timepoints: set[int] = set()
        for row in group:
            wells.add(row.well)
            sites.add(row.site)
            timepoints.add(row.timepoint)
        if isinstance(expect, ExpectGrid):
            wells, sites = set(grid_wells(expect)), set(expect.sites)
        for well, site, timepoint in product(sorted(wells), sorted(sites), sorted(timepoints)):
            yield plate, well, site, timepoint


def _with_unseen(
    seen: Iterator[tuple[Place, list[Row]]], expected: Iterator[Place]
) -> Iterator[tuple[Place, list[Row]]]:
    place = next(expected, None)
    for found, rows in seen:
        while place is not None and place < found:
            yield place, []
            place = next(expected, None)
        if place == found:
            place = next(expected, None)
        yield found, rows
    while place is not None:
        yield place, []
        place = next(expected, None)
