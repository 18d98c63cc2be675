"""One object as a store of its own: bytes in memory, or one file of another store, whatever else lies there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cellcount_core.domain.errors import OutputFault
from cellcount_core.stores.ahead import in_order
from cellcount_core.stores.base import Absent, Created, Denied, Listed, Piece, Store, checked_range


class SingleFile:
    """A store that lists one object, of this key and body; it is read, never written.

    Other keys are asked of `beside`, the store that the file comes from, so that the files an OME set is spread over are found.
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
        """See `base.Store.list`: the one object."""
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
        """Raises OutputFault: nothing is written here."""
        raise self._refused(key)

    def put(self, key: str, body: bytes) -> None:
        """Raises OutputFault: nothing is written here."""
        raise self._refused(key)

    def delete(self, key: str) -> None:
        """Raises OutputFault: nothing is written here."""
        raise self._refused(key)

    def _refused(self, key: str) -> OutputFault:
        return OutputFault(f"{self._url or self._key}: {key} cannot be written, a single file is read here")
