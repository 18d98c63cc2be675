"""`verify` proves a whole run and names every kind of damage."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from functools import cache
from hashlib import sha256

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from cellcount_core.domain.errors import LedgerFault, OutputFault
from cellcount_core.output.parts import commit_part, fields_key, objects_key
from cellcount_core.output.schema import FINGERPRINT_KEY, read_table_bytes, table_bytes, with_texts
from cellcount_core.reduce.reducer import reduce_run
from cellcount_core.reduce.verify import SHOWN, verify
from cellcount_core.stores.base import Store
from tests.unit.reduce.outputs import cut, memory_store, output, part_of, plate, write_run

Change = Callable[[pa.Table], pa.Table]


@cache
def reduced() -> Mapping[str, bytes]:
    """The objects of a reduced run by their keys."""
    store = output(cut(plate(), 4))
    reduce_run(store)
    return {listed.key: store.get(listed.key) for batch in store.list() for listed in batch}


def run() -> Store:
    store = memory_store()
    for key, body in reduced().items():
        store.put(key, body)
    return store


def rewrite(store: Store, key: str, change: Change) -> None:
    store.put(key, table_bytes(change(read_table_bytes(key, store.get(key)))))


def findings(store: Store) -> str:
    report = verify(store)
    assert not report.proven
    return "\n".join(str(finding) for finding in report.findings)


def with_column(name: str, change: Callable[[list[object]], list[object]]) -> Change:
    def apply(table: pa.Table) -> pa.Table:
        index = table.schema.get_field_index(name)
        field = table.schema.field(index)
        return table.set_column(
            index, field, pa.array(change(table.column(name).to_pylist()), type=field.type)
        )

    return apply


def add_one(values: list[object]) -> list[object]:
    assert isinstance(values[0], int)
    return [values[0] + 1, *values[1:]]


def test_a_whole_run_is_proven() -> None:
    report = verify(run())
    assert report.proven
    assert report.findings == []
    assert (report.fields, report.shards, dict(report.statuses)) == (
        12,
        3,
        {"ok": 10, "failed": 1, "missing": 1},
    )
    assert report.objects == sum(one.end for one in plate() if isinstance(one.end, int))


def test_a_run_is_proven_after_an_orphan_of_other_bytes_was_replaced() -> None:
    shards = cut(plate(), 4)
    store = memory_store()
    write_run(store, shards)
    store.put(objects_key(0), part_of(0, shards[0][:1]).objects)
    for number, made in enumerate(shards):
        commit_part(store, part_of(number, made))
    reduce_run(store)
    assert verify(store).proven


def test_a_flipped_byte_in_an_objects_part_is_found() -> None:
    store = run()
    body = bytearray(store.get(objects_key(1)))
    body[len(body) // 3] ^= 1
    store.put(objects_key(1), bytes(body))
    assert "objects/part-000001.parquet: was changed: its SHA-256" in findings(store)


def test_an_object_that_was_removed_is_found() -> None:
    store = run()
    rewrite(store, objects_key(0), lambda table: table.slice(1))
    text = findings(store)
    assert "well B02, site 1, time point 1: has 4 objects, its field counts 5" in text
    assert "objects/part-000000.parquet: was changed" in text


def test_a_value_that_was_edited_in_an_objects_part_is_found() -> None:
    store = run()
    rewrite(store, objects_key(0), with_column("score", lambda values: [0.0, *values[1:]]))
    assert "its objects are not those that fields/part-000000.parquet was written with" in findings(store)


def test_objects_that_are_not_numbered_in_order_are_found() -> None:
    store = run()
    rewrite(
        store,
        objects_key(0),
        with_column("Metadata_ObjectNumber", lambda values: [values[1], values[0], *values[2:]]),
    )
    assert "its objects are not numbered 1 to 5 in order" in findings(store)


def test_a_field_that_was_removed_is_found() -> None:
    store = run()
    rewrite(
        store, fields_key(2), lambda table: with_texts(table.slice(1), {"cellcount.object_digests": "0" * 96})
    )
    text = findings(store)
    assert (
        "fields/part-000002.parquet: plate P1, well B06, site 1, time point 1: planned once, has 0 rows"
        in text
    )
    assert "12 fields expected, the parts hold 9 ok + 1 failed + 1 missing + 0 skipped" in text


def test_a_field_that_stands_twice_is_found() -> None:
    store = run()

    def double(table: pa.Table) -> pa.Table:
        texts = {"cellcount.object_digests": "0" * 160}
        return with_texts(pa.concat_tables([table.slice(0, 1), table]), texts)

    rewrite(store, fields_key(1), double)
    assert "planned once, has 2 rows" in findings(store)


def test_rows_out_of_order_are_found() -> None:
    store = run()
    rewrite(
        store, fields_key(1), lambda table: table.take(pc.sort_indices(table, [("field_id", "ascending")]))
    )
    assert "fields/part-000001.parquet: its rows are not in the order of the plan" in findings(store)


def test_a_count_that_is_off_by_one_is_found() -> None:
    store = run()
    rewrite(store, fields_key(0), with_column("count", add_one))
    text = findings(store)
    assert "site 1, time point 1: has 5 objects, its field counts 6" in text
    assert "counts 6, but measured 5 objects" in text
    assert "fields/part-000000.parquet: was changed: its rows are not those it was written with" in text


def test_a_failed_field_that_was_given_a_count_is_found() -> None:
    store = run()
    rewrite(
        store,
        fields_key(0),
        with_column("count", lambda values: [0 if value is None else value for value in values]),
    )
    assert "status failed does not go with count 0" in findings(store)


def test_a_reason_that_does_not_fit_is_found() -> None:
    store = run()
    rewrite(store, fields_key(0), with_column("status", lambda values: ["missing", *values[1:]]))
    rewrite(store, fields_key(1), with_column("reason", lambda values: ["gremlins", *values[1:]]))
    text = findings(store)
    assert "status missing does not go with reason None, which is ok" in text
    assert "reason 'gremlins' is unknown to this version" in text


def test_a_value_that_was_lost_is_found() -> None:
    store = run()
    key = fields_key(0)
    table = read_table_bytes(key, store.get(key))
    loose = pa.schema([field.with_nullable(True) for field in table.schema], metadata=table.schema.metadata)
    rewrite(
        store,
        key,
        lambda table: with_column("Metadata_Site", lambda values: [None, *values[1:]])(table.cast(loose)),
    )
    assert "column Metadata_Site must never be null, and 1 of its rows are" in findings(store)


def test_a_missing_part_is_found() -> None:
    store = run()
    store.delete(fields_key(1))
    assert "fields/part-000001.parquet: is not there: the shard is not counted yet" in findings(store)


def test_a_missing_objects_part_is_found() -> None:
    store = run()
    store.delete(objects_key(2))
    assert "objects/part-000002.parquet: is not there, and fields/part-000002.parquet names it" in findings(
        store
    )


def test_a_part_of_another_run_is_found() -> None:
    store = run()
    rewrite(store, fields_key(1), lambda table: with_texts(table, {FINGERPRINT_KEY: "e" * 64}))
    assert (
        "fields/part-000001.parquet: belongs to run eeeeeeeeeeee, this output to run ffffffffffff"
        in findings(store)
    )


def test_a_part_that_is_no_parquet_file_is_found() -> None:
    store = run()
    store.put(fields_key(1), store.get(fields_key(1))[:-100])
    assert "fields/part-000001.parquet: is not a whole Parquet file" in findings(store)


@pytest.mark.parametrize("key", ["wells.parquet", "plates.parquet", "summary.json", "summary.csv"])
def test_a_merged_table_that_was_edited_or_lost_is_found(key: str) -> None:
    store = run()
    store.put(key, store.get(key).replace(b"1", b"2"))
    assert f"{key}: is not what the parts reduce to" in findings(store)
    store.delete(key)
    assert f"{key}: is not there; run `cellcount reduce`" in findings(store)


def by_another_version(table: pa.Table, version: bytes = b"version 9.9.9") -> bytes:
    """The table as another version of the Parquet library might write it: other bytes, another name of the writer."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="snappy", use_dictionary=False)
    ours = f"version {pa.__version__}".encode()
    assert sink.getvalue().count(ours) == 1
    return sink.getvalue().replace(ours, version.ljust(len(ours))[: len(ours)])


def reduced_by_another_version(store: Store, change: Change = lambda table: table) -> None:
    """Puts the merged tables there as another version would have, with their digests in the summary."""
    summary = store.get("summary.json").decode()
    for name in ("wells", "plates"):
        old = store.get(f"{name}.parquet")
        new = by_another_version(change(read_table_bytes(name, old)))
        assert sha256(old).hexdigest() in summary
        summary = summary.replace(sha256(old).hexdigest(), sha256(new).hexdigest())
        store.put(f"{name}.parquet", new)
    store.put("summary.json", summary.encode())


def test_merged_tables_that_another_version_of_the_parquet_library_wrote_are_compared_by_value() -> None:
    store = run()
    reduced_by_another_version(store)
    assert verify(store).findings == []
    store.put("summary.json", store.get("summary.json").replace(b"12", b"13", 1))
    assert (
        findings(store) == "summary.json: is not what the parts reduce to; `cellcount reduce` writes it again"
    )


@pytest.mark.parametrize(
    "change",
    [
        with_column("count", add_one),
        lambda table: table.slice(1),
        lambda table: with_texts(table, {FINGERPRINT_KEY: "e" * 64}),
        lambda table: table.rename_columns(["plate", *table.column_names[1:]]),
    ],
    ids=["a value", "a row", "whose it is", "a name"],
)
def test_merged_tables_of_another_version_that_were_edited_are_found(change: Change) -> None:
    store = run()
    reduced_by_another_version(store, change)
    assert "wells.parquet: is not what the parts reduce to" in findings(store)


def test_merged_tables_of_this_version_are_compared_byte_for_byte() -> None:
    store = run()
    sink = io.BytesIO()
    pq.write_table(read_table_bytes("wells", store.get("wells.parquet")), sink)
    store.put("wells.parquet", sink.getvalue())
    assert "wells.parquet: is not what the parts reduce to" in findings(store)


@pytest.mark.parametrize(
    "key", ["fields/part-000003.parquet", "objects/part-000000 (copy).parquet", "objects/x/y"]
)
def test_a_file_that_is_no_part_of_the_run_is_found(key: str) -> None:
    store = run()
    store.put(key, store.get(objects_key(0)))
    assert f"{key}: does not belong to this run" in findings(store)


def test_a_plan_that_was_changed_is_found() -> None:
    store = run()
    other = output(cut(plate()[:-1], 4))
    store.put("run/plan.parquet", other.get("run/plan.parquet"))
    text = findings(store)
    assert "run/plan.parquet: was changed" in text
    assert "plans 11 fields, run.json names 12" in text
    assert "well B07, site 2, time point 1: is not planned for this shard" in text


def test_a_long_list_of_findings_is_bounded_and_says_how_many_there_are() -> None:
    made = plate(wells=60)
    store = output([made])
    reduce_run(store)
    rewrite(store, fields_key(0), with_column("status", lambda values: ["skipped"] * len(values)))
    report = verify(store)
    assert len(report.findings) == SHOWN
    assert report.found > SHOWN


def test_a_run_whose_plan_cannot_be_read_cannot_be_verified() -> None:
    store = run()
    store.put("run/plan.parquet", b"")
    with pytest.raises(LedgerFault, match="not a readable plan"):
        verify(store)
    store.delete("run/plan.parquet")
    with pytest.raises(LedgerFault, match="without the plan nothing can be proven"):
        verify(store)


def test_an_output_of_another_schema_is_refused() -> None:
    store = run()
    data = json.loads(store.get("run/run.json"))
    store.put("run/run.json", json.dumps({**data, "schema_version": 99}).encode())
    with pytest.raises(OutputFault, match="schema version 99"):
        verify(store)
