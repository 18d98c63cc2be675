"""Failed rows of a committed shard are replaced whole or not at all, whatever dies and whoever else is at work."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellcount_core.domain.errors import LedgerFault, Reason
from cellcount_core.domain.fields import Commit, FieldKey
from cellcount_core.output.parts import (
    FieldsPart,
    Part,
    amend_part,
    commit_part,
    fields_key,
    objects_key,
    read_fields_part,
    sweep,
)
from cellcount_core.stores.base import Store
from cellcount_core.stores.wrapped import CountingStore
from tests.often import often
from tests.unit.output.stepping import Killed, SteppedStore, Turns
from tests.unit.reduce.outputs import Made, memory_store, part_of

End = int | Reason
FAILED = (Reason.OUT_OF_MEMORY, Reason.ABSENT)


def made(ends: dict[int, End]) -> list[Made]:
    return [Made(FieldKey("P", "A01", site, 1), end) for site, end in ends.items()]


def part(ends: dict[int, End]) -> Part:
    return part_of(0, made(ends))


def standing(store: Store) -> FieldsPart:
    """The fields part, with its objects part looked at."""
    found = read_fields_part(fields_key(0), store.get(fields_key(0)))
    assert hashlib.sha256(store.get(found.objects_key)).hexdigest() == found.objects_sha256
    return found


def committed(ends: dict[int, End]) -> Store:
    store = memory_store()
    commit_part(store, part(ends))
    return store


def assert_is(store: Store, ends: dict[int, End]) -> None:
    """The shard is, to the byte of its objects, the one that would have been committed at once."""
    found, fresh = standing(store), standing(committed(ends))
    assert found.table.equals(fresh.table)
    assert (found.rows_sha256, found.objects_sha256) == (fresh.rows_sha256, fresh.objects_sha256)
    assert found.object_digests == fresh.object_digests


@settings(max_examples=often(25), deadline=None)
@given(
    before=st.lists(st.integers(0, 5) | st.sampled_from(FAILED), min_size=1, max_size=8),
    after=st.lists(st.integers(0, 5) | st.sampled_from(FAILED), min_size=8, max_size=8),
)
def test_the_amended_shard_is_the_one_that_would_have_been_committed_at_once(
    before: list[End], after: list[End]
) -> None:
    first: dict[int, End] = dict(enumerate(before, 1))
    again = {site: after[site - 1] for site, end in first.items() if isinstance(end, Reason)}
    store = committed(first)
    end = amend_part(store, part(again))
    assert_is(store, first | again)
    assert end is (Commit.ALREADY if first | again == first else Commit.WRITTEN)
    sweep(store, [standing(store).objects_key])
    assert_is(store, first | again)


def test_a_row_that_is_ok_is_never_replaced() -> None:
    store = committed({1: 3, 2: Reason.ABSENT})
    assert amend_part(store, part({1: Reason.TIMED_OUT, 2: 4})) is Commit.WRITTEN
    assert_is(store, {1: 3, 2: 4})


def test_nothing_is_written_where_nothing_is_to_be_replaced() -> None:
    store = CountingStore(committed({1: 3, 2: Reason.ABSENT}))
    assert amend_part(store, part({2: Reason.ABSENT})) is Commit.ALREADY
    assert store.counts.puts == 0


OLD: dict[int, End] = {1: 3, 2: Reason.ABSENT, 3: 2}
NEW: dict[int, End] = {1: 3, 2: 5, 3: 2}


class Dying:
    """A store that dies before the operation of this number."""

    def __init__(self, store: Store, at: int) -> None:
        self._store = store
        self._left = at

    def __getattr__(self, name: str) -> object:
        operation = getattr(self._store, name)

        def counted(*arguments: object) -> object:
            self._left -= 1
            if self._left < 0:
                raise Killed
            return operation(*arguments)

        return counted


@pytest.mark.slow
def test_a_death_at_any_moment_leaves_the_old_shard_or_the_new_one_and_a_second_try_ends_it() -> None:
    deaths = 0
    seen = set()
    for at in range(8):
        store = committed(OLD)
        try:
            amend_part(Dying(store, at), part({2: 5}))  # type: ignore[arg-type]
        except Killed:
            deaths += 1
        count = standing(store).table.column("count").to_pylist()
        assert count in ([3, None, 2], [3, 5, 2])
        seen.add(tuple(count))
        amend_part(store, part({2: 5}))
        assert_is(store, NEW)
        sweep(store, [standing(store).objects_key])
        assert_is(store, NEW)
    assert deaths == 5
    assert len(seen) == 2


@settings(max_examples=often(30), deadline=None)
@given(
    order=st.lists(st.integers(0, 2), max_size=30),
    dying=st.lists(st.none() | st.integers(0, 7), min_size=3, max_size=3),
)
def test_beside_late_workers_of_a_dead_run_and_another_retry_the_shard_stays_whole(
    order: list[int], dying: Sequence[int | None]
) -> None:
    store = committed(OLD)
    turns = Turns(iter(order), alive=set(range(3)))

    def work(worker: int) -> None:
        mine: Store = SteppedStore(store, turns, worker, dying[worker])  # type: ignore[assignment]
        try:
            if worker == 0:
                commit_part(mine, part({1: 3, 2: Reason.WORKER_DIED, 3: 2}))
            else:
                amend_part(mine, part({2: 5} if worker == 1 else {2: Reason.TIMED_OUT}))
        except Killed:
            pass
        finally:
            turns.leave(worker)

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(work, range(3)))
    found = standing(store)
    assert found.table.column("count").to_pylist() in ([3, None, 2], [3, 5, 2])
    sweep(store, [found.objects_key])
    standing(store)


def test_a_shard_that_is_not_there_is_no_shard_of_these_fields_or_is_damaged_is_named() -> None:
    with pytest.raises(LedgerFault, match=r"fields/part-000000.parquet: is not there"):
        amend_part(memory_store(), part({1: 1}))
    with pytest.raises(LedgerFault, match=r"fields/part-000000.parquet: has no row of field"):
        amend_part(committed({1: Reason.ABSENT}), part({2: 1}))
    store = committed({1: 1, 2: Reason.ABSENT})
    store.put(objects_key(0), part({1: 2}).objects)
    with pytest.raises(LedgerFault, match=r"objects/part-000000.parquet: is not the objects part"):
        amend_part(store, part({2: 1}))
