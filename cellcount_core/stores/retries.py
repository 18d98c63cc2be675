"""How often this process asked a store again: what a metric tells, and nothing depends on."""

from __future__ import annotations

import threading

_LOCK = threading.Lock()
_SEEN = {"retries": 0}


def note_retry() -> None:
    """A request is asked again after a fault that passes."""
    with _LOCK:
        _SEEN["retries"] += 1


def take_retries() -> int:
    """Requests asked again since the last call. Those that an S3 client makes within a listing are not among them."""
    with _LOCK:
        found, _SEEN["retries"] = _SEEN["retries"], 0
    return found
