"""What a process that counts is given, and what its threads share."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cellcount_core.config import RunConfig
from cellcount_core.domain.columns import Schema
from cellcount_core.domain.fields import Selection
from cellcount_core.domain.scales import PoolScale
from cellcount_core.stores.base import StorageOptions


class StageClock:
    """`with clock("decode"):` adds the time spent inside to that stage."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time one passage through `stage`."""
        began = time.perf_counter()
        try:
            yield
        finally:
            passed = time.perf_counter() - began
            with self._lock:
                self._seconds[stage] += passed

    def totals(self) -> dict[str, float]:
        """Seconds by stage so far, in milliseconds' precision."""
        with self._lock:
            return {stage: round(seconds, 3) for stage, seconds in sorted(self._seconds.items())}


class MemoryGate:
    """Lets fields in while the sum of their weights stays below `limit`; one of that weight or more goes in alone.

    They go in in the order in which they came, so that a heavy one is not passed by light ones for ever.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._inside = 0
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    def enter(self, weight: int) -> None:
        """Wait until it is one's turn and there is room for `weight`."""
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            self._changed.wait_for(lambda: self._waiting[0] is ticket and self._room_for(weight))
            self._waiting.popleft()
            self._inside += weight
            self._changed.notify_all()

    def leave(self, weight: int) -> None:
        """Give the room back."""
        with self._changed:
            self._inside -= weight
            self._changed.notify_all()

    def _room_for(self, weight: int) -> bool:
        return self._inside == 0 or self._inside + weight <= self.limit


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Names of glibc's settings, from malloc.h."""

_LARGEST_HELD = 32 << 20
"""The largest array whose memory is used again; glibc takes no more."""

_HELD_AT_END = 256 << 20
"""Free memory at the end of the heap that is kept."""

_USERS_OWN = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_")


def prepare_process() -> None:
    """One thread for OpenCV, and freed arrays are used again instead of being given back and asked for anew.

    The threads of a worker are the parallelism; OpenCV's own would compete with them for the same cores. A field of a
    megapixel makes many arrays of a few megabytes, and the system clears every page of each that it hands out.
    """
    # Late: runners hold a context and count nothing.
    import cv2

    cv2.setNumThreads(1)
    keep_freed_memory()


def keep_freed_memory() -> bool:
    """Whether glibc's `malloc` now keeps freed arrays of up to 32 MiB. Settings of the user's own stand, as do other allocators."""
    if any(name in os.environ for name in _USERS_OWN) or "glibc.malloc" in os.environ.get(
        "GLIBC_TUNABLES", ""
    ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_HELD)) and bool(mallopt(_TRIM_THRESHOLD, _HELD_AT_END))


@dataclass(frozen=True, slots=True)
class RunContext:
    """Everything about a run that its workers share.

    `package` is the name or path the package is found by on the worker, `package_digest` what it must be. `counted` are the
    channels of the package's roles, in their order; `measured` those whose intensities are measured. `schema` is that of the tables. `scales` are the object
    sizes found when planning. `threads` are those of the model's arithmetic;
    `readers` how many objects are read at once. `amends`: the shards are fields of committed ones, done once more.
    """

    input_url: str
    input_options: StorageOptions
    output_url: str
    output_options: StorageOptions
    run: RunConfig
    fingerprint: str
    package: str
    package_digest: str
    engine: str
    counted: tuple[Selection, ...]
    measured: tuple[Selection, ...]
    schema: Schema
    scales: tuple[PoolScale, ...]
    threads: int
    readers: int
    amends: bool = False
