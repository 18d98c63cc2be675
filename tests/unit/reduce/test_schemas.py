"""Schemas: what earlier versions wrote stays readable, and tables are made for tasks that count nothing or have no objects."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cellcount_core.domain.columns import Column, Kind, Merge, Null, Schema
from cellcount_core.domain.errors import OutputFault, Reason, Status
from cellcount_core.domain.fields import Commit, FieldKey
from cellcount_core.domain.statistics import wilson
from cellcount_core.domain.total_columns import wells_columns
from cellcount_core.domain.totals import NamesTotal
from cellcount_core.models.package import find_package
from cellcount_core.output.parts import (
    amend_part,
    build_part,
    commit_part,
    fields_key,
    objects_key,
    read_fields_part,
)
from cellcount_core.output.rows import FieldRow
from cellcount_core.output.runfile import RUN_KEY, from_json, read_run, to_json
from cellcount_core.output.schema import TableName, columns_of, read_table_bytes
from cellcount_core.pipeline.rows import run_schema
from cellcount_core.reduce.reducer import reduce_run, reduce_tables
from cellcount_core.reduce.summary import headline, results_csv
from cellcount_core.reduce.verify import verify
from cellcount_core.report.platelayout import PlateGrid, plate_map
from cellcount_core.report.selection import choose_fields
from cellcount_core.stores.base import Store
from tests.unit.reduce.outputs import FINGERPRINT, Made, memory_store, plate, write_run

OLD = Path(__file__).with_name("output_of_version_3.zip")
"""A whole output as the last release of schema version 3 wrote it: four fields in two shards, one of them truncated."""


@pytest.fixture
def old() -> Store:
    store = memory_store()
    with zipfile.ZipFile(OLD) as files:
        for name in files.namelist():
            store.put(name, files.read(name))
    return store


def test_an_output_of_version_3_is_read_by_the_columns_it_was_written_with(old: Store) -> None:
    run = read_run(old)
    assert (run.schema.task, run.schema.version, run.schema.object_name) == ("instances", 3, "Nuclei")
    keys = {
        TableName.FIELDS: fields_key(0), TableName.OBJECTS: objects_key(0),
        TableName.WELLS: "wells.parquet", TableName.PLATES: "plates.parquet",
    }  # fmt: skip
    for name, key in keys.items():
        written = read_table_bytes(key, old.get(key))
        declared = columns_of(name, run.schema)
        assert written.schema.names == [column.name for column in declared]
        for column in declared:
            said = written.schema.field(column.name).metadata
            assert (said[b"unit"].decode(), said[b"meaning"].decode()) == (column.unit, column.meaning)


def test_an_output_of_version_3_is_reduced_to_what_it_was_and_proven(old: Store) -> None:
    before = {key: old.get(key) for key in ("wells.parquet", "plates.parquet", "summary.csv", "summary.json")}
    said = json.loads(before["summary.json"])
    assert json.loads(reduce_tables(old).files["summary.json"])["count"] == said["count"] == 8
    reduce_run(old)
    assert verify(old).findings == []
    for key in ("wells.parquet", "plates.parquet"):
        then, now = read_table_bytes(key, before[key]), read_table_bytes(key, old.get(key))
        assert now.equals(then, check_metadata=True), key
    assert old.get("summary.csv") == before["summary.csv"]
    assert [line.split(",")[:2] for line in results_csv(old).splitlines()[1:]] == [
        ["0", "2"],
        ["1", "3"],
        ["2", "3"],
        ["3", ""],
    ]


def test_a_run_of_a_version_to_come_is_refused_by_its_number(old: Store) -> None:
    data = {**json.loads(old.get(RUN_KEY)), "schema_version": 99}
    old.put(RUN_KEY, json.dumps(data).encode())
    with pytest.raises(OutputFault, match="schema version 99, this version of cellcount reads 3 to"):
        read_run(old)


def test_a_schema_comes_back_from_the_run_file_as_it_was() -> None:
    store = memory_store()
    write_run(store, [plate()])
    run = replace(read_run(store), schema=run_schema(find_package("nuclei"), ("w1",), ("w1", "a {b} c")))
    assert from_json(to_json(run)) == run


def starts(text: str, columns: int) -> list[str]:
    """The first columns of each line of a table."""
    return [",".join(line.split(",")[:columns]) for line in text.splitlines()]


VIABILITY = Schema(
    "viability",
    "",
    (),
    (
        Column("cells", Kind.INT, "cells", "cells found", Null.UNLESS_OK, Merge.COUNT),
        Column("dead", Kind.INT, "cells", "dead ones", Null.UNLESS_OK, Merge.SHARE, ("cells",)),
        Column("confidence", Kind.FLOAT, "1", "mean confidence", merge=Merge.MOMENTS, watched=True),
    ),
    results=("cells", "dead"),
)
"""A task that counts and tells shares, and keeps no objects."""

LABELS = Schema(
    "labels",
    "",
    (),
    (
        Column("label", Kind.STRING, "", "most likely label", Null.UNLESS_OK, Merge.TALLY),
        Column("chances", Kind.FLOATS, "1", "chance of each label", Null.UNLESS_OK, Merge.VECTOR),
    ),
    results=("label", "chances"),
    classes=("round", "long"),
)
"""A task that counts nothing."""

NAMES = Schema(
    "names",
    "",
    (),
    (Column("shapes", Kind.STRINGS, "", "shapes that are there", Null.UNLESS_OK, Merge.NAMES),),
    results=("shapes",),
    classes=("round", "long", "flat"),
)
"""A task that names several classes of a field, or one, or none."""

VALUES = {
    "names": [{"shapes": ("round", "long")}, {"shapes": ("long",)}],
    "viability": [{"cells": 40, "dead": 10, "confidence": 0.5}, {"cells": 60, "dead": 0, "confidence": 1.0}],
    "labels": [
        {"label": "long", "chances": (0.25, 0.75)},
        {"label": "round", "chances": (0.75, 0.25)},
    ],
}


def made(wells: int) -> list[Made]:
    """Fields of one site a well; the last one failed. The numbers are not looked at."""
    keys = [FieldKey("P", f"A{index + 1:02d}", 1, 1) for index in range(wells)]
    return [*(Made(key, 0) for key in keys[:-1]), Made(keys[-1], Reason.TRUNCATED)]


def rows(schema: Schema, fields: list[Made]) -> list[FieldRow]:
    found = []
    for one in fields:
        index = int(one.key.well.removeprefix("A"))
        if isinstance(one.end, Reason):
            found.append(FieldRow(one.key, "max", one.end.status, one.end, "made to fail"))
        else:
            values = VALUES[schema.task][(index - 1) % 2]
            found.append(FieldRow(one.key, "max", Status.OK, values=values))
    return found


def output(schema: Schema) -> Store:
    store, fields = memory_store(), made(5)
    write_run(store, [fields[:3], fields[3:]])
    store.put(RUN_KEY, to_json(replace(read_run(store), schema=schema)))
    for number, some in enumerate((fields[:3], fields[3:])):
        commit_part(store, build_part(number, rows(schema, some), [], schema, FINGERPRINT))
    return store


def table(store: Store, key: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = pq.read_table(io.BytesIO(store.get(key))).to_pylist()
    return found


def test_shares_are_merged_with_their_interval() -> None:
    store = output(VIABILITY)
    summary = reduce_run(store)
    (row,) = table(store, "plates.parquet")
    low, high = wilson(20, 200) or (0, 0)
    assert (row["cells"], row["dead"], row["dead_share"]) == (200, 20, 0.1)
    assert (row["dead_share_low"], row["dead_share_high"]) == (low, high)
    assert 0.06 < low < 0.1 < high < 0.15
    assert (row["cells_per_field_mean"], row["confidence"]) == (50.0, 0.75)
    assert headline(summary) == "200 cells, 10.0 % dead (6.6 to 14.9)"
    assert starts(results_csv(store), 3)[:2] == ["index,cells,dead", "0,40,10"]
    assert wilson(0, 10) == (0.0, pytest.approx(0.2775, abs=1e-4))
    assert wilson(0, 0) is None


def test_a_task_that_counts_nothing_is_merged_shown_and_proven() -> None:
    store = output(LABELS)
    summary = reduce_run(store)
    assert verify(store).findings == []
    assert [key for batch in store.list("objects") for key in batch] == []
    (row,) = table(store, "plates.parquet")
    assert (row["label"], row["chances_round"], row["chances_long"]) == ('{"long":2,"round":2}', 0.5, 0.5)
    wells = pq.read_table(io.BytesIO(store.get("wells.parquet")))
    assert wells.column("chances_long").to_pylist() == [0.75, 0.25, 0.75, 0.25, None]
    assert wells.schema.names == [column.name for column in wells_columns(LABELS)]
    assert headline(summary) == "2 long, 2 round"
    assert "count" not in json.loads(store.get("summary.json"))
    assert starts(results_csv(store), 4) == [
        "index,label,chances_round,chances_long",
        "0,long,0.25,0.75", "1,round,0.75,0.25", "2,long,0.25,0.75", "3,round,0.75,0.25", "4,,,",
    ]  # fmt: skip
    fields = pa.concat_tables(
        [read_fields_part(key, store.get(key)).table for key in map(fields_key, (0, 1))]
    )
    titles = {field.key.well: field.title for field in choose_fields(fields, LABELS, 5)}
    assert titles["A01"] == "A01 site 1: long (in between)"
    assert titles["A05"] == "A05 site 1: truncated (not counted)"
    drawn = plate_map(wells, LABELS)
    assert isinstance(drawn.panels[0], PlateGrid)
    assert drawn.label == "chances_round"


def test_a_task_without_objects_commits_once_and_is_amended() -> None:
    store, fields = memory_store(), made(3)
    part = build_part(0, rows(LABELS, fields), [], LABELS, FINGERPRINT)
    assert [commit_part(store, part), commit_part(store, part)] == [Commit.WRITTEN, Commit.ALREADY]
    again = FieldRow(fields[2].key, "max", Status.OK, values=VALUES["labels"][0])
    amended = build_part(0, [again], [], LABELS, FINGERPRINT)
    assert [amend_part(store, amended), amend_part(store, amended)] == [Commit.WRITTEN, Commit.ALREADY]
    labels = read_fields_part(fields_key(0), store.get(fields_key(0))).table.column("label").to_pylist()
    assert labels == ["long", "round", "long"]


def test_a_result_that_a_counted_field_lacks_is_found() -> None:
    lacking = FieldRow(FieldKey("P", "A01", 1, 1), "max", Status.OK, values={"label": "long"})
    with pytest.raises(ValueError, match="status ok does not go with chances None"):
        build_part(0, [lacking], [], LABELS, FINGERPRINT)


def test_names_are_merged_to_the_share_of_fields_that_have_each() -> None:
    store = output(NAMES)
    summary = reduce_run(store)
    assert verify(store).findings == []
    (row,) = table(store, "plates.parquet")
    low, high = wilson(2, 4) or (0, 0)
    assert [row[f"shapes_{name}"] for name in NAMES.classes] == [2, 4, 0]
    assert [row[f"shapes_{name}_share"] for name in NAMES.classes] == [0.5, 1.0, 0.0]
    assert (row["shapes_round_share_low"], row["shapes_round_share_high"]) == (low, high)
    assert headline(summary) == "4 long, 2 round"
    wells = pq.read_table(io.BytesIO(store.get("wells.parquet")))
    assert wells.schema.names == [column.name for column in wells_columns(NAMES)]
    assert wells.column("shapes_round").to_pylist() == [1, 0, 1, 0, None]
    assert starts(results_csv(store), 2)[:3] == ["index,shapes", "0,round; long", "1,long"]
    fields = pa.concat_tables(
        [read_fields_part(key, store.get(key)).table for key in map(fields_key, (0, 1))]
    )
    titles = {field.key.well: field.title for field in choose_fields(fields, NAMES, 5)}
    assert titles["A01"] == "A01 site 1: round, long (in between)"


def test_a_field_with_none_of_the_names_counts_to_the_fields_that_shares_are_of() -> None:
    total = NamesTotal(NAMES.fields[0], NAMES.classes)
    for value in ((), "long", ("long", "flat")):
        total.add(value)
    more = NamesTotal(NAMES.fields[0], NAMES.classes)
    more.add(("flat",))
    total.merge(more)
    values = total.values()
    assert (values["shapes_round"], values["shapes_long"], values["shapes_flat"]) == (0, 2, 2)
    assert values["shapes_flat_share"] == 0.5
    assert NamesTotal(NAMES.fields[0], NAMES.classes).values()["shapes_round"] is None
