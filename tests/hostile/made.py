"""What a hostile file is: a name, bytes, and what may become of it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from cellcount_core.domain.errors import Reason
from tests.plates import discs

OBJECTS = 5
"""Objects in the picture that every damaged file was made from."""

SIDE = 96

READ, PERHAPS_NONE = "read", "perhaps none"

Grey = NDArray[np.uint16]


@dataclass(frozen=True)
class Hostile:
    """A file. `reasons`: those it may be refused with, none given for any that concerns a file; `count`: what it may be counted
    as instead, None where it must be refused. READ is the count of the pixels that an independent reader finds, which is
    then above 0; PERHAPS_NONE the same, where those pixels may hold no object."""

    name: str
    body: bytes
    reasons: frozenset[Reason] = frozenset()
    count: int | str | None = None


def refused(name: str, body: bytes, *reasons: Reason) -> Hostile:
    """A file that must be refused with one of `reasons`."""
    return Hostile(name, body, frozenset(reasons))


def either(name: str, body: bytes, *reasons: Reason) -> Hostile:
    """A file that is refused, or counted as an independent reader's pixels are."""
    return Hostile(name, body, frozenset(reasons), READ)


def another(name: str, body: bytes) -> Hostile:
    """A file that is refused or is, to any reader, another picture than the one it was made from: a part of it, or blank."""
    return Hostile(name, body, frozenset(), PERHAPS_NONE)


def readable(name: str, body: bytes, count: int = OBJECTS) -> Hostile:
    """A file that only looks hostile: it must be counted."""
    return Hostile(name, body, frozenset(), count)


@cache
def picture() -> Grey:
    """(96, 96) uint16 with `OBJECTS` discs."""
    return discs(OBJECTS, SIDE, 11)


@cache
def picture8() -> NDArray[np.uint8]:
    """The same in 8 bits."""
    return (picture() // 12).clip(0, 255).astype(np.uint8)


def tiff(pixels: NDArray[np.generic], **options: object) -> bytes:
    """A TIFF as tifffile writes it, without a description unless one is asked for."""
    buffer = io.BytesIO()
    options.setdefault("metadata", None)
    options.setdefault("photometric", "minisblack")
    tifffile.imwrite(buffer, pixels, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def raster(pixels: NDArray[np.generic], extension: str, *parameters: int) -> bytes:
    """A PNG, JPEG or BMP as OpenCV writes it."""
    done, body = cv2.imencode(extension, pixels, list(parameters))  # type: ignore[call-overload]
    assert done
    return bytes(body)
