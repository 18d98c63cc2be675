"""What a runner must offer: a pool of workers that count shards and tell how each attempt ended. Here stand the interface, one attempt as
every runner makes it, and the serial pool.

The serial pool is one worker in this process, with the same read-ahead as any other worker. It cannot outlive a crash of its own process
and cannot end a shard that hangs; the Ray runner can.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from cellcount_core.domain.errors import Reason, RunFault
from cellcount_core.domain.fields import Receipt, Shard
from cellcount_core.pipeline.context import RunContext


class Mode(Enum):
    """Whether an attempt writes its part (COMMIT) or only shows that the fields can be counted (PROBE)."""

    COMMIT = "commit"
    PROBE = "probe"


@dataclass(frozen=True, slots=True)
class Task:
    """One attempt at a shard (or, probing, at some fields of it). `timeout_s` counts from its submission."""

    shard: Shard
    mode: Mode
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Death:
    """An attempt that gave no receipt.

    `reason` is what a field is marked with if it turns out to be the cause: WORKER_DIED, TIMED_OUT or INTERNAL.
    """

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended: with a receipt, with a death, or (`end` None) lost through no fault of its own."""

    task: Task
    end: Receipt | Death | None


class WorkerPool(Protocol):
    """Workers that hold the model. Not thread-safe: the driver alone calls it."""

    def capacity(self) -> int:
        """Attempts that may be in flight at this moment (0 while workers are starting)."""
        ...

    def submit(self, task: Task) -> None:
        """Hand an attempt to the least busy worker. Only called while fewer than `capacity()` are in flight."""
        ...

    def wait(self, timeout_s: float) -> Sequence[Outcome]:
        """Attempts that ended, at least one unless `timeout_s` passed. Raises RunFault when the run cannot go on."""
        ...

    def progress(self) -> int:
        """Fields that are counted in shards in hand, as far as it is known: they are committed with their shard."""
        ...

    def isolate(self) -> None:
        """From now on at most one attempt a worker, so that a death has one suspect."""
        ...

    def close(self) -> None:
        """End the workers. What they had in hand is lost, which harms nothing."""
        ...


def attempt(act: Callable[[Shard], Receipt], shard: Shard) -> Receipt | Death:
    """`act` on the shard. Raises RunFault; whatever else goes wrong is a fault of ours on one of its fields.

    It becomes text here, in the worker: an exception of a library need not survive the way to the driver.
    """
    try:
        return act(shard)
    except RunFault:
        raise
    # Nothing is swallowed: the driver isolates the field, and its row carries this line.
    except Exception as error:  # noqa: BLE001
        return Death(Reason.INTERNAL, last_line(error))


def last_line(error: BaseException) -> str:
    """ "ValueError: … (decode.py:31)": what happened and where, in one line."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}{where}"[:300]


class SerialPool:
    """One ShardWorker in this process with up to `in_flight` shards in hand."""

    def __init__(self, context: RunContext, in_flight: int) -> None:
        # A run with nothing left to do loads nothing that counts.
        from cellcount_core.pipeline.worker import ShardWorker

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
