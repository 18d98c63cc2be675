"""NPZ and NPY files: an image (H, W) or (H, W, C), a stack (N, H, W) or (N, H, W, C), or the axes that `run.axes`
declares.

They are read one block at a time; of a compressed array nothing is held but the block.
"""

from __future__ import annotations

import io
import threading
import zipfile
import zlib
from dataclasses import dataclass, field
from math import prod
from tokenize import TokenError
from typing import IO

import numpy as np

from cellcount_core.domain.errors import FieldFault, Reason
from cellcount_core.images.imagefile import (
    COLOURS,
    UNDECLARED,
    Axes,
    Beside,
    Declared,
    Plane,
    alone,
    array_axes,
    channel_number,
    check_pixels,
    check_position,
    usable_names,
)
from cellcount_core.images.pixels import bit_max_of, check_dtype, colour_channel, countable

_NPY = b"\x93NUMPY"
_ZIP = b"PK\x03\x04"
_LOCAL_HEADER = 34
_END_OF_DIRECTORY = b"PK\x05\x06"
_END_BYTES = 22
_CHUNK = 1 << 20
_BLOCKS = 4
"""A block of several channels or planes may hold this many times `max_pixels`."""

_FEW = 4
FEW_IMAGES = "images_or_channels"
"""Warning: the file is a stack of two to four images, counted one by one, but they might be the channels or planes of
one image."""

_HEADER_FAULTS = (ValueError, SyntaxError, TypeError, KeyError, TokenError, RecursionError, OverflowError)
_STREAM_FAULTS = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,
    RuntimeError,
)


@dataclass(frozen=True, slots=True)
class _ArrayHeader:
    """The header of an array; its data begin at byte `start`, in Fortran order if `fortran`."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    fortran: bool
    start: int


@dataclass(slots=True)
class ArrayStack:
    """The images of one array. See `ImageFile`.

    A compressed array is decompressed as a stream: if the images are read in order, it takes one pass and the memory
    of one image.
    """

    body: bytes
    key: str
    header: _ArrayHeader
    member: str | None
    axes: Axes
    warnings: tuple[str, ...] = ()
    um_per_px: float | None = None
    _held: tuple[int, Plane] | None = field(default=None, repr=False)
    _stream: IO[bytes] | None = field(default=None, repr=False)
    _at: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def images(self) -> int:
        """Number of images that are fields of their own."""
        return self.axes.images

    @property
    def planes(self) -> int:
        """Number of z planes."""
        return self.axes.size("Z")

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in px."""
        return self.axes.shape

    @property
    def channels(self) -> tuple[str, ...]:
        """("",) for one channel, "red", "green", "blue" for a colour image, otherwise "0", "1", …."""
        return COLOURS if self._colour else usable_names((), self.axes.size("C"))

    @property
    def whole(self) -> tuple[str, ...]:
        """The same as `channels`: an array is one file."""
        return self.channels

    @property
    def bit_max(self) -> int:
        """Largest value of the stored type; 1 for bool, 0 for floats."""
        return bit_max_of(self.header.dtype)

    @property
    def _colour(self) -> bool:
        return self.axes.size("S") >= len(COLOURS)

    def own(self, channel: str, index: int = 0) -> tuple[int, ...]:
        """All planes."""
        return tuple(range(self.planes))

    def read(self, channel: str, plane: int, index: int = 0) -> Plane:
        """See `ImageFile.read`. Reading the images in ascending order is fastest."""
        number = channel_number(self.channels, channel, self.key)
        check_position(plane, self.planes, index, self.images, self.key)
        block = self._block(self.axes.number(max(0, number), plane, index))
        if self._colour:
            return colour_channel(self.axes.plane(block, -1, plane, index), number, self.key)
        return countable(self.axes.plane(block, number, plane, index), self.key)

    def has_alpha(self) -> bool:
        """Whether the last of four samples is the alpha of an opaque image: all 255."""
        return bool((self._block(0).reshape(self.axes.block)[..., 3] == 255).all())

    def _block(self, number: int) -> Plane:
        """Block `number` of the array, flat or in its own shape. A block that holds several planes is kept for the
        next read."""
        held = self._held
        if held is not None and held[0] == number:
            return held[1]
        header = self.header
        if header.fortran:
            flat = np.frombuffer(self._bytes(0, prod(header.shape) * header.dtype.itemsize), header.dtype)
            whole = flat.reshape(header.shape, order="F")
            block = np.asarray(whole.reshape(-1, *self.axes.block)[number])
        else:
            size = prod(self.axes.block) * header.dtype.itemsize
            block = np.frombuffer(self._bytes(number * size, size), header.dtype)
        if self.member is not None and len(self.axes.inside) > 2:
            self._held = (number, block)
        return block

    def _bytes(self, start: int, size: int) -> bytes | bytearray | memoryview:
        begin = self.header.start + start
        if self.member is None:
            return memoryview(self.body)[begin : begin + size]
        with self._lock:
            try:
                return self._from_stream(begin, size)
            except FieldFault:
                raise
            except _STREAM_FAULTS as error:
                self._stream = None
                detail = f"the array {self.member!r} cannot be decompressed at image byte {start}: {error}"
                raise FieldFault(Reason.UNREADABLE, detail, self.key) from error

    def _from_stream(self, begin: int, size: int) -> bytearray:
        if self._stream is None or begin < self._at:
            archive = zipfile.ZipFile(io.BytesIO(self.body))
            self._stream = archive.open(self.member or "")
            self._at = 0
        while self._at < begin:
            self._at += len(self._some(min(_CHUNK, begin - self._at)))
        data = bytearray()
        while len(data) < size:
            data += self._some(min(_CHUNK, size - len(data)))
        self._at += size
        return data

    def _some(self, size: int) -> bytes:
        data = self._stream.read(size) if self._stream is not None else b""
        if not data:
            raise EOFError("its data end before the shape in its header does")
        return data


def opens(body: bytes) -> bool:
    """Whether `body` begins like an NPY, or like a ZIP archive that names an .npy member (or is cut off before it
    could)."""
    return body.startswith(_NPY) or (body.startswith(_ZIP) and (b".npy" in body or len(body) < _LOCAL_HEADER))


def open_bytes(
    body: bytes, key: str, max_pixels: int, declared: Declared = UNDECLARED, beside: Beside = alone
) -> ArrayStack:
    """Open an array from its header. Of an NPZ it is "X", else "arr_0", else the only array. Pickled objects are
    never loaded.

    Raises FieldFault: TRUNCATED, UNREADABLE, WRONG_SHAPE, WRONG_DTYPE, TOO_MANY_PIXELS.
    """
    if body.startswith(_NPY):
        header = _npy_header(io.BytesIO(body), key)
        return _opened(body, key, header, None, len(body), max_pixels, declared)
    try:
        archive = zipfile.ZipFile(io.BytesIO(body))
        info = _member(archive, key)
        with archive.open(info) as stream:
            header = _npy_header(stream, key)
    except FieldFault:
        raise
    except _STREAM_FAULTS as error:
        end = body.rfind(_END_OF_DIRECTORY)
        if end < 0 or end + _END_BYTES > len(body):
            detail = f"the NPZ ends after {len(body)} bytes without its directory"
            raise FieldFault(Reason.TRUNCATED, detail, key) from error
        raise FieldFault(Reason.UNREADABLE, f"the NPZ archive is damaged: {error}", key) from error
    return _opened(body, key, header, info.filename, info.file_size, max_pixels, declared)


def _opened(
    body: bytes,
    key: str,
    header: _ArrayHeader,
    member: str | None,
    size: int,
    max_pixels: int,
    declared: Declared,
) -> ArrayStack:
    if any(isinstance(side, bool) for side in header.shape):
        raise FieldFault(Reason.UNREADABLE, f"the array's header gives the shape {header.shape}", key)
    check_dtype(header.dtype, key)
    if not header.shape or min(header.shape) < 1:
        raise FieldFault(Reason.WRONG_SHAPE, f"the array has shape {header.shape}, which holds no pixel", key)
    axes = array_axes(header.shape, declared, key)
    _check(header, axes, size, max_pixels, key)
    few = axes.letters == "NYX" and 1 < axes.images <= _FEW and declared == UNDECLARED
    image = ArrayStack(body, key, header, member, axes, (FEW_IMAGES,) if few else ())
    if (
        not declared.axes
        and header.dtype == np.uint8
        and axes.letters.endswith("C")
        and axes.size("C") == 4
        and image.has_alpha()
    ):
        image.axes = Axes(axes.letters[:-1] + "S", axes.sizes)
    return image


def _member(archive: zipfile.ZipFile, key: str) -> zipfile.ZipInfo:
    arrays = {
        info.filename.removesuffix(".npy"): info
        for info in archive.infolist()
        if info.filename.endswith(".npy")
    }
    for name in ("X", "arr_0"):
        if name in arrays:
            return arrays[name]
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    there = ", ".join(repr(name) for name in sorted(arrays)[:8]) or "none"
    raise FieldFault(
        Reason.WRONG_SHAPE,
        f"the NPZ holds neither 'X' nor 'arr_0' nor a single array; there are: {there}",
        key,
    )


def _npy_header(stream: IO[bytes], key: str) -> _ArrayHeader:
    """Read the header of NumPy's format (NEP 1)."""
    try:
        version = np.lib.format.read_magic(stream)
        if version[0] == 1:
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        else:
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    except _HEADER_FAULTS as error:
        if "EOF" in str(error):
            raise FieldFault(Reason.TRUNCATED, "the file ends inside the header of its array", key) from error
        raise FieldFault(Reason.UNREADABLE, f"the header of the array is damaged: {error}", key) from error
    return _ArrayHeader(shape, np.dtype(dtype), fortran and len(shape) > 1, stream.tell())


def _check(header: _ArrayHeader, axes: Axes, size: int, max_pixels: int, key: str) -> None:
    shape = header.shape
    check_pixels(*axes.shape, max_pixels, key)
    if prod(axes.block) > _BLOCKS * max_pixels:
        detail = f"a block {axes.block} of axes {axes.letters} must be read at once; run.max_pixels allows {max_pixels:,}"
        raise FieldFault(Reason.TOO_MANY_PIXELS, detail, key)
    if header.fortran and prod(shape) > max_pixels:
        detail = f"an array {shape} in Fortran order must be read whole; run.max_pixels allows {max_pixels:,} pixels"
        raise FieldFault(Reason.TOO_MANY_PIXELS, f"{detail}; save it in C order", key)
    needed = header.start + prod(shape) * header.dtype.itemsize
    if size < needed:
        raise FieldFault(
            Reason.TRUNCATED, f"the array holds {size} bytes and its header asks for {needed}", key
        )
    if size > needed:
        # NumPy writes neither more nor less; bytes put in before the pixels would shift them all.
        raise FieldFault(
            Reason.UNREADABLE, f"the array holds {size} bytes and its header asks for only {needed}", key
        )
