"""Wells, plates and summary from fields parts."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellcount_core.domain.doubts import Doubt
from cellcount_core.domain.errors import LedgerFault, OutputFault, Reason
from cellcount_core.domain.fields import FieldKey
from cellcount_core.output.parts import build_part, commit_part, fields_key, objects_key
from cellcount_core.output.rows import ObjectRows
from cellcount_core.output.schema import read_table_bytes, table_bytes
from cellcount_core.reduce.reducer import reduce_run, reduce_tables
from cellcount_core.reduce.summary import results_csv
from cellcount_core.stores.base import Store
from cellcount_core.stores.local import LocalStore
from cellcount_core.stores.wrapped import CountingStore
from tests.lagging import LaggingStore
from tests.often import often
from tests.unit.reduce.outputs import (
    FINGERPRINT,
    SCHEMA,
    Made,
    cut,
    memory_store,
    object_columns,
    output,
    part_of,
    plate,
    rows_of,
    write_run,
)

Rows = list[dict[str, object]]


def table(store: Store, key: str) -> Rows:
    rows: Rows = pq.read_table(pa.BufferReader(store.get(key))).to_pylist()
    return rows


def made_fields(*ends: int | Reason, um_per_px: float | None = 0.5) -> list[Made]:
    return [Made(FieldKey("P", "A01", site, 1), end, um_per_px) for site, end in enumerate(ends, 1)]


fields_of_runs = st.lists(
    st.tuples(
        st.sampled_from(["P1", "P2", "plate ä"]),
        st.sampled_from(["A01", "A02", "B11"]),
        st.integers(1, 3),
        st.integers(1, 2),
        st.integers(0, 5) | st.sampled_from([Reason.TRUNCATED, Reason.ABSENT]),
        st.sampled_from([0.5, 0.325, None]),
    ),
    min_size=1,
    max_size=14,
    unique_by=lambda field: field[:4],
)


@settings(max_examples=often(20), deadline=None)
@given(drawn=fields_of_runs, size=st.integers(1, 6))
def test_the_cut_into_parts_changes_no_byte_of_the_tables(
    drawn: list[tuple[str, str, int, int, int | Reason, float | None]], size: int
) -> None:
    made = sorted(
        (Made(FieldKey(*values[:4]), values[4], values[5]) for values in drawn), key=lambda one: one.key
    )
    whole = reduce_tables(output([made]))
    pieces = reduce_tables(output(cut(made, size)))
    assert pieces.files == whole.files
    assert pieces.summary == whole.summary


@settings(max_examples=often(20), deadline=None)
@given(counts=st.lists(st.integers(0, 8), min_size=1, max_size=12), size=st.integers(1, 5))
def test_merged_moments_are_those_of_all_objects_together(counts: list[int], size: int) -> None:
    made = made_fields(*counts)
    store = output(cut(made, size))
    summary = reduce_run(store)
    columns = [object_columns(one) for one in made]
    for column in SCHEMA.measured:
        values = np.concatenate([its[column.name] for its in columns]).astype(float)
        got = summary.moments[column.name]
        assert got.n == values.size
        if values.size:
            assert math.isclose(got.mean, values.mean(), rel_tol=1e-12)
            assert (got.low, got.high) == (values.min(), values.max())
        if values.size > 1:
            assert math.isclose(got.sd, values.std(ddof=1), rel_tol=1e-9)
    well = table(store, "wells.parquet")[0]
    assert well["count"] == sum(counts)
    assert well["count_per_field_mean"] == pytest.approx(np.mean(counts))
    assert well["count_per_field_sd"] == (pytest.approx(np.std(counts, ddof=1)) if len(counts) > 1 else None)


def test_a_well_with_missing_fields_says_so_and_its_count_is_not_scaled() -> None:
    store = output([made_fields(10, Reason.TRUNCATED, Reason.ABSENT, 20)])
    reduce_run(store)
    well = table(store, "wells.parquet")[0]
    tally = {name: well[f"fields_{name}"] for name in ("expected", "ok", "failed", "missing", "skipped")}
    assert tally == {"expected": 4, "ok": 2, "failed": 1, "missing": 1, "skipped": 0}
    assert well["count"] == 30
    plates = table(store, "plates.parquet")[0]
    assert (plates["wells_expected"], plates["wells_complete"]) == (1, 0)
    assert json.loads(str(plates["reasons"])) == {"absent": 1, "truncated": 1}


def test_a_well_without_a_counted_field_has_no_count_and_an_empty_one_has_zero() -> None:
    nothing = [Made(FieldKey("P", "A02", 1, 1), Reason.TRUNCATED)]
    store = output([made_fields(0), nothing])
    reduce_run(store)
    empty, failed = table(store, "wells.parquet")
    assert (empty["count"], empty["count_per_mm2"]) == (0, 0.0)
    assert (failed["count"], failed["count_per_field_mean"], failed["area_mm2"]) == (None, None, None)


def test_density_is_null_as_soon_as_one_counted_field_has_no_calibration() -> None:
    calibrated = output([made_fields(30, Reason.TRUNCATED)])
    reduce_run(calibrated)
    well = table(calibrated, "wells.parquet")[0]
    assert well["area_mm2"] == pytest.approx(600 * 400 * 0.25 / 1e6)
    assert well["count_per_mm2"] == pytest.approx(30 / 0.06)
    half = output([made_fields(30), [Made(FieldKey("P", "A01", 2, 1), 5, None)]])
    reduce_run(half)
    assert [table(half, "wells.parquet")[0][name] for name in ("count", "area_mm2", "count_per_mm2")] == [
        35,
        None,
        None,
    ]


def test_time_points_are_wells_of_their_own_and_one_well_of_the_plate() -> None:
    made = [Made(FieldKey("P", "A01", site, time), 10 * time + site) for site in (1, 2) for time in (1, 2)]
    store = output(cut(made, 1))
    summary = reduce_run(store)
    assert [(row["timepoint"], row["count"]) for row in table(store, "wells.parquet")] == [(1, 23), (2, 43)]
    assert table(store, "plates.parquet")[0]["wells_expected"] == summary.wells == 1


def test_the_summary_adds_up_over_plates() -> None:
    made = [*plate(name="P1"), *plate(wells=2, name="P2")]
    store = output(cut(made, 5))
    summary = reduce_run(store)
    rows = list(csv.DictReader(io.StringIO(store.get("summary.csv").decode())))
    assert [row["Metadata_Plate"] for row in rows] == ["P1", "P2", "all"]
    assert int(rows[0]["count (objects)"]) + int(rows[1]["count (objects)"]) == int(
        rows[2]["count (objects)"]
    )
    assert (
        int(rows[2]["count (objects)"])
        == summary.totals["count"]
        == sum(one.end for one in made if isinstance(one.end, int))
    )
    assert "Nuclei_AreaShape_Area (px^2)" in rows[0]
    assert "Nuclei_AreaShape_Solidity" in rows[0]
    data = json.loads(store.get("summary.json"))
    fields = data["fields"]
    assert fields["expected"] == fields["ok"] + fields["failed"] + fields["missing"] + fields["skipped"] == 16
    assert data["reasons"] == {"absent": 1, "truncated": 2}
    assert set(data["digests"]) == {"wells", "plates", "fields_rows", "objects_rows"}


def test_the_digest_of_objects_sees_a_change_that_no_other_table_shows() -> None:
    made = made_fields(3, 4)
    first = reduce_tables(output([made])).summary.digests
    store = memory_store()
    write_run(store, [made])
    rows, objects = rows_of(made)
    moved = {**objects[0].columns, "score": np.asarray(objects[0].columns["score"]) / 2}
    commit_part(
        store, build_part(0, rows, [ObjectRows(objects[0].key, moved), objects[1]], SCHEMA, FINGERPRINT)
    )
    second = reduce_tables(store).summary.digests
    assert {name for name in first if first[name] != second[name]} == {"objects_rows"}


def test_a_run_that_is_not_finished_says_how_many_shards_are_left() -> None:
    shards = cut(plate(), 2)
    store = memory_store()
    write_run(store, shards)
    for number in (0, 3):
        commit_part(store, part_of(number, shards[number]))
    with pytest.raises(LedgerFault, match=r"4 of 6 shards are not counted yet .*run the same command again"):
        reduce_run(store)
    assert store.size_of("wells.parquet") is None


def lagging(folder: Path, committed: Collection[int]) -> LaggingStore:
    """An output of six shards whose listings do not show the parts of two of them."""
    shards = cut(plate(), 2)
    store = LaggingStore(str(folder), lambda key: key in (fields_key(1), fields_key(2)))
    write_run(store, shards)
    for number in committed:
        commit_part(store, part_of(number, shards[number]))
    return store


def test_parts_that_a_listing_does_not_show_yet_are_reduced_like_any_other(tmp_path: Path) -> None:
    late = lagging(tmp_path, range(6))
    assert reduce_tables(late) == reduce_tables(LocalStore(late.url))


def test_a_part_that_is_not_there_is_named_and_not_one_that_is_only_not_listed(tmp_path: Path) -> None:
    late = lagging(tmp_path, (0, 1, 3, 4, 5))
    with pytest.raises(
        LedgerFault, match=r"1 of 6 shards are not counted yet \(fields/part-000002\.parquet\)"
    ):
        reduce_run(late)
    assert late.size_of("wells.parquet") is None


def test_a_folder_that_is_no_output_is_refused() -> None:
    with pytest.raises(OutputFault, match="not the output of a run"):
        reduce_run(memory_store())


def test_reducing_again_writes_the_same_bytes() -> None:
    store = output(cut(plate(), 4))
    first = reduce_run(store)
    before = {
        key: store.get(key) for key in ("wells.parquet", "plates.parquet", "summary.json", "summary.csv")
    }
    assert reduce_run(store) == first
    assert {key: store.get(key) for key in before} == before


def test_reducing_removes_the_objects_part_that_a_crash_left() -> None:
    store = output(cut(plate(), 6))
    store.put("objects/part-000000-0123456789abcdef.parquet", b"orphan")
    reduce_run(store)
    assert store.size_of("objects/part-000000-0123456789abcdef.parquet") is None
    assert store.size_of(objects_key(0)) is not None


def test_reducing_reads_the_run_file_and_each_fields_part_once() -> None:
    store = CountingStore(output(cut(plate(), 4)))
    reduce_run(store)
    counts = store.counts
    assert (counts.lists, counts.gets, counts.puts, counts.deletes, counts.sizes) == (2, 1 + 3, 4, 0, 0)


def test_the_plain_table_numbers_fields_from_zero_and_leaves_unknown_counts_empty() -> None:
    text = results_csv(output([made_fields(3, Reason.TRUNCATED), [Made(FieldKey("P", "A02", 1, 1), 0)]]))
    table = list(csv.DictReader(io.StringIO(text)))
    assert [(row["index"], row["count"]) for row in table] == [("0", "3"), ("1", ""), ("2", "0")]
    assert list(table[0]) == [
        "index", "count", "count_low", "count_high", "file", "plate", "well", "site", "timepoint", "status", "reason", "reason_detail", "warnings",
    ]  # fmt: skip


def test_the_plain_table_says_which_file_could_not_be_counted_and_what_is_doubtful() -> None:
    doubtful = replace(made_fields(3)[0], warnings=("too_dense", "channel_missing:w2"))
    failed = made_fields(3, Reason.TRUNCATED)[1]
    counted, lost = csv.DictReader(io.StringIO(results_csv(output([[doubtful], [failed]]))))
    key = failed.key
    assert (lost["plate"], lost["well"], lost["site"]) == (key.plate, key.well, str(key.site))
    assert lost["file"]
    assert (lost["status"], lost["reason"], lost["count"]) == ("failed", "truncated", "")
    assert lost["reason_detail"]
    dense, channel = counted["warnings"].split("; ")
    assert dense == Doubt.TOO_DENSE.meaning.rstrip(".")
    assert channel.endswith(" (w2)")


def test_a_part_of_another_run_is_refused_by_name() -> None:
    store = output(cut(plate(), 6))
    store.put(fields_key(1), store.get(fields_key(0)))
    with pytest.raises(LedgerFault, match=r"fields/part-000001\.parquet: holds shard 0, expected 1"):
        reduce_run(store)


def test_a_part_whose_rows_were_changed_is_refused_by_name() -> None:
    store = output(cut(plate(), 6))
    part = read_table_bytes(fields_key(1), store.get(fields_key(1)))
    counts = pa.array([99] * part.num_rows)
    store.put(
        fields_key(1),
        table_bytes(part.set_column(part.schema.get_field_index("count"), part.field("count"), counts)),
    )
    with pytest.raises(LedgerFault, match=r"fields/part-000001\.parquet: was changed"):
        reduce_run(store)
