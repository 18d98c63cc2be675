"""Label images, and the sets of pixels that they are made of.

A label image is int32 (H, W), 0 for background. An object's *anchor* is its first pixel in raster order: the leftmost one of
its topmost row. Objects are numbered 1..n in raster order of their anchors.

Most work is done on `Runs` instead of pixels. A run is a row of adjacent pixels, given by the flat index of the first and the
number of pixels. There are some ten times fewer runs than pixels, and all pixels of a run lie in the same connected component.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """Runs of pixels: `starts` (r,) are flat indices, `lengths` (r,) px, `owners` (r,) the number of what each run belongs to."""

    starts: Indices
    lengths: Indices
    owners: Indices

    def taken(self, which: NDArray[np.integer | np.bool_]) -> Runs:
        """Some of the runs, chosen by index or by mask."""
        return Runs(self.starts[which], self.lengths[which], self.owners[which])

    def owned(self, owners: Indices) -> Runs:
        """The same runs with other owners."""
        return Runs(self.starts, self.lengths, owners)

    def grouped(self, group_of_owner: Indices) -> tuple[Runs, Indices]:
        """The runs sorted (stably) by the group of their owner, and the index of each group's first run."""
        groups = group_of_owner[self.owners]
        order = np.argsort(groups, kind="stable")
        return self.taken(order), first_of_equal(groups[order])

    def offsets(self) -> Indices:
        """Where each run begins in the list of all pixels (r + 1,); the last entry is the number of pixels."""
        offsets = np.zeros(self.lengths.size + 1, np.intp)
        np.cumsum(self.lengths, out=offsets[1:])
        return offsets

    def pixels(self) -> Indices:
        """Flat index of every pixel, run by run."""
        pixels = np.repeat(self.starts - (np.cumsum(self.lengths) - self.lengths), self.lengths)
        pixels += np.arange(pixels.size)
        return pixels


def join_runs(parts: list[Runs]) -> Runs:
    """The runs of several lists, one list after the other."""
    return Runs(
        np.concatenate([part.starts for part in parts]),
        np.concatenate([part.lengths for part in parts]),
        np.concatenate([part.owners for part in parts]),
    )


def gaps(first: Indices, end: int) -> Indices:
    """Distance from each of the ascending positions (r,) to the next, and from the last to `end`."""
    apart = np.empty(first.size, np.intp)
    if first.size:
        np.subtract(first[1:], first[:-1], out=apart[:-1])
        apart[-1] = end - first[-1]
    return apart


def first_of_equal(values: NDArray[np.integer]) -> Indices:
    """Positions (r,) in a list (n,) at which the value differs from the one before; the first position is one of them."""
    first = np.empty(values.size, np.bool_)
    first[:1] = True
    np.not_equal(values[1:], values[:-1], out=first[1:])
    return np.flatnonzero(first)


def first_of_runs(places: Indices) -> Indices:
    """Positions (r,) at which a run begins in an ascending list of flat indices (n,), n > 0."""
    first = np.empty(places.size, np.bool_)
    first[0] = True
    np.not_equal(places[1:] - places[:-1], 1, out=first[1:])
    return np.flatnonzero(first)


def runs_of(inside: NDArray[np.bool_]) -> Runs:
    """The runs of an image (H, W) whose last column is False, in raster order; their owners are 0."""
    flat = inside.ravel()
    # Of truth values the non-zero ones are found several times faster than of numbers.
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    if flat.size and flat[0]:
        changes = np.concatenate([np.zeros(1, np.intp), changes])
    starts, ends = changes[::2], changes[1::2]
    return Runs(starts, ends - starts, np.zeros(starts.size, np.intp))


def connected(runs: Runs, width: int) -> Indices:
    """The connected component (side neighbours), 1..n, of each of the runs (r,) in raster order in an image `width` wide.

    No two runs may be adjacent in a row, nor may a run continue from the end of a row into the next.
    """
    return _components(*_touching(runs, width), runs.starts.size)


def largest_pieces(runs: Runs, width: int) -> NDArray[np.bool_]:
    """Which of the runs (r,) of objects lie in their object's largest connected piece (side neighbours).

    Runs are in raster order in an image `width` wide; none may continue from the end of a row into the next. Of pieces of equal size the
    first is taken.
    """
    upper, lower = _touching(runs, width)
    own = runs.owners[upper] == runs.owners[lower]
    piece = _components(upper[own], lower[own], runs.starts.size) - 1
    first = np.zeros(int(piece.max(initial=-1)) + 1, np.intp)
    # Where a number occurs more than once the last assignment stands: the first run.
    first[piece[::-1]] = np.arange(piece.size - 1, -1, -1)
    owners = runs.owners[first]
    if np.count_nonzero(np.bincount(owners)) == owners.size:
        return np.ones(runs.starts.size, np.bool_)
    sizes = np.bincount(piece, runs.lengths)
    # By owner, the largest last, of equal ones the first last.
    order = np.lexsort((-np.arange(sizes.size), sizes, owners))
    largest = np.zeros(sizes.size, np.bool_)
    largest[order[np.flatnonzero(np.append(owners[order][1:] != owners[order][:-1], True))]] = True
    return np.asarray(largest[piece], np.bool_)


def _touching(runs: Runs, width: int) -> tuple[Indices, Indices]:
    """Pairs (p,) of runs that touch; the second lies in the row below the first."""
    starts, ends = runs.starts, runs.starts + runs.lengths
    # In the next row a run touches those that end after its first pixel and begin before its end.
    low = np.searchsorted(ends, starts + width, side="right")
    touched = np.maximum(np.searchsorted(starts, ends + width) - low, 0)
    upper = np.repeat(np.arange(starts.size), touched)
    lower = np.repeat(low - (np.cumsum(touched) - touched), touched)
    lower += np.arange(lower.size)
    return upper, lower


def _components(upper: Indices, lower: Indices, count: int) -> Indices:
    """The component, 1..n, of each of `count` runs, given pairs (p,) that touch, in ascending order of the first."""
    # A component goes by its first run. Of two that touch the later one is told of the earlier, until there is nothing to tell:
    # the number of rounds grows with the logarithm of the runs, two or three for cells.
    own = np.arange(count)
    first = own.copy()
    # Where a run is told more than once the last assignment stands: the earliest of those above it.
    first[lower[::-1]] = upper[::-1]
    first = _told(first)
    while True:
        one, two = first[upper], first[lower]
        apart = one != two
        if not np.count_nonzero(apart):
            break
        upper, lower, one, two = upper[apart], lower[apart], one[apart], two[apart]
        np.minimum.at(first, np.maximum(one, two), np.minimum(one, two))
        first = _told(first)
    return np.cumsum(first == own)[first]


def _told(first: Indices) -> Indices:
    """Follow each run (r,) to the run that it names, and on to the end of the chain."""
    while True:
        told = first[first]
        if not np.count_nonzero(told != first):
            return first
        first = told[told]


def paint(
    runs: Runs, numbers: NDArray[np.int32], shape: tuple[int, int], pixels: Indices | None = None
) -> NDArray[np.int32]:
    """Label image (H, W) in which the runs of owner k carry `numbers[k]`. Runs must not overlap.

    `pixels` are those of the runs, if they are known already.
    """
    painted = numbers[runs.owners]
    if 4 * int(runs.lengths.sum()) < shape[0] * shape[1]:
        image = np.zeros(shape, np.int32)
        image.ravel()[runs.pixels() if pixels is None else pixels] = np.repeat(painted, runs.lengths)
        return image
    steps = np.zeros(shape[0] * shape[1] + 1, np.int32)
    # Up where a run begins, down after its end: the running sum is the image.
    steps[runs.starts] += painted
    steps[runs.starts + runs.lengths] -= painted
    np.cumsum(steps, out=steps)
    return steps[:-1].reshape(shape)


_STRIP_PX = 1 << 21
"""Pixels handled at once, so that working memory stays small beside the image."""


def strips(shape: tuple[int, int]) -> list[slice]:
    """Row ranges that cut an image of `shape` into strips of about two megapixels, from top to bottom."""
    rows = max(1, _STRIP_PX // max(1, shape[1]))
    return [slice(top, min(top + rows, shape[0])) for top in range(0, shape[0], rows)]


def anchors(labels: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The numbers in a label image, in raster order of their anchors, and the anchors' flat indices; both (n,)."""
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
    """New numbers of the owners of runs: 1..n in raster order of their anchors; 0 for owners that are not `kept` (owners,).

    Without `kept`, all are. Owner 0 is the background and stays 0. The runs of an owner must be in raster order; `starts` may
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
    """The same objects, numbered 1..n in raster order of their anchors without gaps."""
    return drop_small(labels, 0)


def drop_small(labels: NDArray[np.int32], min_area: float) -> NDArray[np.int32]:
    """The label image without objects below `min_area` px; the others are numbered in raster order."""
    return ObjectPixels.of(labels).painted(min_area)


@dataclass(frozen=True, eq=False)
class ObjectPixels:
    """The pixels of a label image of `shape` that belong to objects, in raster order.

    `places` (n,) are their flat indices, `numbers` (n,) int32 their objects. They are far fewer than the image's pixels, so
    operations on them are that much faster.
    """

    places: Indices
    numbers: NDArray[np.int32]
    shape: tuple[int, int]

    @staticmethod
    def of(labels: NDArray[np.int32], where: NDArray[np.bool_] | None = None) -> ObjectPixels:
        """The object pixels of a label image (H, W), or those of them that lie in the mask `where` (H, W)."""
        # Of truth values the non-zero ones are found several times faster than of numbers.
        there = labels != 0
        if where is not None:
            there &= where
        places = np.flatnonzero(there)
        return ObjectPixels(places, labels.ravel()[places], (labels.shape[0], labels.shape[1]))

    def taken(self, which: NDArray[np.bool_]) -> ObjectPixels:
        """Some of the pixels; the others become background."""
        return ObjectPixels(self.places[which], self.numbers[which], self.shape)

    def in_one_piece(self) -> ObjectPixels:
        """Only the largest connected piece of every object (side neighbours; the first of equal ones)."""
        if not self.places.size:
            return self
        kept = largest_pieces(self.runs, self.shape[1])
        return self if kept.all() else self.taken(np.repeat(kept, self.runs.lengths))

    @cached_property
    def runs(self) -> Runs:
        """Their runs, owned by the objects' numbers."""
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
        """The label image (H, W), numbers unchanged."""
        labels = np.zeros(self.shape, np.int32)
        labels.ravel()[self.places] = self.numbers
        return labels

    def painted(self, min_area: float = 0) -> NDArray[np.int32]:
        """The label image (H, W) without objects below `min_area` px, numbered in raster order."""
        if not self.places.size:
            return np.zeros(self.shape, np.int32)
        owners, lengths = self.runs.owners, self.runs.lengths
        numbers = raster_numbers(self.runs, np.bincount(owners, lengths) >= min_area)
        return ObjectPixels(self.places, np.repeat(numbers[owners], lengths), self.shape).image()


def border_numbers(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Numbers of the objects that touch the edge of the image, ascending."""
    if labels.size == 0:
        return np.zeros(0, np.int32)
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    found = np.unique(edge)
    return found[found > 0]


def label_dtype(count: int) -> type[np.uint16] | type[np.uint32]:
    """The pixel type in which label images of `count` objects are written."""
    return np.uint16 if count <= np.iinfo(np.uint16).max else np.uint32


def paste(
    canvas: NDArray[np.uint32], labels: NDArray[np.int32], origin: tuple[int, int], numbers_before: int
) -> None:
    """Write a block's objects into the label image of the whole field, in place.

    Object k of the block becomes `numbers_before + k`; where the block is background, the canvas is left as it is. `origin` is
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
    """Object pixels (H, W) bool with a different label, or background, at most `width` px to a side, up or down."""
    edge = np.zeros(labels.shape, bool)
    for step in range(1, width + 1):
        across, down = labels[:, step:] != labels[:, :-step], labels[step:] != labels[:-step]
        edge[:, step:] |= across
        edge[:, :-step] |= across
        edge[step:] |= down
        edge[:-step] |= down
    return np.asarray(edge & (labels > 0), np.bool_)
