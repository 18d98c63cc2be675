"""Label images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """Runs of pixels: `starts` (r,) flat indices, `lengths` (r,) px, `owners` (r,) the number of what each belongs to."""

    starts: Indices
    lengths: Indices
    owners: Indices

    def taken(self, which: NDArray[np.integer | np.bool_]) -> Runs:
        """Some of the runs, by index or by truth value."""
        return Runs(self.starts[which], self.lengths[which], self.owners[which])

    def owned(self, owners: Indices) -> Runs:
        """The same runs with other owners."""
        return Runs(self.starts, self.lengths, owners)

    def grouped(self, group_of_owner: Indices) -> tuple[Runs, Indices]:
        """The runs sorted by the group of their owner, in their order within a group, and the first run of each group."""
        groups = group_of_owner[self.owners]
        order = np.argsort(groups, kind="stable")
        return self.taken(order), first_of_equal(groups[order])

    def offsets(self) -> Indices:
        """Where each run begins in the list of all pixels (r + 1,); the last is the number of pixels."""
        offsets = np.zeros(self.lengths.size + 1, np.intp)
        np.cumsum(self.lengths, out=offsets[1:])
        return offsets

    def pixels(self) -> Indices:
        """The flat index of every pixel, run by run."""
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
    """How far it is from each of some ascending positions (r,) to the next, and from the last one to `end`."""
    apart = np.empty(first.size, np.intp)
    if first.size:
        np.subtract(first[1:], first[:-1], out=apart[:-1])
        apart[-1] = end - first[-1]
    return apart


def first_of_equal(values: NDArray[np.integer]) -> Indices:
    """Positions (r,) in a list (n,) at which another value begins than the one before."""
    first = np.empty(values.size, np.bool_)
    first[:1] = True
    np.not_equal(values[1:], values[:-1], out=first[1:])
    return np.flatnonzero(first)


def first_of_runs(places: Indices) -> Indices:
    """Positions (r,) in an ascending list of flat indices (n,), n > 0, at which a run begins."""
    first = np.empty(places.size, np.bool_)
    first[0] = True
    np.not_equal(places[1:] - places[:-1], 1, out=first[1:])
    return np.flatnonzero(first)


def runs_of(inside: NDArray[np.bool_]) -> Runs:
    """The runs of an image (H, W) whose last column is False, in raster order, with no owner yet (0)."""
    flat = inside.ravel()
    # Of truth values the non-zero ones are found several times faster than of numbers.
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    if flat.size and flat[0]:
        changes = np.concatenate([np.zeros(1, np.intp), changes])
    starts, ends = changes[::2], changes[1::2]
    return Runs(starts, ends - starts, np.zeros(starts.size, np.intp))


def connected(runs: Runs, width: int) -> Indices:
    """The connected component (side neighbours), 1..n, of each of the runs (r,) in raster order in an image `width` wide.

    No two runs may be side by side in a row, nor go on from a row's end to the next one's beginning.
    """
    return _components(*_touching(runs, width), runs.starts.size)


def largest_pieces(runs: Runs, width: int) -> NDArray[np.bool_]:
    """Which of the runs (r,) of objects, in raster order in an image `width` wide, lie in their object's largest connected piece.

    Of pieces of one size it is the first. Pixels are connected as side neighbours; no run may go on from a row's end to the
    next one's beginning.
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
    """Pairs (p,) of runs that touch, the second in the row below the first."""
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
    """Every run (r,) told what the run it names is told, and so on."""
    while True:
        told = first[first]
        if not np.count_nonzero(told != first):
            return first
        first = told[told]


def paint(
    runs: Runs, numbers: NDArray[np.int32], shape: tuple[int, int], pixels: Indices | None = None
) -> NDArray[np.int32]:
    """Label image (H, W) in which the runs of owner k, which do not overlap, carry `numbers[k]`; `pixels` if they are known."""
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
    return ObjectPixels.of(labels).painted(min_area)


@dataclass(frozen=True, eq=False)
class ObjectPixels:
    """The objects' pixels of a label image of `shape` in raster order: `places` (n,) flat indices, `numbers` (n,) int32.

    There are far fewer than in the image, and everything that is done to them costs as much less.
    """

    places: Indices
    numbers: NDArray[np.int32]
    shape: tuple[int, int]

    @staticmethod
    def of(labels: NDArray[np.int32], where: NDArray[np.bool_] | None = None) -> ObjectPixels:
        """Those of a label image (H, W), or those of them that lie `where` (H, W)."""
        # Of truth values the non-zero ones are found several times faster than of numbers.
        there = labels != 0
        if where is not None:
            there &= where
        places = np.flatnonzero(there)
        return ObjectPixels(places, labels.ravel()[places], (labels.shape[0], labels.shape[1]))

    def taken(self, which: NDArray[np.bool_]) -> ObjectPixels:
        """Some of the pixels; the others are background."""
        return ObjectPixels(self.places[which], self.numbers[which], self.shape)

    def in_one_piece(self) -> ObjectPixels:
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
        return ObjectPixels(self.places, np.repeat(numbers[owners], lengths), self.shape).image()


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
