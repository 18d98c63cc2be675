"""JPEG: sizes and completeness from the markers, pixels from libjpeg-turbo, and nothing from a damaged stream.

A JPEG has no checksum, and libjpeg makes up the rest of a stream that it cannot follow: it writes a warning to standard error
and goes on in grey. Such an image would be counted. simplejpeg tells of these warnings; OpenCV does not.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg

from cellcount_core.domain.errors import FieldFault, Reason
from cellcount_core.images.imagefile import Plane, check_pixels

START = b"\xff\xd8\xff"
_END = b"\xff\xd9"
_SCAN = b"\xff\xda"
_SOF_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})

_MOST_SCANS = 100
"""Each scan goes over the whole image; progressive files have about ten."""

_HARMLESS = ("Warning", "Unknown Adobe", "Invalid SOS parameters")
"""How libjpeg begins what it says of oddities in headers, after which the pixels are whole all the same."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What the frame header says; `components` are 1 for grey, 3 for colour, 4 for print."""

    height: int
    width: int
    bits: int
    components: int


def read_frame(body: bytes, key: str) -> Frame:
    """Walk the segments up to the first scan (ITU-T T.81, annex B); after it, an end-of-image marker must come.

    Raises FieldFault TRUNCATED, UNREADABLE.
    """
    frame: Frame | None = None
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
            if frame is not None:
                raise FieldFault(Reason.UNREADABLE, "the JPEG has two frame headers", key)
            frame = _frame(body[at + 4 : at + 2 + length], key)
        if marker == 0xDA:
            return _complete(body, at, frame, key)
        at += 2 + length
    raise FieldFault(Reason.TRUNCATED, f"the JPEG ends after {len(body)} bytes, before its pixels", key)


def check_frame(frame: Frame, max_pixels: int, key: str) -> None:
    """Raises FieldFault WRONG_SHAPE, TOO_MANY_PIXELS, and UNSUPPORTED for what `decode` does not read."""
    check_pixels(frame.height, frame.width, max_pixels, key)
    if frame.bits != 8 or frame.components not in (1, 3):
        found = f"{frame.components} components of {frame.bits} bits"
        raise FieldFault(
            Reason.UNSUPPORTED, f"a JPEG of {found}; 1 or 3 components of 8 bits are expected", key
        )


def decode(body: bytes, frame: Frame, key: str) -> Plane:
    """Pixels (H, W), or (H, W, 3) in the order red, green, blue; uint8. Raises FieldFault UNREADABLE for a damaged stream."""
    try:
        found = np.asarray(
            simplejpeg.decode_jpeg(body, "GRAY" if frame.components == 1 else "RGB", strict=True)
        )
    except ValueError as said:
        if not str(said).startswith(_HARMLESS):
            raise FieldFault(Reason.UNREADABLE, f"the JPEG is damaged: {said}", key) from said
        found = _as_opencv_does(body, frame)
    if found.shape[:2] != (frame.height, frame.width):
        detail = f"the JPEG unpacks to {found.shape} and its header says {frame.width} x {frame.height} px"
        raise FieldFault(Reason.UNREADABLE, detail, key)
    return found[:, :, 0] if frame.components == 1 else found


def _as_opencv_does(body: bytes, frame: Frame) -> Plane:
    """Pixels (H, W, 1) or (H, W, 3), red first; (0, 0, 0) where there are none. simplejpeg takes no oddity in a header."""
    mode = cv2.IMREAD_GRAYSCALE if frame.components == 1 else cv2.IMREAD_COLOR_RGB
    pixels = cv2.imdecode(np.frombuffer(body, np.uint8), mode | cv2.IMREAD_IGNORE_ORIENTATION)
    return np.zeros((0, 0, 0), np.uint8) if pixels is None else np.atleast_3d(np.asarray(pixels))


def _frame(segment: bytes, key: str) -> Frame:
    if len(segment) < 6:
        raise FieldFault(Reason.TRUNCATED, "the JPEG ends inside its frame header", key)
    bits, height, width, components = struct.unpack_from(">BHHB", segment)
    return Frame(height, width, bits, components)


def _complete(body: bytes, scan: int, frame: Frame | None, key: str) -> Frame:
    if frame is None:
        raise FieldFault(Reason.UNREADABLE, "the JPEG has a scan without a frame header", key)
    if body.rfind(_END, scan) < 0:
        raise FieldFault(
            Reason.TRUNCATED, f"the JPEG ends after {len(body)} bytes without its end marker", key
        )
    if (scans := body.count(_SCAN, scan)) > _MOST_SCANS:
        detail = f"the JPEG has {scans} scans over its pixels; {_MOST_SCANS} at most are read"
        raise FieldFault(Reason.UNREADABLE, detail, key)
    return frame
