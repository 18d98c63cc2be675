"""A limit on memory that the kernel enforces by killing, as on a cluster: a control group of our own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

_PLACES = (
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.swappiness"),
    (Path("/sys/fs/cgroup"), "memory.max", "memory.swap.max"),
)
"""Of version 1 and of version 2: folder, the file of the limit, and the one that takes a 0 for "no swap"."""


@dataclass(frozen=True)
class MemoryLimit:
    """A control group: together its processes may take so much from when they came in."""

    folder: Path

    def bind(self, pid: int) -> None:
        """From now on this process is one of the group."""
        (self.folder / "cgroup.procs").write_text(str(pid))


@contextmanager
def memory_limit(limit: int) -> Iterator[MemoryLimit]:
    """A group of at most `limit` bytes. Skips where this user may have none."""
    said = "this system has none"
    for parent, limits, swap in _PLACES:
        folder = parent / f"cellcount-drill-{uuid4().hex[:8]}"
        try:
            folder.mkdir()
        except OSError as fault:
            said = str(fault)
            continue
        try:
            (folder / limits).write_text(str(limit))
            with suppress(OSError):
                (folder / swap).write_text("0")
        except OSError as fault:
            said = str(fault)
            folder.rmdir()
            continue
        try:
            yield MemoryLimit(folder)
        finally:
            folder.rmdir()
        return
    pytest.skip(f"no memory limit can be set here: {said}")
