"""Maps of a field at the model's scale: tiles through the device, assembled whole or window by window."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

from cellcount_core.images.imagefile import Plane
from cellcount_core.images.normalise import Normalisation
from cellcount_core.images.tiles import Tile, TileGrid, cut, place, plan_tiles
from cellcount_core.models.package import Package
from cellcount_core.pipeline.device import Device

Maps = NDArray[np.float32]

_AHEAD = 3
"""Tiles cut ahead of the device by one field: enough to keep it fed, little memory."""


class FieldMaps:
    """The network's maps of one field. `planes` are at the model's scale, one an input channel of the package."""

    def __init__(
        self,
        planes: Sequence[Plane],
        norms: Sequence[Normalisation],
        package: Package,
        device: Device,
        max_tile: int,
    ) -> None:
        self._planes = planes
        self._norms = norms
        self._device = device
        self._channels = len(package.maps)
        height, width = planes[0].shape
        self.grid: TileGrid = plan_tiles(
            (height, width), stride=package.stride, radius=package.radius, max_tile=max_tile
        )

    def cores(self) -> Iterator[Maps]:
        """Maps (h, w, K) of the field cut into pieces, each pixel of the field in exactly one of them."""
        height, width = self.grid.shape
        for tile, maps in self._answers(self.grid.tiles):
            y0, y1, x0, x1 = tile.core
            y1, x1 = min(y1, height), min(x1, width)
            if y0 < y1 and x0 < x1:
                yield maps[y0 - tile.y : y1 - tile.y, x0 - tile.x : x1 - tile.x]

    def whole(self) -> Maps:
        """Maps (H, W, K) of the field."""
        height, width = self.grid.shape
        return self.window(0, height, 0, width)

    def window(self, y0: int, y1: int, x0: int, x1: int) -> Maps:
        """Maps of rows y0 to y1 and columns x0 to x1 of the field, half-open."""
        window = (y0, y1, x0, x1)
        out = np.empty((y1 - y0, x1 - x0, self._channels), np.float32)
        for tile, maps in self._answers(self.grid.tiles_in(window)):
            place(out, maps, self.grid, tile, window)
        return out

    def _answers(self, tiles: Sequence[Tile]) -> Iterator[tuple[Tile, Maps]]:
        """The tiles with their maps (h, w, K), in order; a few are at the device ahead of the one given out."""
        waiting: deque[tuple[Tile, Future[Maps]]] = deque()
        upcoming = iter(tiles)
        while True:
            while len(waiting) < _AHEAD and (tile := next(upcoming, None)) is not None:
                waiting.append((tile, self._device.submit(cut(self._planes, self._norms, self.grid, tile))))
            if not waiting:
                return
            tile, answer = waiting.popleft()
            yield tile, answer.result()
