"""Strips and tiles of a TIFF: each was written, lies within the file, and holds no other image than its page's.

tifffile gives zeros for strips that are not there, and cuts a larger image within a strip to the page's size.
"""

from __future__ import annotations

from math import prod

import tifffile

from cellcount_core.domain.errors import FieldFault, Reason
from cellcount_core.images import jpeg
from cellcount_core.images.reader import Reader, Span

_NONE, _LERC = 1, 34887
_JPEG = 7
_JPEG_2000 = frozenset({33003, 33004, 33005, 34712})
_SIZ = b"\xff\x4f\xff\x51"
_BOX_OF_PIXELS = b"jp2c"


def check_encoding(page: tifffile.TiffPage, key: str) -> None:
    """Of the compressions that are images of their own, JPEG and JPEG 2000 are read: those whose size can be told beforehand.

    Raises FieldFault UNSUPPORTED.
    """
    code = int(page.compression)
    own = code in tifffile.TIFF.IMAGE_COMPRESSIONS or code == _LERC
    if own and code != _JPEG and code not in _JPEG_2000:
        name = getattr(page.compression, "name", str(code))
        expected = "none, LZW, deflate, zstd, LZMA, PackBits, JPEG and JPEG 2000 are read"
        raise FieldFault(Reason.UNSUPPORTED, f"compression {name}; {expected}", key)


def check_written(
    page: tifffile.TiffPage | tifffile.TiffFrame, keyframe: tifffile.TiffPage, key: str
) -> None:
    """Raw pixels: the strips must hold as many bytes as the image has, and each must have its place. Raises FieldFault TRUNCATED."""
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


def check_segments(
    page: tifffile.TiffPage | tifffile.TiffFrame, keyframe: tifffile.TiffPage, size: int, key: str
) -> list[Span]:
    """Where the strips or tiles that are needed stand in the file of `size` bytes: each is there. Raises FieldFault TRUNCATED."""
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


def check_images(spans: list[Span], keyframe: tifffile.TiffPage, reader: Reader, key: str) -> None:
    """Where strips or tiles are images of their own, each has the size its page gives it. Raises FieldFault UNREADABLE, TRUNCATED."""
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
    frame = jpeg.read_frame(whole, key)
    _check_size(frame.height, frame.width, keyframe, number, key)
    if frame.bits == 8 and frame.components in (1, 3):
        jpeg.decode(whole, frame, key)


def _size_of_jpeg_2000(segment: bytes, number: int, key: str) -> tuple[int, int]:
    """(height, width) from the codestream's SIZ (ISO 15444-1, annex A.5.1), in the file format's boxes (annex I) or bare."""
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
