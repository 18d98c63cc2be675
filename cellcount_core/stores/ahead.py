"""Reading many objects in parallel and handing them out in order, never more than a bound ahead of need."""

from __future__ import annotations

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
    """`get` of each key, in the order of `keys`, on up to MAX_THREADS threads.

    At most `ahead` objects are in flight or waiting at any time. Absent and Denied become values; whatever else
    `get` raises is raised when that key's turn comes. Giving the iterator up waits for what is in flight alone.
    Raises ValueError for `ahead` below 1, at once.
    """

    def outcome(key: str) -> tuple[str, bytes | Absent | Denied]:
        try:
            return key, get(key)
        except (Absent, Denied) as missing:
            return key, missing

    return each_in_order(outcome, keys, ahead=ahead)


def each_in_order(get: Callable[[Item], Got], items: Sequence[Item], *, ahead: int) -> Iterator[Got]:
    """`get` of each item, in order, bounded as `in_order` is. What `get` raises is raised when that item's turn comes."""
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
