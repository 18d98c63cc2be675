"""What stands in the tables: types, units, nulls, bytes, digests."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellcount_core.domain.columns import SCHEMA_VERSION
from cellcount_core.domain.errors import Reason, Status
from cellcount_core.domain.fields import FieldKey
from cellcount_core.domain.statistics import Moments
from cellcount_core.output.rows import (
    FieldRow,
    ObjectRows,
    RowDigest,
    fields_table,
    object_digests,
    objects_table,
)
from cellcount_core.output.schema import (
    ROW_GROUP,
    TableName,
    TableWriter,
    columns_of,
    schema_texts,
    table_bytes,
    table_from_rows,
    table_schema,
)
from tests.often import often
from tests.unit.reduce.outputs import FINGERPRINT, SCHEMA, Made, object_columns, plate, rows_of

KEY = FieldKey("P", "A01", 1, 1)


@pytest.mark.parametrize("name", list(TableName))
def test_every_column_keeps_its_unit_and_meaning_in_the_file(name: TableName) -> None:
    body = table_bytes(table_from_rows([], table_schema(name, SCHEMA, FINGERPRINT)))
    schema = pq.read_schema(pa.BufferReader(body))
    for column in columns_of(name, SCHEMA):
        field = schema.field(column.name)
        assert field.metadata[b"unit"].decode() == column.unit
        assert field.metadata[b"meaning"].decode() == column.meaning
        assert field.nullable is not column.required
        assert field.metadata.get(b"merge", b"none").decode() == column.merge.value


def test_a_file_names_its_run_its_schema_and_its_channels() -> None:
    body = table_bytes(
        table_from_rows(
            [], table_schema(TableName.WELLS, replace(SCHEMA, channels=("Zellkern µ",)), FINGERPRINT)
        )
    )
    texts = schema_texts(pq.read_schema(pa.BufferReader(body)))
    assert texts["cellcount.fingerprint"] == FINGERPRINT
    assert texts["cellcount.schema_version"] == str(SCHEMA_VERSION)
    assert json.loads(texts["cellcount.channels"]) == ["Zellkern µ"]


def test_the_pieces_in_which_rows_arrive_do_not_change_the_bytes() -> None:
    rows = ROW_GROUP + 100
    schema = pa.schema([pa.field("a", pa.int64()), pa.field("b", pa.string())])
    table = pa.table(
        {"a": np.arange(rows) % 977, "b": [f"well {index % 7}" for index in range(rows)]}, schema=schema
    )
    bodies = set()
    for size in (rows, 50_000, 7_001):
        writer = TableWriter(schema)
        for start in range(0, rows, size):
            writer.write(table.slice(start, size))
        bodies.add(writer.finish())
    assert len(bodies) == 1
    assert pq.ParquetFile(pa.BufferReader(bodies.pop())).num_row_groups == 2


def test_a_null_where_none_may_be_is_refused_by_the_columns_name() -> None:
    with pytest.raises(ValueError, match="Metadata_Plate must never be null"):
        table_from_rows([{"Metadata_Well": "A01"}], table_schema(TableName.FIELDS, SCHEMA, FINGERPRINT))


def test_a_column_that_is_none_is_refused_with_the_nearest_one() -> None:
    rows = ObjectRows(KEY, {**object_columns(Made(KEY, 2)), "Nuclei_AreaShape_Aera": np.ones(2)})
    with pytest.raises(ValueError, match="did you mean 'Nuclei_AreaShape_Area'"):
        objects_table([rows], SCHEMA, FINGERPRINT)
    with pytest.raises(ValueError, match="not a measured column"):
        fields_table(
            [FieldRow(KEY, "max", Status.OK, values={"count": 1}, moments={"area": Moments()})],
            SCHEMA,
            FINGERPRINT,
        )
    with pytest.raises(ValueError, match=r"cuont is not a column of a field.*did you mean 'count'"):
        fields_table([FieldRow(KEY, "max", Status.OK, values={"cuont": 1})], SCHEMA, FINGERPRINT)


@pytest.mark.parametrize(
    ("status", "reason", "count"),
    [
        (Status.OK, None, None),
        (Status.OK, Reason.ABSENT, 3),
        (Status.FAILED, None, None),
        (Status.FAILED, Reason.ABSENT, None),
        (Status.MISSING, Reason.ABSENT, 0),
    ],
)
def test_a_row_that_contradicts_itself_cannot_be_made(
    status: Status, reason: Reason | None, count: int | None
) -> None:
    with pytest.raises(ValueError, match="does not go with"):
        fields_table([FieldRow(KEY, "max", status, reason, values={"count": count})], SCHEMA, FINGERPRINT)


def test_unknown_is_null_and_never_nan() -> None:
    row = FieldRow(
        KEY,
        "max",
        Status.OK,
        values={"count": 0, "focus": math.nan},
        moments={"Nuclei_AreaShape_Area": Moments()},
    )
    table = fields_table([row], SCHEMA, FINGERPRINT)
    for name in ("focus", "um_per_px", "mean_Nuclei_AreaShape_Area", "n_Nuclei_Intensity_MeanIntensity_w1"):
        assert table.column(name).to_pylist() == [None], name
    assert table.column("n_Nuclei_AreaShape_Area").to_pylist() == [0]
    columns = {**object_columns(Made(KEY, 2)), "area_um2": np.array([1.5, math.nan])}
    assert objects_table([ObjectRows(KEY, columns)], SCHEMA, FINGERPRINT).column("area_um2").to_pylist() == [
        1.5,
        None,
    ]


def test_objects_carry_the_key_of_their_field() -> None:
    _, objects = rows_of(plate())
    table = objects_table(objects, SCHEMA, FINGERPRINT)
    expected = [
        (rows.key.well, rows.key.site, rows.key.field_id) for rows in objects for _ in range(rows.count)
    ]
    names = ("Metadata_Well", "Metadata_Site", "field_id")
    assert list(zip(*(table.column(name).to_pylist() for name in names), strict=True)) == expected


@settings(max_examples=often(40), deadline=None)
@given(cuts=st.sets(st.integers(1, 11)))
def test_the_digest_of_rows_does_not_depend_on_how_they_are_cut(cuts: set[int]) -> None:
    table = fields_table(rows_of(plate())[0], SCHEMA, FINGERPRINT)
    whole, pieces = RowDigest(), RowDigest()
    whole.update(table)
    edges = [0, *sorted(cuts), table.num_rows]
    for start, stop in pairwise(edges):
        pieces.update(table.slice(start, stop - start))
    assert pieces.hexdigest() == whole.hexdigest()


def test_the_digest_of_rows_sees_every_change() -> None:
    rows = rows_of(plate())[0]
    table = fields_table(rows, SCHEMA, FINGERPRINT)
    digests = set()
    changed = [
        table,
        table.slice(1),
        pa.concat_tables([table.slice(1), table.slice(0, 1)]),
        table.set_column(7, "reason", pa.nulls(table.num_rows, pa.string())),
        table.set_column(9, "source", pa.array([["a", "b"]] + [[]] * (table.num_rows - 1))),
        table.set_column(9, "source", pa.array([["a"], ["b"]] + [[]] * (table.num_rows - 2))),
        table.set_column(9, "source", pa.array([["ab"], []] + [[]] * (table.num_rows - 2))),
        table.set_column(table.schema.get_field_index("count"), "count", pa.array([0] * table.num_rows)),
        table.set_column(
            table.schema.get_field_index("count"), "count", pa.nulls(table.num_rows, pa.int64())
        ),
    ]
    for one in changed:
        digest = RowDigest()
        digest.update(one)
        digests.add(digest.hexdigest())
    assert len(digests) == len(changed)


def test_the_digest_of_a_fields_objects_does_not_depend_on_its_neighbours() -> None:
    made = [one for one in plate() if isinstance(one.end, int)]
    together = object_digests(
        objects_table(rows_of(made)[1], SCHEMA, FINGERPRINT),
        [int(one.end) for one in made if isinstance(one.end, int)],
    )
    alone = [
        object_digests(objects_table(rows_of([one])[1], SCHEMA, FINGERPRINT), [int(one.end)])[0]
        for one in made
        if isinstance(one.end, int)
    ]
    assert together == alone
    assert len(set(alone)) == len(made)
