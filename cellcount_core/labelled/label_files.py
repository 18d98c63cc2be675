"""Label images: how their files are read, and what their numbers say.

Their stored numbers are needed, so no palette is applied and nothing is scaled, unlike in an image that is counted.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cellcount_core.config import RunConfig
from cellcount_core.domain.errors import ConfigFault, FieldFault
from cellcount_core.images.decode import open_image
from cellcount_core.images.imagefile import COLOURS

Labels = NDArray[np.int32]

_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PALETTE = 3
_GREY = 0
_LARGEST_LABEL = 2**31 - 1
_MAX_PIXELS = RunConfig().max_pixels
_COMPACT_ABOVE = 2**16


def read_indices(path: Path) -> Labels:
    """The numbers of a label file as they are stored, (H, W) int32: greys of 8, 16 or 32 bits, palette indices, or
    whole floats.

    Raises ConfigFault naming the file if it cannot be read. Colours are refused, because nothing tells whether a
    colour means an object or a class.
    """
    pixels = _numbers(path)
    if pixels.ndim == 3:
        first = pixels[..., :1]
        if not (pixels[..., :3] == first).all():
            raise ConfigFault(
                f"{path}: a label image in colours; expected one number an object (grey of 8 or 16 bits, or a palette). "
                "Whether equal colours are one object or one class is not to be seen: convert it"
            )
        pixels = first[..., 0]
    return whole_numbers(pixels, str(path))


def read_labels(path: Path) -> Labels:
    """A label file as (H, W) int32: 0 is background, every other number an object.

    A file that holds only 0 and 255 is a mask; its objects are its connected components. Raises the same errors as
    `read_indices`.
    """
    labels = read_indices(path)
    return components(labels) if set(np.unique(labels).tolist()) == {0, 255} else labels


def read_mask(path: Path) -> Labels:
    """The same for folders called masks, where a file that holds 0 and any single other number is a mask as well."""
    labels = read_indices(path)
    return components(labels) if len(np.unique(labels[labels > 0])) == 1 else labels


def whole_numbers(values: NDArray[np.generic], where: str) -> Labels:
    """Labels of any real type as int32. If any is above 65,536, all are renumbered in their order.

    Raises ConfigFault naming `where` if they are not whole numbers from 0 to 2^31 - 1.
    """
    if values.dtype.kind not in "buif":
        raise ConfigFault(f"{where}: labels of type {values.dtype}; whole numbers expected")
    found = values.astype(np.float64)
    if not np.isfinite(found).all() or (found != np.rint(found)).any():
        odd = found[~np.isfinite(found) | (found != np.rint(found))].flat[0]
        raise ConfigFault(
            f"{where}: label {odd:g}; whole numbers expected, one an object and 0 the background"
        )
    low, high = float(found.min(initial=0)), float(found.max(initial=0))
    if low < 0 or high > _LARGEST_LABEL:
        raise ConfigFault(f"{where}: labels from {low:.0f} to {high:.0f}; 0 to {_LARGEST_LABEL} expected")
    labels = found.astype(np.int32)
    if high > _COMPACT_ABOVE:
        # Tables by label number would be as long as the largest number.
        numbers, places = np.unique(labels, return_inverse=True)
        closed = places.reshape(labels.shape).astype(np.int32)
        return closed if numbers[0] == 0 else closed + np.int32(1)
    return labels


def components(mask: Labels | NDArray[np.uint8]) -> Labels:
    """The connected components (8 neighbours) of the pixels above 0 in a mask (H, W), as labels (H, W) int32."""
    return np.asarray(cv2.connectedComponents((mask > 0).astype(np.uint8))[1], np.int32)


def stack_masks(masks: Sequence[NDArray[np.bool_]], shape: tuple[int, int]) -> Labels:
    """The label image (H, W) int32 of several masks, one per object, numbered in their order. Where masks overlap, the
    smaller one is on top."""
    labels = np.zeros(shape, np.int32)
    for index in sorted(range(len(masks)), key=lambda index: -int(masks[index].sum())):
        labels[masks[index]] = index + 1
    return labels


def _numbers(path: Path) -> NDArray[np.generic]:
    """The stored numbers of a label file, (H, W), or (H, W, 3 or more) for colours."""
    body = file_body(path)
    if body[:4] in _TIFF_MAGIC:
        return _decode_tiff(path)
    scale = 1
    try:
        image = open_image(body, str(path), max_pixels=_MAX_PIXELS)
        if body.startswith(_PNG_MAGIC):
            plain, scale = _without_palette(body)
            image = open_image(plain, str(path), max_pixels=_MAX_PIXELS)
        if image.channels == COLOURS:
            return np.dstack([image.read(colour, 0) for colour in COLOURS])
        return image.read("", 0) // scale if scale > 1 else image.read("", 0)
    except FieldFault as fault:
        raise ConfigFault(f"{path}: {fault.detail}") from fault


def file_body(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigFault(f"{path}: cannot be read: {error.strerror}") from error


def _decode_tiff(path: Path) -> NDArray[np.generic]:
    """The stored numbers of a TIFF: palette indices, and all 32 bits of a number, which pixels to count do not have."""
    import tifffile

    try:
        pixels = np.asarray(tifffile.imread(path))
    except (tifffile.TiffFileError, ValueError, OSError, RuntimeError, KeyError, struct.error) as error:
        raise ConfigFault(f"{path}: not an image that can be decoded: {error}") from error
    shape = pixels.shape
    pixels = pixels.reshape([side for side in shape if side > 1]) if pixels.ndim > 2 else pixels
    if pixels.ndim == 3 and pixels.shape[0] in (3, 4) and pixels.shape[2] not in (3, 4):
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.ndim != 2 and not (pixels.ndim == 3 and pixels.shape[2] in (3, 4)):
        raise ConfigFault(f"{path}: an array of {shape}; one plane (height, width) or its colours expected")
    return pixels


def _without_palette(data: bytes) -> tuple[bytes, int]:
    """A palette PNG as a grey one with the same indices, and the factor by which a decoder then multiplies them (PNG
    specification 11.2)."""
    depth, kind = data[24], data[25]
    if kind != _PALETTE:
        return data, 1
    kept, at = [data[:8]], 8
    while at + 8 <= len(data):
        length, name = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + length]
        if name == b"IHDR":
            body = body[:9] + bytes([_GREY]) + body[10:]
        if name not in (b"PLTE", b"tRNS", b"bKGD"):
            kept.append(struct.pack(">I4s", length, name) + body + struct.pack(">I", zlib.crc32(name + body)))
        at += 12 + length
    return b"".join(kept), 255 // (2**depth - 1)


def median_diameter(labels: Labels) -> float:
    """Median equivalent diameter in px of the objects of a label image; 0.0 if it has no object.

    >>> median_diameter(np.array([[0, 1, 1], [0, 1, 1]], np.int32))  # 2 sqrt(4 / pi)
    2.256758334191025
    """
    areas = np.bincount(labels.ravel())[1:]
    areas = areas[areas > 0]
    return float(np.median(2 * np.sqrt(areas / np.pi))) if areas.size else 0.0
