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


def paint(runs: Runs, numbers: NDArray[np.int32], shape: tuple[int, int]) -> NDArray[np.int32]:
    """Label image (H, W) in which the runs of owner k, which do not overlap, carry `numbers[k]`."""
    steps = np.zeros(shape[0] * shape[1] + 1, np.int32)
    painted = numbers[runs.owners]
    # Up where a run begins, down after its end: the running sum is the image.
    steps[runs.starts] += painted
    steps[runs.starts + runs.lengths] -= painted
    np.cumsum(steps, out=steps)
    return steps[:-1].reshape(shape)
