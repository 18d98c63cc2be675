"""The serial runner's pool: one worker in this process, with the same read-ahead as any other worker.

It cannot outlive a crash of its own process and cannot end a hanging shard; the Ray runner can.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from cellcount_core.domain.receipts import Receipt
from cellcount_core.pipeline.context import RunContext
from cellcount_core.pipeline.worker import ShardWorker
from cellcount_core.runners.attempt import attempt
from cellcount_core.runners.pool import Death, Mode, Outcome, Task


class SerialPool:
    """One ShardWorker in this process with up to `in_flight` shards in hand."""

    def __init__(self, context: RunContext, in_flight: int) -> None:
        self._worker = ShardWorker(context)
        self._in_flight = in_flight
        self._threads = ThreadPoolExecutor(in_flight, thread_name_prefix="shard")
        self._attempts: dict[Future[Receipt | Death], Task] = {}

    def capacity(self) -> int:
        """Shards that may be in hand."""
        return self._in_flight

    def submit(self, task: Task) -> None:
        """Start an attempt in a thread."""
        act = self._worker.count if task.mode is Mode.COMMIT else self._worker.probe
        self._attempts[self._threads.submit(attempt, act, task.shard)] = task

    def wait(self, timeout_s: float) -> Sequence[Outcome]:
        """Attempts that ended. Raises the RunFault that a worker raised."""
        done, _ = wait(self._attempts, timeout=timeout_s, return_when=FIRST_COMPLETED)
        return [Outcome(self._attempts.pop(ended), ended.result()) for ended in done]

    def progress(self) -> int:
        """Fields that are counted in shards in hand."""
        in_hand = {task.shard.number for task in self._attempts.values()}
        return sum(fields for shard, fields in self._worker.progress().items() if shard in in_hand)

    def isolate(self) -> None:
        """One shard at a time from now on."""
        self._in_flight = 1

    def close(self) -> None:
        """Give up the shards in hand, and end the worker when the fields being counted are done."""
        self._worker.stop()
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._worker.close()
