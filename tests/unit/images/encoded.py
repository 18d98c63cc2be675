"""Small image files made in memory for the decoder tests."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from cellcount_core.domain.errors import FieldFault, Reason
from cellcount_core.images.decode import ImageFile, open_image

Array = NDArray[np.generic]


def noise(*shape: int, dtype: str = "uint16", seed: int = 0) -> Array:
    """Random pixels of any shape and type."""
    return np.random.default_rng(seed).integers(0, 120, shape).astype(dtype)


def opened(body: bytes, max_pixels: int = 10_000_000) -> ImageFile:
    """The image in `body`, with the key "plate/a.bin"."""
    return open_image(body, "plate/a.bin", max_pixels=max_pixels)


def refusal(body: bytes, max_pixels: int = 10_000_000) -> FieldFault:
    """The fault of opening `body` or of reading every plane in it."""
    try:
        image = opened(body, max_pixels)
        for channel in image.channels:
            for plane in range(image.planes):
                image.read(channel, plane, image.images - 1)
    except FieldFault as fault:
        assert fault.key == "plate/a.bin"
        assert fault.detail
        return fault
    raise AssertionError("the file was read without a fault")


def reason(body: bytes, max_pixels: int = 10_000_000) -> Reason:
    """The reason code of `refusal`."""
    return refusal(body, max_pixels).reason


def tiff(pixels: Array, **options: object) -> bytes:
    """A TIFF as tifffile writes it."""
    buffer = io.BytesIO()
    options.setdefault("photometric", "minisblack")
    tifffile.imwrite(buffer, pixels, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def raster(pixels: Array, extension: str) -> bytes:
    """A PNG, JPEG or BMP as OpenCV writes it; colour in the order red, green, blue."""
    done, body = cv2.imencode(extension, pixels[:, :, ::-1] if pixels.ndim == 3 else pixels)  # type: ignore[call-overload]
    assert done
    return bytes(body)


def npy(pixels: Array) -> bytes:
    """An NPY file."""
    buffer = io.BytesIO()
    np.save(buffer, pixels)
    return buffer.getvalue()


def npz(**arrays: Array) -> bytes:
    """A compressed NPZ file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def png(width: int, height: int, bits: int, colour: int, rows: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """A PNG from raw rows (each with its filter byte), for types that OpenCV does not write."""
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = [(b"IHDR", head), *more, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    chunks = [struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
