"""Python runs this at the start of every process that has its folder on PYTHONPATH. It brings three faults into cellcount:

- A TIFF file that holds MARK ends the process that opens it with a SIGSEGV out of native code, as a bug of a codec would.
- The wall clock is off by as many seconds as the file named in CLOCK says at that moment (8 bytes, a signed integer);
  the clocks that only run forward (`time.monotonic`, `time.perf_counter`) are left alone, as by a machine whose clock is set.
- A process kills itself when it is about to give a file the name that KILL_AT ends with, by a link or a rename.
"""

from __future__ import annotations

import ctypes
import importlib.machinery
import mmap
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TypeVar

MARK = b"this file crashes the decoder"
CLOCK = "CELLCOUNT_DRILL_CLOCK"
KILL_AT = "CELLCOUNT_DRILL_KILL_AT"
_OFFSET_BYTES = 8

Told = TypeVar("Told")


def offset_bytes(seconds: int) -> bytes:
    """What the file of CLOCK holds for a clock that is off by so many seconds."""
    return seconds.to_bytes(_OFFSET_BYTES, "little", signed=True)


class _Tifffile(importlib.machinery.PathFinder):
    """Finds tifffile as always, and puts the fault in once it is loaded."""

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "tifffile":
            return None
        spec = super().find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _Sabotaged(spec.loader.name, spec.loader.path)
        return spec


class _Sabotaged(importlib.machinery.SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        opens = module.TiffFile

        def opens_or_crashes(stream: object, *more: object, **named: object) -> object:
            if MARK in stream.getbuffer().tobytes():
                ctypes.string_at(0)
            return opens(stream, *more, **named)

        module.TiffFile = opens_or_crashes


def _shift_clock(path: str) -> None:
    with Path(path).open("rb") as file:
        offset = mmap.mmap(file.fileno(), _OFFSET_BYTES, prot=mmap.PROT_READ)
    now, now_ns, strftime = time.time, time.time_ns, time.strftime

    def seconds() -> int:
        return int.from_bytes(offset[:_OFFSET_BYTES], "little", signed=True)

    def of_now(broken_down: Callable[[float], Told]) -> Callable[[float | None], Told]:
        return lambda when=None: broken_down(time.time() if when is None else when)

    time.time = lambda: now() + seconds()
    time.time_ns = lambda: now_ns() + seconds() * 10**9
    time.gmtime, time.localtime, time.ctime = map(of_now, (time.gmtime, time.localtime, time.ctime))
    time.strftime = lambda form, when=None: strftime(form, time.localtime() if when is None else when)


def _kill_at(name: str) -> None:
    def hook(event: str, given: tuple[object, ...]) -> None:
        if event in ("os.link", "os.rename") and str(given[1]).endswith(name):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


sys.meta_path.insert(0, _Tifffile())
if _named := os.environ.get(CLOCK):
    _shift_clock(_named)
if _named := os.environ.get(KILL_AT):
    _kill_at(_named)
