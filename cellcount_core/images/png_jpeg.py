"""PNG, JPEG and BMP files: sizes and completeness are checked in the headers, OpenCV and libjpeg-turbo decode the pixels.

A JPEG has no checksum. Where its stream is damaged, libjpeg writes a warning to standard error and fills the rest with grey; such an
image would be counted. simplejpeg reports these warnings, OpenCV does not, so simplejpeg decodes. A JPEG inside a TIFF is checked here too.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import simplejpeg

from cellcount_core.domain.doubts import Doubt
from cellcount_core.domain.errors import FieldFault, Reason
from cellcount_core.images.imagefile import (
    COLOURS,
    UNDECLARED,
    Beside,
    Declared,
    Plane,
    alone,
    channel_number,
    check_pixels,
    check_position,
)
from cellcount_core.images.pixels import colour_channel, countable, is_ramp

_JPEG_START = b"\xff\xd8\xff"
_JPEG_END = b"\xff\xd9"
_JPEG_SCAN = b"\xff\xda"
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD9)})

_MOST_SCANS = 100
"""Each scan goes over the whole image, so many scans take long. Progressive files have about ten."""

_HARMLESS = ("Warning", "Unknown Adobe", "Invalid SOS parameters")
"""How libjpeg's messages begin that are about oddities in the header only: the pixels are complete nevertheless."""


@dataclass(frozen=True, slots=True)
class JpegFrame:
    """The frame header of a JPEG: size in px, bits, and components (1 for grey, 3 for colour, 4 for print)."""

    height: int
    width: int
    bits: int
    components: int


def read_jpeg_frame(body: bytes, key: str) -> JpegFrame:
    """The frame header of a JPEG. Its segments are read up to the first scan (ITU-T T.81, annex B), and an
    end-of-image marker must follow.

    Raises FieldFault(TRUNCATED) or FieldFault(UNREADABLE).
    """
    frame: JpegFrame | None = None
    at = 2
    while at + 4 <= len(body):
        if body[at] != 0xFF:
            raise FieldFault(Reason.UNREADABLE, f"a JPEG marker is expected at byte {at}", key)
        marker = body[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker in _JPEG_BARE:
            at += 2
            continue
        length = int.from_bytes(body[at + 2 : at + 4], "big")
        if marker in _JPEG_FRAMES:
            if frame is not None:
                raise FieldFault(Reason.UNREADABLE, "the JPEG has two frame headers", key)
            frame = _jpeg_frame(body[at + 4 : at + 2 + length], key)
        if marker == 0xDA:
            return _complete_jpeg(body, at, frame, key)
        at += 2 + length
    raise FieldFault(Reason.TRUNCATED, f"the JPEG ends after {len(body)} bytes, before its pixels", key)


_EXIF = b"Exif\0\0"
_ORIENTATION = 0x0112


def orientation(body: bytes) -> int:
    """How a JPEG or PNG asks to be turned for viewing, as its Exif data says it: 1 for not at all, 2 to 8 for turned or mirrored.

    1 also for what is neither, or has no readable Exif data. Pixels are always read as they are stored.
    """
    if body.startswith(_PNG):
        return _png_orientation(body)
    at = 2
    while body.startswith(_JPEG_START) and at + 4 <= len(body) and body[at] == 0xFF and body[at + 1] != 0xDA:
        length = int.from_bytes(body[at + 2 : at + 4], "big")
        segment = body[at + 4 : at + 2 + length]
        if body[at + 1] == 0xE1 and segment.startswith(_EXIF):
            return _exif_orientation(segment[len(_EXIF) :])
        at += 2 + max(2, length)
    return 1


def _png_orientation(body: bytes) -> int:
    """That of a PNG's chunk eXIf, which may stand before its pixels or behind them."""
    at = len(_PNG)
    while at + 12 <= len(body):
        length = int.from_bytes(body[at : at + 4], "big")
        if body[at + 4 : at + 8] == b"eXIf":
            return _exif_orientation(body[at + 8 : at + 8 + length])
        at += 12 + length
    return 1


def _exif_orientation(block: bytes) -> int:
    order = ">" if block.startswith(b"MM") else "<"
    try:
        (start,) = struct.unpack_from(f"{order}I", block, 4)
        (entries,) = struct.unpack_from(f"{order}H", block, start)
        for entry in range(entries):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", block, start + 2 + 12 * entry)
            if tag == _ORIENTATION:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def _check_jpeg_frame(frame: JpegFrame, max_pixels: int, key: str) -> None:
    """Raises FieldFault(WRONG_SHAPE), FieldFault(TOO_MANY_PIXELS), or FieldFault(UNSUPPORTED) for a JPEG that
    `decode_jpeg` cannot read."""
    check_pixels(frame.height, frame.width, max_pixels, key)
    if frame.bits != 8 or frame.components not in (1, 3):
        found = f"{frame.components} components of {frame.bits} bits"
        raise FieldFault(
            Reason.UNSUPPORTED,
            f"a JPEG of {found}; 1 or 3 components of 8 bits are expected: save it as RGB or grey",
            key,
        )


def decode_jpeg(body: bytes, frame: JpegFrame, key: str) -> Plane:
    """The pixels of a JPEG: uint8, (H, W) or (H, W, 3) in the order red, green, blue. Raises FieldFault(UNREADABLE)
    if the stream is damaged."""
    try:
        found = np.asarray(
            simplejpeg.decode_jpeg(body, "GRAY" if frame.components == 1 else "RGB", strict=True)
        )
    except ValueError as said:
        if not str(said).startswith(_HARMLESS):
            raise FieldFault(Reason.UNREADABLE, f"the JPEG is damaged: {said}", key) from said
        found = _jpeg_by_opencv(body, frame)
    if found.shape[:2] != (frame.height, frame.width):
        detail = f"the JPEG unpacks to {found.shape} and its header says {frame.width} x {frame.height} px"
        raise FieldFault(Reason.UNREADABLE, detail, key)
    return found[:, :, 0] if frame.components == 1 else found


def _jpeg_by_opencv(body: bytes, frame: JpegFrame) -> Plane:
    """The pixels (H, W, 1), or (H, W, 3) with red first; (0, 0, 0) if there are none. Used for headers that
    simplejpeg refuses."""
    mode = cv2.IMREAD_GRAYSCALE if frame.components == 1 else cv2.IMREAD_COLOR_RGB
    pixels = cv2.imdecode(np.frombuffer(body, np.uint8), mode | cv2.IMREAD_IGNORE_ORIENTATION)
    return np.zeros((0, 0, 0), np.uint8) if pixels is None else np.atleast_3d(np.asarray(pixels))


def _jpeg_frame(segment: bytes, key: str) -> JpegFrame:
    if len(segment) < 6:
        raise FieldFault(Reason.TRUNCATED, "the JPEG ends inside its frame header", key)
    bits, height, width, components = struct.unpack_from(">BHHB", segment)
    return JpegFrame(height, width, bits, components)


def _complete_jpeg(body: bytes, scan: int, frame: JpegFrame | None, key: str) -> JpegFrame:
    if frame is None:
        raise FieldFault(Reason.UNREADABLE, "the JPEG has a scan without a frame header", key)
    if body.rfind(_JPEG_END, scan) < 0:
        raise FieldFault(
            Reason.TRUNCATED, f"the JPEG ends after {len(body)} bytes without its end marker", key
        )
    if (scans := body.count(_JPEG_SCAN, scan)) > _MOST_SCANS:
        detail = f"the JPEG has {scans} scans over its pixels; {_MOST_SCANS} at most are read"
        raise FieldFault(Reason.UNREADABLE, detail, key)
    return frame


_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_PIXELS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_PNG_PALETTE = 3
_PNG_BITS = {0: (1, 2, 4, 8, 16), 2: (8, 16), _PNG_PALETTE: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_BMP_BITS = (16, 24, 32)
_BMP_PALETTE_BITS = (1, 4, 8)
_BMP_FILE_HEADER = 14
_BMP_LEAST = 54
_BMP_HEADERS = frozenset({40, 52, 56, 64, 108, 124})


@dataclass(frozen=True, slots=True)
class _Indexed:
    """The palette of a BMP: `start` of its rows in the file, `bits` of each pixel, whether the lowest row comes first
    (`upwards`), and the `colours` (n, 3), blue first, or (n,) grey values."""

    start: int
    bits: int
    upwards: bool
    colours: Plane


@dataclass(frozen=True, slots=True)
class _RasterHeader:
    """What the header of a PNG, JPEG or BMP says; `frame` is a JPEG's, `indexed` the palette of a BMP."""

    height: int
    width: int
    grey: bool
    bits: int
    frame: JpegFrame | None = None
    indexed: _Indexed | None = None


@dataclass(slots=True)
class RasterImage:
    """A PNG, JPEG or BMP: one image, grey or colour. Alpha is dropped. See `ImageFile`."""

    body: bytes
    key: str
    header: _RasterHeader
    planes: int = 1
    images: int = 1
    um_per_px: float | None = None
    warnings: tuple[str, ...] = ()
    _rgb: Plane | None = field(default=None, repr=False)

    @property
    def channels(self) -> tuple[str, ...]:
        """("",) for a grey image; "red", "green" and "blue" for a colour image."""
        return ("",) if self.header.grey else COLOURS

    @property
    def whole(self) -> tuple[str, ...]:
        """The same as `channels`: such an image is one file."""
        return self.channels

    def own(self, channel: str, index: int = 0) -> tuple[int, ...]:
        """The one plane."""
        return (0,)

    @property
    def bit_max(self) -> int:
        """65535 for a 16-bit PNG, otherwise 255 (values of fewer than 8 bits are scaled to 0..255)."""
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
        """(H, W), or (H, W, samples) with blue first."""
        if self.header.frame is not None:
            decoded = decode_jpeg(self.body, self.header.frame, self.key)
            return decoded if decoded.ndim == 2 else decoded[:, :, ::-1]
        if self.header.indexed is not None:
            return self._looked_up(self.header.indexed)
        try:
            pixels = cv2.imdecode(np.frombuffer(self.body, np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error as error:
            raise FieldFault(
                Reason.UNSUPPORTED, f"OpenCV refuses the image: {error.err or error}", self.key
            ) from error
        if pixels is None:
            raise FieldFault(
                Reason.UNREADABLE, "the header is sound but the pixels cannot be decoded", self.key
            )
        return np.asarray(pixels)

    def _looked_up(self, indexed: _Indexed) -> Plane:
        height, width = self.shape
        row = _bmp_row(width, indexed.bits)
        packed: Plane = np.frombuffer(self.body, np.uint8, row * height, indexed.start).reshape(height, row)
        if indexed.bits < 8:
            bits = np.unpackbits(np.asarray(packed, np.uint8), axis=1).reshape(height, -1, indexed.bits)
            packed = np.packbits(bits, axis=2)[:, :, 0] >> (8 - indexed.bits)
        numbers = packed[::-1, :width] if indexed.upwards else packed[:, :width]
        if int(numbers.max()) >= len(indexed.colours):
            detail = f"a pixel is colour {int(numbers.max())} and the palette has {len(indexed.colours)}"
            raise FieldFault(Reason.UNREADABLE, detail, self.key)
        return np.asarray(indexed.colours[numbers])


def opens(body: bytes) -> bool:
    """Whether `body` begins like a PNG, JPEG or BMP."""
    if body.startswith((_PNG, _JPEG_START)):
        return True
    return (
        body.startswith(b"BM") and len(body) >= 18 and struct.unpack_from("<I", body, 14)[0] in _BMP_HEADERS
    )


def open_bytes(
    body: bytes, key: str, max_pixels: int, declared: Declared = UNDECLARED, beside: Beside = alone
) -> RasterImage:
    """Open a PNG, JPEG or BMP from its headers. Their axes are fixed, so `declared` and `beside` are not needed.

    Raises FieldFault: TRUNCATED, UNREADABLE, UNSUPPORTED, WRONG_SHAPE, TOO_MANY_PIXELS.
    """
    told = (Doubt.TURNED.value,) if orientation(body) != 1 else ()
    if body.startswith(_PNG):
        header, body = _png(body, key, max_pixels)
    elif body.startswith(_JPEG_START):
        frame = read_jpeg_frame(body, key)
        _check_jpeg_frame(frame, max_pixels, key)
        header = _RasterHeader(frame.height, frame.width, frame.components == 1, frame.bits, frame)
    else:
        header = _bmp_header(body, key, max_pixels)
    return RasterImage(body, key, header, warnings=told)


def _png(body: bytes, key: str, max_pixels: int) -> tuple[_RasterHeader, bytes]:
    """Check all chunks of a PNG (W3C PNG, section 5): without an IEND the file is cut short, with a wrong checksum it
    is damaged.

    Returns the header and a PNG that holds only the chunks the pixels need. From an animation OpenCV would give its
    frames instead of the image, black if they are missing, and libpng writes to standard error about comments and
    profiles.
    """
    header: _RasterHeader | None = None
    colour_type = 0
    kept = [_PNG]
    kinds: set[bytes] = set()
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
        if kind == b"IHDR" and length == 13 and header is None:
            header, colour_type = _png_header(body[at + 8 : end - 4], key, max_pixels)
        elif header is None:
            raise FieldFault(Reason.UNREADABLE, "the PNG does not begin with an IHDR chunk of 13 bytes", key)
        elif kind == b"PLTE" and colour_type == _PNG_PALETTE:
            palette = np.frombuffer(body, np.uint8, length // 3 * 3, at + 8).reshape(-1, 3)
            header = replace(header, grey=bool((palette == palette[:, :1]).all()))
        kinds.add(kind)
        if kind in _PNG_PIXELS:
            kept.append(body[at:end])
        if kind == b"IEND":
            # What OpenCV cannot read it also tells of on standard error, a line a file.
            if b"IDAT" not in kinds or (colour_type == _PNG_PALETTE and b"PLTE" not in kinds):
                raise FieldFault(Reason.UNREADABLE, "the PNG has no pixels, or no palette for them", key)
            return header, body if kinds <= _PNG_PIXELS else b"".join(kept)
        at = end
    raise FieldFault(Reason.TRUNCATED, f"the PNG ends after {len(body)} bytes without its IEND chunk", key)


def _png_header(data: bytes, key: str, max_pixels: int) -> tuple[_RasterHeader, int]:
    """What an IHDR chunk says, and the colour type."""
    width, height, bits, colour, compression, filters, interlace = struct.unpack(">IIBBBBB", data)
    check_pixels(height, width, max_pixels, key)
    if bits not in _PNG_BITS.get(colour, ()) or compression or filters or interlace > 1:
        detail = f"the PNG's header is wrong ({bits} bits of colour type {colour}, methods {compression}, {filters}, {interlace})"
        raise FieldFault(Reason.UNREADABLE, detail, key)
    return _RasterHeader(height, width, colour in (0, 4), bits), colour


def _bmp_header(body: bytes, key: str, max_pixels: int) -> _RasterHeader:
    if len(body) < _BMP_LEAST:
        raise FieldFault(Reason.TRUNCATED, f"the BMP ends after {len(body)} bytes, inside its header", key)
    start, _, width, signed_height, _, bits, compression = struct.unpack_from("<IIiiHHI", body, 10)
    height = abs(signed_height)
    check_pixels(height, width, max_pixels, key)
    indexed = bits in _BMP_PALETTE_BITS and compression == 0
    if not indexed and (bits not in _BMP_BITS or compression not in (0, 3)):
        detail = f"a BMP of {bits} bits and compression {compression}; save it as PNG or TIFF"
        raise FieldFault(Reason.UNSUPPORTED, detail, key)
    needed = start + _bmp_row(width, bits) * height
    if len(body) < needed:
        raise FieldFault(Reason.TRUNCATED, f"the BMP has {len(body)} bytes and needs {needed}", key)
    if start < _BMP_LEAST:
        raise FieldFault(Reason.UNREADABLE, f"the BMP's pixels stand at byte {start}, in its header", key)
    if not indexed:
        return _RasterHeader(height, width, False, 8)
    colours = _bmp_palette(body, start, bits, key)
    grey = bool((colours == colours[:, :1]).all())
    # A palette that only tints stands for grey values, as in a TIFF; the numbers are then the pixels.
    tinted = not grey and is_ramp(colours)
    table = np.arange(len(colours), dtype=np.uint8) if tinted else colours[:, 0] if grey else colours
    return _RasterHeader(
        height, width, grey or tinted, 8, None, _Indexed(start, bits, signed_height > 0, table)
    )


def _bmp_row(width: int, bits: int) -> int:
    """Bytes of a row of a BMP, a multiple of four."""
    return (width * bits + 31) // 32 * 4


def _bmp_palette(body: bytes, start: int, bits: int, key: str) -> Plane:
    """The colours (n, 3) of a BMP, uint8, blue first; they stand between the header and the pixels."""
    (header,) = struct.unpack_from("<I", body, _BMP_FILE_HEADER)
    (used,) = struct.unpack_from("<I", body, 46)
    count = used or 1 << bits
    first = _BMP_FILE_HEADER + header
    if count > 1 << bits or first + 4 * count > start:
        raise FieldFault(
            Reason.UNREADABLE, f"the BMP's palette of {count} colours does not fit its header", key
        )
    return np.frombuffer(body, np.uint8, 4 * count, first).reshape(count, 4)[:, :3]
