"""NPZ and NPY: one image (H, W) or a stack (N, H, W), (N, H, W, 1) or (N, H, W, 3), read image by image."""

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
from cellcount_core.images.imagefile import COLOURS, Plane, channel_number, check_pixels, check_position
from cellcount_core.images.pixels import bit_max_of, check_dtype, colour_channel, countable

_NPY = b"\x93NUMPY"
_ZIP = b"PK\x03\x04"
_LOCAL_HEADER = 34
_END_OF_DIRECTORY = b"PK\x05\x06"
_END_BYTES = 22
_CHUNK = 1 << 20
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
class _Header:
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    fortran: bool
    start: int


@dataclass(slots=True)
class ArrayStack:
    """A stack of N images of one shape, in one array. See `ImageFile`.

    A compressed member is decompressed as a stream: reading the images in order costs one pass and one image of memory.
    """

    body: bytes
    key: str
    header: _Header
    member: str | None
    planes: int = 1
    um_per_px: float | None = None
    _stream: IO[bytes] | None = field(default=None, repr=False)
    _at: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def images(self) -> int:
        """Number of images."""
        return self.header.shape[0] if len(self.header.shape) > 2 else 1

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in px."""
        return _image_shape(self.header.shape)

    @property
    def channels(self) -> tuple[str, ...]:
        """("",), or the three colours where the last axis is 3."""
        return COLOURS if self._samples == 3 else ("",)

    @property
    def bit_max(self) -> int:
        """Largest value of the stored type; 0 for floats, 1 for bool."""
        return bit_max_of(self.header.dtype)

    @property
    def _samples(self) -> int:
        return self.header.shape[3] if len(self.header.shape) == 4 else 1

    def read(self, channel: str, plane: int, index: int = 0) -> Plane:
        """See `ImageFile.read`; images are best read in ascending order."""
        number = channel_number(self.channels, channel, self.key)
        check_position(plane, self.planes, index, self.images, self.key)
        pixels = self._image(index)
        if self._samples == 3:
            return colour_channel(pixels, number, self.key)
        return countable(pixels.reshape(self.shape), self.key)

    def _image(self, index: int) -> Plane:
        header = self.header
        if header.fortran:
            flat = np.frombuffer(self._bytes(0, prod(header.shape) * header.dtype.itemsize), header.dtype)
            whole = flat.reshape(header.shape, order="F")
            return whole[index] if whole.ndim > 2 else whole
        shape = header.shape[1:] if len(header.shape) > 2 else header.shape
        size = prod(shape) * header.dtype.itemsize
        return np.frombuffer(self._bytes(index * size, size), header.dtype).reshape(shape)

    def _bytes(self, start: int, size: int) -> bytes | bytearray | memoryview:
        begin = self.header.start + start
        if self.member is None:
            return memoryview(self.body)[begin : begin + size]
        with self._lock:
            try:
                return self._from_stream(begin, size)
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
    """Whether the first bytes are those of an NPY, or of a ZIP archive that names an .npy member (or ends before it could)."""
    return body.startswith(_NPY) or (body.startswith(_ZIP) and (b".npy" in body or len(body) < _LOCAL_HEADER))


def open_bytes(body: bytes, key: str, max_pixels: int) -> ArrayStack:
    """Open from headers: of an NPZ the array "X", else "arr_0", else the only one. Pickled objects are never loaded.

    Raises FieldFault TRUNCATED, UNREADABLE, WRONG_SHAPE, WRONG_DTYPE, TOO_MANY_PIXELS.
    """
    if body.startswith(_NPY):
        header = _npy_header(io.BytesIO(body), key)
        _check(header, len(body), max_pixels, key)
        return ArrayStack(body, key, header, None)
    try:
        archive = zipfile.ZipFile(io.BytesIO(body))
        info = _member(archive, key)
        with archive.open(info) as stream:
            header = _npy_header(stream, key)
    except _STREAM_FAULTS as error:
        end = body.rfind(_END_OF_DIRECTORY)
        if end < 0 or end + _END_BYTES > len(body):
            detail = f"the NPZ ends after {len(body)} bytes without its directory"
            raise FieldFault(Reason.TRUNCATED, detail, key) from error
        raise FieldFault(Reason.UNREADABLE, f"the NPZ archive is damaged: {error}", key) from error
    _check(header, info.file_size, max_pixels, key)
    return ArrayStack(body, key, header, info.filename)


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


def _npy_header(stream: IO[bytes], key: str) -> _Header:
    """The header of NumPy's format (NEP 1); `start` is the number of bytes before the pixels."""
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
    return _Header(shape, np.dtype(dtype), fortran and len(shape) > 1, stream.tell())


def _image_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    return (shape[0], shape[1]) if len(shape) == 2 else (shape[1], shape[2])


def _check(header: _Header, size: int, max_pixels: int, key: str) -> None:
    shape = header.shape
    check_dtype(header.dtype, key)
    if any(isinstance(side, bool) for side in shape):
        raise FieldFault(Reason.UNREADABLE, f"the array's header gives the shape {shape}", key)
    if len(shape) not in (2, 3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)) or shape[0] < 1:
        expected = "(H, W), (N, H, W), (N, H, W, 1) or (N, H, W, 3) with N >= 1 is expected"
        raise FieldFault(Reason.WRONG_SHAPE, f"the array has shape {shape}; {expected}", key)
    if len(shape) == 3 and shape[2] in (1, 3, 4) and shape[1] > 4:
        detail = (
            f"shape {shape} may be one image with {shape[2]} samples or {shape[0]} images {shape[2]} px wide"
        )
        raise FieldFault(
            Reason.WRONG_SHAPE, f"{detail}; save one image as (1, {shape[0]}, {shape[1]}, {shape[2]})", key
        )
    check_pixels(*_image_shape(shape), max_pixels, key)
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
