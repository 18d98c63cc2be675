"""OME-Zarr: one resolution level of an image, with its planes assembled from the chunks that were read for it.

Zarr 2 and 3 (also sharded) are read, with the compressions that imagecodecs has. By the specification, a chunk that
was never written has the array's fill value; a warning says so (`Doubt.CHUNKS_MISSING`), and planning does not accept
an image of which no chunk was written.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from cellcount_core.domain.doubts import Doubt
from cellcount_core.domain.errors import FieldFault, Reason
from cellcount_core.domain.ngff import (
    ARRAY_V2,
    ATTRIBUTES_V2,
    NODE_V3,
    ImageGroup,
    NgffFault,
    ZarrArray,
    array_of,
    attributes_of,
    image_of,
)
from cellcount_core.images.imagefile import Plane, channel_number, check_pixels, check_position
from cellcount_core.images.pixels import bit_max_of, countable
from cellcount_core.images.reader import Reader
from cellcount_core.images.tiff_metadata import calibrated
from cellcount_core.images.zarr_chunks import ChunkDecoder, decoder_of

_BLOCKS = 4
"""A chunk may hold several planes, together at most this many times `max_pixels`."""


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
    _decoder: ChunkDecoder = field(repr=False)
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
        `ChunkDecoder.chunk`."""
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
    decoder = decoder_of(array, key)
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
