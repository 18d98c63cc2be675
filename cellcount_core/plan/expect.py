"""Which fields are expected: those of which there are files, those that the instrument states, the rectangle they span, or a whole plate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from heapq import merge
from itertools import groupby, product
from operator import itemgetter
from typing import Literal, NamedTuple

from cellcount_core.config import ExpectGrid
from cellcount_core.domain.facts import ExpectedFields, PlateFacts
from cellcount_core.domain.wells import FORMATS, WellPosition
from cellcount_core.plan.rows import Place, Row, by_field

Expectation = Literal["observed", "rectangular"] | ExpectGrid


class Group(NamedTuple):
    """A field: where it is, its rows, and where there is none why it is expected.

    `unstated`: there are files of it, and the metadata files of its plate do not state it.
    """

    place: Place
    rows: list[Row]
    why: str = ""
    unstated: bool = False


def expected_groups(
    rows: Callable[[], Iterator[Row]],
    expect: Expectation,
    facts: Mapping[str, PlateFacts],
    aside: Callable[[], Iterator[Place]],
) -> Iterator[Group]:
    """Fields in key order, those that are expected and have no file among them.

    `rows` gives the sorted rows anew at each call. Expected are the fields that the instrument states (`facts`, by plate)
    and those of `expect`: "rectangular" expects, in each plate, every well seen x every site seen x every time point seen; a
    grid expects every well of its format x its sites x the time points seen. Fields that were seen are always given, also
    those that nobody states. What is held is the wells, sites and time points of one plate.

    `aside` gives, sorted, the places of fields of which files were set aside by include or exclude: of them nothing is
    expected, and neither of wells and sites of which no file at all is looked at.
    """
    seen = by_field(rows())
    stated = any(one.expected for one in facts.values())
    if expect == "observed" and not stated:
        return (Group(place, files) for place, files in seen)
    places = _expected_places(rows(), expect, facts, next(aside(), None) is not None)
    whole = frozenset(plate for plate, one in facts.items() if one.expected)
    return _with_unseen(seen, _without(places, aside()), whole)


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


def _expected_places(
    rows: Iterable[Row], expect: Expectation, facts: Mapping[str, PlateFacts], limited: bool
) -> Iterator[tuple[Place, str]]:
    """Places in order, each once, with why they are expected."""
    for plate, group in groupby(rows, itemgetter(0)):
        wells: set[str] = set()
        sites: set[int] = set()
        timepoints: set[int] = set()
        for row in group:
            wells.add(row.well)
            sites.add(row.site)
            timepoints.add(row.timepoint)
        sources = []
        if plate in facts:
            sources = [_stated(one, timepoints) for one in facts[plate].expected]
        if limited:
            sources = [_within(source, wells, sites) for source in sources]
        if isinstance(expect, ExpectGrid):
            wells, sites = set(grid_wells(expect)), set(expect.sites)
        if expect != "observed":
            sources.append(
                (where, sentence(expect))
                for where in product(sorted(wells), sorted(sites), sorted(timepoints))
            )
        for where, reasons in groupby(merge(*sources, key=itemgetter(0)), itemgetter(0)):
            yield (plate, *where), next(reasons)[1]


_Where = tuple[str, int, int]


def _stated(expected: ExpectedFields, timepoints: set[int]) -> Iterator[tuple[_Where, str]]:
    return ((where, expected.why) for where in expected.places(timepoints))


def _within(
    places: Iterator[tuple[_Where, str]], wells: set[str], sites: set[int]
) -> Iterator[tuple[_Where, str]]:
    return (each for each in places if each[0][0] in wells and each[0][1] in sites)


def _without(places: Iterator[tuple[Place, str]], aside: Iterator[Place]) -> Iterator[tuple[Place, str]]:
    """`places` that are not among those set aside; both in order."""
    left_out = next(aside, None)
    for place, why in places:
        while left_out is not None and left_out < place:
            left_out = next(aside, None)
        if place != left_out:
            yield place, why


def _with_unseen(
    seen: Iterator[tuple[Place, list[Row]]], expected: Iterator[tuple[Place, str]], stated: frozenset[str]
) -> Iterator[Group]:
    wanted = next(expected, None)
    for place, rows in seen:
        while wanted is not None and wanted[0] < place:
            yield Group(wanted[0], [], wanted[1])
            wanted = next(expected, None)
        known = wanted is not None and wanted[0] == place
        if known:
            wanted = next(expected, None)
        yield Group(place, rows, unstated=not known and place[0] in stated)
    while wanted is not None:
        yield Group(wanted[0], [], wanted[1])
        wanted = next(expected, None)
