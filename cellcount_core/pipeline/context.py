"""What a counting process is given, and what its threads share: the run, a clock for stages, a bound on memory."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cellcount_core.config import RunClassesConfig, RunConfig
from cellcount_core.domain.columns import Schema
from cellcount_core.domain.errors import ConfigFault
from cellcount_core.domain.fields import Selection
from cellcount_core.domain.scales import PlateNumbers, PlateSize, ShownSize
from cellcount_core.models.package import Package, find_package
from cellcount_core.stores.base import StorageOptions


class StageClock:
    """Sums busy seconds by stage over all threads: `with clock("decode"):` adds the time spent inside to that stage."""

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
        """Seconds by stage so far, rounded to milliseconds."""
        with self._lock:
            return {stage: round(seconds, 3) for stage, seconds in sorted(self._seconds.items())}


class MemoryGate:
    """Bounds what a worker holds in memory: fields enter while their weights (bytes) add up to no more than `limit`.

    A field that weighs `limit` or more enters alone. Fields enter in the order in which they came, so a heavy one is not passed
    by light ones for ever.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._inside = 0
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    def enter(self, weight: int) -> None:
        """Wait for one's turn and for room for `weight` bytes, then take that room."""
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            self._changed.wait_for(lambda: self._waiting[0] is ticket and self._room_for(weight))
            self._waiting.popleft()
            self._inside += weight
            self._changed.notify_all()

    def leave(self, weight: int) -> None:
        """Give back the room of `weight` bytes."""
        with self._changed:
            self._inside -= weight
            self._changed.notify_all()

    def _room_for(self, weight: int) -> bool:
        return self._inside == 0 or self._inside + weight <= self.limit


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of glibc's settings, from malloc.h."""

_LARGEST_HELD = 32 << 20
"""Bytes of the largest array whose memory is used again; glibc accepts no more."""

_HELD_AT_END = 256 << 20
"""Bytes of free memory that are kept at the end of the heap."""

_USERS_OWN = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_")


def prepare_process() -> None:
    """Set up a process that counts: one thread for OpenCV, and freed memory is kept for the next arrays.

    The worker's threads are the parallelism; OpenCV's own would compete with them for the same cores. A field of a megapixel
    makes many arrays of a few megabytes, and the operating system clears every page that it hands out.
    """
    # Late: runners hold a context and count nothing.
    import cv2

    cv2.setNumThreads(1)
    keep_freed_memory()


def keep_freed_memory() -> bool:
    """Ask glibc's `malloc` to keep freed arrays of up to 32 MiB. Returns whether it does.

    Returns False, and changes nothing, if the user has set `MALLOC_*` or `GLIBC_TUNABLES`, or the allocator is another one.
    """
    if any(name in os.environ for name in _USERS_OWN) or "glibc.malloc" in os.environ.get(
        "GLIBC_TUNABLES", ""
    ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_HELD)) and bool(mallopt(_TRIM_THRESHOLD, _HELD_AT_END))


_FINDS_OBJECTS = "nuclei"
"""The package that finds objects unless a run names another."""


def package_of(run: RunConfig) -> Package:
    """The package of a run, as the run's settings ask it to look at fields.

    Raises ModelFault as `find_package`, ConfigFault if the settings do not fit the package.
    """
    package = find_package(run.model.package)
    if run.model.objects is not None and run.classes.per != "object":
        raise ConfigFault(
            f"run.model.objects ({run.model.objects}) finds objects whose classes are told: give --per object with it, or leave it out"
        )
    if run.classes == RunClassesConfig():
        return package
    # Late: runners hold a context and count nothing.
    from cellcount_core.tasks.classes.objects import on_objects
    from cellcount_core.tasks.classes.task import for_run

    if run.classes.per == "object":
        return on_objects(package, find_package(run.model.objects or _FINDS_OBJECTS), run)
    return for_run(package, run.classes)


@dataclass(frozen=True, slots=True)
class RunContext:
    """What a worker must know to count for a run. Small, picklable and free of secrets.

    `package_digest` is the digest that the model package which `run` names must have.
    `counted` are the channels of the package's roles, in their order; `measured` are the channels whose intensities are measured.
    `schema` is that of the tables. `plate_sizes` are the object sizes found when the run was planned, `shown_sizes` those that contradict the
    diameter given, `plate_numbers` what the task found then. `threads` is the number of
    threads of the model's arithmetic, `readers` how many objects are read at once. With `amends`, the shards hold fields of
    committed shards that are counted once more.
    """

    input_url: str
    input_options: StorageOptions
    output_url: str
    output_options: StorageOptions
    run: RunConfig
    fingerprint: str
    package_digest: str
    engine: str
    counted: tuple[Selection, ...]
    measured: tuple[Selection, ...]
    schema: Schema
    plate_sizes: tuple[PlateSize, ...]
    threads: int
    readers: int
    plate_numbers: tuple[PlateNumbers, ...] = ()
    shown_sizes: tuple[ShownSize, ...] = ()
    amends: bool = False
