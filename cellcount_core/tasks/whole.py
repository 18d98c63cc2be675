"""Looking at an image as a whole, or tile by tile: what tasks of whole images have in common when they count."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellcount_core.tasks.task import View


def starts(length: int, side: int) -> list[int]:
    """Where tiles of `side` px begin along an axis of `length` px: side by side, the last one at the edge, so that they cover it.

    >>> starts(100, 40), starts(40, 40), starts(30, 40)
    ([0, 40, 60], [0], [0])
    """
    return [*range(0, max(1, length - side), side), *([length - side] if length > side else [])]


def tiles_of(shape: tuple[int, int], tile_px: int | None) -> NDArray[np.int64]:
    """The windows (n, 4) y0 y1 x0 x1, half-open, that are looked at in an image of `shape` (H, W): its tiles, or all of it."""
    height, width = shape
    if tile_px is None:
        return np.array([[0, height, 0, width]], np.int64)
    return np.array(
        [
            [top, min(height, top + tile_px), left, min(width, left + tile_px)]
            for top in starts(height, tile_px)
            for left in starts(width, tile_px)
        ],
        np.int64,
    )


def tile_vectors(view: View, tile_px: int | None) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The windows (n, 4) of a field (see `tiles_of`) and the network's vector of each (n, K)."""
    windows = tiles_of(view.shape, tile_px)
    if tile_px is None:
        return windows, view.vector()[None]
    return windows, np.stack(
        [view.vector((int(y0), int(y1), int(x0), int(x1))) for y0, y1, x0, x1 in windows]
    )
