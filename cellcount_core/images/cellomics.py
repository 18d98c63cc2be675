"""C01 and DIB files of Cellomics readers (ArrayScan, CellInsight, CX7): one grey image of 8 or 16 bits.

A C01 is four bytes (16, big-endian) and a zlib stream; unpacked, it is what a DIB file is: a BITMAPINFOHEADER of 40 bytes, 12 more bytes, and
the rows of pixels from byte 52, each filled up to four bytes or not. Rows are taken in the order in which they are stored, and the header's
pixels per metre as the size in the object plane, as Bio-Formats' CellomicsReader.java does (on the real file they are 1.29 µm, which a
binned camera behind a 10x objective has). A zlib stream ends with a checksum, so a damaged C01 is known; a DIB is checked by its length.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cellcount_core.domain.errors import FieldFault, Reason
from cellcount_core.domain.scales import LARGEST_UM_PER_PX, SMALLEST_UM_PER_PX
from cellcount_core.images.imagefile import (
    UNDECLARED,
    Beside,
    Declared,
    Plane,
    alone,
    channel_number,
    check_pixels,
    check_position,
)
from cellcount_core.images.pixels import countable
from cellcount_core.images.tiff_metadata import CALIBRATION_CONTRADICTORY, CALIBRATION_OUT_OF_RANGE

_C01, _ZLIB = b"\x00\x00\x00\x10", 0x78
_DIB = b"\x28\x00\x00\x00"
_HEADER = struct.Struct("<IiiHHIIiiII")
_PIXELS_AT = 52
_DTYPES = {8: "u1", 16: "<u2"}
_ALIKE = 0.01


class _Header(NamedTuple):
    """Size in px, bits of a pixel, and pixels per metre along x and y (0 if they are not given)."""

    height: int
    width: int
    bits: int
    per_metre: tuple[int, int]

    @property
    def row(self) -> int:
        """Bytes of a row without what fills it up."""
        return self.width * self.bits // 8

    @property
    def lengths(self) -> tuple[int, ...]:
        """Bytes that the unpacked file may have: with rows as they are, and with rows filled up to four bytes."""
        filled = -(-self.row // 4) * 4
        return tuple(dict.fromkeys(_PIXELS_AT + self.height * each for each in (self.row, filled)))


@dataclass(slots=True)
class CellomicsImage:
    """One grey image. See `ImageFile`."""

    body: bytes
    key: str
    header: _Header
    um_per_px: float | None
    warnings: tuple[str, ...]
    channels: tuple[str, ...] = ("",)
    whole: tuple[str, ...] = ("",)
    planes: int = 1
    images: int = 1

    def own(self, channel: str, index: int = 0) -> tuple[int, ...]:
        """The one plane."""
        return (0,)

    @property
    def bit_max(self) -> int:
        """255 or 65535: the file does not say how many of its bits the camera used."""
        return (1 << self.header.bits) - 1

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in px."""
        return self.header.height, self.header.width

    def read(self, channel: str, plane: int, index: int = 0) -> Plane:
        """See `ImageFile.read`."""
        channel_number(self.channels, channel, self.key)
        check_position(plane, self.planes, index, self.images, self.key)
        data = _unpacked(self.body, self.header, self.key) if self.body.startswith(_C01) else self.body
        height, width = self.shape
        row = (len(data) - _PIXELS_AT) // height
        packed = np.frombuffer(data, np.uint8, row * height, _PIXELS_AT).reshape(height, row)
        pixels = np.frombuffer(packed[:, : self.header.row].tobytes(), _DTYPES[self.header.bits])
        return countable(pixels.reshape(height, width), self.key)


def opens(body: bytes) -> bool:
    """Whether `body` begins like a C01 or a DIB."""
    if body.startswith(_C01):
        return len(body) > len(_C01) and body[len(_C01)] == _ZLIB
    return body.startswith(_DIB) and len(body) >= _PIXELS_AT


def open_bytes(
    body: bytes, key: str, max_pixels: int, declared: Declared = UNDECLARED, beside: Beside = alone
) -> CellomicsImage:
    """Open a C01 or DIB from its header; of a C01 only the first bytes are unpacked. It has no axes, so `declared` and `beside` are not needed.

    Raises FieldFault: TRUNCATED, UNREADABLE, UNSUPPORTED, WRONG_SHAPE, TOO_MANY_PIXELS.
    """
    start = (
        _inflated(zlib.decompressobj(), body[len(_C01) :], _PIXELS_AT, key) if body.startswith(_C01) else body
    )
    if len(start) < _PIXELS_AT:
        raise FieldFault(Reason.TRUNCATED, f"the file ends after {len(start)} bytes, inside its header", key)
    size, width, height, planes, bits, compression, _, across, down, _, _ = _HEADER.unpack_from(start)
    check_pixels(height, width, max_pixels, key)
    if size != _HEADER.size or planes != 1 or compression != 0 or bits not in _DTYPES:
        detail = (
            f"a DIB with a header of {size} bytes, {planes} planes, {bits} bits and compression {compression}"
        )
        raise FieldFault(
            Reason.UNSUPPORTED, f"{detail}; 40 bytes, 1 plane, 8 or 16 bits and none are expected", key
        )
    header = _Header(height, width, bits, (across, down))
    if not body.startswith(_C01) and len(body) not in header.lengths:
        raise FieldFault(
            Reason.TRUNCATED if len(body) < max(header.lengths) else Reason.UNREADABLE,
            f"the file has {len(body)} bytes and its header needs {header.lengths[0]}",
            key,
        )
    size_um, warnings = _calibrated(header.per_metre)
    return CellomicsImage(body, key, header, size_um, warnings)


def _calibrated(per_metre: tuple[int, int]) -> tuple[float | None, tuple[str, ...]]:
    """The pixel size in µm, and the warning for one that is stated and cannot be right."""
    across, down = per_metre
    if across == 0 or down == 0:
        return None, ()
    x, y = 1e6 / across, 1e6 / down
    if not (SMALLEST_UM_PER_PX <= x <= LARGEST_UM_PER_PX and SMALLEST_UM_PER_PX <= y <= LARGEST_UM_PER_PX):
        return None, (CALIBRATION_OUT_OF_RANGE,)
    return (x, ()) if abs(x - y) <= _ALIKE * max(x, y) else (None, (CALIBRATION_CONTRADICTORY,))


def _unpacked(body: bytes, header: _Header, key: str) -> bytes:
    """The unpacked file: never more bytes than the header needs, whatever the stream holds."""
    stream = zlib.decompressobj()
    most = max(header.lengths)
    data = _inflated(stream, body[len(_C01) :], most + 1, key)
    if len(data) > most:
        raise FieldFault(
            Reason.UNREADABLE, f"unpacked, the file has more than the {most} bytes of its pixels", key
        )
    if not stream.eof or len(data) not in header.lengths:
        detail = f"unpacked, the file ends after {len(data)} bytes and its header needs {header.lengths[0]}"
        raise FieldFault(Reason.TRUNCATED, detail, key)
    return data


def _inflated(stream: zlib._Decompress, packed: bytes, most: int, key: str) -> bytes:
    """At most `most` bytes of a zlib stream."""
    try:
        return stream.decompress(packed, most)
    except zlib.error as error:
        raise FieldFault(Reason.UNREADABLE, f"the file is damaged: {error}", key) from error
