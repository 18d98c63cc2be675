"""How the stored chunks of a Zarr array become arrays: its type, its order of axes, its compressions, and shards.

Sizes come from the metadata and limit every decompressor, so no chunk can ask for more memory than its array declares.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import imagecodecs
import numpy as np

from cellcount_core.domain.errors import FieldFault, Reason
from cellcount_core.domain.ngff import Codec, Json, NgffFault, ZarrArray, codecs_of
from cellcount_core.images.imagefile import Plane
from cellcount_core.images.pixels import check_dtype
from cellcount_core.images.reader import Reader, Span

_MOST_INNER = 1 << 20
"""Most chunks in a shard."""

_NEVER_WRITTEN = (1 << 64) - 1

_SLACK = 1 << 20
"""Bytes that an intermediate compression step may give beyond the size of the chunk."""
_BLOSC_HEADER = 16
_V3_TYPES = {
    "bool": "|b1", "int8": "|i1", "uint8": "|u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "int64": "i8", "uint64": "u8", "float16": "f2", "float32": "f4", "float64": "f8",
}  # fmt: skip
_FLOATS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@dataclass(frozen=True, slots=True)
class ChunkDecoder:
    """How the stored chunks of an array, or those within its shards, become arrays: the shape of a chunk, its type
    and fill value, the order of its axes as written, and its compressions."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    fill: object
    order: tuple[int, ...]
    compressions: tuple[Codec, ...]
    shards: _Shards | None = None

    @property
    def depth(self) -> tuple[int, ...]:
        """Number of elements along each axis that are decoded together."""
        return self.shape if self.shards is None else self.shards.inner.shape

    def needed(self, chosen: Mapping[int, int], left: Sequence[int]) -> list[tuple[int, ...]]:
        """The chunks of one stored object that hold the indices `chosen`: one, or of a shard those by their places in it.

        `left` is the number of elements from the object's first to the end of the array, along each axis: what of a shard
        lies behind that end is never written.
        """
        if self.shards is None:
            return [()]
        inner = self.shards.inner.shape
        return [
            at
            for at in self.shards.grid.chunks_of(chosen)
            if all(n * size < rest for n, size, rest in zip(at, inner, left, strict=True))
        ]

    def chunk(
        self, reader: Reader, key: str, chosen: Mapping[int, int], needed: Sequence[tuple[int, ...]]
    ) -> tuple[Plane, int]:
        """The elements of one stored object, and how many of the chunks `needed` were never written.

        Of a shard only those chunks are decoded; along the axes of the indices `chosen` the result is as long as one chunk.
        """
        if self.shards is None:
            return self._decoded(reader.whole(), key), 0
        return self.shards.read(reader, key, self, chosen, needed)

    def _decoded(self, body: bytes | memoryview, key: str) -> Plane:
        stored = tuple(self.shape[axis] for axis in self.order)
        needed = math.prod(stored) * self.dtype.itemsize
        data: bytes | bytearray | memoryview = body
        for number, codec in reversed(list(enumerate(self.compressions))):
            data = _decompressed(codec, data, needed if number == 0 else needed + needed // 16 + _SLACK, key)
        if len(data) != needed:
            found = f"a chunk of shape {self.shape} needs {needed:,} bytes and has {len(data):,}"
            reason = Reason.TRUNCATED if len(data) < needed else Reason.UNREADABLE
            raise FieldFault(reason, found, key)
        array = np.frombuffer(data, self.dtype).reshape(stored)
        return array.transpose(np.argsort(self.order)) if self.order != tuple(range(len(stored))) else array


@dataclass(frozen=True, slots=True)
class _Shards:
    """The stored objects are shards: each holds chunks of its own, and before or after them an index of where each
    lies."""

    shape: tuple[int, ...]
    inner: ChunkDecoder
    at_end: bool
    checked: bool
    index_dtype: np.dtype[np.generic]

    @property
    def grid(self) -> ZarrArray:
        """One shard as an array of its chunks."""
        return ZarrArray(self.shape, self.inner.shape, "", None, (), "", "/")

    def read(
        self,
        reader: Reader,
        key: str,
        outer: ChunkDecoder,
        chosen: Mapping[int, int],
        wanted: Sequence[tuple[int, ...]],
    ) -> tuple[Plane, int]:
        """See `ChunkDecoder.chunk`."""
        index = self._index(reader, self.grid.grid, key)
        spans = {at: span for at in wanted if (span := self._span(index[at], reader.size, key)) is not None}
        inner = self.inner.shape
        shape = tuple(inner[axis] if axis in chosen else size for axis, size in enumerate(self.shape))
        whole = np.full(shape, outer.fill, outer.dtype)
        with reader.holding(list(spans.values())):
            for at, span in spans.items():
                corner = tuple(
                    slice(None) if axis in chosen else slice(n * inner[axis], (n + 1) * inner[axis])
                    for axis, n in enumerate(at)
                )
                whole[corner] = self.inner._decoded(reader.read(*span), key)
        return whole, len(wanted) - len(spans)

    def _index(self, reader: Reader, grid: tuple[int, ...], key: str) -> Plane:
        """First byte and number of bytes of each chunk in the shard, (…, 2). Raises FieldFault(TRUNCATED) if the
        shard is shorter than its index."""
        length = 16 * math.prod(grid) + (4 if self.checked else 0)
        if length > reader.size:
            detail = f"the shard has {reader.size:,} bytes and its index alone needs {length:,}"
            raise FieldFault(Reason.TRUNCATED, detail, key)
        start = reader.size - length if self.at_end else 0
        body = bytes(reader.read(start, start + length))
        if self.checked:
            body = bytes(_without_crc32c(body, key, "the shard's index"))
        return np.frombuffer(body, self.index_dtype).reshape((*grid, 2))

    def _span(self, place: Plane, size: int, key: str) -> Span | None:
        start, length = int(place[0]), int(place[1])
        if start == length == _NEVER_WRITTEN:
            return None
        if start + length > size:
            detail = f"a chunk of the shard ends at byte {start + length:,} and the shard has {size:,} bytes"
            raise FieldFault(Reason.TRUNCATED, detail, key)
        return start, start + length


def decoder_of(array: ZarrArray, key: str) -> ChunkDecoder:
    """The decoder of an array. Raises FieldFault(UNSUPPORTED) for a type or codec that is not read,
    FieldFault(UNREADABLE) for ones that do not fit together."""
    dtype = _dtype(array, key)
    try:
        return _chain(array.codecs, array.chunks, dtype, _fill(array.fill, dtype), key, nested=False)
    except NgffFault as fault:
        raise FieldFault(Reason.UNREADABLE, str(fault), key) from None


def _chain(
    codecs: Sequence[Codec],
    shape: tuple[int, ...],
    dtype: np.dtype[np.generic],
    fill: object,
    key: str,
    *,
    nested: bool,
) -> ChunkDecoder:
    order = tuple(range(len(shape)))
    steps = list(codecs)
    while steps and steps[0].name == "transpose":
        turned = steps.pop(0).configuration.get("order")
        if not isinstance(turned, list) or sorted(map(str, turned)) != sorted(map(str, order)):
            raise NgffFault(
                f"the order of a transpose must name each of {len(shape)} axes once (got {turned!r})"
            )
        order = tuple(order[int(str(axis))] for axis in turned)
    if not steps:
        raise NgffFault("no codec makes bytes of the array")
    first, *rest = steps
    if first.name == "bytes":
        dtype = dtype.newbyteorder(">") if first.configuration.get("endian") == "big" else dtype
        _check_compressions(rest, key)
        return ChunkDecoder(shape, dtype, fill, order, tuple(rest))
    if first.name != "sharding_indexed" or nested or rest or order != tuple(range(len(shape))):
        raise _unsupported(
            first.name if first.name != "sharding_indexed" else "sharding_indexed within others", key
        )
    inner_shape = _inner_shape(first, shape)
    inner = _chain(codecs_of(first.configuration.get("codecs")), inner_shape, dtype, fill, key, nested=True)
    index, *checks = codecs_of(first.configuration.get("index_codecs"))
    if index.name != "bytes" or [codec.name for codec in checks] not in ([], ["crc32c"]):
        raise _unsupported(f"index of shards by {', '.join(c.name for c in (index, *checks))}", key)
    index_dtype = np.dtype(">u8" if index.configuration.get("endian") == "big" else "<u8")
    at_end = first.configuration.get("index_location", "end") != "start"
    shards = _Shards(shape, inner, at_end, bool(checks), index_dtype)
    return ChunkDecoder(shape, dtype, fill, order, (), shards)


def _inner_shape(sharding: Codec, shape: tuple[int, ...]) -> tuple[int, ...]:
    said = sharding.configuration.get("chunk_shape")
    inner = tuple(each for each in said if isinstance(each, int)) if isinstance(said, list) else ()
    if len(inner) != len(shape) or any(
        each < 1 or size % each for each, size in zip(inner, shape, strict=False)
    ):
        raise NgffFault(f"the chunks of a shard must divide it: {said!r} and {list(shape)}")
    if math.prod(size // each for each, size in zip(inner, shape, strict=True)) > _MOST_INNER:
        raise NgffFault(f"a shard has more than {_MOST_INNER:,} chunks: {said!r} and {list(shape)}")
    return inner


def _dtype(array: ZarrArray, key: str) -> np.dtype[np.generic]:
    try:
        dtype = np.dtype(_V3_TYPES.get(array.dtype, array.dtype))
    except (TypeError, ValueError):
        raise FieldFault(Reason.WRONG_DTYPE, f"the array is of type {array.dtype!r}", key) from None
    check_dtype(dtype, key)
    return dtype


def _fill(value: Json, dtype: np.dtype[np.generic]) -> object:
    """The value of elements that are not stored: 0 if the array gives none, or one that its type cannot hold."""
    if isinstance(value, str):
        value = _FLOATS.get(value, 0)
    try:
        return dtype.type(value if isinstance(value, bool | int | float) else 0)
    except (OverflowError, ValueError):
        return dtype.type(0)


Raw = bytes | bytearray | memoryview


def _bounded(name: str, **settings: bool) -> Callable[[Raw, int], Raw]:
    def decode(data: Raw, limit: int) -> Raw:
        decoded: Raw = getattr(imagecodecs, name)(data, out=bytearray(limit), **settings)
        return decoded

    return decode


def _blosc(data: Raw, limit: int) -> Raw:
    # The library believes the header: it would read on behind a chunk that was cut short.
    if len(data) < _BLOSC_HEADER or struct.unpack_from("<I", data, 12) != (len(data),):
        raise ValueError("the chunk does not have the length that its header gives")
    return _bounded("blosc_decode")(data, limit)


_COMPRESSIONS: dict[str, Callable[[Raw, int], Raw]] = {
    "blosc": _blosc,
    "zstd": _bounded("zstd_decode"),
    "gzip": _bounded("gzip_decode"),
    "zlib": _bounded("zlib_decode"),
    "lz4": _bounded("lz4_decode", header=True),
    "bz2": _bounded("bz2_decode"),
}
"""Decompressors by name (codecs of Zarr 3 and compressors of numcodecs for Zarr 2). Each takes the bytes and the
largest size that they may decompress to."""

_CHECKSUM = "crc32c"


def _check_compressions(codecs: Sequence[Codec], key: str) -> None:
    for codec in codecs:
        if codec.name.removeprefix("numcodecs.") not in (*_COMPRESSIONS, _CHECKSUM):
            raise _unsupported(codec.name, key)


def _unsupported(name: str, key: str) -> FieldFault:
    known = ", ".join(sorted((*_COMPRESSIONS, _CHECKSUM)))
    detail = f"its chunks are encoded with {name!r}; {known} and sharding are read: write the array again with one of those"
    return FieldFault(Reason.UNSUPPORTED, detail, key)


def _decompressed(codec: Codec, data: Raw, limit: int, key: str) -> Raw:
    name = codec.name.removeprefix("numcodecs.")
    if name == _CHECKSUM:
        return _without_crc32c(data, key, "a chunk")
    try:
        return _COMPRESSIONS[name](data, limit)
    except (ValueError, RuntimeError, struct.error) as error:
        detail = f"a chunk cannot be decompressed ({name}: {str(error)[:120]})"
        raise FieldFault(Reason.UNREADABLE, detail, key) from error


def _without_crc32c(data: Raw, key: str, what: str) -> Raw:
    # Late: few arrays have checksums.
    import google_crc32c

    view = memoryview(data)
    if len(view) < 4 or google_crc32c.value(bytes(view[:-4])) != int.from_bytes(view[-4:], "little"):
        raise FieldFault(Reason.UNREADABLE, f"{what} does not have the checksum that it ends with", key)
    return view[:-4]
