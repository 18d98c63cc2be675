from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellcount_core.config import ExecutionConfig
from cellcount_core.domain.errors import Reason
from cellcount_core.domain.fields import FieldKey, PlannedField, Source, SourcePart
from cellcount_core.output.planfile import ShardLimits, bytes_to_read, cut_shards, shard_limits


def field(number: int, size: int, key: str | None = None, reason: Reason | None = None) -> PlannedField:
    source = Source("w1", 0, key or f"{number}.tif", size=size)
    return PlannedField(FieldKey("p", f"W{number:05d}", 1, 1), (source,), reason)


@settings(max_examples=100, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=40),
    limits=st.builds(ShardLimits, st.integers(1, 9), st.integers(1, 100)),
)
def test_every_field_is_in_exactly_one_shard_and_no_shard_is_too_large(
    sizes: list[tuple[int, bool]], limits: ShardLimits
) -> None:
    fields = [
        field(number, size, reason=Reason.EMPTY_FILE if bad else None)
        for number, (size, bad) in enumerate(sizes)
    ]
    shards = list(cut_shards(fields, limits))
    assert [each for shard in shards for each in shard.fields] == fields
    assert [shard.number for shard in shards] == list(range(len(shards)))
    for shard in shards:
        assert 1 <= len(shard.fields) <= limits.fields
        assert len(shard.fields) == 1 or sum(each.size for each in shard.fields) <= limits.size


def test_an_array_file_counts_once_a_shard() -> None:
    slices = [field(number, 60, key="X.npz") for number in range(6)]
    assert [len(shard.fields) for shard in cut_shards(slices, ShardLimits(4, 100))] == [4, 2]
    assert bytes_to_read(slices[0], {SourcePart("X.npz", 60)}) == 0


def test_limits_come_from_the_execution_section() -> None:
    assert shard_limits(ExecutionConfig(shard_fields=7, shard_mib=0.5)) == ShardLimits(7, 2**19)


def test_there_are_four_shards_for_every_worker_where_there_are_as_many_fields(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    for execution, workers in (
        (ExecutionConfig(), 4),
        (ExecutionConfig(actors=12), 12),
        (ExecutionConfig(address="cluster:6379"), 32),
        (ExecutionConfig(actors=9, address="cluster:6379"), 9),
    ):
        limits = shard_limits(execution)
        for number in (1, 3, 15, 16, 40, 127, 128, 384, 1536, 20_000):
            fields = [field(each, 1) for each in range(number)]
            sizes = [
                len(shard.fields) for shard in cut_shards(fields, limits.fitting(min(number, limits.enough)))
            ]
            assert len(sizes) >= min(number, 4 * workers), (execution, number)
            assert max(sizes) <= 64
            assert sum(sizes) == number
