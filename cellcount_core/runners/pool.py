"""What a runner must offer: a pool of workers that do shards, and tells how each attempt ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from cellcount_core.domain.errors import Reason
from cellcount_core.domain.fields import Shard
from cellcount_core.domain.receipts import Receipt


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
