"""The bytes of one stored object, held in memory whole or read in parts as they are needed.

Formats that keep their pixels in pieces (pages of a TIFF, shards of a Zarr array) are opened on a `Reader`. Of a
large object only the headers and the pieces that are counted are read; a small one is read whole, in one request.
"""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol

from cellcount_core.domain.errors import FieldFault, Reason
from cellcount_core.stores.base import Absent, Denied, Store

WHOLE_LIMIT = 64 << 20
"""Bytes. Objects up to this size are read whole, in one request, ahead of need. Of a larger one, at most this much is
held between two reads."""

Span = tuple[int, int]
"""The first byte, and the one after the last."""

_BLOCK = 16 << 10
"""Bytes. Headers are read in blocks of this size: a page directory and its values fit into one."""

_MOST_BLOCKS = (WHOLE_LIMIT // 2) // _BLOCK
_LONGEST = 8 << 20
"""Bytes. Longer spans are split into parts that are read in parallel."""

_GAP = 64 << 10
"""Bytes. If two spans are closer than this, the bytes between them are read too, to save a request."""

_AHEAD = 4
"""Parts that are read in parallel."""


class Reader(Protocol):
    """The bytes of one stored object."""

    @property
    def size(self) -> int:
        """Bytes of the whole object."""
        ...

    def read(self, start: int, stop: int) -> bytes | memoryview:
        """The bytes from `start` up to, not including, `stop`; fewer if the object ends before. What is in memory is
        not copied.

        Raises FieldFault(ABSENT), FieldFault(ACCESS_DENIED), or FieldFault(CHANGED) if the object is no longer the
        one that was planned.
        """
        ...

    def holding(self, spans: Sequence[Span]) -> AbstractContextManager[None]:
        """A context in which reads within `spans` are answered from memory. The spans are fetched on entry, in
        parallel."""
        ...

    def whole(self) -> bytes:
        """All bytes. Raises what `read` raises."""
        ...

    def stream(self) -> io.IOBase:
        """A seekable binary file over the bytes, for libraries that need one."""
        ...


@dataclass(frozen=True, slots=True)
class Whole:
    """An object that is in memory whole."""

    body: bytes

    @property
    def size(self) -> int:
        """See `Reader.size`."""
        return len(self.body)

    def read(self, start: int, stop: int) -> memoryview:
        """See `Reader.read`."""
        return memoryview(self.body)[start:stop]

    def holding(self, spans: Sequence[Span]) -> AbstractContextManager[None]:
        """See `Reader.holding`."""
        return nullcontext()

    def whole(self) -> bytes:
        """See `Reader.whole`."""
        return self.body

    def stream(self) -> io.IOBase:
        """See `Reader.stream`."""
        return io.BytesIO(self.body)


class Ranged:
    """The object `key` of `size` bytes in a store, read in ranges. Thread-safe.

    All ranges must come from the same version of the object, with the size that was planned, so that bytes of two
    versions are never mixed. `bytes_read` is the number of bytes fetched so far.
    """

    def __init__(self, store: Store, key: str, size: int) -> None:
        self.size = size
        self.bytes_read = 0
        self._store, self._key = store, key
        self._tag = ""
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._held: list[tuple[int, bytes]] = []
        self._lock = threading.RLock()

    def read(self, start: int, stop: int) -> bytes | memoryview:
        """See `Reader.read`. Short reads come from blocks that are kept in memory; long ones are not kept."""
        start, stop = max(0, start), min(stop, self.size)
        if start >= stop:
            return b""
        with self._lock:
            for at, body in self._held:
                if at <= start and stop <= at + len(body):
                    return memoryview(body)[start - at : stop - at]
            if stop - start > _BLOCK:
                return b"".join(self._fetch(_cut(start, stop)))
            return self._from_blocks(start, stop)

    @contextmanager
    def holding(self, spans: Sequence[Span]) -> Iterator[None]:
        """See `Reader.holding`. Spans that lie close together are fetched as one."""
        with self._lock:
            joined = coalesced([(start, min(stop, self.size)) for start, stop in spans if start < self.size])
            pieces = [_cut(start, stop) for start, stop in joined]
            bodies = self._fetch([piece for cut in pieces for piece in cut])
            before = self._held
            self._held = [
                (start, b"".join(next(bodies) for _ in cut))
                for (start, _), cut in zip(joined, pieces, strict=True)
            ]
            try:
                yield
            finally:
                self._held = before

    def whole(self) -> bytes:
        """See `Reader.whole`."""
        return bytes(self.read(0, self.size))

    def stream(self) -> io.IOBase:
        """See `Reader.stream`."""
        return _Stream(self)

    def _from_blocks(self, start: int, stop: int) -> bytes:
        numbers = range(start // _BLOCK, (stop - 1) // _BLOCK + 1)
        missing = [number for number in numbers if number not in self._blocks]
        spans = [(number * _BLOCK, min((number + 1) * _BLOCK, self.size)) for number in missing]
        for number, body in zip(missing, self._fetch(spans), strict=True):
            self._blocks[number] = body
        blocks = []
        for number in numbers:
            self._blocks.move_to_end(number)
            blocks.append(self._blocks[number])
        while len(self._blocks) > _MOST_BLOCKS:
            self._blocks.popitem(last=False)
        first = numbers[0] * _BLOCK
        return b"".join(blocks)[start - first : stop - first]

    def _fetch(self, spans: Sequence[Span]) -> Iterator[bytes]:
        """The bytes of each of `spans`, in order. Raises FieldFault(CHANGED) if the object was replaced since
        planning or while reading."""
        try:
            for (start, stop), piece in zip(
                spans, self._store.get_ranges(self._key, spans, ahead=_AHEAD), strict=True
            ):
                self.bytes_read += len(piece.body)
                if piece.size != self.size:
                    detail = f"it had {self.size} bytes when the run was planned and has {piece.size} now"
                    raise FieldFault(Reason.CHANGED, detail, self._key)
                self._tag = self._tag or piece.etag
                if piece.etag != self._tag or len(piece.body) != stop - start:
                    raise FieldFault(Reason.CHANGED, "it was replaced while it was read", self._key)
                yield piece.body
        except (Absent, Denied) as missing:
            raise not_had(missing) from missing


class _Stream(io.BufferedIOBase):
    """A reader as a binary file. Reading into a buffer or an array is the base class's, by `read`."""

    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self._reader, self._at = reader, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._reader.size}[whence]
        if base + offset < 0:
            raise ValueError(f"byte {base + offset} lies before the file")
        self._at = base + offset
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        stop = self._reader.size if size is None or size < 0 else self._at + size
        body = bytes(self._reader.read(self._at, stop))
        self._at += len(body)
        return body


def not_had(missing: Absent | Denied) -> FieldFault:
    """The FieldFault for a planned object that cannot be read: ACCESS_DENIED if access is denied, otherwise ABSENT."""
    if isinstance(missing, Denied):
        return FieldFault(Reason.ACCESS_DENIED, missing.detail, missing.key)
    return FieldFault(Reason.ABSENT, "it was listed when the run was planned and is gone now", missing.key)


def coalesced(spans: Sequence[Span], gap: int = _GAP) -> list[Span]:
    """The spans in ascending order; spans less than `gap` bytes apart are joined.

    >>> coalesced([(500, 600), (0, 100), (110, 200)], gap=50)
    [(0, 200), (500, 600)]
    """
    joined: list[Span] = []
    for start, stop in sorted(spans):
        if joined and start - joined[-1][1] < gap:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        else:
            joined.append((start, stop))
    return joined


def _cut(start: int, stop: int) -> list[Span]:
    return [(at, min(at + _LONGEST, stop)) for at in range(start, stop, _LONGEST)]
