"""TIFF files: grey, colour or palette, one page or many, in strips or tiles; ImageJ, OME-TIFF, BigTIFF, MetaSeries,
STK.

tifffile decodes. Checked before that: pages and strips beyond the end of the file, which tifffile gives as zeros
(`tiff_pages`), and axes of which a count would have to choose one without being told.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np
import tifffile

from cellcount_core.domain.doubts import Doubt
from cellcount_core.domain.errors import FieldFault, Reason, matching
from cellcount_core.images.imagefile import (
    COLOURS,
    UNDECLARED,
    Axes,
    Beside,
    Declared,
    Plane,
    alone,
    channel_number,
    check_pixels,
    check_position,
    check_sides,
    many_times,
    page_axes,
    renamed_axes,
    usable_names,
)
from cellcount_core.images.ome import (
    Ome,
    OmeImage,
    PlaneMap,
    map_planes,
    own_name,
    read_ome,
    refuse_document_type,
)
from cellcount_core.images.pixels import bit_max_of, check_dtype, colour_channel, countable, is_ramp
from cellcount_core.images.reader import Reader, Whole
from cellcount_core.images.tiff_metadata import Described, describe
from cellcount_core.images.tiff_pages import OmePlanes, PageFile, Stack, check_encoding, opens, translated

__all__ = ["TiffImage", "open_reader", "opens"]

_MINISWHITE, _MINISBLACK, _RGB, _PALETTE, _MASK, _YCBCR = 0, 1, 2, 3, 4, 6
_ASSOCIATED_ALPHA, _UNASSOCIATED_ALPHA = 1, 2
_NO_COMPRESSION = 1
_COMPRESSIONS = frozenset(map(int, tifffile.COMPRESSION))
"""The compression codes that tifffile knows. They are compared as plain numbers: a page without the tag, as ImageJ
writes it, has the number 1."""

_LARGEST_TILE = 1 << 24
"""Pixels in a tile that are always allowed, even if `max_pixels` is smaller."""
_FRAME_GRABBER = "National Instruments IMAQ"
"""The software that writes 12-bit values with an offset of 32,768: the sign bit of the signed type that it means (older scanR; Bio-Formats'
ScanrReader.java takes it off too)."""
_OFFSET, _TWELVE_BITS = 0x8000, 0x0FFF

_BLOCKS = 4
"""A block of several channels or planes may hold this many times `max_pixels`."""

_ORIENTATION = 274


@dataclass(slots=True)
class TiffImage:
    """The first image series of a TIFF, or the image of an OME set that the file belongs to. See `ImageFile`."""

    key: str
    channels: tuple[str, ...]
    whole: tuple[str, ...]
    planes: int
    images: int
    um_per_px: float | None
    bit_max: int
    shape: tuple[int, int]
    warnings: tuple[str, ...]
    _source: Stack | OmePlanes = field(repr=False)
    _axes: Axes = field(repr=False)
    _palette: Plane | None = field(repr=False)
    _held: tuple[tuple[int, int, int], Plane] | None = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def own(self, channel: str, index: int = 0) -> tuple[int, ...]:
        """See `ImageFile.own`."""
        number = max(0, self._channel(channel)) if self._apart else 0
        check_position(0, self.planes, index, self.images, self.key)
        planes = self._source.own(number, index)
        if not planes and (
            not isinstance(self._source, OmePlanes) or self._source.place(number, 0, index) is None
        ):
            detail = f"channel {self.whole[number]!r} has no page by its OME-XML; this file holds {_quoted(self.channels)}"
            raise FieldFault(Reason.CHANNEL_MISSING, detail, self.key)
        return planes

    def read(self, channel: str, plane: int, index: int = 0) -> Plane:
        """See `ImageFile.read`. A page that holds several channels stays decoded between their reads."""
        number = self._channel(channel)
        check_position(plane, self.planes, index, self.images, self.key)
        block = self._block(max(0, number) if self._apart else 0, plane, index)
        if self._palette is not None:
            return colour_channel(self._palette[self._axes.plane(block, 0, plane, index)], number, self.key)
        if self.channels == COLOURS:
            return colour_channel(self._axes.plane(block, -1, plane, index), number, self.key)
        grey = countable(self._axes.plane(block, number, plane, index), self.key)
        keyframe = self._source.keyframe
        if _is_grabbed(keyframe):
            return _without_offset(grey)
        if int(keyframe.photometric) == _MINISWHITE:
            return np.asarray(grey.dtype.type((1 << keyframe.bitspersample) - 1) - grey)  # type: ignore[operator]
        return grey

    @property
    def _apart(self) -> bool:
        """Whether each channel lies in blocks of its own."""
        return not {"C", "S"} & set(self._axes.inside)

    def _channel(self, name: str) -> int:
        """Number of a channel among all channels of the image, whichever file it lies in; -1 for the luminance."""
        if matching(name, self.whole) is None and len(self.channels) == 1:
            channel_number(self.channels, name, self.key)
            name = self.channels[0]
        return channel_number(self.whole, name, self.key)

    def _block(self, channel: int, plane: int, index: int) -> Plane:
        """The block that holds a plane, in the shape that `_axes` gives."""
        with self._lock:
            wanted = (channel, plane, index)
            if self._held is not None and self._held[0] == wanted:
                return self._held[1]
            block = self._source.block(channel, plane, index)
            if not self._apart:
                self._held = (wanted, block)
            return block


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names[:12])


def open_reader(
    reader: Reader, key: str, max_pixels: int, declared: Declared = UNDECLARED, beside: Beside = alone
) -> TiffImage:
    """Open a TIFF from its headers. Pixels are read when a plane is asked for.

    Raises FieldFault: TRUNCATED, UNREADABLE, UNSUPPORTED, WRONG_SHAPE, WRONG_DTYPE, TOO_MANY_PIXELS, and ABSENT if
    another file that describes the pages is not there.
    """
    file = PageFile(reader, key)
    with translated(key):
        first = file.first
        check_pixels(first.imagelength, first.imagewidth, max_pixels, key)
        image, plan = _described_by_ome(file, declared, beside)
        each = declared.pages == "each"
        declared = replace(declared, pages="time") if each else declared
        source: Stack | OmePlanes
        if image is None or plan is None:
            source, axes = _stack(file, image, declared, max_pixels)
        else:
            _check_page(first, max_pixels, key)
            source, axes = _ome_planes(file, image, plan, declared, beside)
        if each and source.images != len(file.tif.pages):
            detail = f"the plan names pages of the file, and of its {len(file.tif.pages)} pages {source.images} are alike; pages of one size are needed"
            raise FieldFault(Reason.WRONG_SHAPE, detail, key)
        page = source.keyframe
        sampled = "S" in page.axes and not declared.axes
        inside = _samples(page) if sampled else axes.size("C") if "C" in axes.inside else 1
        if source.apart > 1 and (inside > 1 or "S" in axes.letters):
            detail = f"{source.apart} channels of {inside} samples each; write grey channels"
            raise FieldFault(Reason.WRONG_SHAPE, detail, key)
        described = describe(file.tif, image)
        palette = _palette(page, key)
        colour = palette is not None or (_is_colour(page) if sampled else axes.size("S") >= len(COLOURS))
        whole = COLOURS if colour else usable_names(described.names, max(source.apart, inside))
        return TiffImage(
            key=key,
            channels=whole if colour or inside > 1 else tuple(whole[number] for number in source.channels),
            whole=whole,
            planes=source.planes,
            images=source.images,
            um_per_px=described.um_per_px,
            bit_max=255 if palette is not None else _bit_max(page, described),
            shape=axes.shape,
            warnings=(*described.warnings, *_turned(page)),
            _source=source,
            _axes=axes,
            _palette=palette,
        )


def _turned(page: tifffile.TiffPage | tifffile.TiffFrame) -> tuple[str, ...]:
    """The doubt that viewers show the page turned or mirrored, by its tag Orientation; () if they do not.

    Pixels are read as they are stored.
    """
    tag = page.keyframe.tags.get(_ORIENTATION)
    value = 1 if tag is None else tag.value
    return (Doubt.TURNED.value,) if isinstance(value, int) and 2 <= value <= 8 else ()


def _described_by_ome(
    file: PageFile, declared: Declared, beside: Beside
) -> tuple[OmeImage | None, PlaneMap | None]:
    """The image of the OME-XML to which this file belongs, and where its planes lie.

    (None, None) without OME-XML; (image, None) if `run.axes` declares the axes instead.
    """
    tif, key = file.tif, file.key
    description = str(file.first.description or "")
    if not tif.is_ome:
        if description.lstrip("\ufeff \t\r\n").startswith("<"):
            refuse_document_type(description, key)
        return None, None
    if declared.pages == "each":
        refuse_document_type(description, key)
        tif.is_ome = False
        return None, None
    ome = read_ome(description, len(tif.pages), key)
    said_elsewhere = ome.metadata_file if ome is not None and not ome.images else ""
    # tifffile reads an OME-XML only for the sizes of axes whose letters are declared.
    tif.is_ome = bool(declared.axes) and ome is not None
    if ome is not None and said_elsewhere:
        ome = _companion(file, ome, said_elsewhere, declared, beside)
    if ome is None or not ome.images:
        return None, None
    if declared.axes:
        return ome.images[0], None
    own = own_name(ome.images, ome.uuid, key.rpartition("/")[2], key)
    images = [image for image in ome.images if own is None or image.names_file(own)]
    if not images:
        raise FieldFault(Reason.WRONG_SHAPE, "the OME-XML places no plane in this file", key)
    image, *others = images
    if any(other.pixels_of_plane >= image.pixels_of_plane for other in others):
        raise FieldFault(Reason.WRONG_SHAPE, _not_together(len(images)), key)
    plan = map_planes(image, own, len(tif.pages), int(file.first.samplesperpixel), key)
    if own is None:
        _check_promised(prod(plan.sizes.values()), len(tif.pages), "OME-XML", key)
    if not plan.held():
        raise FieldFault(Reason.WRONG_SHAPE, "the OME-XML places no plane in this file", key)
    return image, plan


def _companion(file: PageFile, ome: Ome, name: str, declared: Declared, beside: Beside) -> Ome | None:
    """The OME-XML of the file `name`, which describes this one. None if that file is not there and is not needed,
    because the pages are declared."""
    body = beside(name)
    if body is None:
        if declared.axes or declared.pages:
            return None
        detail = f"its pages are described by {name}, which is not beside it; say what they are (run.pages or run.axes)"
        raise FieldFault(Reason.ABSENT, detail, file.key)
    other = PageFile(Whole(body), name) if opens(body) else None
    xml = body.decode("utf-8", "replace") if other is None else str(other.first.description or "")
    found = read_ome(xml, len(file.tif.pages), name)
    return None if found is None else replace(found, uuid=ome.uuid)


def _ome_planes(
    file: PageFile, image: OmeImage, plan: PlaneMap, declared: Declared, beside: Beside
) -> tuple[OmePlanes, Axes]:
    page, key = file.first, file.key
    kinds = "".join(axis for axis in "CZT" if plan.sizes[axis] > 1)
    renamed = renamed_axes(kinds, len([name for name in image.names if name]), declared.pages)
    roles = dict(zip(kinds, renamed, strict=True))
    left = [letter for letter in "CZT" if letter not in roles.values()]
    roles |= dict(zip((axis for axis in "CZT" if axis not in kinds), left, strict=True))
    source = OmePlanes(file, plan, roles, beside, key)
    if source.images > 1 and declared.pages != "time":
        raise FieldFault(Reason.WRONG_SHAPE, many_times(source.images), key)
    axes = Axes(page.axes, page.shape)
    check_sides(axes.shape, prod(plan.sizes.values()), key)
    return source, axes


def _stack(file: PageFile, image: OmeImage | None, declared: Declared, max_pixels: int) -> tuple[Stack, Axes]:
    key = file.key
    series = _series(file.tif, key)
    page = series.keyframe
    _check_page(page, max_pixels, key)
    if series.shape[-len(page.shape) :] != page.shape:
        detail = (
            f"the headers describe {series.axes} {series.shape} and the pages are {page.axes} {page.shape}"
        )
        raise FieldFault(Reason.WRONG_SHAPE, detail, key)
    named = len([name for name in describe(file.tif, image).names if name])
    axes = page_axes(series.axes, series.shape, page.axes, named, declared, key)
    if prod(axes.block) > _BLOCKS * max_pixels:
        detail = f"a block {axes.block} of axes {axes.letters} must be read at once; run.max_pixels allows {max_pixels:,}"
        raise FieldFault(Reason.TOO_MANY_PIXELS, detail, key)
    return Stack(file, series, axes), axes


def _not_together(number: int) -> str:
    return f"the TIFF holds {number} images that do not belong together; write one to a file"


def _series(tif: tifffile.TiffFile, key: str) -> tifffile.TiffPageSeries:
    """The series of pages to count, the largest one: smaller ones, such as thumbnails, are ignored."""
    if not tif.series:
        raise FieldFault(Reason.UNREADABLE, "the TIFF holds no image", key)
    series, *others = tif.series
    sizes = [other.keyframe.imagelength * other.keyframe.imagewidth for other in others]
    if any(size >= series.keyframe.imagelength * series.keyframe.imagewidth for size in sizes):
        raise FieldFault(Reason.WRONG_SHAPE, _not_together(len(tif.series)), key)
    if tif.is_imagej and series.kind != "imagej":
        meta = tif.imagej_metadata or {}
        promised = prod(int(meta.get(name, 1)) for name in ("channels", "slices", "frames"))
        _check_promised(promised, len(tif.pages), "ImageJ's header", key)
    return series


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
    if page.dtype is None or int(page.compression) not in _COMPRESSIONS:
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
        expected = "MINISBLACK, MINISWHITE (to 16 bits), RGB and PALETTE are expected: save it as RGB or grey"
        raise FieldFault(
            Reason.UNSUPPORTED, f"photometric interpretation {name} of {page.dtype}; {expected}", key
        )
    chunk = page.tilewidth * page.tilelength if page.is_tiled else 0
    if chunk > max(max_pixels, _LARGEST_TILE) or (page.samplesperpixel > 4 and prod(page.shape) > max_pixels):
        detail = f"tiles of {chunk:,} px and {page.samplesperpixel} samples a pixel are declared"
        raise FieldFault(Reason.TOO_MANY_PIXELS, f"{detail}; run.max_pixels allows {max_pixels:,}", key)


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
    """The colours (n, 3), uint8, of a palette image. None without a palette, and for one that only tints grey values."""
    if int(page.photometric) != _PALETTE:
        return None
    colours = page.colormap
    if colours is None or colours.shape != (3, 1 << page.bitspersample) or page.samplesperpixel != 1:
        raise FieldFault(Reason.UNREADABLE, "the palette is missing or of the wrong length", key)
    if is_ramp(colours.T):
        return None
    # TIFF 6.0 has 16-bit palettes; some writers fill in 8-bit values.
    return np.ascontiguousarray((colours >> 8 if colours.max() > 255 else colours).T.astype(np.uint8))


def _is_grabbed(page: tifffile.TiffPage) -> bool:
    """Whether the page holds 12-bit values with an offset, as the frame grabber of older scanR writes them."""
    if int(page.photometric) != _MINISBLACK or page.dtype is None or np.dtype(page.dtype) != np.uint16:
        return False
    return str(page.tags.valueof("Software") or "").strip(" \0") == _FRAME_GRABBER


def _without_offset(grey: Plane) -> Plane:
    """The 12-bit values of a plane. A plane with any other value than an offset of 32,768 and 12 bits is given as it is."""
    values = grey.astype(np.uint16, copy=False)
    if not np.all((values & np.uint16(0xFFFF ^ _TWELVE_BITS)) == _OFFSET):
        return grey
    return np.asarray(values & np.uint16(_TWELVE_BITS))


def _bit_max(page: tifffile.TiffPage, described: Described) -> int:
    dtype = np.dtype(page.dtype)
    if dtype.kind != "u":
        return bit_max_of(dtype)
    if _is_grabbed(page):
        return _TWELVE_BITS
    bits = int(page.bitspersample)
    if described.bits is not None and 0 < described.bits <= bits:
        bits = described.bits
    return (1 << bits) - 1
