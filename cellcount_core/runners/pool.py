"""A pool of workers that count shards: what every runner must offer, one attempt at a shard as every runner
makes it, and the serial pool.

The serial pool is one worker in this process, with the same read-ahead as any other worker. It does not
survive a crash of its own process and cannot end a shard that hangs; the Ray runner can do both.
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
class ShardTask:
    """One attempt at a shard or, with PROBE, at some of its fields. `timeout_s` is counted in seconds from its submission."""

    shard: Shard
    mode: Mode
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Death:
    """An attempt that ended without a receipt.

    If a field turns out to be the cause, it is marked with `reason`: WORKER_DIED, TIMED_OUT or INTERNAL.
    """

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class EndedAttempt:
    """How an attempt ended: with a receipt, with a death, or (`end` is None) lost through no fault of its own."""

    task: ShardTask
    end: Receipt | Death | None


class WorkerPool(Protocol):
    """Workers that hold the model. It is not thread-safe; only the driver calls it."""

    def capacity(self) -> int:
        """How many attempts may be in flight now (0 while workers are starting)."""
        ...

    def submit(self, task: ShardTask) -> None:
        """Give an attempt to the least busy worker. Call it only while fewer than `capacity()` attempts are in flight."""
        ...

    def wait(self, timeout_s: float) -> Sequence[EndedAttempt]:
        """Return the attempts that ended: at least one, unless `timeout_s` seconds passed. Raises RunFault if the run cannot go on."""
        ...

    def progress(self) -> int:
        """How many fields are counted in shards that are not committed yet, as far as is known."""
        ...

    def isolate(self) -> None:
        """From now on give each worker at most one attempt at a time, so that a death has a single suspect."""
        ...

    def close(self) -> None:
        """End the workers. What they had in hand is lost, which does no harm."""
        ...


def attempt(act: Callable[[Shard], Receipt], shard: Shard) -> Receipt | Death:
    """Call `act` on the shard. RunFaults are raised; any other exception is a fault of ours on one of its
    fields and becomes a Death.

    The exception becomes text here, in the worker, because a library's exception may not survive the way
    to the driver.
    """
    try:
        return act(shard)
    except RunFault:
        raise
    # Nothing is swallowed: the driver isolates the field, and its row carries this line.
    except Exception as error:  # noqa: BLE001
        return Death(Reason.INTERNAL, last_line(error))


def last_line(error: BaseException) -> str:
    """What happened and where, in one line: "ValueError: … (decode.py:31)"."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}{where}"[:300]


class SerialPool:
    """One ShardWorker in this process, with up to `in_flight` shards in hand."""

    def __init__(self, context: RunContext, in_flight: int) -> None:
        # A run with nothing left to do loads nothing that counts.
        from cellcount_core.pipeline.worker import ShardWorker

        self._worker = ShardWorker(context)
        self._in_flight = in_flight
        self._threads = ThreadPoolExecutor(in_flight, thread_name_prefix="shard")
        self._attempts: dict[Future[Receipt | Death], ShardTask] = {}

    def capacity(self) -> int:
        """How many shards may be in hand."""
        return self._in_flight

    def submit(self, task: ShardTask) -> None:
        """Start an attempt in a thread."""
        act = self._worker.count if task.mode is Mode.COMMIT else self._worker.probe
        self._attempts[self._threads.submit(attempt, act, task.shard)] = task

    def wait(self, timeout_s: float) -> Sequence[EndedAttempt]:
        """The attempts that ended. Raises the RunFault that a worker raised."""
        done, _ = wait(self._attempts, timeout=timeout_s, return_when=FIRST_COMPLETED)
        return [EndedAttempt(self._attempts.pop(ended), ended.result()) for ended in done]

    def progress(self) -> int:
        """How many fields are counted in shards in hand."""
        in_hand = {task.shard.number for task in self._attempts.values()}
        return sum(fields for shard, fields in self._worker.progress().items() if shard in in_hand)

    def isolate(self) -> None:
        """From now on have one shard at a time."""
        self._in_flight = 1

    def close(self) -> None:
        """Give up the shards in hand, and end the worker as soon as the fields that are being counted are done."""
        self._worker.stop()
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._worker.close()
