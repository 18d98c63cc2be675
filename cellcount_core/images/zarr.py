"""OME-Zarr: one resolution level of an image, with its planes assembled from the chunks that were read for it.

Zarr 2 and 3 (also sharded) are read, with the compressions that imagecodecs has. Sizes come from the metadata and
limit every decoder, so that no chunk can ask for more memory than its array declares. By the specification, a chunk
that was never written has the array's fill value; a warning says so (`Doubt.CHUNKS_MISSING`), and planning does not
accept an image of which no chunk was written.
"""

from __future__ import annotations

import math
import struct
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import imagecodecs
import numpy as np

from cellcount_core.domain.doubts import Doubt
from cellcount_core.domain.errors import FieldFault, Reason
from cellcount_core.domain.ngff import (
    ARRAY_V2,
    ATTRIBUTES_V2,
    NODE_V3,
    Codec,
    ImageGroup,
    Json,
    NgffFault,
    ZarrArray,
    array_of,
    attributes_of,
    codecs_of,
    image_of,
)
from cellcount_core.images.imagefile import Plane, channel_number, check_pixels, check_position
from cellcount_core.images.pixels import bit_max_of, check_dtype, countable
from cellcount_core.images.reader import Reader, Span
from cellcount_core.images.tiff_metadata import calibrated

_MOST_INNER = 1 << 20
"""Most chunks in a shard."""

_NEVER_WRITTEN = (1 << 64) - 1
_BLOCKS = 4
"""A chunk may hold several planes, together at most this many times `max_pixels`."""

_SLACK = 1 << 20
"""Bytes that an intermediate compression step may give beyond the size of the chunk."""
_BLOSC_HEADER = 16
_V3_TYPES = {
    "bool": "|b1", "int8": "|i1", "uint8": "|u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "int64": "i8", "uint64": "u8", "float16": "f2", "float32": "f4", "float64": "f8",
}  # fmt: skip
_FLOATS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@dataclass(slots=True)
class ArrayImage:
    """One level of an image in OME-Zarr. See `ImageFile`.

    `warnings` tell how many chunks are missing among those that were read so far.
    """

    key: str
    array: ZarrArray
    group: ImageGroup
    um_per_px: float | None
    _said: tuple[str, ...]
    _parts: Mapping[str, Reader] = field(repr=False)
    _decoder: _Decoder = field(repr=False)
    _slab: tuple[tuple[int, ...], dict[tuple[int, ...], Plane | None]] | None = field(
        default=None, repr=False
    )
    _chunks: Counter[str] = field(default_factory=Counter, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def channels(self) -> tuple[str, ...]:
        """The names in the `omero` metadata, or ("",) for one channel and "0", "1", … for several."""
        return self.group.names(self._size("c"))

    @property
    def whole(self) -> tuple[str, ...]:
        """The same as `channels`: the array holds all of them."""
        return self.channels

    def own(self, channel: str, index: int = 0) -> tuple[int, ...]:
        """All planes."""
        return tuple(range(self.planes))

    @property
    def warnings(self) -> tuple[str, ...]:
        """See `ImageFile.warnings`."""
        missing, needed = self._chunks["missing"], self._chunks["needed"]
        if not missing:
            return self._said
        doubt = Doubt.CHUNKS_MOSTLY_MISSING if 2 * missing > needed else Doubt.CHUNKS_MISSING
        return (*self._said, f"{doubt}:{missing} of {needed}")

    @property
    def planes(self) -> int:
        """See `ImageFile.planes`."""
        return self._size("z")

    @property
    def images(self) -> int:
        """Number of time points."""
        return self._size("t")

    @property
    def bit_max(self) -> int:
        """See `ImageFile.bit_max`."""
        return bit_max_of(self._decoder.dtype)

    @property
    def shape(self) -> tuple[int, int]:
        """See `ImageFile.shape`."""
        return self._size("y"), self._size("x")

    def read(self, channel: str, plane: int, index: int = 0) -> Plane:
        """See `ImageFile.read`. Chunks that hold several planes stay decoded until a plane from other chunks is read."""
        number = channel_number(self.channels, channel, self.key)
        check_position(plane, self.planes, index, self.images, self.key)
        at = {"c": number, "z": plane, "t": index}
        chosen = {axis: at[name] for axis, name in enumerate(self.group.axes) if name in at}
        with self._lock:
            image = self._plane(chosen)
        return countable(image, self.key)

    def _plane(self, chosen: Mapping[int, int]) -> Plane:
        array, depth = self.array, self._decoder.depth
        slab = tuple(index // depth[axis] for axis, index in sorted(chosen.items()))
        if self._slab is None or self._slab[0] != slab:
            self._slab = (slab, {})
        held = self._slab[1]
        y, x = self.group.axes.index("y"), self.group.axes.index("x")
        plane = np.full(self.shape, self._decoder.fill, self._decoder.dtype)
        within = tuple(
            chosen[axis] % depth[axis] if axis in chosen else slice(None) for axis in range(len(depth))
        )
        for at in array.chunks_of(chosen):
            if at not in held:
                held[at] = self._chunk(at, chosen)
            chunk = held[at]
            if chunk is None:
                continue
            piece = chunk[within] if y < x else chunk[within].T
            top, left = at[y] * array.chunks[y], at[x] * array.chunks[x]
            target = plane[top : top + array.chunks[y], left : left + array.chunks[x]]
            target[...] = piece[: target.shape[0], : target.shape[1]]
        if all(depth[axis] == 1 for axis in chosen):
            self._slab = None
        return plane

    def _chunk(self, at: tuple[int, ...], chosen: Mapping[int, int]) -> Plane | None:
        """A chunk, or None if it was never written. Of a shard, only the chunks that `chosen` needs: see
        `_Decoder.chunk`."""
        key = f"{self.key}/{self.array.chunk_name(at)}"
        array = self.array
        local = {axis: index - at[axis] * array.chunks[axis] for axis, index in chosen.items()}
        left = tuple(size - n * chunk for size, n, chunk in zip(array.shape, at, array.chunks, strict=True))
        needed = self._decoder.needed(local, left)
        self._chunks["needed"] += len(needed)
        if (reader := self._parts.get(key)) is None:
            self._chunks["missing"] += len(needed)
            return None
        chunk, missing = self._decoder.chunk(reader, key, local, needed)
        self._chunks["missing"] += missing
        return chunk

    def _size(self, name: str) -> int:
        axis = self.group.axis(name)
        return 1 if axis is None else self.array.shape[axis]


def open_array(parts: Mapping[str, Reader], key: str, max_pixels: int) -> ArrayImage:
    """Open the array at `key` from `parts`, the objects that were read for it: its own metadata, its image's
    metadata, and chunks.

    A chunk that is not in `parts` was never written. Raises FieldFault: UNREADABLE, UNSUPPORTED, WRONG_SHAPE,
    WRONG_DTYPE, TOO_MANY_PIXELS.
    """
    own = next((name for name in (NODE_V3, ARRAY_V2) if f"{key}/{name}" in parts), None)
    if own is None:
        raise FieldFault(Reason.UNREADABLE, f"the array has neither {ARRAY_V2} nor {NODE_V3}", key)
    try:
        array = array_of(own, parts[f"{key}/{own}"].whole())
        group, level = _image(parts, key)
        group.sizes(array)
    except NgffFault as fault:
        raise FieldFault(Reason.UNREADABLE, str(fault), key) from None
    y, x = group.axes.index("y"), group.axes.index("x")
    check_pixels(array.shape[y], array.shape[x], max_pixels, key)
    if any(size < 1 for size in array.shape):
        raise FieldFault(Reason.WRONG_SHAPE, f"the array has no pixels: its shape is {array.shape}", key)
    decoder = _decoder(array, key)
    together = [
        size if group.axes[axis] in "yx" else decoder.depth[axis] for axis, size in enumerate(array.chunks)
    ]
    if math.prod(together) > _BLOCKS * max_pixels:
        detail = f"chunks of {tuple(together)} must be decoded at once; run.max_pixels allows {max_pixels:,} in one image"
        raise FieldFault(Reason.TOO_MANY_PIXELS, detail, key)
    scale = group.levels[level].scale
    sides = [(scale[axis] if scale else None, group.units[axis]) for axis in (x, y)]
    said = calibrated((), None, sides, None)
    return ArrayImage(key, array, group, said.um_per_px, said.warnings, parts, decoder)


def _image(parts: Mapping[str, Reader], key: str) -> tuple[ImageGroup, int]:
    """The image to which an array belongs as a level, and the number of that level."""
    for name in (ATTRIBUTES_V2, NODE_V3):
        for path, reader in parts.items():
            folder, _, file = path.rpartition("/")
            above = f"{folder}/" if folder else ""
            if file != name or not key.startswith(above) or folder == key:
                continue
            group = image_of(attributes_of(name, reader.whole()))
            levels = [] if group is None else [level.path for level in group.levels]
            if group is not None and key.removeprefix(above) in levels:
                return group, levels.index(key.removeprefix(above))
    raise NgffFault("no image that names this array as a level of its own was read with it")


@dataclass(frozen=True, slots=True)
class _Decoder:
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
    inner: _Decoder
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
        outer: _Decoder,
        chosen: Mapping[int, int],
        wanted: Sequence[tuple[int, ...]],
    ) -> tuple[Plane, int]:
        """See `_Decoder.chunk`."""
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


def _decoder(array: ZarrArray, key: str) -> _Decoder:
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
) -> _Decoder:
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
        return _Decoder(shape, dtype, fill, order, tuple(rest))
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
    return _Decoder(shape, dtype, fill, order, (), shards)


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
