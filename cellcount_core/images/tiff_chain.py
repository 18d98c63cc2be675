"""The skeleton of a TIFF: is its chain of page directories whole? Decoders end a broken chain early and say nothing."""

from __future__ import annotations

import struct
from typing import NamedTuple

from cellcount_core.domain.errors import FieldFault, Reason
from cellcount_core.images.reader import Reader

_CLASSIC = {b"II*\x00": "<", b"MM\x00*": ">"}
_BIG = {b"II+\x00": "<", b"MM\x00+": ">"}
_MOST_PAGES = 100_000
_TYPE_BYTES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
_FIRST_PRIVATE_TAG = 32768


class _Widths(NamedTuple):
    """struct formats of an entry count and an offset, and the bytes of an entry: TIFF 6.0 section 2, BigTIFF."""

    order: str
    entries: str
    offset: str
    entry: int
    first: int


def opens(head: bytes) -> bool:
    """Whether the first bytes are those of a TIFF or BigTIFF of either byte order."""
    return head[:4] in _CLASSIC or head[:4] in _BIG


def check_chain(reader: Reader, key: str) -> int:
    """Number of pages. Raises FieldFault TRUNCATED where a directory lies beyond the end of the file, UNREADABLE for a loop."""
    widths = _widths(bytes(reader.read(0, 4)))
    if reader.size < widths.first + struct.calcsize(widths.offset):
        raise FieldFault(Reason.TRUNCATED, f"the TIFF ends after {reader.size} bytes, inside its header", key)
    at = _number(reader, widths.first, widths.order + widths.offset)
    if at == 0:
        raise FieldFault(Reason.TRUNCATED, "the TIFF was never finished: its header names no page", key)
    seen: set[int] = set()
    while at:
        if at in seen:
            raise FieldFault(
                Reason.UNREADABLE, f"the TIFF's page {len(seen)} leads back to one before it", key
            )
        if len(seen) == _MOST_PAGES:
            detail = f"the TIFF has more than {_MOST_PAGES:,} pages, which no microscope writes"
            raise FieldFault(Reason.UNREADABLE, detail, key)
        seen.add(at)
        at = _next(reader, at, widths, len(seen) - 1, key)
    return len(seen)


def _number(reader: Reader, at: int, form: str) -> int:
    (number,) = struct.unpack(form, reader.read(at, at + struct.calcsize(form)))
    return int(number)


def _widths(magic: bytes) -> _Widths:
    if magic in _CLASSIC:
        return _Widths(_CLASSIC[magic], "H", "I", 12, 4)
    return _Widths(_BIG[magic], "Q", "Q", 20, 8)


def _next(reader: Reader, at: int, widths: _Widths, page: int, key: str) -> int:
    table = at + struct.calcsize(widths.entries)
    if table <= reader.size:
        entries = _number(reader, at, widths.order + widths.entries)
        end = table + entries * widths.entry
        if end + struct.calcsize(widths.offset) <= reader.size:
            _check_values(reader, table, entries, widths, page, key)
            return _number(reader, end, widths.order + widths.offset)
    detail = f"the directory of page {page} stands at byte {at} and the file has {reader.size} bytes"
    raise FieldFault(Reason.TRUNCATED, detail, key)


def _check_values(reader: Reader, table: int, entries: int, widths: _Widths, page: int, key: str) -> None:
    """Values too long for their entry must lie within the file: decoders do without those that do not."""
    entry = struct.Struct(f"{widths.order}HH{widths.offset}{widths.offset}")
    inline = struct.calcsize(widths.offset)
    for tag, kind, count, offset in entry.iter_unpack(reader.read(table, table + entries * widths.entry)):
        size = _TYPE_BYTES.get(kind, 0) * count
        if tag < _FIRST_PRIVATE_TAG and size > inline and offset + size > reader.size:
            detail = (
                f"tag {tag} of page {page} ends at byte {offset + size} and the file has {reader.size} bytes"
            )
            raise FieldFault(Reason.TRUNCATED, detail, key)
