"""Which fields a report shows."""

from __future__ import annotations

import random

import pyarrow as pa

from cellcount_core.domain.columns import Column, Kind, Merge, Schema, schema_3
from cellcount_core.domain.errors import Reason, Status
from cellcount_core.domain.fields import FieldKey
from cellcount_core.output.rows import FieldRow, fields_table
from cellcount_core.report.selection import Role, ShownField, choose_fields, titles


def row(well: str, found: int | Reason, warnings: tuple[str, ...] = ()) -> FieldRow:
    key = FieldKey("P", well, 1, 1)
    if isinstance(found, Reason):
        return FieldRow(key, "max", found.status, found)
    return FieldRow(
        key, "max", Status.OK, warnings=warnings, source=(f"{well}.tif",), values={"count": found}
    )


ROWS = [
    row("A01", 10), row("A02", 50), row("A03", 0), row("A04", 0), row("A05", 200), row("A06", 90, ("size_unknown",)),
    row("A07", Reason.TRUNCATED), row("A08", 200), row("A09", 30), row("A10", 20),
]  # fmt: skip


SCHEMA = schema_3("Nuclei", ("w1",))


def table(rows: list[FieldRow]) -> pa.Table:
    return fields_table(rows, SCHEMA, "f")


def chosen(rows: list[FieldRow], n: int) -> dict[str, Role]:
    return {each.key.well: each.role for each in choose_fields(table(rows), SCHEMA, n)}


def test_of_many_patterns_the_surest_are_named_and_the_others_counted() -> None:
    names = ("a", "b", "c", "d", "e")
    schema = Schema(
        "patterns", "", (),
        (Column("patterns", Kind.STRINGS, "", "", merge=Merge.NAMES), Column("probability", Kind.FLOATS, "1", "", merge=Merge.VECTOR)),
        results=("patterns", "probability"), classes=names,
    )  # fmt: skip
    shown = [("A01", names), ("A02", ("b", "d")), ("A03", ())]
    told = fields_table(
        [
            FieldRow(
                FieldKey("P", well, 1, 1),
                "max",
                Status.OK,
                values={"patterns": own, "probability": (0.5, 0.6, 0.9, 0.8, 0.7)},
            )
            for well, own in shown
        ],
        schema,
        "f",
    )
    found = {each.key.well: each.found for each in choose_fields(told, schema, 3)}
    assert found == {"A01": "c, d, e and 2 more patterns", "A02": "d, b", "A03": "no patterns"}


def test_the_range_of_counts_and_what_needs_a_look_is_shown() -> None:
    assert chosen(ROWS, 6) == {
        "A08": Role.MOST, "A02": Role.MEDIAN, "A03": Role.EMPTY, "A06": Role.FLAGGED, "A07": Role.FAILED, "A01": Role.FEWEST,
    }  # fmt: skip


def test_few_places_go_to_the_most_telling_fields() -> None:
    assert list(chosen(ROWS, 3).values()) == [Role.MOST, Role.MEDIAN, Role.EMPTY]
    assert chosen(ROWS, 0) == {}


def test_places_left_over_go_to_fields_in_between() -> None:
    found = chosen(ROWS, 8)
    assert len(found) == 8
    assert {well for well, role in found.items() if role is Role.BETWEEN} <= {"A05", "A09", "A10"}


def test_no_field_is_shown_twice_and_one_empty_field_is_enough() -> None:
    assert sorted(chosen(ROWS, 99)) == sorted(each.key.well for each in ROWS if each.key.well not in {"A04"})


def test_the_order_of_the_rows_makes_no_difference() -> None:
    shuffled = ROWS.copy()
    random.Random(4).shuffle(shuffled)
    assert choose_fields(table(shuffled), SCHEMA, 7) == choose_fields(table(ROWS), SCHEMA, 7)


def test_a_run_in_which_nothing_was_counted_shows_why() -> None:
    (only,) = choose_fields(table([row("A01", Reason.UNREADABLE)]), SCHEMA, 6)
    assert only.title == "A01 site 1: unreadable (not counted)"


def test_a_title_says_where_and_how_many() -> None:
    (only,) = choose_fields(table([row("A01", 1)]), SCHEMA, 6)
    assert only.title == "A01 site 1: 1 object (most objects)"
    assert only.source == ("A01.tif",)


def test_titles_name_the_plate_only_where_several_are_shown() -> None:
    one = ShownField(FieldKey("P", "A01", 1, 1), Role.MOST, "3 objects", "most objects", (), ())
    other = ShownField(FieldKey("Q", "A01", 1, 1), Role.MEDIAN, "2 objects", "median", (), ())
    assert titles([one]) == ["A01 site 1: 3 objects (most objects)"]
    assert titles([one, other]) == [
        "P\nA01 site 1: 3 objects (most objects)",
        "Q\nA01 site 1: 2 objects (median)",
    ]
