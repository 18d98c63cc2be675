"""How the two files of a shard are committed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellcount_core.domain.errors import LedgerFault, Reason
from cellcount_core.domain.fields import Commit, FieldKey
from cellcount_core.output.parts import (
    build_part,
    commit_part,
    committed_parts,
    fields_key,
    objects_key,
    read_fields_part,
    rows_digest,
    sweep,
)
from cellcount_core.stores.base import StorageOptions, Store
from cellcount_core.stores.local import LocalStore
from cellcount_core.stores.open import open_store
from cellcount_core.stores.wrapped import CountingStore, Counts
from tests.lagging import LaggingStore
from tests.often import often
from tests.unit.output.stepping import Killed, SteppedStore, Turns
from tests.unit.reduce.outputs import FINGERPRINT, SCHEMA, Made, memory_store, part_of, rows_of


def fields(*ends: int | Reason) -> list[Made]:
    return [Made(FieldKey("P", "A01", site, 1), end) for site, end in enumerate(ends, 1)]


ONE = part_of(0, fields(3, 4))
OTHER = part_of(0, fields(3, Reason.WORKER_DIED))
THIRD = part_of(0, fields(Reason.TIMED_OUT, Reason.WORKER_DIED))


def keys(store: Store, folder: str) -> list[str]:
    return sorted(listed.key for batch in store.list(folder) for listed in batch)


def assert_committed_whole(store: Store) -> str:
    part = read_fields_part(fields_key(0), store.get(fields_key(0)))
    assert hashlib.sha256(store.get(part.objects_key)).hexdigest() == part.objects_sha256
    return part.objects_key


def test_a_commit_is_two_puts_and_no_other_call() -> None:
    store = CountingStore(memory_store())
    assert commit_part(store, ONE) is Commit.WRITTEN
    assert store.counts == Counts(puts=2)


def test_a_second_commit_changes_nothing() -> None:
    store = memory_store()
    commit_part(store, ONE)
    before = {key: store.get(key) for key in (fields_key(0), objects_key(0))}
    assert commit_part(store, ONE) is Commit.ALREADY
    assert {key: store.get(key) for key in before} == before


def test_equal_rows_give_equal_bytes() -> None:
    again = part_of(0, fields(3, 4))
    assert again.objects == ONE.objects
    assert again.fields.equals(ONE.fields, check_metadata=True)


def test_a_part_holds_neither_pandas_metadata_nor_dictionary_types_in_its_schema() -> None:
    store = memory_store()
    commit_part(store, ONE)
    schema = read_fields_part(fields_key(0), store.get(fields_key(0))).table.schema
    assert b"pandas" not in schema.metadata
    assert not [column.name for column in schema if "dictionary" in str(column.type)]


def test_the_orphan_of_a_crash_with_equal_bytes_is_taken_over() -> None:
    store = memory_store()
    store.put_new(objects_key(0), ONE.objects)
    assert commit_part(store, ONE) is Commit.WRITTEN
    assert keys(store, "objects") == [objects_key(0)]
    assert assert_committed_whole(store) == objects_key(0)


def test_an_orphan_with_other_bytes_is_replaced() -> None:
    store = memory_store()
    store.put_new(objects_key(0), OTHER.objects)
    assert commit_part(store, ONE) is Commit.WRITTEN
    assert keys(store, "objects") == [assert_committed_whole(store)]


def test_of_two_commits_that_differ_the_first_one_stands() -> None:
    store = memory_store()
    assert commit_part(store, OTHER) is Commit.WRITTEN
    assert commit_part(store, ONE) is Commit.ALREADY
    assert keys(store, "objects") == [objects_key(0)]
    assert read_fields_part(fields_key(0), store.get(fields_key(0))).table.column("status").to_pylist() == [
        "ok",
        "failed",
    ]


@pytest.mark.parametrize("kind", ["memory", "local"])
def test_workers_that_commit_one_shard_at_once_all_end_well(kind: str, tmp_path: object) -> None:
    store = memory_store() if kind == "memory" else open_store(str(tmp_path), StorageOptions())
    with ThreadPoolExecutor(8) as threads:
        ends = list(threads.map(lambda _: commit_part(store, ONE), range(8)))
    assert ends.count(Commit.WRITTEN) == 1
    assert keys(store, "objects") == [assert_committed_whole(store)]


def commit_stepwise(store: Store, order: Sequence[int], dying: Sequence[int | None]) -> list[Commit | None]:
    turns = Turns(iter(order), alive=set(range(len(dying))))

    def work(worker: int) -> Commit | None:
        part = (ONE, OTHER, THIRD, ONE)[worker]
        try:
            return commit_part(SteppedStore(store, turns, worker, dying[worker]), part)  # type: ignore[arg-type]
        except Killed:
            return None
        finally:
            turns.leave(worker)

    with ThreadPoolExecutor(len(dying)) as threads:
        return list(threads.map(work, range(len(dying))))


@settings(max_examples=often(100), deadline=None)
@given(
    order=st.lists(st.integers(0, 3), max_size=24),
    dying=st.lists(st.none() | st.integers(0, 6), min_size=2, max_size=4),
)
def test_no_interleaving_and_no_death_leaves_a_fields_part_without_its_objects_part(
    order: list[int], dying: list[int | None]
) -> None:
    store = memory_store()
    ends = commit_stepwise(store, order, dying)
    if store.size_of(fields_key(0)) is None:
        assert None in ends, "all workers came to an end and none committed"
        commit_part(store, ONE)
    named = assert_committed_whole(store)
    assert ends.count(Commit.WRITTEN) <= 1
    if None not in ends:
        assert ends.count(Commit.WRITTEN) == 1
        assert keys(store, "objects") == [named]
    sweep(store, [named])
    assert keys(store, "objects") == [named]
    assert assert_committed_whole(store) == named


def test_sweeping_removes_what_crashes_left_and_nothing_else(tmp_path: object) -> None:
    store = open_store(str(tmp_path), StorageOptions())
    commit_part(store, ONE)
    left = ["objects/part-000000-0123456789abcdef.parquet", "objects/part-000007.parquet"]
    for key in [*left, "objects/notes.txt"]:
        store.put(key, b"x")
    assert sweep(store, [objects_key(0)]) == sorted(left)
    assert keys(store, "objects") == ["objects/notes.txt", objects_key(0)]


def test_sweeping_removes_what_was_replaced_and_what_stands_in_the_usual_place_although_no_listing_shows_it(
    tmp_path: Path,
) -> None:
    store = LaggingStore(str(tmp_path))
    named = ["objects/part-000000.parquet", "objects/part-000001-0123456789abcdef.parquet"]
    orphans = ["objects/part-000001-aaaaaaaaaaaaaaaa.parquet", "objects/part-000001.parquet"]
    for key in [*named, *orphans]:
        store.put(key, b"x")
    # The second was named before, the third is gone already.
    replaced = [named[0], orphans[0], "objects/part-000002-0123456789abcdef.parquet"]
    assert sweep(store, named, replaced) == orphans
    assert keys(LocalStore(store.url), "objects") == named


def test_committed_parts_are_the_numbers_of_the_files_in_fields() -> None:
    store = CountingStore(memory_store())
    for number in (0, 3, 1_234_567):
        commit_part(store, part_of(number, fields(1)))
    store.put("fields/notes.txt", b"")
    store.put("fields/part-3.parquet", b"")
    before = store.counts
    assert committed_parts(store) == {0, 3, 1_234_567}
    assert store.counts.lists == before.lists + 1


def test_objects_that_contradict_their_fields_are_refused() -> None:
    rows, objects = rows_of(fields(3, 4))
    with pytest.raises(ValueError, match="counted 4, but has 0 objects"):
        build_part(0, rows, objects[:1], SCHEMA, FINGERPRINT)
    with pytest.raises(ValueError, match="in their order"):
        build_part(0, rows, objects[::-1], SCHEMA, FINGERPRINT)


def test_a_fields_part_that_is_none_is_named() -> None:
    with pytest.raises(LedgerFault, match=r"fields/part-000000\.parquet: is not a whole Parquet file"):
        read_fields_part(fields_key(0), b"PAR1 and then nothing")
    with pytest.raises(LedgerFault, match="not that of a fields part"):
        read_fields_part(fields_key(0), ONE.objects)


def test_a_shard_without_a_counted_field_has_an_objects_part_without_rows() -> None:
    store = memory_store()
    commit_part(store, THIRD)
    part = read_fields_part(fields_key(0), store.get(fields_key(0)))
    assert pq.read_table(pa.BufferReader(store.get(part.objects_key))).num_rows == 0
    assert part.table.num_rows == 2


@pytest.mark.slow
def test_a_byte_that_flips_in_a_fields_part_is_noticed_or_changes_nothing() -> None:
    store = memory_store()
    commit_part(store, part_of(0, fields(3, 4, Reason.TRUNCATED, 0)))
    body = store.get(fields_key(0))
    whole = read_fields_part(fields_key(0), body)
    noticed = 0
    positions = range(0, len(body), 53 * 5 // often(5))
    for position in positions:
        flipped = bytearray(body)
        flipped[position] ^= 0x10
        try:
            part = read_fields_part(fields_key(0), bytes(flipped))
        except LedgerFault as fault:
            assert str(fault).startswith(fields_key(0))
            noticed += 1
            continue
        if (
            part.table.schema.names == whole.table.schema.names
            and rows_digest(part.table) == part.rows_sha256
        ):
            assert part.table.equals(whole.table)
        else:
            noticed += 1
    assert noticed > 0.5 * len(positions)
