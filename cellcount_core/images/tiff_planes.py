"""Where the planes of a TIFF lie: the pages of one file in the order of an array, or those that OME-XML names, in it and beside it.

Each page is checked before it is decoded: tifffile gives zeros for what is not there.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod

import numpy as np
import tifffile

from cellcount_core.domain.errors import CellcountError, FieldFault, Reason
from cellcount_core.images.axes import Axes
from cellcount_core.images.imagefile import Beside, Plane
from cellcount_core.images.ome import Place, PlaneMap, read_ome
from cellcount_core.images.reader import Reader, Whole
from cellcount_core.images.tiff_chain import check_chain, opens
from cellcount_core.images.tiff_segments import (
    check_encoding,
    check_images,
    check_segments,
    check_written,
)

_HEADER_BYTES = 8

# What tifffile and imagecodecs raise on damaged bytes (their own errors derive from ValueError and RuntimeError). Not
# MemoryError: sizes are checked before anything is allocated, so that one says something about the machine.
_DECODER_FAULTS = (
    ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError, AssertionError, OSError, EOFError,
    SyntaxError, struct.error,
)  # fmt: skip


@contextmanager
def translated(key: str) -> Iterator[None]:
    """What decoders raise on damaged bytes becomes a FieldFault UNREADABLE; a store that fails while they read does not."""
    try:
        yield
    except CellcountError:
        raise
    except _DECODER_FAULTS as error:
        detail = f"the TIFF is damaged or uses what tifffile cannot decode: {str(error)[:200] or type(error).__name__}"
        raise FieldFault(Reason.UNREADABLE, detail, key) from error


class PageFile:
    """One TIFF file, its headers read: its pages are read and decoded one at a time, each checked first."""

    def __init__(self, reader: Reader, key: str) -> None:
        check_chain(reader, key)
        # tifffile logs every oddity of a file; each that matters here becomes a fault, and a plate has thousands of files.
        logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)
        self.reader, self.key = reader, key
        with translated(key):
            self.tif = tifffile.TiffFile(reader.stream())
            self.first = self.tif.pages.first

    def page(self, number: int, like: tifffile.TiffPage) -> Plane:
        """Page `number`, which is to be of the shape and type of `like`."""
        with translated(self.key):
            if number >= len(self.tif.pages):
                detail = (
                    f"the headers promise page {number} (from 0) and the file has {len(self.tif.pages)} pages"
                )
                raise FieldFault(Reason.TRUNCATED, detail, self.key)
            page = self.tif.pages[number]
            if not isinstance(page, tifffile.TiffPage) or (page.shape, page.dtype) != (
                like.shape,
                like.dtype,
            ):
                detail = f"page {number} is {page.shape} {page.dtype} and the image's are {like.shape} {like.dtype}"
                raise FieldFault(Reason.WRONG_SHAPE, detail, self.key)
            check_encoding(page, self.key)
            return self.decode(page, page)

    def decode(self, page: tifffile.TiffPage | tifffile.TiffFrame, keyframe: tifffile.TiffPage) -> Plane:
        """The pixels of a page, in the shape of `keyframe`."""
        check_written(page, keyframe, self.key)
        if keyframe.is_final:
            return self.raw(page.dataoffsets[0], keyframe)
        spans = check_segments(page, keyframe, self.reader.size, self.key)
        with self.reader.holding(spans):
            check_images(spans, keyframe, self.reader, self.key)
            return np.asarray(page.asarray(maxworkers=1)).reshape(keyframe.shape)

    def raw(self, offset: int, keyframe: tifffile.TiffPage) -> Plane:
        """The pixels of a page that stand as they are at `offset`: a view, no copy."""
        if offset < _HEADER_BYTES:
            raise FieldFault(
                Reason.UNREADABLE, f"a plane stands at byte {offset}, in the file's header", self.key
            )
        if offset + keyframe.nbytes > self.reader.size:
            needed = f"a plane needs bytes {offset} to {offset + keyframe.nbytes}"
            raise FieldFault(
                Reason.TRUNCATED, f"the file has {self.reader.size} bytes and {needed}", self.key
            )
        dtype = np.dtype(keyframe.dtype).newbyteorder(keyframe.parent.byteorder)
        body = self.reader.read(offset, offset + keyframe.nbytes)
        return np.frombuffer(body, dtype, prod(keyframe.shape)).reshape(keyframe.shape)


class Stack:
    """The pages of one file in the order of an array, which `axes` describe; `channels` are those that it holds, `apart` how many lie in
    blocks of their own."""

    def __init__(self, file: PageFile, series: tifffile.TiffPageSeries, axes: Axes) -> None:
        self.keyframe, self.axes = series.keyframe, axes
        self.planes, self.images = axes.size("Z"), axes.images
        self.apart = 1 if {"C", "S"} & set(axes.inside) else axes.size("C")
        self.channels: Sequence[int] = range(self.apart)
        self._file, self._series = file, series

    def block(self, channel: int, plane: int, index: int) -> Plane:
        """The block that holds a plane, see `Axes`; it may be part of a page or several pages."""
        size, page = prod(self.axes.block), prod(self.keyframe.shape)
        start = self.axes.number(channel, plane, index) * size
        first, last = start // page, (start + size - 1) // page
        with translated(self._file.key):
            if first == last and size == page:
                return self._page(first)
            flat = np.concatenate([self._page(number).ravel() for number in range(first, last + 1)])
        return flat[start - first * page :][:size]

    def _page(self, number: int) -> Plane:
        if (offset := self._series.dataoffset) is not None:
            check_written(self.keyframe, self.keyframe, self._file.key)
            # One run of raw planes (also of ImageJ stacks, of which only the first has a page).
            return self._file.raw(offset + number * self.keyframe.nbytes, self.keyframe)
        page = self._series[number] if number < len(self._series) else None
        if page is None:
            detail = f"the headers promise page {number} (from 0) and it is not in the file"
            raise FieldFault(Reason.TRUNCATED, detail, self._file.key)
        return self._file.decode(page, self.keyframe)

    def own(self, channel: int, index: int) -> tuple[int, ...]:
        """The planes of a channel that lie in the file."""
        return tuple(range(self.axes.size("Z")))


class OmePlanes:
    """The pages that TiffData elements name, in this file and in those of its set. `roles` say what the XML's C, Z and T stand for; of the
    `apart` channels of the image this file holds `channels`."""

    def __init__(
        self, file: PageFile, plan: PlaneMap, roles: Mapping[str, str], beside: Beside, key: str
    ) -> None:
        self.keyframe, self.plan = file.first, plan
        self._file, self._beside, self._roles, self._key = file, beside, roles, key
        self._others: dict[str, PageFile] = {}
        self.held = [{roles[axis]: at for axis, at in zip("CZT", each, strict=True)} for each in plan.held()]
        self._times = sorted({at["T"] for at in self.held})
        sizes = {roles[axis]: plan.sizes[axis] for axis in "CZT"}
        self.planes, self.images, self.apart = sizes["Z"], len(self._times), sizes["C"]
        self.channels: Sequence[int] = sorted({at["C"] for at in self.held})

    def own(self, channel: int, index: int) -> tuple[int, ...]:
        """The planes of a channel that lie in this file."""
        held = (at for at in self.held if (at["C"], at["T"]) == (channel, self._times[index]))
        return tuple(sorted(at["Z"] for at in held))

    def block(self, channel: int, plane: int, index: int) -> Plane:
        """The page of a plane, wherever it lies."""
        place = self.place(channel, plane, index)
        if place is None:
            detail = f"the OME-XML names no page for plane {plane + 1} of channel number {channel} (from 0)"
            raise FieldFault(Reason.TRUNCATED, detail, self._key)
        return (self._other(place) if place.file else self._file).page(place.ifd, self.keyframe)

    def place(self, channel: int, plane: int, index: int) -> Place | None:
        """Where a plane lies, None where the XML does not say it."""
        at = {"C": channel, "Z": plane, "T": self._times[index]}
        return self.plan.place((at[self._roles["C"]], at[self._roles["Z"]], at[self._roles["T"]]))

    def _other(self, place: Place) -> PageFile:
        if place.file not in self._others:
            body = self._beside(place.file)
            if body is None:
                detail = f"a plane of its image lies in {place.file}, which is not beside it"
                raise FieldFault(Reason.ABSENT, detail, self._key)
            if not opens(body):
                detail = f"a plane of its image lies in {place.file}, which is no TIFF"
                raise FieldFault(Reason.UNREADABLE, detail, self._key)
            other = PageFile(Whole(body), f"{self._key.rpartition('/')[0]}/{place.file}".lstrip("/"))
            ome = (
                read_ome(str(other.first.description or ""), len(other.tif.pages), other.key)
                if other.tif.is_ome
                else None
            )
            if ome is not None and ome.uuid and place.uuid and ome.uuid != place.uuid:
                detail = f"{place.file} has the UUID {ome.uuid}, and the file of the set that has its name {place.uuid}"
                raise FieldFault(Reason.WRONG_SHAPE, detail, self._key)
            self._others[place.file] = other
        return self._others[place.file]
