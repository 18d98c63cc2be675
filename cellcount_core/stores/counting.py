"""A store that counts what is asked of it, for the tests that prove the formula of operations."""

from __future__ import annotations

import builtins
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from cellcount_core.stores.base import Absent, Created, Denied, Listed, Piece, Store


@dataclass(frozen=True, slots=True)
class Counts:
    """Operations asked for: listings, reads of whole objects and of ranges, writes of both kinds, deletes, look-ups of a size."""

    lists: int = 0
    gets: int = 0
    puts: int = 0
    deletes: int = 0
    sizes: int = 0
    ranges: int = 0


@dataclass(slots=True)
class CountingStore:
    """`store`, counted. `counts` is consistent at any time; get_many and get_ranges count each object or range as it is handed
    over. `read` is how often each object was read, whole or in part."""

    store: Store
    read: Counter[str] = field(default_factory=Counter, init=False, repr=False)
    _tally: dict[str, int] = field(default_factory=dict, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    @property
    def counts(self) -> Counts:
        """The operations since the store was wrapped."""
        with self._lock:
            return Counts(**self._tally)

    @property
    def url(self) -> str:
        """See `base.Store.url`."""
        return self.store.url

    def list(self, prefix: str = "") -> Iterator[builtins.list[Listed]]:
        """See `base.Store.list`."""
        self._add("lists")
        return self.store.list(prefix)

    def get(self, key: str) -> bytes:
        """See `base.Store.get`."""
        self._add("gets", key)
        return self.store.get(key)

    def get_many(self, keys: Sequence[str], *, ahead: int) -> Iterator[tuple[str, bytes | Absent | Denied]]:
        """See `base.Store.get_many`."""
        for pair in self.store.get_many(keys, ahead=ahead):
            self._add("gets", pair[0])
            yield pair

    def get_range(self, key: str, start: int, stop: int) -> Piece:
        """See `base.Store.get_range`."""
        self._add("ranges", key)
        return self.store.get_range(key, start, stop)

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]], *, ahead: int) -> Iterator[Piece]:
        """See `base.Store.get_ranges`."""
        for piece in self.store.get_ranges(key, ranges, ahead=ahead):
            self._add("ranges", key)
            yield piece

    def put_new(self, key: str, body: bytes) -> Created:
        """See `base.Store.put_new`."""
        self._add("puts")
        return self.store.put_new(key, body)

    def put(self, key: str, body: bytes) -> None:
        """See `base.Store.put`."""
        self._add("puts")
        self.store.put(key, body)

    def delete(self, key: str) -> None:
        """See `base.Store.delete`."""
        self._add("deletes")
        self.store.delete(key)

    def size_of(self, key: str) -> int | None:
        """See `base.Store.size_of`."""
        self._add("sizes")
        return self.store.size_of(key)

    def _add(self, operation: str, key: str = "") -> None:
        with self._lock:
            self._tally[operation] = self._tally.get(operation, 0) + 1
            if key:
                self.read[key] += 1
