"""plan.parquet: fields cut into shards, written and read back."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cellcount_core.config import ExecutionConfig
from cellcount_core.domain.errors import OutputFault, Reason
from cellcount_core.domain.fields import FieldKey, PlannedField, Shard, Source, SourcePart
from cellcount_core.output.planfile import (
    FINGERPRINT_META,
    ShardLimits,
    bytes_to_read,
    cut_shards,
    plan_fingerprint,
    read_shards,
    shard_count,
    shard_limits,
    write_plan,
)
from tests.often import often

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_SOURCE = st.builds(Source, _TEXT, st.integers(0, 9), _TEXT, st.integers(-1, 9), st.integers(0, 2**40), _TEXT)


@st.composite
def _fields(draw: st.DrawFn) -> list[PlannedField]:
    keys = draw(
        st.lists(
            st.builds(FieldKey, _TEXT, _TEXT, st.integers(0, 9), st.integers(1, 3)), unique=True, max_size=12
        )
    )
    fields = []
    for key in sorted(keys):
        sources = tuple(draw(st.lists(_SOURCE, max_size=3)))
        reason = draw(st.one_of(st.none(), st.sampled_from(Reason))) if sources else Reason.ABSENT
        fields.append(PlannedField(key, sources, reason, draw(_TEXT) if reason else ""))
    return fields


@settings(max_examples=often(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fields=_fields(), first=st.integers(1, 5), second=st.integers(1, 5))
def test_what_is_written_is_read_back_and_the_cut_does_not_change_the_digest(
    tmp_path: Path, fields: list[PlannedField], first: int, second: int
) -> None:
    path = tmp_path / "plan.parquet"
    shards = list(cut_shards(fields, ShardLimits(first, 2**60)))
    written = write_plan(path, shards, lambda listing: f"named {listing}")
    assert list(read_shards(path)) == shards
    assert list(read_shards(path.read_bytes())) == shards
    assert shard_count(path) == written.shards == len(shards)
    assert plan_fingerprint(path) == written.fingerprint == f"named {written.listing_digest}"
    again = write_plan(path, cut_shards(fields, ShardLimits(second, 2**60)), lambda listing: listing)
    assert again.listing_digest == written.listing_digest


def test_only_the_shards_wanted_are_read(tmp_path: Path) -> None:
    path = tmp_path / "plan.parquet"
    write_plan(path, (_shard(number) for number in range(5)), str)
    assert [shard.number for shard in read_shards(path, {3, 1})] == [1, 3]


def test_a_row_group_is_a_shard_and_the_metadata_names_the_run(tmp_path: Path) -> None:
    path = tmp_path / "plan.parquet"
    write_plan(path, (_shard(number) for number in range(3)), lambda listing: "the fingerprint")
    file = pq.ParquetFile(path)
    assert file.num_row_groups == 3
    assert [file.read_row_group(number)["shard"].to_pylist() for number in range(3)] == [[0], [1], [2]]
    assert file.metadata.metadata[FINGERPRINT_META] == b"the fingerprint"


@pytest.mark.parametrize(
    ("change", "value"),
    [("key", "other.tif"), ("size", 7), ("etag", "new"), ("plane", 1), ("index", 3), ("channel", "w2")],
)
def test_any_change_of_a_file_changes_the_digest(tmp_path: Path, change: str, value: object) -> None:
    before = _digest(tmp_path, {})
    assert _digest(tmp_path, {change: value}) != before


@pytest.mark.parametrize("body", [b"", b"not parquet", json.dumps({}).encode()])
def test_a_file_that_is_no_plan_is_refused(body: bytes) -> None:
    with pytest.raises(OutputFault, match=r"run/plan\.parquet"):
        list(read_shards(body))


def _shard(number: int) -> Shard:
    key = FieldKey("p", f"A{number + 1:02d}", 1, 1)
    return Shard(number, (PlannedField(key, (Source("w1", 0, f"{number}.tif", size=3),)),))


def _digest(folder: Path, change: dict[str, object]) -> str:
    values: dict[str, object] = {
        "channel": "w1",
        "plane": 0,
        "key": "a.tif",
        "size": 5,
        "etag": "old",
        **change,
    }
    source = Source(**values)  # type: ignore[arg-type]
    shard = Shard(0, (PlannedField(FieldKey("p", "A01", 1, 1), (source,)),))
    return write_plan(folder / "plan.parquet", [shard], str).listing_digest


def field(number: int, size: int, key: str | None = None, reason: Reason | None = None) -> PlannedField:
    source = Source("w1", 0, key or f"{number}.tif", size=size)
    return PlannedField(FieldKey("p", f"W{number:05d}", 1, 1), (source,), reason)


@settings(max_examples=often(100), deadline=None)
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
    many = [field(each, 1) for each in range(9_000)]
    for execution, workers in (
        (ExecutionConfig(), 4),
        (ExecutionConfig(actors=12), 12),
        (ExecutionConfig(address="cluster:6379"), 32),
        (ExecutionConfig(actors=9, address="cluster:6379"), 9),
    ):
        limits = shard_limits(execution)
        for number in (1, 3, 15, 16, 40, 127, 128, 384, 1536, 9_000):
            fields = many[:number]
            sizes = [
                len(shard.fields) for shard in cut_shards(fields, limits.fitting(min(number, limits.enough)))
            ]
            assert len(sizes) >= min(number, 4 * workers), (execution, number)
            assert max(sizes) <= 64
            assert sum(sizes) == number
