"""Busy seconds by stage, summed over threads."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


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
