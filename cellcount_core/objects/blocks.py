"""Separation of fields too large to be separated at once: block by block, with the same objects as the whole field.

The field is cut into blocks. An object belongs to the block that holds its *anchor* (its first pixel in raster order). A block is
separated in a *read window*: the block and a halo around it. A label is certain if neither its object nor a touching one comes
within the separator's `reach` of an edge of the window that is not an edge of the field. If the block holds anything uncertain, the
halo is doubled, up to a limit; what is uncertain even then carries a warning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cellcount_core.objects.labels import anchors
from cellcount_core.objects.separators import FieldParams, Separator

OBJECT_CUT_BY_BLOCK = "object_cut_by_block"
"""Warning code: an object is larger than the largest window. It may be counted in parts or more than once."""

GROWTH = 3
"""How often a window's halo may be doubled."""

Provider = Callable[[int, int, int, int], NDArray[np.float32]]
"""Gives the maps (y1 - y0, x1 - x0, K) of a window (y0, y1, x0, x1), half-open."""


@dataclass(frozen=True, slots=True)
class Block:
    """The pixels from (y0, x0) to (y1, x1), half-open."""

    y0: int
    x0: int
    y1: int
    x1: int

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.y1 - self.y0, self.x1 - self.x0


@dataclass(frozen=True, slots=True, eq=False)
class BlockObjects:
    """The objects whose anchors lie in one block.

    `labels` (h, w) int32 is the smallest image that holds them, numbered 1..n in raster order of their anchors; objects of other
    blocks are background in it. `origin` is the (y, x) of its first pixel in the field.
    """

    labels: NDArray[np.int32]
    origin: tuple[int, int]
    count: int
    warnings: tuple[str, ...]


def block_grid(shape: tuple[int, int], block: int) -> list[Block]:
    """Blocks of at most `block` x `block` px that cover a field of `shape`, in raster order."""
    return [
        Block(y, x, min(y + block, shape[0]), min(x + block, shape[1]))
        for y in range(0, shape[0], block)
        for x in range(0, shape[1], block)
    ]


def separate_blocks(
    shape: tuple[int, int],
    provider: Provider,
    separator: Separator,
    params: FieldParams,
    *,
    block: int,
    halo: int,
) -> Iterator[BlockObjects]:
    """Yield the objects of a field (H, W) block by block: each object exactly once, equal to that of the whole field.

    `provider` gives the maps of any window. Working memory is that of one window, (block + 2 halo) squared; it is larger only
    where objects are larger than the halo.
    """
    for window in block_grid(shape, block):
        yield _separate_block(
            shape, provider, separator, params, block=window, halo=max(halo, separator.reach + 1)
        )


def _separate_block(
    shape: tuple[int, int],
    provider: Provider,
    separator: Separator,
    params: FieldParams,
    *,
    block: Block,
    halo: int,
) -> BlockObjects:
    for _ in range(GROWTH + 1):
        read = _grown(block, halo, shape)
        labels = separator.separate(provider(read.y0, read.y1, read.x0, read.x1), params)
        owned = _owned(labels, block, read)
        unsure = _unsure(labels, separator.reach, read, shape)
        concerned = owned if separator.reach <= 1 else _present(labels, block, read)
        if not np.any(unsure & concerned):
            return _cut_out(labels, owned, read, ())
        halo *= 2
    warned = bool(np.any(unsure & owned))
    return _cut_out(labels, owned, read, (OBJECT_CUT_BY_BLOCK,) if warned else ())


def _grown(block: Block, halo: int, shape: tuple[int, int]) -> Block:
    return Block(
        max(0, block.y0 - halo),
        max(0, block.x0 - halo),
        min(shape[0], block.y1 + halo),
        min(shape[1], block.x1 + halo),
    )


def _inside(labels: NDArray[np.int32], part: Block, read: Block) -> NDArray[np.int32]:
    return labels[part.y0 - read.y0 : part.y1 - read.y0, part.x0 - read.x0 : part.x1 - read.x0]


def _flags(labels: NDArray[np.int32], numbers: NDArray[np.integer]) -> NDArray[np.bool_]:
    flags = np.zeros(int(labels.max(initial=0)) + 1, np.bool_)
    flags[numbers] = True
    flags[0] = False
    return flags


def _present(labels: NDArray[np.int32], block: Block, read: Block) -> NDArray[np.bool_]:
    """Which objects have a pixel in the block."""
    return _flags(labels, _inside(labels, block, read).ravel())


def _owned(labels: NDArray[np.int32], block: Block, read: Block) -> NDArray[np.bool_]:
    """Which objects have their anchor in the block."""
    numbers, first = anchors(labels)
    y, x = np.divmod(first, max(1, labels.shape[1]))
    y, x = y + read.y0, x + read.x0
    return _flags(labels, numbers[(y >= block.y0) & (y < block.y1) & (x >= block.x0) & (x < block.x1)])


def _unsure(labels: NDArray[np.int32], reach: int, read: Block, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Which objects may have been changed by the end of the window: those near it, and those that touch these."""
    height, width = labels.shape
    edges: list[NDArray[np.int32]] = []
    if read.y0 > 0:
        edges.append(labels[:reach].ravel())
    if read.y1 < shape[0]:
        edges.append(labels[max(0, height - reach) :].ravel())
    if read.x0 > 0:
        edges.append(labels[:, :reach].ravel())
    if read.x1 < shape[1]:
        edges.append(labels[:, max(0, width - reach) :].ravel())
    if not edges:
        return _flags(labels, np.zeros(0, np.int64))
    near = _flags(labels, np.concatenate(edges))
    if reach <= 1 or not near.any():
        return near
    ring = cv2.dilate(near[labels].astype(np.uint8), np.ones((3, 3), np.uint8)).astype(np.bool_)
    return _flags(labels, labels[ring])


def _cut_out(
    labels: NDArray[np.int32], owned: NDArray[np.bool_], read: Block, warnings: tuple[str, ...]
) -> BlockObjects:
    # Separators number in raster order, so ascending numbers are ascending anchors.
    mine = np.flatnonzero(owned)
    if mine.size == 0:
        return BlockObjects(np.zeros((0, 0), np.int32), (read.y0, read.x0), 0, warnings)
    lookup = np.zeros(owned.size, np.int32)
    lookup[mine] = np.arange(1, mine.size + 1, dtype=np.int32)
    kept = lookup[labels]
    rows, columns = np.flatnonzero(kept.any(axis=1)), np.flatnonzero(kept.any(axis=0))
    y, x = int(rows[0]), int(columns[0])
    tight = np.ascontiguousarray(kept[y : int(rows[-1]) + 1, x : int(columns[-1]) + 1])
    return BlockObjects(tight, (read.y0 + y, read.x0 + x), int(mine.size), warnings)
