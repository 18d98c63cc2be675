"""Reading many objects in parallel and handing them out in order, never more than a bound ahead of need."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING

from cellcount_core.stores.base import Absent, Denied

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

MAX_THREADS = 16


def in_order(
    get: Callable[[str], bytes], keys: Sequence[str], *, ahead: int
) -> Iterator[tuple[str, bytes | Absent | Denied]]:
    """`get` of each key, in the order of `keys`, on up to MAX_THREADS threads.

    At most `ahead` objects are in flight or waiting at any time. Absent and Denied become values; whatever else
    `get` raises is raised when that key's turn comes. Giving the iterator up waits for what is in flight alone.
    Raises ValueError for `ahead` below 1, at once.
    """
    if ahead < 1:
        raise ValueError(f"'ahead' must be 1 or more (got {ahead})")
    return _in_order(get, keys, ahead)


def _in_order(
    get: Callable[[str], bytes], keys: Sequence[str], ahead: int
) -> Iterator[tuple[str, bytes | Absent | Denied]]:
    if not keys:
        return
    pool = ThreadPoolExecutor(min(ahead, MAX_THREADS, len(keys)), thread_name_prefix="read-ahead")
    window: deque[Future[bytes | Absent | Denied]] = deque()
    upcoming = iter(keys)
    try:
        for first in islice(upcoming, ahead):
            window.append(pool.submit(_outcome, get, first))
        for key in keys:
            outcome = window.popleft().result()
            for following in islice(upcoming, 1):
                window.append(pool.submit(_outcome, get, following))
            yield key, outcome
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _outcome(get: Callable[[str], bytes], key: str) -> bytes | Absent | Denied:
    try:
        return get(key)
    except (Absent, Denied) as missing:
        return missing
