"""Stores made of something else: one object shown as a store of its own, and a store whose operations are counted."""

from __future__ import annotations

import builtins
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from cellcount_core.domain.errors import OutputFault
from cellcount_core.stores.base import Absent, Created, Denied, Listed, Piece, Store, checked_range
from cellcount_core.stores.requests import in_order


class SingleFile:
    """A read-only store that lists one object, with this key and body.

    Any other key is read from `beside`, the store that the file comes from, so that the other files of an
    OME set are found. Without `beside` any other key is Absent.
    """

    def __init__(self, key: str, body: bytes, url: str = "", beside: Store | None = None) -> None:
        self._key = key
        self._body = body
        self._url = url
        self._beside = beside

    @property
    def url(self) -> str:
        """See `base.Store.url`."""
        return self._url

    def list(self, prefix: str = "") -> Iterator[list[Listed]]:
        """See `base.Store.list`. Lists the one object."""
        if not prefix or self._key.startswith(f"{prefix.rstrip('/')}/"):
            yield [Listed(self._key, len(self._body), f"{len(self._body):x}")]

    def get(self, key: str) -> bytes:
        """See `base.Store.get`."""
        if key == self._key:
            return self._body
        if self._beside is None:
            raise Absent(key)
        return self._beside.get(key)

    def get_many(self, keys: Sequence[str], *, ahead: int) -> Iterator[tuple[str, bytes | Absent | Denied]]:
        """See `base.Store.get_many`."""
        return in_order(self.get, keys, ahead=ahead)

    def get_range(self, key: str, start: int, stop: int) -> Piece:
        """See `base.Store.get_range`."""
        if key != self._key and self._beside is not None:
            return self._beside.get_range(key, start, stop)
        checked_range(start, stop)
        body = self.get(key)
        return Piece(body[start:stop], len(body), f"{len(body):x}")

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]], *, ahead: int) -> Iterator[Piece]:
        """See `base.Store.get_ranges`."""
        if key != self._key and self._beside is not None:
            yield from self._beside.get_ranges(key, ranges, ahead=ahead)
            return
        for start, stop in ranges:
            yield self.get_range(key, start, stop)

    def size_of(self, key: str) -> int | None:
        """See `base.Store.size_of`."""
        if key == self._key:
            return len(self._body)
        return None if self._beside is None else self._beside.size_of(key)

    def put_new(self, key: str, body: bytes) -> Created:
        """Raises OutputFault, because this store is read-only."""
        raise self._refused(key)

    def put(self, key: str, body: bytes) -> None:
        """Raises OutputFault, because this store is read-only."""
        raise self._refused(key)

    def delete(self, key: str) -> None:
        """Raises OutputFault, because this store is read-only."""
        raise self._refused(key)

    def _refused(self, key: str) -> OutputFault:
        return OutputFault(f"{self._url or self._key}: {key} cannot be written, a single file is read here")


@dataclass(frozen=True, slots=True)
class Counts:
    """How often each operation was called: listings, reads of whole objects and of byte ranges, writes of
    both kinds, deletes, and look-ups of a size.
    """

    lists: int = 0
    gets: int = 0
    puts: int = 0
    deletes: int = 0
    sizes: int = 0
    ranges: int = 0


@dataclass(slots=True)
class CountingStore:
    """Passes every call on to `store` and counts it; tests use it to prove how many operations a run needs.

    `counts` may be read at any time, from any thread. `get_many` and `get_ranges` count each object or
    range when it is yielded. `read` holds how often each object was read, whole or in part.
    """

    store: Store
    read: Counter[str] = field(default_factory=Counter, init=False, repr=False)
    _tally: dict[str, int] = field(default_factory=dict, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    @property
    def counts(self) -> Counts:
        """The number of operations since the store was wrapped."""
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
