"""Timings of a session: bounded in memory, all written, and never the reason why a run fails."""

from __future__ import annotations

import gc
import json
import tracemalloc
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from cellcount_core.cli.progress import Quiet
from cellcount_core.domain.errors import Reason
from cellcount_core.domain.fields import Commit, Receipt, Shard
from cellcount_core.runners import events
from cellcount_core.runners.events import Progress, TimedEvents
from cellcount_core.runners.pool import Death, Mode, ShardTask
from cellcount_core.stores.base import StorageOptions
from cellcount_core.stores.open import open_store


def receipt(shard: int) -> Receipt:
    return Receipt(shard, Commit.WRITTEN, {"ok": 1}, {}, 0, 0, 0.5)


def test_a_long_session_is_written_in_files_of_so_many_shards(tmp_path: Path) -> None:
    timed = TimedEvents(Quiet(), open_store(tmp_path, StorageOptions()), "serial", file_shards=3)
    for number in range(7):
        timed.receipt(receipt(number), Progress())
    timed.flush()
    files = sorted((tmp_path / "run" / "timings").iterdir())
    records = [json.loads(path.read_text())["shards"] for path in files]
    assert sorted(len(shards) for shards in records) == [1, 3, 3]
    assert sorted(shard["shard"] for shards in records for shard in shards) == list(range(7))


def test_receipts_and_deaths_are_written_as_they_were(tmp_path: Path) -> None:
    timed = TimedEvents(Quiet(), open_store(tmp_path, StorageOptions()), "serial")
    done = replace(receipt(4), stage_seconds={"decode": 0.25}, host='a "host"', pid=7, plates=("P1", "µ"))
    timed.receipt(done, Progress())
    timed.death(ShardTask(Shard(5, ()), Mode.PROBE, 1.0), Death(Reason.WORKER_DIED, "exit\n9"))
    timed.flush()
    [path] = (tmp_path / "run" / "timings").iterdir()
    record = json.loads(path.read_text())
    assert record["shards"] == [json.loads(json.dumps(asdict(done)))]
    assert record["deaths"] == [{"shard": 5, "mode": "probe", "reason": "worker_died", "detail": "exit\n9"}]


SHARDS = 200


@pytest.mark.slow
def test_what_is_kept_of_a_shard_is_small(tmp_path: Path) -> None:
    stages = {
        stage: 0.123456789 + number for number, stage in enumerate(("read", "decode", "prepare", "infer"))
    }
    timed = TimedEvents(Quiet(), open_store(tmp_path, StorageOptions()), "serial")
    tracemalloc.start(16)
    for number in range(SHARDS):
        timed.receipt(replace(receipt(number), stage_seconds={**stages}), Progress())
    gc.collect()
    # Not what other threads of the test's process allocate meanwhile.
    own = tracemalloc.Filter(True, events.__file__, all_frames=True)
    traces = tracemalloc.take_snapshot().filter_traces([own])
    tracemalloc.stop()
    kept = sum(trace.size for trace in traces.traces)
    assert kept > SHARDS * 100
    assert kept < SHARDS * 600


def test_an_output_that_takes_no_timings_does_not_stop_the_run(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file where the folder should be")
    timed = TimedEvents(Quiet(), open_store(tmp_path, StorageOptions()), "serial")
    timed.receipt(receipt(0), Progress())
    timed.flush()
    assert (tmp_path / "run").read_text() == "a file where the folder should be"
