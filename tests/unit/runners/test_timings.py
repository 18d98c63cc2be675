"""Timings of a session: bounded in memory, all written, and never the reason why a run fails."""

from __future__ import annotations

import json
from pathlib import Path

from cellcount_core.cli.progress import Quiet
from cellcount_core.domain.receipts import Commit, Receipt
from cellcount_core.runners.events import Tally
from cellcount_core.runners.timings import TimedEvents
from cellcount_core.stores.base import StorageOptions
from cellcount_core.stores.open import open_store


def receipt(shard: int) -> Receipt:
    return Receipt(shard, Commit.WRITTEN, {"ok": 1}, {}, 0, 0, 0.5)


def test_a_long_session_is_written_in_files_of_so_many_shards(tmp_path: Path) -> None:
    timed = TimedEvents(Quiet(), open_store(tmp_path, StorageOptions()), file_shards=3)
    for number in range(7):
        timed.receipt(receipt(number), Tally())
    timed.flush()
    files = sorted((tmp_path / "run" / "timings").iterdir())
    records = [json.loads(path.read_text())["shards"] for path in files]
    assert sorted(len(shards) for shards in records) == [1, 3, 3]
    assert sorted(shard["shard"] for shards in records for shard in shards) == list(range(7))


def test_an_output_that_takes_no_timings_does_not_stop_the_run(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file where the folder should be")
    timed = TimedEvents(Quiet(), open_store(tmp_path, StorageOptions()))
    timed.receipt(receipt(0), Tally())
    timed.flush()
    assert (tmp_path / "run").read_text() == "a file where the folder should be"
