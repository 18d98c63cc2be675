"""Label images: numbering in raster order, the field's edge, and joining blocks into one image.

A label image is int32 (H, W), 0 for background. An object's *anchor* is its first pixel in raster order: the leftmost one of
its topmost row. Objects are numbered 1..n in raster order of their anchors.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cellcount_core.objects.runs import Indices, Runs, gaps, largest_pieces

_STRIP_PX = 1 << 21
"""Pixels handled at once, so that working memory stays small beside the image."""


def strips(shape: tuple[int, int]) -> list[slice]:
    """Row ranges that cut an image of `shape` into strips of about two megapixels, top to bottom."""
    rows = max(1, _STRIP_PX // max(1, shape[1]))
    return [slice(top, min(top + rows, shape[0])) for top in range(0, shape[0], rows)]


def anchors(labels: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Numbers that occur in a label image (in raster order of their anchors) and the anchors' flat indices, both (n,)."""
    flat = np.ascontiguousarray(labels).ravel()
    first = np.full(int(flat.max(initial=0)) + 1, -1, np.int64)
    for start in reversed(range(0, flat.size, _STRIP_PX)):
        piece = flat[start : start + _STRIP_PX]
        # Of truth values the non-zero ones are found several times faster than of numbers.
        found = np.flatnonzero(piece != 0)[::-1]
        # Where a number occurs more than once the last assignment stands: the first pixel.
        first[piece[found]] = found + start
    numbers = np.flatnonzero(first >= 0)
    order = np.argsort(first[numbers], kind="stable")
    return numbers[order].astype(np.int32), first[numbers[order]]


def raster_numbers(runs: Runs, kept: NDArray[np.bool_] | None = None) -> NDArray[np.int32]:
    """The new number of every owner of runs: 1..n in raster order of the anchors, 0 for those that are not `kept` (owners,).

    Without `kept` all are. Owner 0 is the background and stays 0. The runs of an owner must be in raster order; `starts` may
    be positions in any list of pixels in raster order.
    """
    first = np.full(int(runs.owners.max(initial=0)) + 1, -1)
    # Where a number occurs more than once the last assignment stands: the first pixel.
    first[runs.owners[::-1]] = runs.starts[::-1]
    first[0] = -1
    occurring = first >= 0
    owners = np.flatnonzero(occurring if kept is None else occurring & kept)
    numbers = np.zeros(first.size, np.int32)
    numbers[owners[np.argsort(first[owners])]] = np.arange(1, owners.size + 1, dtype=np.int32)
    return numbers


def number_in_raster_order(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """The same objects numbered 1..n in raster order of their anchors. Gaps in the numbers are closed."""
    return drop_small(labels, 0)


def drop_small(labels: NDArray[np.int32], min_area: float) -> NDArray[np.int32]:
    """The label image without objects below `min_area` px, the others numbered in raster order."""
    return Pixels.of(labels).painted(min_area)


@dataclass(frozen=True, eq=False)
class Pixels:
    """The objects' pixels of a label image of `shape` in raster order: `places` (n,) flat indices, `numbers` (n,) int32.

    There are far fewer than in the image, and everything that is done to them costs as much less.
    """

    places: Indices
    numbers: NDArray[np.int32]
    shape: tuple[int, int]

    @staticmethod
    def of(labels: NDArray[np.int32], where: NDArray[np.bool_] | None = None) -> Pixels:
        """Those of a label image (H, W), or those of them that lie `where` (H, W)."""
        # Of truth values the non-zero ones are found several times faster than of numbers.
        there = labels != 0
        if where is not None:
            there &= where
        places = np.flatnonzero(there)
        return Pixels(places, labels.ravel()[places], (labels.shape[0], labels.shape[1]))

    def taken(self, which: NDArray[np.bool_]) -> Pixels:
        """Some of the pixels; the others are background."""
        return Pixels(self.places[which], self.numbers[which], self.shape)

    def in_one_piece(self) -> Pixels:
        """The largest connected piece of every object (side neighbours; of equal ones the first); the others are background."""
        if not self.places.size:
            return self
        kept = largest_pieces(self.runs, self.shape[1])
        return self if kept.all() else self.taken(np.repeat(kept, self.runs.lengths))

    @cached_property
    def runs(self) -> Runs:
        """Their runs, with their numbers as owners."""
        if not self.places.size:
            nothing = np.zeros(0, np.intp)
            return Runs(nothing, nothing, nothing)
        begins = np.empty(self.places.size, np.bool_)
        begins[0] = True
        np.not_equal(self.numbers[1:], self.numbers[:-1], out=begins[1:])
        begins[1:] |= self.places[1:] - self.places[:-1] != 1
        first = np.flatnonzero(begins)
        rows, width = self.places[first] // self.shape[1], self.shape[1]
        over = self.places[np.append(first[1:], self.places.size) - 1] >= (rows + 1) * width
        if over.any():
            # The next row's beginning is no more than a pixel further on: few objects reach from one edge to the other.
            begins |= self.places % width == 0
            first = np.flatnonzero(begins)
        return Runs(self.places[first], gaps(first, self.places.size), self.numbers[first].astype(np.intp))

    def image(self) -> NDArray[np.int32]:
        """The label image (H, W), numbers as they are."""
        labels = np.zeros(self.shape, np.int32)
        labels.ravel()[self.places] = self.numbers
        return labels

    def painted(self, min_area: float = 0) -> NDArray[np.int32]:
        """The label image (H, W) without objects below `min_area` px, numbered in raster order."""
        if not self.places.size:
            return np.zeros(self.shape, np.int32)
        owners, lengths = self.runs.owners, self.runs.lengths
        numbers = raster_numbers(self.runs, np.bincount(owners, lengths) >= min_area)
        return Pixels(self.places, np.repeat(numbers[owners], lengths), self.shape).image()


def border_numbers(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Numbers of the objects that touch the edge of the image, ascending."""
    if labels.size == 0:
        return np.zeros(0, np.int32)
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    found = np.unique(edge)
    return found[found > 0]


def label_dtype(count: int) -> type[np.uint16] | type[np.uint32]:
    """The pixel type that label images of `count` objects are written with."""
    return np.uint16 if count <= np.iinfo(np.uint16).max else np.uint32


def paste(
    canvas: NDArray[np.uint32], labels: NDArray[np.int32], origin: tuple[int, int], numbers_before: int
) -> None:
    """Write a block's objects into the label image of the whole field, in place.

    Object k of the block becomes `numbers_before + k`; background of the block leaves the canvas as it is. `origin` is
    the (y, x) of the block's first pixel. `renumber` gives the final numbers once all blocks are there.
    """
    y, x = origin
    target = canvas[y : y + labels.shape[0], x : x + labels.shape[1]]
    inside = labels > 0
    target[inside] = labels[inside].astype(np.uint32) + np.uint32(numbers_before)


def renumber(
    canvas: NDArray[np.uint32], lookup: NDArray[np.integer]
) -> NDArray[np.uint16] | NDArray[np.uint32]:
    """A label image with every number v replaced by `lookup[v]` (`lookup[0]` is 0), in the narrowest pixel type."""
    narrow = lookup.astype(label_dtype(int(lookup.max(initial=0))))
    out: NDArray[np.uint16] | NDArray[np.uint32] = np.empty(canvas.shape, narrow.dtype)
    for rows in strips((canvas.shape[0], canvas.shape[1])):
        out[rows] = narrow[canvas[rows]]
    return out


def inner_edge(labels: NDArray[np.int32], width: int) -> NDArray[np.bool_]:
    """Pixels (H, W) bool of an object with another label, or none, at most `width` px to a side, up or down."""
    edge = np.zeros(labels.shape, bool)
    for step in range(1, width + 1):
        across, down = labels[:, step:] != labels[:, :-step], labels[step:] != labels[:-step]
        edge[:, step:] |= across
        edge[:, :-step] |= across
        edge[step:] |= down
        edge[:-step] |= down
    return np.asarray(edge & (labels > 0), np.bool_)
