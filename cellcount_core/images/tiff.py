"""TIFF: grey, colour or palette, one page or many, striped or tiled, ImageJ, OME-TIFF, BigTIFF, MetaSeries.

Decoding is tifffile's. What it takes lightly is checked here first: pages or strips beyond the end of the file, which it
gives as zeros, and axes that a count cannot take one of in silence.
"""

from __future__ import annotations

import io
import logging
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod

import numpy as np
import tifffile

from cellcount_core.domain.errors import FieldFault, Reason
from cellcount_core.images.imagefile import COLOURS, Plane, channel_number, check_pixels, check_position
from cellcount_core.images.ome import Ome, read_ome, refuse_document_type
from cellcount_core.images.pixels import bit_max_of, check_dtype, colour_channel, countable, is_ramp
from cellcount_core.images.tiff_chain import check_chain, opens
from cellcount_core.images.tiff_metadata import Described, describe, usable_names
from cellcount_core.images.tiff_segments import check_encoding, check_segments, check_written

__all__ = ["TiffImage", "open_bytes", "opens"]

_UNNAMED = "IQ"
_MINISWHITE, _MINISBLACK, _RGB, _PALETTE, _MASK, _YCBCR = 0, 1, 2, 3, 4, 6
_ASSOCIATED_ALPHA, _UNASSOCIATED_ALPHA = 1, 2
_NO_COMPRESSION = 1
_LARGEST_TILE = 1 << 24
_HEADER_BYTES = 8

# What tifffile and imagecodecs raise on damaged bytes (their own errors derive from ValueError and RuntimeError). Not
# MemoryError: sizes are checked before anything is allocated, so that one says something about the machine.
_DECODER_FAULTS = (
    ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError, AssertionError, OSError, EOFError,
    SyntaxError, struct.error,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Axes:
    """Where channels and planes are: steps over the pages of the series, or samples along an axis of each page."""

    channels: int
    planes: int
    channel_step: int
    plane_step: int
    samples: int
    sample_axis: int | None

    @property
    def in_page(self) -> bool:
        """Whether the channels lie within a page."""
        return self.samples > 1


@dataclass(slots=True)
class TiffImage:
    """The first image series of a TIFF. See `ImageFile`."""

    key: str
    channels: tuple[str, ...]
    um_per_px: float | None
    bit_max: int
    shape: tuple[int, int]
    _body: bytes = field(repr=False)
    _series: tifffile.TiffPageSeries = field(repr=False)
    _axes: _Axes = field(repr=False)
    _palette: Plane | None = field(repr=False)
    images: int = 1
    _held: tuple[int, Plane] | None = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def planes(self) -> int:
        """Number of z planes."""
        return self._axes.planes

    def read(self, channel: str, plane: int, index: int = 0) -> Plane:
        """See `ImageFile.read`. A page that holds several channels stays decoded between their reads."""
        number = channel_number(self.channels, channel, self.key)
        check_position(plane, self.planes, index, self.images, self.key)
        axes = self._axes
        page = plane * axes.plane_step + (0 if axes.in_page else max(0, number) * axes.channel_step)
        pixels = self._page(page)
        if self._palette is not None:
            return colour_channel(self._palette[pixels], number, self.key)
        if axes.in_page and self.channels == COLOURS:
            return colour_channel(pixels, number, self.key)
        grey = countable(pixels[:, :, number] if axes.in_page else pixels, self.key)
        keyframe = self._series.keyframe
        if int(keyframe.photometric) == _MINISWHITE:
            return np.asarray(grey.dtype.type((1 << keyframe.bitspersample) - 1) - grey)  # type: ignore[operator]
        return grey

    def _page(self, number: int) -> Plane:
        """Page `number` of the series: (H, W), or (H, W, samples)."""
        with self._lock, _translated(self.key):
            if self._held is not None and self._held[0] == number:
                return self._held[1]
            pixels = self._decode(number)
            if self._axes.sample_axis is None:
                return pixels
            pixels = np.moveaxis(pixels, self._axes.sample_axis, 2)[:, :, : self._axes.samples]
            if not self._axes.in_page:
                return pixels[:, :, 0]
            self._held = (number, pixels)
            return pixels

    def _decode(self, number: int) -> Plane:
        keyframe = self._series.keyframe
        offset = self._series.dataoffset
        if offset is not None:
            check_written(keyframe, keyframe, self.key)
            # One run of raw planes (also of ImageJ stacks, of which only the first has a page): a view, no copy.
            return self._view(offset + number * keyframe.nbytes, keyframe)
        page = self._series[number] if number < len(self._series) else None
        if page is None:
            raise FieldFault(
                Reason.TRUNCATED, f"the headers promise page {number} and it is not in the file", self.key
            )
        check_written(page, keyframe, self.key)
        if keyframe.is_final:
            return self._view(page.dataoffsets[0], keyframe)
        check_segments(page, keyframe, self._body, self.key)
        return np.asarray(page.asarray(maxworkers=1)).reshape(keyframe.shape)

    def _view(self, offset: int, keyframe: tifffile.TiffPage) -> Plane:
        if offset < _HEADER_BYTES:
            raise FieldFault(
                Reason.UNREADABLE, f"a plane stands at byte {offset}, in the file's header", self.key
            )
        if offset + keyframe.nbytes > len(self._body):
            needed = f"a plane needs bytes {offset} to {offset + keyframe.nbytes}"
            raise FieldFault(Reason.TRUNCATED, f"the file has {len(self._body)} bytes and {needed}", self.key)
        dtype = np.dtype(keyframe.dtype).newbyteorder(keyframe.parent.byteorder)
        return np.frombuffer(self._body, dtype, prod(keyframe.shape), offset).reshape(keyframe.shape)


def open_bytes(body: bytes, key: str, max_pixels: int) -> TiffImage:
    """Open from headers. Raises FieldFault TRUNCATED, UNREADABLE, UNSUPPORTED, WRONG_SHAPE, WRONG_DTYPE, TOO_MANY_PIXELS."""
    check_chain(body, key)
    # tifffile logs every oddity of a file; each that matters here becomes a fault, and a plate has thousands of files.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)
    with _translated(key):
        tif = tifffile.TiffFile(io.BytesIO(body))
        first = tif.pages.first
        check_pixels(first.imagelength, first.imagewidth, max_pixels, key)
        ome = _ome(tif, key)
        series = _series(tif, ome, key)
        page = series.keyframe
        _check_page(page, max_pixels, key)
        axes = _axes(series, page, key)
        described = describe(tif, ome)
        palette = _palette(page, key)
        colour = palette is not None or (axes.in_page and _is_colour(page))
        return TiffImage(
            key=key,
            channels=COLOURS if colour else usable_names(described.names, axes.channels),
            um_per_px=described.um_per_px,
            bit_max=255 if palette is not None else _bit_max(page, described),
            shape=(page.imagelength, page.imagewidth),
            _body=body,
            _series=series,
            _axes=axes,
            _palette=palette,
        )


@contextmanager
def _translated(key: str) -> Iterator[None]:
    try:
        yield
    except _DECODER_FAULTS as error:
        detail = f"the TIFF is damaged or uses what tifffile cannot decode: {str(error)[:200] or type(error).__name__}"
        raise FieldFault(Reason.UNREADABLE, detail, key) from error


def _ome(tif: tifffile.TiffFile, key: str) -> Ome | None:
    """The OME-XML of the file, if it has one that can be read; tifffile then reads none either."""
    description = str(tif.pages.first.description or "")
    if not tif.is_ome:
        if description.lstrip("\ufeff \t\r\n").startswith("<"):
            refuse_document_type(description, key)
        return None
    ome = read_ome(description, len(tif.pages), key)
    if ome is None:
        tif.is_ome = False
    return ome


def _series(tif: tifffile.TiffFile, ome: Ome | None, key: str) -> tifffile.TiffPageSeries:
    """The one image series there is to count, beside smaller ones such as thumbnails."""
    if ome is not None:
        if len(ome.files) > 1:
            return _one_of_a_set(tif, key)
        _check_promised(ome.planes, len(tif.pages), "OME-XML", key)
    if not tif.series:
        raise FieldFault(Reason.UNREADABLE, "the TIFF holds no image", key)
    series, *others = tif.series
    sizes = [other.keyframe.imagelength * other.keyframe.imagewidth for other in others]
    if any(size >= series.keyframe.imagelength * series.keyframe.imagewidth for size in sizes):
        detail = f"the TIFF holds {len(tif.series)} images that do not belong together; write one to a file"
        raise FieldFault(Reason.WRONG_SHAPE, detail, key)
    if tif.is_imagej and series.kind != "imagej":
        meta = tif.imagej_metadata or {}
        promised = prod(int(meta.get(name, 1)) for name in ("channels", "slices", "frames"))
        _check_promised(promised, len(tif.pages), "ImageJ's header", key)
    return series


def _one_of_a_set(tif: tifffile.TiffFile, key: str) -> tifffile.TiffPageSeries:
    """The pages of a file whose OME-XML describes an image spread over several files; which planes they are is unknown."""
    pages = list(tif.pages)
    first = tif.pages.first
    if any(page.keyframe.hash != first.hash for page in pages):
        detail = f"the file holds {len(pages)} pages of different kinds from a set of files; write one image to a file"
        raise FieldFault(Reason.WRONG_SHAPE, detail, key)
    shape = first.shape if len(pages) == 1 else (len(pages), *first.shape)
    axes = first.axes if len(pages) == 1 else "I" + first.axes
    return tifffile.TiffPageSeries(pages, shape, first.dtype, axes, parent=tif)


def _check_promised(promised: int, there: int, who: str, key: str) -> None:
    if promised > there:
        detail = f"{who} promises {promised} planes and the file holds {there}"
        raise FieldFault(Reason.TRUNCATED, detail, key)


def _check_page(page: tifffile.TiffPage, max_pixels: int, key: str) -> None:
    check_pixels(page.imagelength, page.imagewidth, max_pixels, key)
    if page.imagedepth > 1:
        raise FieldFault(
            Reason.WRONG_SHAPE, f"pages are {page.imagedepth} deep; write a plane to a page", key
        )
    if page.dtype is None or not isinstance(page.compression, tifffile.COMPRESSION):
        detail = (
            f"{page.bitspersample}-bit samples of format {page.sampleformat}, compression {page.compression}"
        )
        raise FieldFault(Reason.UNSUPPORTED, f"{detail}, cannot be decoded", key)
    check_encoding(page, key)
    check_dtype(np.dtype(page.dtype), key)
    photometric = int(page.photometric)
    known = photometric in (_MINISBLACK, _RGB, _PALETTE, _MASK)
    inverted = photometric == _MINISWHITE and np.dtype(page.dtype).kind in "bu" and page.bitspersample <= 16
    as_rgb = photometric == _YCBCR and page.compression != _NO_COMPRESSION
    if not (known or inverted or as_rgb):
        name = getattr(page.photometric, "name", str(photometric))
        expected = "MINISBLACK, MINISWHITE (to 16 bits), RGB and PALETTE are expected"
        raise FieldFault(
            Reason.UNSUPPORTED, f"photometric interpretation {name} of {page.dtype}; {expected}", key
        )
    chunk = page.tilewidth * page.tilelength if page.is_tiled else 0
    if chunk > max(max_pixels, _LARGEST_TILE) or (page.samplesperpixel > 4 and prod(page.shape) > max_pixels):
        detail = f"tiles of {chunk:,} px and {page.samplesperpixel} samples a pixel are declared"
        raise FieldFault(Reason.TOO_MANY_PIXELS, f"{detail}; run.max_pixels allows {max_pixels:,}", key)


def _axes(series: tifffile.TiffPageSeries, page: tifffile.TiffPage, key: str) -> _Axes:
    """Channels and planes from the axes of the series. Pages that nothing describes are channels (see `ImageFile`)."""
    own = len(page.shape)
    if series.shape[-own:] != page.shape:
        detail = (
            f"the headers describe {series.axes} {series.shape} and the pages are {page.axes} {page.shape}"
        )
        raise FieldFault(Reason.WRONG_SHAPE, detail, key)
    sizes = {"C": 1, "Z": 1}
    steps = {"C": 0, "Z": 0}
    step = 1
    for name, size in reversed(list(zip(series.axes[:-own], series.shape[:-own], strict=True))):
        axis = "C" if name in _UNNAMED else name
        if size > 1 and (axis not in sizes or sizes[axis] > 1):
            raise FieldFault(Reason.WRONG_SHAPE, _axis_message(name, size, series), key)
        if size > 1:
            sizes[axis], steps[axis] = size, step
        step *= size
    sample_axis = page.axes.index("S") if "S" in page.axes else None
    samples = _samples(page) if sample_axis is not None else 1
    if samples > 1 and sizes["C"] > 1:
        detail = f"{sizes['C']} channels of {samples} samples each; write grey channels"
        raise FieldFault(Reason.WRONG_SHAPE, detail, key)
    return _Axes(max(samples, sizes["C"]), sizes["Z"], steps["C"], steps["Z"], samples, sample_axis)


def _axis_message(name: str, size: int, series: tifffile.TiffPageSeries) -> str:
    what = {"T": "time points", "P": "positions"}.get(name, f"steps along axis {name!r}")
    return (
        f"the file holds {size} {what} (axes {series.axes}, {series.shape}); write each to a file of its own"
    )


def _samples(page: tifffile.TiffPage) -> int:
    if _is_colour(page):
        return len(COLOURS)
    alphas = [int(kind) for kind in page.extrasamples or ()]
    return max(
        1,
        int(page.samplesperpixel) - sum(kind in (_ASSOCIATED_ALPHA, _UNASSOCIATED_ALPHA) for kind in alphas),
    )


def _is_colour(page: tifffile.TiffPage) -> bool:
    return int(page.photometric) in (_RGB, _YCBCR) and int(page.samplesperpixel) >= len(COLOURS)


def _palette(page: tifffile.TiffPage, key: str) -> Plane | None:
    """Colours (n, 3) uint8 of a palette image; None where there is no palette or one that only tints grey values."""
    if int(page.photometric) != _PALETTE:
        return None
    colours = page.colormap
    if colours is None or colours.shape != (3, 1 << page.bitspersample) or page.samplesperpixel != 1:
        raise FieldFault(Reason.UNREADABLE, "the palette is missing or of the wrong length", key)
    if is_ramp(colours.T):
        return None
    # TIFF 6.0 has 16-bit palettes; some writers fill in 8-bit values.
    return np.ascontiguousarray((colours >> 8 if colours.max() > 255 else colours).T.astype(np.uint8))


def _bit_max(page: tifffile.TiffPage, described: Described) -> int:
    dtype = np.dtype(page.dtype)
    if dtype.kind != "u":
        return bit_max_of(dtype)
    bits = int(page.bitspersample)
    if described.bits is not None and 0 < described.bits <= bits:
        bits = described.bits
    return (1 << bits) - 1
