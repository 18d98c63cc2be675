"""Sets of pixels as runs: pixels side by side in a row, given by the first one's flat index and their number.

There are some ten times fewer runs than pixels, and all pixels of a run lie in the same connected component.
"""

from __future__ import annotations

from dataclasses import dataclass

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
        return self.taken(order), np.flatnonzero(np.diff(groups[order], prepend=-1))

    def offsets(self) -> Indices:
        """Where each run begins in the list of all pixels (r + 1,); the last is the number of pixels."""
        return np.concatenate([np.zeros(1, np.intp), np.cumsum(self.lengths)])

    def pixels(self) -> Indices:
        """The flat index of every pixel, run by run."""
        offsets = self.offsets()
        pixels = np.repeat(self.starts - offsets[:-1], self.lengths)
        pixels += np.arange(pixels.size)
        return pixels


def join_runs(parts: list[Runs]) -> Runs:
    """The runs of several lists, one list after the other."""
    return Runs(
        np.concatenate([part.starts for part in parts]),
        np.concatenate([part.lengths for part in parts]),
        np.concatenate([part.owners for part in parts]),
    )


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
    starts, ends = runs.starts, runs.starts + runs.lengths
    # In the next row a run touches those that end after its first pixel and begin before its end.
    low = np.searchsorted(ends, starts + width, side="right")
    touched = np.maximum(np.searchsorted(starts, ends + width) - low, 0)
    upper = np.repeat(np.arange(starts.size), touched)
    lower = np.repeat(low - (np.cumsum(touched) - touched), touched)
    lower += np.arange(lower.size)
    # A component goes by its first run. Of two that touch the later one is told of the earlier, until there is nothing to tell:
    # the number of rounds grows with the logarithm of the runs, two or three for cells.
    first = np.arange(starts.size)
    while True:
        apart = first[upper] != first[lower]
        if not apart.any():
            break
        upper, lower = upper[apart], lower[apart]
        one, two = first[upper], first[lower]
        np.minimum.at(first, np.maximum(one, two), np.minimum(one, two))
        while True:
            told = first[first]
            if np.array_equal(told, first):
                break
            first = told
    return np.asarray(np.cumsum(first == np.arange(first.size))[first], np.intp)


def paint(runs: Runs, numbers: NDArray[np.int32], shape: tuple[int, int]) -> NDArray[np.int32]:
    """Label image (H, W) in which the runs of owner k, which do not overlap, carry `numbers[k]`."""
    painted = numbers[runs.owners]
    if 4 * int(runs.lengths.sum()) < shape[0] * shape[1]:
        image = np.zeros(shape, np.int32)
        image.ravel()[runs.pixels()] = np.repeat(painted, runs.lengths)
        return image
    steps = np.zeros(shape[0] * shape[1] + 1, np.int32)
    # Up where a run begins, down after its end: the running sum is the image.
    steps[runs.starts] += painted
    steps[runs.starts + runs.lengths] -= painted
    np.cumsum(steps, out=steps)
    return steps[:-1].reshape(shape)
