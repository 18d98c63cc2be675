"""PNG, JPEG and BMP: sizes and completeness from the headers, pixels from OpenCV."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

import cv2
import numpy as np

from cellcount_core.domain.errors import FieldFault, Reason
from cellcount_core.images.imagefile import COLOURS, Plane, channel_number, check_pixels, check_position
from cellcount_core.images.pixels import colour_channel, countable

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_BMP_HEADERS = frozenset({40, 52, 56, 64, 108, 124})
_SOF_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})


@dataclass(frozen=True, slots=True)
class _Header:
    height: int
    width: int
    grey: bool
    bits: int


@dataclass(slots=True)
class RasterImage:
    """A PNG, JPEG or BMP: one image, grey or red, green, blue; alpha is dropped. See `ImageFile`."""

    body: bytes
    key: str
    header: _Header
    planes: int = 1
    images: int = 1
    um_per_px: float | None = None
    _rgb: Plane | None = field(default=None, repr=False)

    @property
    def channels(self) -> tuple[str, ...]:
        """("",) for grey, the three colours otherwise."""
        return ("",) if self.header.grey else COLOURS

    @property
    def bit_max(self) -> int:
        """255, or 65535 for a 16-bit PNG (fewer bits than 8 are spread over 0..255)."""
        return 65535 if self.header.bits == 16 else 255

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in px."""
        return self.header.height, self.header.width

    def read(self, channel: str, plane: int, index: int = 0) -> Plane:
        """See `ImageFile.read`. A colour image stays decoded between the reads of its channels."""
        number = channel_number(self.channels, channel, self.key)
        check_position(plane, self.planes, index, self.images, self.key)
        if self.header.grey:
            pixels = self._decode()
            return countable(pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[:, :, 0]), self.key)
        if self._rgb is None:
            pixels = self._decode()
            self._rgb = np.dstack([pixels] * 3) if pixels.ndim == 2 else pixels[:, :, 2::-1]
        return colour_channel(self._rgb, number, self.key)

    def _decode(self) -> Plane:
        try:
            pixels = cv2.imdecode(np.frombuffer(self.body, np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error as error:
            raise FieldFault(
                Reason.UNSUPPORTED, f"OpenCV refuses the image: {error.err or error}", self.key
            ) from error
        if pixels is None or pixels.shape[:2] != self.shape:
            raise FieldFault(
                Reason.UNREADABLE, "the header is sound but the pixels cannot be decoded", self.key
            )
        return np.asarray(pixels)


def opens(body: bytes) -> bool:
    """Whether the first bytes are those of a PNG, JPEG or BMP."""
    if body.startswith((_PNG, _JPEG)):
        return True
    return (
        body.startswith(b"BM") and len(body) >= 18 and struct.unpack_from("<I", body, 14)[0] in _BMP_HEADERS
    )


def open_bytes(body: bytes, key: str, max_pixels: int) -> RasterImage:
    """Open from headers. Raises FieldFault TRUNCATED, UNREADABLE, UNSUPPORTED, WRONG_SHAPE, TOO_MANY_PIXELS."""
    if body.startswith(_PNG):
        header = _png_header(body, key, max_pixels)
    elif body.startswith(_JPEG):
        header = _jpeg_header(body, key, max_pixels)
    else:
        header = _bmp_header(body, key, max_pixels)
    return RasterImage(body, key, header)


def _png_header(body: bytes, key: str, max_pixels: int) -> _Header:
    """Walk all chunks (W3C PNG, section 5): a missing IEND is a cut file, a wrong checksum a damaged one."""
    header: _Header | None = None
    colour_type = 0
    at = len(_PNG)
    while at + 12 <= len(body):
        length = int.from_bytes(body[at : at + 4], "big")
        kind = body[at + 4 : at + 8]
        end = at + 12 + length
        if end > len(body):
            break
        data = memoryview(body)[at + 4 : end - 4]
        if zlib.crc32(data) != int.from_bytes(body[end - 4 : end], "big"):
            name = kind.decode("ascii", "replace")
            raise FieldFault(
                Reason.UNREADABLE, f"the PNG chunk {name!r} at byte {at} does not match its checksum", key
            )
        if kind == b"IHDR" and length == 13:
            width, height, bits, colour_type = struct.unpack_from(">IIBB", body, at + 8)
            check_pixels(height, width, max_pixels, key)
            header = _Header(height, width, colour_type in (0, 4), bits)
        elif header is None:
            raise FieldFault(Reason.UNREADABLE, "the PNG does not begin with an IHDR chunk of 13 bytes", key)
        elif kind == b"PLTE" and colour_type == 3:
            palette = np.frombuffer(body, np.uint8, length // 3 * 3, at + 8).reshape(-1, 3)
            header = _Header(
                header.height, header.width, bool((palette == palette[:, :1]).all()), header.bits
            )
        elif kind == b"IEND":
            return header
        at = end
    raise FieldFault(Reason.TRUNCATED, f"the PNG ends after {len(body)} bytes without its IEND chunk", key)


def _jpeg_header(body: bytes, key: str, max_pixels: int) -> _Header:
    """Walk the segments up to the first scan (ITU-T T.81, annex B); after it, an end-of-image marker must come."""
    header: _Header | None = None
    at = 2
    while at + 4 <= len(body):
        if body[at] != 0xFF:
            raise FieldFault(Reason.UNREADABLE, f"a JPEG marker is expected at byte {at}", key)
        marker = body[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker in _BARE_MARKERS:
            at += 2
            continue
        length = int.from_bytes(body[at + 2 : at + 4], "big")
        if marker in _SOF_MARKERS:
            header = _frame(body[at + 4 : at + 2 + length], key)
            check_pixels(header.height, header.width, max_pixels, key)
        if marker == 0xDA:
            return _finished(body, at, header, key)
        at += 2 + length
    raise FieldFault(Reason.TRUNCATED, f"the JPEG ends after {len(body)} bytes, before its pixels", key)


def _frame(segment: bytes, key: str) -> _Header:
    if len(segment) < 6:
        raise FieldFault(Reason.TRUNCATED, "the JPEG ends inside its frame header", key)
    bits, height, width, components = struct.unpack_from(">BHHB", segment)
    if bits != 8 or components not in (1, 3):
        found = f"{components} components of {bits} bits"
        raise FieldFault(
            Reason.UNSUPPORTED, f"a JPEG of {found}; 1 or 3 components of 8 bits are expected", key
        )
    return _Header(height, width, components == 1, bits)


def _finished(body: bytes, scan: int, header: _Header | None, key: str) -> _Header:
    if header is None:
        raise FieldFault(Reason.UNREADABLE, "the JPEG has a scan without a frame header", key)
    if body.rfind(b"\xff\xd9", scan) < 0:
        raise FieldFault(
            Reason.TRUNCATED, f"the JPEG ends after {len(body)} bytes without its end marker", key
        )
    return header


def _bmp_header(body: bytes, key: str, max_pixels: int) -> _Header:
    if len(body) < 54:
        raise FieldFault(Reason.TRUNCATED, f"the BMP ends after {len(body)} bytes, inside its header", key)
    start, _, width, signed_height, _, bits, compression = struct.unpack_from("<IIiiHHI", body, 10)
    height = abs(signed_height)
    check_pixels(height, width, max_pixels, key)
    needed = start + (width * bits + 31) // 32 * 4 * height
    if compression in (0, 3) and len(body) < needed:
        raise FieldFault(Reason.TRUNCATED, f"the BMP has {len(body)} bytes and needs {needed}", key)
    if bits <= 8:
        raise FieldFault(
            Reason.UNSUPPORTED, f"a BMP with a palette ({bits} bits); save it as PNG or TIFF", key
        )
    return _Header(height, width, False, 8)
