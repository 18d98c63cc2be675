"""How bright each cell is in the channel of a role, above the light that lies around it.

The background is found on a grid over the raw plane, whatever was found in it, and read at each cell's centre. So light that falls off
across the field does not make cells of one corner dead, and a cell's signal is the same whether its field was counted at once or in blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellcount_core.images.imagefile import Plane

Floats = NDArray[np.float64]

_CELLS = 16
"""Cells of the grid along the longer side of a field."""

_SMALLEST_CELL, _LARGEST_CELL = 48, 256
"""Px: a cell holds several cells' worth of background, and is smaller than the fall of light."""

_SAMPLE_SIDE = 48
"""Pixels along each side of a cell of the grid that are looked at, at most."""

_LOW = 0.2
"""Quantile of a cell's pixels at which the search for its background begins."""

_REACH = 3.0
"""Standard deviations of noise around the background within which pixels count as background."""

_ROUNDS = 4
_LEAST_NOISE = 0.5
_CALM = 2
"""Px around each pixel over which light is averaged where its area is measured."""

_STRIP = 1 << 22
"""Pixels that are compared with the background at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Backdrop:
    """The background of one plane: levels (n, m) in raw units at the centres of a grid's cells, which are `height` x `width` px."""

    levels: Floats
    height: float
    width: float

    def at(self, y: Floats, x: Floats) -> Floats:
        """The background at points (n,) in px of the plane, between the centres of cells by linear interpolation."""
        places = np.stack([(y + 0.5) / self.height - 0.5, (x + 0.5) / self.width - 0.5])
        return np.asarray(ndimage.map_coordinates(self.levels, places, order=1, mode="nearest"), np.float64)


def backdrop(plane: Plane, noise: float) -> Backdrop:
    """The background of a raw plane (H, W) whose noise has the standard deviation `noise`.

    In each cell of a grid it is the mean of the pixels around the darker ones that differ by noise alone; a cell that is full of objects
    takes the level of its neighbours.
    """
    height, width = plane.shape
    side = float(np.clip(max(height, width) / _CELLS, _SMALLEST_CELL, _LARGEST_CELL))
    rows, columns = max(1, round(height / side)), max(1, round(width / side))
    tops = np.linspace(0, height, rows + 1).astype(int)
    lefts = np.linspace(0, width, columns + 1).astype(int)
    levels = np.array(
        [[_level(plane[y0:y1, x0:x1], noise) for x0, x1 in pairwise(lefts)] for y0, y1 in pairwise(tops)]
    )
    around = np.asarray(ndimage.median_filter(levels, size=3, mode="nearest"), np.float64)
    return Backdrop(np.minimum(levels, around + max(noise, _LEAST_NOISE)), height / rows, width / columns)


def _level(cell: Plane, noise: float) -> float:
    step = max(1, min(cell.shape) // _SAMPLE_SIDE)
    values = cell[::step, ::step].astype(np.float64).ravel()
    reach = _REACH * max(noise, _LEAST_NOISE)
    place = int(_LOW * (values.size - 1))
    level = float(np.partition(values, place)[place])
    for _ in range(_ROUNDS):
        near = values[np.abs(values - level) <= reach]
        if not near.size:
            break
        level = float(near.mean())
    return level


def bright_area(plane: Plane, behind: Backdrop, height: float) -> int:
    """Number of pixels of a raw plane (H, W) around which the mean of 5 x 5 lies more than `height` (raw units) above the background.

    The mean, because single pixels of noise alone may reach the signal of a cell.
    """
    rows = max(1, _STRIP // plane.shape[1])
    found = 0
    for top in range(0, plane.shape[0], rows):
        end = min(top + rows, plane.shape[0])
        around = plane[max(0, top - _CALM) : end + _CALM].astype(np.float32)
        calm = cv2.blur(around, (2 * _CALM + 1,) * 2, borderType=cv2.BORDER_REPLICATE)
        strip = calm[min(top, _CALM) :][: end - top]
        y = (np.arange(top, end, dtype=np.float32) + 0.5) / behind.height - 0.5
        x = (np.arange(strip.shape[1], dtype=np.float32) + 0.5) / behind.width - 0.5
        across, down = np.meshgrid(x, y)
        level = cv2.remap(
            behind.levels.astype(np.float32), across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        found += int(np.count_nonzero(strip - level > height))
    return found
