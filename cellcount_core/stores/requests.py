"""How requests to a store are made: many reads in parallel, returned in order and never too far ahead, and a
count of the requests that had to be repeated.
"""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from cellcount_core.stores.base import Absent, Denied

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


Item = TypeVar("Item")
Got = TypeVar("Got")

MAX_THREADS = 16


def in_order(
    get: Callable[[str], bytes], keys: Sequence[str], *, ahead: int
) -> Iterator[tuple[str, bytes | Absent | Denied]]:
    """Read `keys` with `get` on up to MAX_THREADS threads, and yield (key, result) in the order of `keys`.

    At most `ahead` objects are being read or waiting to be taken at any time. Absent and Denied are
    yielded as values; any other exception of `get` is raised when its key's turn comes. If the iterator is
    abandoned, only reads that already began are waited for.

    Raises ValueError at once if `ahead` is below 1.
    """

    def outcome(key: str) -> tuple[str, bytes | Absent | Denied]:
        try:
            return key, get(key)
        except (Absent, Denied) as missing:
            return key, missing

    return each_in_order(outcome, keys, ahead=ahead)


def each_in_order(get: Callable[[Item], Got], items: Sequence[Item], *, ahead: int) -> Iterator[Got]:
    """Call `get` on each item in parallel and yield the results in order, bounded as in `in_order`.

    An exception of `get` is raised when its item's turn comes. Raises ValueError at once if `ahead` is
    below 1.
    """
    if ahead < 1:
        raise ValueError(f"'ahead' must be 1 or more (got {ahead})")
    return _in_order(get, items, ahead)


def _in_order(get: Callable[[Item], Got], items: Sequence[Item], ahead: int) -> Iterator[Got]:
    if not items:
        return
    pool = ThreadPoolExecutor(min(ahead, MAX_THREADS, len(items)), thread_name_prefix="read-ahead")
    window: deque[Future[Got]] = deque()
    upcoming = iter(items)
    try:
        for first in islice(upcoming, ahead):
            window.append(pool.submit(get, first))
        for _ in items:
            got = window.popleft().result()
            for following in islice(upcoming, 1):
                window.append(pool.submit(get, following))
            yield got
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_LOCK = threading.Lock()
_SEEN = {"retries": 0}


def note_retry() -> None:
    """Count one request that is repeated after a temporary fault."""
    with _LOCK:
        _SEEN["retries"] += 1


def take_retries() -> int:
    """Return how many requests this process repeated since the last call, and start again at 0.

    The number feeds a metric and nothing else. Retries that an S3 client makes by itself during a listing
    are not included.
    """
    with _LOCK:
        found, _SEEN["retries"] = _SEEN["retries"], 0
    return found
