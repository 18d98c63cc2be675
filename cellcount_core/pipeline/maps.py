"""Maps of a field at the model's scale: tiles through the device, assembled whole or window by window."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

from cellcount_core.images.imagefile import Plane
from cellcount_core.images.normalise import Normalisation, apply
from cellcount_core.images.tiles import Tile, TileGrid, cut, place, plan_tiles
from cellcount_core.models.package import Package
from cellcount_core.pipeline.device import Device

Maps = NDArray[np.float32]

_AHEAD = 3
"""Tiles cut ahead of the device by one field: enough to keep it fed, little memory."""


_KEPT_BYTES = 640 << 20
"""Maps of a large field that are kept between windows: some rows of tiles of a field 20,000 px wide."""


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
        self._kept: OrderedDict[Tile, Maps] = OrderedDict()
        self._kept_bytes = 0
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

    def canvas(self) -> NDArray[np.float32]:
        """The field's first plane (H, W) at the model's scale, normalised."""
        return apply(self._planes[0], self._norms[0])

    def whole(self) -> Maps:
        """Maps (H, W, K) of the field."""
        height, width = self.grid.shape
        return self.window(0, height, 0, width)

    def window(self, y0: int, y1: int, x0: int, x1: int) -> Maps:
        """Maps of rows y0 to y1 and columns x0 to x1 of the field, half-open.

        Cores of tiles are kept for the windows that follow, within a bound of memory: windows come in raster order, so what
        lies above the present one is let go first.
        """
        window = (y0, y1, x0, x1)
        out = np.empty((y1 - y0, x1 - x0, self._channels), np.float32)
        for tile in [tile for tile in self._kept if tile.core[1] <= y0]:
            self._drop(tile)
        wanted = self.grid.tiles_in(window)
        for tile in wanted:
            if tile in self._kept:
                self._kept.move_to_end(tile)
                _place_core(out, self._kept[tile], tile, window)
        for tile, maps in self._answers([tile for tile in wanted if tile not in self._kept]):
            place(out, maps, self.grid, tile, window)
            if len(self.grid.tiles) > 1:
                self._keep(tile, maps)
        return out

    def _keep(self, tile: Tile, maps: Maps) -> None:
        top, bottom, left, right = tile.core
        core = maps[top - tile.y : bottom - tile.y, left - tile.x : right - tile.x].copy()
        self._kept[tile] = core
        self._kept_bytes += core.nbytes
        while self._kept_bytes > _KEPT_BYTES:
            self._drop(next(iter(self._kept)))

    def _drop(self, tile: Tile) -> None:
        self._kept_bytes -= self._kept.pop(tile).nbytes

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


def _place_core(out: Maps, core: Maps, tile: Tile, window: tuple[int, int, int, int]) -> None:
    """Write the part of a tile's core that lies in `window` into `out`, the map of the window."""
    top, bottom, left, right = tile.core
    y0, y1, x0, x1 = max(top, window[0]), min(bottom, window[1]), max(left, window[2]), min(right, window[3])
    out[y0 - window[0] : y1 - window[0], x0 - window[2] : x1 - window[2]] = core[
        y0 - top : y1 - top, x0 - left : x1 - left
    ]
