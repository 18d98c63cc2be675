"""Looking at an image as a whole, or tile by tile: what tasks of whole images have in common when they count."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellcount_core.images.quality import shows_nothing
from cellcount_core.tasks.task import Levels, View

Shape = tuple[int, int]


def starts(length: int, side: int) -> list[int]:
    """Where tiles of `side` px begin along an axis of `length` px: side by side, the last one at the edge, so that they cover it.

    >>> starts(100, 40), starts(40, 40), starts(30, 40)
    ([0, 40, 60], [0], [0])
    """
    return [*range(0, max(1, length - side), side), *([length - side] if length > side else [])]


def tiles_of(shape: Shape, tile: Shape | None) -> NDArray[np.int64]:
    """The windows (n, 4) y0 y1 x0 x1, half-open, that are looked at in an image of `shape` (H, W): tiles of (h, w) px in raster order, or all
    of it.
    """
    (height, width), (tall, wide) = shape, tile or shape
    return np.array(
        [
            [top, min(height, top + tall), left, min(width, left + wide)]
            for top in starts(height, tall)
            for left in starts(width, wide)
        ],
        np.int64,
    )


def tile_vectors(
    view: View, tile: Shape | None, levels: Levels = Levels.FIELD
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The windows (n, 4) of a field (see `tiles_of`) and the network's vector of each (n, K)."""
    windows = tiles_of(view.shape, tile)
    return windows, view.vectors(windows, levels)


def showing(view: View, windows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which windows (n, 4) of a field show something: (n,). In one of the planes of the package's roles their signal rises above the field's noise.

    A window that is all of the field shows something unless the field is `empty`.
    """
    if view.empty or len(windows) == 1:
        return np.full(len(windows), not view.empty)
    planes = [(view.planes[name], norm) for name, norm in zip(view.counted, view.norms, strict=True)]
    return np.array(
        [
            not all(shows_nothing(plane[y0:y1, x0:x1], norm) for plane, norm in planes)
            for y0, y1, x0, x1 in windows.tolist()
        ],
        np.bool_,
    )


def square(side: int | None) -> Shape | None:
    """The (h, w) of tiles of that side; None stays None."""
    return None if side is None else (side, side)
