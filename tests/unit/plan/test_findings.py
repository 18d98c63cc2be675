"""What is tallied of a plan."""

from __future__ import annotations

from cellcount_core.domain.errors import Reason
from cellcount_core.domain.fields import FieldKey, PlannedField, Source
from cellcount_core.plan.findings import Census


def field(well: str, site: int, key: str, timepoint: int = 1, reason: Reason | None = None) -> PlannedField:
    return PlannedField(FieldKey("p", well, site, timepoint), (Source("", 0, key, site - 1, 100),), reason)


def test_bytes_of_an_array_file_and_of_a_field_that_is_not_read_are_not_counted_again() -> None:
    census = Census()
    fields = [
        field("X", 1, "X.npz"),
        field("X", 2, "X.npz"),
        field("Y", 1, "Y.tif", reason=Reason.AMBIGUOUS_FILE),
    ]
    assert list(census.watch(fields, None)) == fields
    assert (census.fields, census.sources, census.size) == (3, 3, 100)
    assert census.reasons == {"ambiguous_file": 1}


def test_sites_are_counted_once_whatever_the_time_points() -> None:
    census = Census()
    fields = [
        field(well, site, f"{well}{site}{t}", t) for well in "ABC" for site in (1, 2) for t in (1, 2, 3)
    ]
    for _ in census.watch([*fields, field("D", 1, "D"), field("E", 1, "E"), field("F", 1, "F")], None):
        pass
    (plate,) = census.plates()
    assert (plate.wells, plate.fields) == (6, 21)
    assert (plate.sites_min, plate.sites_median, plate.sites_max) == (1, 1, 2)
