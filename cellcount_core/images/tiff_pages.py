"""The pages of a TIFF: each is checked before tifffile decodes it, and found by its place in an array or by OME-XML.

tifffile ends a broken chain of pages early without an error, gives zeros for strips that are not in the file, and crops a larger image
within a strip to the page's size. Such a file would be counted, so it is refused here: the chain of page directories must be whole,
and every strip or tile must have been written, lie within the file, and hold an image of the size its page gives.

`PageFile` is one file, `Stack` its pages in the order of an array, and `OmePlanes` the pages that OME-XML names, in this file and in
the others of its set.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from typing import NamedTuple

import numpy as np
import tifffile

from cellcount_core.domain.errors import CellcountError, FieldFault, Reason
from cellcount_core.images.imagefile import Axes, Beside, Plane
from cellcount_core.images.ome import Place, PlaneMap, read_ome
from cellcount_core.images.png_jpeg import decode_jpeg, read_jpeg_frame
from cellcount_core.images.reader import Reader, Span, Whole

_CLASSIC = {b"II*\x00": "<", b"MM\x00*": ">"}
_BIG = {b"II+\x00": "<", b"MM\x00+": ">"}
_MOST_PAGES = 100_000
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}  # fmt: skip
"""Bytes of one value of each field type (TIFF 6.0 section 2, BigTIFF)."""
_FIRST_PRIVATE_TAG = 32768


class _Widths(NamedTuple):
    """The layout of a TIFF or BigTIFF directory: byte order, struct formats of an entry count and of an offset, bytes
    of an entry, and the place of the first directory's offset (TIFF 6.0 section 2, BigTIFF)."""

    order: str
    entries: str
    offset: str
    entry: int
    first: int


def opens(head: bytes) -> bool:
    """Whether a file begins like a TIFF or BigTIFF, of either byte order."""
    return head[:4] in _CLASSIC or head[:4] in _BIG


def _check_chain(reader: Reader, key: str) -> int:
    """Follow the chain of page directories and return the number of pages.

    Raises FieldFault(TRUNCATED) if a directory lies beyond the end of the file or the header names no page,
    FieldFault(UNREADABLE) for a loop or more than 100,000 pages.
    """
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
    """Values that are too long for their directory entry must lie within the file: decoders silently do without those
    that do not."""
    entry = struct.Struct(f"{widths.order}HH{widths.offset}{widths.offset}")
    inline = struct.calcsize(widths.offset)
    for tag, kind, count, offset in entry.iter_unpack(reader.read(table, table + entries * widths.entry)):
        size = _TYPE_BYTES.get(kind, 0) * count
        if tag < _FIRST_PRIVATE_TAG and size > inline and offset + size > reader.size:
            detail = (
                f"tag {tag} of page {page} ends at byte {offset + size} and the file has {reader.size} bytes"
            )
            raise FieldFault(Reason.TRUNCATED, detail, key)


_NONE, _LERC = 1, 34887
_JPEG = 7
_JPEG_2000 = frozenset({33003, 33004, 33005, 34712})
_SIZ = b"\xff\x4f\xff\x51"
_BOX_OF_PIXELS = b"jp2c"


def check_encoding(page: tifffile.TiffPage, key: str) -> None:
    """Raises FieldFault(UNSUPPORTED) if strips or tiles are compressed as images of their own in a format other than
    JPEG and JPEG 2000, the two whose size can be read beforehand."""
    code = int(page.compression)
    own = code in tifffile.TIFF.IMAGE_COMPRESSIONS or code == _LERC
    if own and code != _JPEG and code not in _JPEG_2000:
        name = getattr(page.compression, "name", str(code))
        expected = "none, LZW, deflate, zstd, LZMA, PackBits, JPEG and JPEG 2000 are read"
        raise FieldFault(Reason.UNSUPPORTED, f"compression {name}; {expected}", key)


def _check_written(
    page: tifffile.TiffPage | tifffile.TiffFrame, keyframe: tifffile.TiffPage, key: str
) -> None:
    """The strips of an uncompressed page must hold as many bytes as its pixels need, and each strip must have a place
    in the file.

    Raises FieldFault(TRUNCATED).
    """
    if keyframe.compression != _NONE:
        return
    strips, places = len(page.databytecounts), len(page.dataoffsets)
    if places < strips:
        detail = f"the page has {strips} strips or tiles and names the place of {places}"
        raise FieldFault(Reason.TRUNCATED, detail, key)
    row = -(-keyframe.imagewidth * keyframe.bitspersample // 8)
    needed = row * keyframe.imagelength * keyframe.samplesperpixel
    there = sum(page.databytecounts)
    if there < needed:
        raise FieldFault(
            Reason.TRUNCATED, f"the page's strips hold {there} bytes and its pixels need {needed}", key
        )


def _check_segments(
    page: tifffile.TiffPage | tifffile.TiffFrame, keyframe: tifffile.TiffPage, size: int, key: str
) -> list[Span]:
    """Where the strips or tiles of a page stand in a file of `size` bytes. Raises FieldFault(TRUNCATED) if one is
    missing or ends beyond the file."""
    offsets, counts = page.dataoffsets, page.databytecounts
    needed = prod(keyframe.chunked)
    if min(len(offsets), len(counts)) < needed:
        detail = f"the page needs {needed} strips or tiles and has {min(len(offsets), len(counts))}"
        raise FieldFault(Reason.TRUNCATED, detail, key)
    spans: list[Span] = []
    for number in range(needed):
        offset, count = offsets[number], counts[number]
        if offset <= 0 or count <= 0:
            raise FieldFault(Reason.TRUNCATED, f"strip or tile {number} of {needed} was never written", key)
        if offset + count > size:
            detail = f"strip or tile {number} of {needed} ends at byte {offset + count} and the file has {size} bytes"
            raise FieldFault(Reason.TRUNCATED, detail, key)
        spans.append((offset, offset + count))
    return spans


def _check_images(spans: list[Span], keyframe: tifffile.TiffPage, reader: Reader, key: str) -> None:
    """Strips or tiles that are JPEG or JPEG 2000 images must have the size that their page gives them.

    Raises FieldFault(UNREADABLE) or FieldFault(TRUNCATED).
    """
    code = int(keyframe.compression)
    if code != _JPEG and code not in _JPEG_2000:
        return
    for number, span in enumerate(spans):
        segment = bytes(reader.read(*span))
        if code == _JPEG:
            _check_jpeg(segment, keyframe, number, key)
        else:
            _check_size(*_size_of_jpeg_2000(segment, number, key), keyframe, number, key)


def _check_jpeg(segment: bytes, keyframe: tifffile.TiffPage, number: int, key: str) -> None:
    tables = keyframe.jpegtables
    whole = tables[:-2] + segment[2:] if tables else segment
    frame = read_jpeg_frame(whole, key)
    _check_size(frame.height, frame.width, keyframe, number, key)
    if frame.bits == 8 and frame.components in (1, 3):
        decode_jpeg(whole, frame, key)


def _size_of_jpeg_2000(segment: bytes, number: int, key: str) -> tuple[int, int]:
    """(height, width) from the SIZ segment of a JPEG 2000 codestream (ISO 15444-1, annex A.5.1), bare or within the
    boxes of a JP2 file (annex I)."""
    at = 0
    while segment[at : at + 4] != _SIZ:
        length, kind = int.from_bytes(segment[at : at + 4], "big"), segment[at + 4 : at + 8]
        header = 16 if length == 1 else 8
        if length == 1:
            length = int.from_bytes(segment[at + 8 : at + 16], "big")
        if kind != _BOX_OF_PIXELS and length < header:
            raise FieldFault(Reason.UNREADABLE, f"strip or tile {number} is no JPEG 2000", key)
        at += header if kind == _BOX_OF_PIXELS else length
    right, bottom, left, top = (
        int.from_bytes(segment[at + 8 + 4 * n : at + 12 + 4 * n], "big") for n in range(4)
    )
    return bottom - top, right - left


def _check_size(height: int, width: int, keyframe: tifffile.TiffPage, number: int, key: str) -> None:
    rows = keyframe.tilelength if keyframe.is_tiled else min(keyframe.rowsperstrip, keyframe.imagelength)
    columns = keyframe.tilewidth if keyframe.is_tiled else keyframe.imagewidth
    if not (0 < height <= rows and 0 < width <= columns):
        detail = f"strip or tile {number} holds an image of {width} x {height} px where {columns} x {rows} are expected"
        raise FieldFault(Reason.UNREADABLE, detail, key)


_HEADER_BYTES = 8

# What tifffile and imagecodecs raise on damaged bytes (their own errors derive from ValueError and RuntimeError). Not
# MemoryError: sizes are checked before anything is allocated, so that one says something about the machine.
_DECODER_FAULTS = (
    ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError, AssertionError, OSError, EOFError,
    SyntaxError, struct.error,
)  # fmt: skip


@contextmanager
def translated(key: str) -> Iterator[None]:
    """Turn what decoders raise on damaged bytes into FieldFault(UNREADABLE). Faults of a store that fails meanwhile
    pass unchanged."""
    try:
        yield
    except CellcountError:
        raise
    except _DECODER_FAULTS as error:
        detail = f"the TIFF is damaged or uses what tifffile cannot decode: {str(error)[:200] or type(error).__name__}"
        raise FieldFault(Reason.UNREADABLE, detail, key) from error


class PageFile:
    """One TIFF file, opened: its headers are read. Pages are checked and decoded one at a time.

    Raises FieldFault(TRUNCATED) or FieldFault(UNREADABLE) if the headers are damaged.
    """

    def __init__(self, reader: Reader, key: str) -> None:
        _check_chain(reader, key)
        # tifffile logs every oddity of a file; each that matters here becomes a fault, and a plate has thousands of files.
        logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)
        self.reader, self.key = reader, key
        with translated(key):
            self.tif = tifffile.TiffFile(reader.stream())
            self.first = self.tif.pages.first

    def page(self, number: int, like: tifffile.TiffPage) -> Plane:
        """The pixels of page `number` (from 0). Raises FieldFault(WRONG_SHAPE) unless it has the shape and type of
        the page `like`, FieldFault(TRUNCATED) if there is no such page."""
        with translated(self.key):
            if number >= len(self.tif.pages):
                detail = (
                    f"the headers promise page {number} (from 0) and the file has {len(self.tif.pages)} pages"
                )
                raise FieldFault(Reason.TRUNCATED, detail, self.key)
            page = self.tif.pages[number]
            if not isinstance(page, tifffile.TiffPage) or (page.shape, page.dtype) != (
                like.shape,
                like.dtype,
            ):
                detail = f"page {number} is {page.shape} {page.dtype} and the image's are {like.shape} {like.dtype}"
                raise FieldFault(Reason.WRONG_SHAPE, detail, self.key)
            check_encoding(page, self.key)
            return self.decode(page, page)

    def decode(self, page: tifffile.TiffPage | tifffile.TiffFrame, keyframe: tifffile.TiffPage) -> Plane:
        """The pixels of a page, in the shape of `keyframe`."""
        _check_written(page, keyframe, self.key)
        if keyframe.is_final:
            return self.raw(page.dataoffsets[0], keyframe)
        spans = _check_segments(page, keyframe, self.reader.size, self.key)
        with self.reader.holding(spans):
            _check_images(spans, keyframe, self.reader, self.key)
            return np.asarray(page.asarray(maxworkers=1)).reshape(keyframe.shape)

    def raw(self, offset: int, keyframe: tifffile.TiffPage) -> Plane:
        """The uncompressed pixels of a page that stand at byte `offset`: a view, nothing is copied."""
        if offset < _HEADER_BYTES:
            raise FieldFault(
                Reason.UNREADABLE, f"a plane stands at byte {offset}, in the file's header", self.key
            )
        if offset + keyframe.nbytes > self.reader.size:
            needed = f"a plane needs bytes {offset} to {offset + keyframe.nbytes}"
            raise FieldFault(
                Reason.TRUNCATED, f"the file has {self.reader.size} bytes and {needed}", self.key
            )
        dtype = np.dtype(keyframe.dtype).newbyteorder(keyframe.parent.byteorder)
        body = self.reader.read(offset, offset + keyframe.nbytes)
        return np.frombuffer(body, dtype, prod(keyframe.shape)).reshape(keyframe.shape)


class Stack:
    """The pages of one file, which together are an array with the axes `axes`.

    `apart` is the number of channels that lie in blocks of their own, `channels` the numbers of those that this file
    holds (all of them).
    """

    def __init__(self, file: PageFile, series: tifffile.TiffPageSeries, axes: Axes) -> None:
        self.keyframe, self.axes = series.keyframe, axes
        self.planes, self.images = axes.size("Z"), axes.images
        self.apart = 1 if {"C", "S"} & set(axes.inside) else axes.size("C")
        self.channels: Sequence[int] = range(self.apart)
        self._file, self._series = file, series

    def block(self, channel: int, plane: int, index: int) -> Plane:
        """The block that holds a plane (see `Axes`). A block may be part of a page, or several pages."""
        size, page = prod(self.axes.block), prod(self.keyframe.shape)
        start = self.axes.number(channel, plane, index) * size
        first, last = start // page, (start + size - 1) // page
        with translated(self._file.key):
            if first == last and size == page:
                return self._page(first)
            flat = np.concatenate([self._page(number).ravel() for number in range(first, last + 1)])
        return flat[start - first * page :][:size]

    def _page(self, number: int) -> Plane:
        if (offset := self._series.dataoffset) is not None:
            _check_written(self.keyframe, self.keyframe, self._file.key)
            # One run of raw planes (also of ImageJ stacks, of which only the first has a page).
            return self._file.raw(offset + number * self.keyframe.nbytes, self.keyframe)
        page = self._series[number] if number < len(self._series) else None
        if page is None:
            detail = f"the headers promise page {number} (from 0) and it is not in the file"
            raise FieldFault(Reason.TRUNCATED, detail, self._file.key)
        return self._file.decode(page, self.keyframe)

    def own(self, channel: int, index: int) -> tuple[int, ...]:
        """The z planes of a channel that lie in this file: all."""
        return tuple(range(self.axes.size("Z")))


class OmePlanes:
    """The pages that the TiffData elements of OME-XML name, in this file and in the others of its set.

    `roles` says what the XML's C, Z and T stand for. The image has `apart` channels, of which this file holds those
    with the numbers `channels`.
    """

    def __init__(
        self, file: PageFile, plan: PlaneMap, roles: Mapping[str, str], beside: Beside, key: str
    ) -> None:
        self.keyframe, self.plan = file.first, plan
        self._file, self._beside, self._roles, self._key = file, beside, roles, key
        self._others: dict[str, PageFile] = {}
        self.held = [{roles[axis]: at for axis, at in zip("CZT", each, strict=True)} for each in plan.held()]
        self._times = sorted({at["T"] for at in self.held})
        sizes = {roles[axis]: plan.sizes[axis] for axis in "CZT"}
        self.planes, self.images, self.apart = sizes["Z"], len(self._times), sizes["C"]
        self.channels: Sequence[int] = sorted({at["C"] for at in self.held})

    def own(self, channel: int, index: int) -> tuple[int, ...]:
        """The z planes of a channel that lie in this file."""
        held = (at for at in self.held if (at["C"], at["T"]) == (channel, self._times[index]))
        return tuple(sorted(at["Z"] for at in held))

    def block(self, channel: int, plane: int, index: int) -> Plane:
        """The page of a plane, in whichever file it lies.

        Raises FieldFault(TRUNCATED) if the XML names no page for it, FieldFault(ABSENT) if the other file is not
        there, and FieldFault(WRONG_SHAPE) if that file has another UUID.
        """
        place = self.place(channel, plane, index)
        if place is None:
            detail = f"the OME-XML names no page for plane {plane + 1} of channel number {channel} (from 0)"
            raise FieldFault(Reason.TRUNCATED, detail, self._key)
        return (self._other(place) if place.file else self._file).page(place.ifd, self.keyframe)

    def place(self, channel: int, plane: int, index: int) -> Place | None:
        """Where a plane lies; None if the XML does not say."""
        at = {"C": channel, "Z": plane, "T": self._times[index]}
        return self.plan.place((at[self._roles["C"]], at[self._roles["Z"]], at[self._roles["T"]]))

    def _other(self, place: Place) -> PageFile:
        if place.file not in self._others:
            body = self._beside(place.file)
            if body is None:
                detail = f"a plane of its image lies in {place.file}, which is not beside it"
                raise FieldFault(Reason.ABSENT, detail, self._key)
            if not opens(body):
                detail = f"a plane of its image lies in {place.file}, which is no TIFF"
                raise FieldFault(Reason.UNREADABLE, detail, self._key)
            other = PageFile(Whole(body), f"{self._key.rpartition('/')[0]}/{place.file}".lstrip("/"))
            ome = (
                read_ome(str(other.first.description or ""), len(other.tif.pages), other.key)
                if other.tif.is_ome
                else None
            )
            if ome is not None and ome.uuid and place.uuid and ome.uuid != place.uuid:
                detail = f"{place.file} has the UUID {ome.uuid}, and the file of the set that has its name {place.uuid}"
                raise FieldFault(Reason.WRONG_SHAPE, detail, self._key)
            self._others[place.file] = other
        return self._others[place.file]
