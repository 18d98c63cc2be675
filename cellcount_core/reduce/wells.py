"""Wells from fields: one row a well and time point."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

from cellcount_core.domain.columns import PLATE, TIMEPOINT, WELL, Schema, Value
from cellcount_core.reduce.tally import CountedField, Tally, empty_tally


@dataclass(frozen=True, slots=True)
class Well:
    """A well with the tally of each of its time points, in their order."""

    plate: str
    name: str
    timepoints: dict[int, Tally]


def wells(fields: Iterable[CountedField], schema: Schema) -> Iterator[Well]:
    """The wells of `fields`, which come in key order, so that one well is held at a time."""
    for (plate, name), group in groupby(fields, key=attrgetter("key.plate", "key.well")):
        timepoints: dict[int, Tally] = {}
        for counted in group:
            if counted.key.timepoint not in timepoints:
                timepoints[counted.key.timepoint] = empty_tally(schema)
            timepoints[counted.key.timepoint].add(counted)
        yield Well(plate, name, dict(sorted(timepoints.items())))


def well_rows(well: Well) -> list[dict[str, Value]]:
    """The rows of the wells table for one well."""
    return [
        {PLATE.name: well.plate, WELL.name: well.name, TIMEPOINT.name: timepoint, **tally.columns()}
        for timepoint, tally in well.timepoints.items()
    ]
