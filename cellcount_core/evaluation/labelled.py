"""A labelled image, the files it is read from, and what may stand in a label file."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.images.imagefile import Plane

Labels = NDArray[np.int32]

IMAGE_SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PALETTE = 3
_GREY = 0
_LARGEST_LABEL = 2**31 - 1
_COMPACT_ABOVE = 2**16


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """One image with its label image.

    `plane` (H, W) in raw units, `labels` (H, W) int32 with 0 as background and 1..n as objects. `group` names what must
    stay on one side of a split; `diameter_px` is the median equivalent diameter (0.0 where there is no object).
    """

    id: str
    plane: Plane
    labels: Labels
    group: str
    modality: str
    diameter_px: float


@dataclass(frozen=True, slots=True)
class Entry:
    """An image that a data set names and that has not been read. `split`, `modality`, `group` are "" where none is given.

    `read` gives plane and labels, both (H, W), and raises ConfigFault naming the file that is wrong.
    """

    id: str
    read: Callable[[], tuple[Plane, Labels]]
    split: str = ""
    modality: str = ""
    group: str = ""

    def load(self) -> LabelledImage:
        """Read it. Raises ConfigFault naming the file that cannot be read, or whose size differs from its partner's."""
        plane, labels = self.read()
        return LabelledImage(
            self.id, plane, labels, self.group or self.id, self.modality, median_diameter(labels)
        )


def file_entry(
    name: str,
    image: Path,
    label: Path,
    *,
    reader: Callable[[Path], Labels] | None = None,
    split: str = "",
    modality: str = "",
    group: str = "",
) -> Entry:
    """An entry of an image file and its label file, which `reader` reads (`read_labels` unless another is given)."""

    def read() -> tuple[Plane, Labels]:
        return same_size(read_plane(image), (reader or read_labels)(label), label)

    return Entry(name, read, split, modality, group)


def same_size(plane: Plane, labels: Labels, label: Path) -> tuple[Plane, Labels]:
    """Both, where they have one shape. Raises ConfigFault naming the label file where they have not."""
    if plane.shape != labels.shape:
        raise ConfigFault(
            f"{label}: labels are {labels.shape} (height, width), the image {plane.shape}: one size expected"
        )
    return plane, labels


def median_diameter(labels: Labels) -> float:
    """Median equivalent diameter in px of the objects of a label image; 0.0 where there is none."""
    areas = np.bincount(labels.ravel())[1:]
    areas = areas[areas > 0]
    return float(np.median(2 * np.sqrt(areas / np.pi))) if areas.size else 0.0


def read_plane(path: Path) -> Plane:
    """An image file as (H, W) of uint8, uint16 or float32 in its own units; colours as OpenCV weighs them.

    Raises ConfigFault naming the file.
    """
    pixels = _decode(path)
    if pixels.ndim == 3:
        if pixels.dtype not in (np.uint8, np.uint16, np.float32):
            raise ConfigFault(f"{path}: a colour image of {pixels.dtype}; 8 or 16 bits a colour expected")
        pixels = np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels[..., :3]), cv2.COLOR_RGB2GRAY))
    if pixels.dtype == np.bool_:
        return pixels.astype(np.uint8)
    if pixels.dtype not in (np.uint8, np.uint16):
        pixels = pixels.astype(np.float32)
        if not np.isfinite(pixels).all():
            raise ConfigFault(f"{path}: holds NaN or infinite pixels")
    return pixels


def read_indices(path: Path) -> Labels:
    """The numbers of a label file as they stand, (H, W) int32: greys of 8, 16 or 32 bits, palette indices, whole floats.

    Raises ConfigFault naming the file; colours are refused, because whether a colour means an object or a class nobody can
    tell.
    """
    pixels = _decode(path, palette="index")
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
    """A label file as (H, W) int32: 0 the background, every other number an object.

    A file of 0 and 255 alone is a mask: its objects are the connected components. Raises ConfigFault as `read_indices` does.
    """
    labels = read_indices(path)
    return components(labels) if set(np.unique(labels).tolist()) == {0, 255} else labels


def read_mask(path: Path) -> Labels:
    """As `read_labels`, but a file of 0 and any one other number is a mask too: for folders that hold masks by their name."""
    labels = read_indices(path)
    return components(labels) if len(np.unique(labels[labels > 0])) == 1 else labels


def whole_numbers(values: NDArray[np.generic], where: str) -> Labels:
    """Labels of any real type as int32, large numbers renumbered in their order. Raises ConfigFault naming `where`."""
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
    """Connected components (8 neighbours) of what is above 0 in a mask (H, W)."""
    return np.asarray(cv2.connectedComponents((mask > 0).astype(np.uint8))[1], np.int32)


def stack_masks(masks: Sequence[NDArray[np.bool_]], shape: tuple[int, int]) -> Labels:
    """Label image of one mask an object, numbered in their order; where objects overlap the smaller one is on top."""
    labels = np.zeros(shape, np.int32)
    for index in sorted(range(len(masks)), key=lambda index: -int(masks[index].sum())):
        labels[masks[index]] = index + 1
    return labels


def _decode(path: Path, palette: str = "colour") -> NDArray[np.generic]:
    """Pixels (H, W), or (H, W, 3 or 4) in the order red, green, blue."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigFault(f"{path}: cannot be read: {error.strerror}") from error
    if data[:4] in _TIFF_MAGIC:
        return _decode_tiff(path)
    scale = 1
    if palette == "index" and data.startswith(_PNG_MAGIC):
        data, scale = _without_palette(data)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if image is None:
        raise ConfigFault(f"{path}: not an image that can be decoded (PNG, TIFF and JPEG can)")
    pixels = np.asarray(image)
    return pixels[..., [2, 1, 0]] if pixels.ndim == 3 else pixels // scale if scale > 1 else pixels


def _decode_tiff(path: Path) -> NDArray[np.generic]:
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
    """A palette PNG as a grey one of the same indices, and by what a decoder then multiplies them (PNG specification 11.2)."""
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
