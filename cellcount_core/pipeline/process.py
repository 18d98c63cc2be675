"""What a process that counts sets up once: its threads, and how it keeps memory."""

from __future__ import annotations

import ctypes
import os

import cv2

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
