"""The network's maps of a field at the model's scale: tiles go through the device, maps come back whole or window by window."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

from cellcount_core.images.imagefile import Plane
from cellcount_core.images.normalise import Normalisation, apply, estimate, without_debris
from cellcount_core.images.pixels import resize, resize_to
from cellcount_core.images.tiles import Tile, TileGrid, Window, cut, place, plan_tiles, smallest_tile
from cellcount_core.models.package import InputSpec, Package
from cellcount_core.pipeline.device import DeviceFull, TileDevice
from cellcount_core.tasks.task import Levels, MapArray

_AHEAD = 3
"""Tiles that one field cuts ahead of the device: enough to keep it fed, and little memory."""


_KEPT_BYTES = 640 << 20
"""Bytes of maps of a large field that are kept between windows: some rows of tiles of a field 20,000 px wide."""


_VECTORS_AHEAD = 16
"""Windows of a field that are prepared ahead of the device."""

Cutter = Callable[[TileGrid, Tile], NDArray[np.float32]]
"""Gives the normalised input (h, w, C) of a tile of a grid."""


class TiledMaps:
    """The network's maps of a canvas of `shape` (H, W), whose tiles are cut by `cutter`.

    Tiles have at most `max_tile` px a side. If the device has no memory for one, everything asked for later is made of tiles whose
    cores have half the side, down to the smallest possible tile, and the device remembers it. Maps do not depend on the tiles that
    they are made of. Methods raise DeviceFull if the device cannot hold even the smallest tile.
    """

    def __init__(
        self, shape: tuple[int, int], cutter: Cutter, package: Package, device: TileDevice, max_tile: int
    ) -> None:
        self.shape = shape
        self._cutter = cutter
        self._device = device
        self._channels = len(package.maps)
        self._stride, self._radius = package.stride, package.radius
        self._wanted = max_tile
        self._refused: int | None = None
        self._kept: OrderedDict[Tile, MapArray] = OrderedDict()
        self._kept_bytes = 0
        self._plan(device.largest_tile(max_tile))

    def cores(self) -> Iterator[MapArray]:
        """The maps (h, w, K) in pieces that together cover the field, each pixel exactly once."""
        height, width = self.shape
        grid = self._grid
        answers = self._answers(grid.tiles)
        for tile in grid.tiles:
            y0, y1, x0, x1 = tile.core
            y1, x1 = min(y1, height), min(x1, width)
            maps = self._next(answers, grid)
            if y0 >= y1 or x0 >= x1:
                continue
            if maps is None:
                # The pieces stay those that were begun with, whatever tiles they are made of now.
                yield self.window(y0, y1, x0, x1)
            else:
                yield maps[y0 - tile.y : y1 - tile.y, x0 - tile.x : x1 - tile.x]

    def _next(self, answers: Iterator[tuple[Tile, MapArray]], grid: TileGrid) -> MapArray | None:
        """Maps of the next tile of `grid`; None once the device has no memory for tiles of that size."""
        if self._grid is not grid:
            return None
        try:
            return next(answers)[1]
        except DeviceFull as full:
            self._shrink(full)
            return None

    def whole(self) -> MapArray:
        """The maps (H, W, K) of the whole field."""
        height, width = self.shape
        return self.window(0, height, 0, width)

    def window(self, y0: int, y1: int, x0: int, x1: int) -> MapArray:
        """The maps (y1 - y0, x1 - x0, K) of rows y0 to y1 and columns x0 to x1 of the field, half-open.

        Cores of tiles are kept for later windows, within a bound of memory. Windows are expected in raster order: what lies above the
        present one is dropped first.
        """
        while True:
            try:
                return self._window((y0, y1, x0, x1))
            except DeviceFull as full:
                self._shrink(full)

    def _window(self, window: Window) -> MapArray:
        y0, y1, x0, x1 = window
        out = np.empty((y1 - y0, x1 - x0, self._channels), np.float32)
        for tile in [tile for tile in self._kept if tile.core[1] <= y0]:
            self._drop(tile)
        wanted = self._grid.tiles_in(window)
        for tile in wanted:
            if tile in self._kept:
                self._kept.move_to_end(tile)
                _place_core(out, self._kept[tile], tile, window)
        for tile, maps in self._answers([tile for tile in wanted if tile not in self._kept]):
            place(out, maps, self._grid, tile, window)
            if len(self._grid.tiles) > 1:
                self._keep(tile, maps)
        return out

    def _plan(self, side: int) -> None:
        self._side = side
        self._grid = plan_tiles(self.shape, stride=self._stride, radius=self._radius, max_tile=side)

    def _shrink(self, full: DeviceFull) -> None:
        """Go on with tiles whose cores have half the side; what was kept is dropped.

        The core is halved because the margin around it cannot shrink: a tile of half the side may be hardly more than its margin.
        Raises DeviceFull if there is no smaller tile.
        """
        refused, smallest = max(self._grid.tile), smallest_tile(self._stride, self._radius)
        if refused <= smallest:
            height, width = self._grid.tile
            raise DeviceFull(
                f"the device has no memory for a tile of {height} x {width} px, the smallest that there can be, nor for any "
                f"larger one (tried from {self._wanted} px down)"
            ) from full
        self._refused = refused
        self._kept.clear()
        self._kept_bytes = 0
        self._plan(smallest + (refused - smallest) // 2)

    def _keep(self, tile: Tile, maps: MapArray) -> None:
        top, bottom, left, right = tile.core
        core = maps[top - tile.y : bottom - tile.y, left - tile.x : right - tile.x].copy()
        self._kept[tile] = core
        self._kept_bytes += core.nbytes
        while self._kept_bytes > _KEPT_BYTES:
            self._drop(next(iter(self._kept)))

    def _drop(self, tile: Tile) -> None:
        self._kept_bytes -= self._kept.pop(tile).nbytes

    def _answers(self, tiles: Sequence[Tile]) -> Iterator[tuple[Tile, MapArray]]:
        """The tiles with their maps (h, w, K), in order; a few tiles are at the device ahead of the one yielded."""
        waiting: deque[tuple[Tile, Future[MapArray]]] = deque()
        upcoming = iter(tiles)
        while True:
            while len(waiting) < _AHEAD and (tile := next(upcoming, None)) is not None:
                waiting.append((tile, self._device.submit(self._cutter(self._grid, tile))))
            if not waiting:
                return
            tile, answer = waiting.popleft()
            maps = answer.result()
            if self._refused is not None:
                self._device.remember(self._refused, self._side)
                self._refused = None
            yield tile, maps


class FieldMaps(TiledMaps):
    """The network's maps of one field, given its planes (H, W) at the model's scale, one for each of the package's input channels."""

    def __init__(
        self,
        planes: Sequence[Plane],
        norms: Sequence[Normalisation],
        package: Package,
        device: TileDevice,
        max_tile: int,
    ) -> None:
        self._planes, self._norms = planes, norms
        self._package, self._max_tile = package, max_tile
        height, width = planes[0].shape
        super().__init__((height, width), self._cut, package, device, max_tile)

    @property
    def norm(self) -> Normalisation:
        """Levels of the field's first plane."""
        return self._norms[0]

    def resized(self, factor: float) -> FieldMaps:
        """The maps of the same field, enlarged or reduced by `factor`."""
        planes = [resize(plane, factor) for plane in self._planes]
        return FieldMaps(planes, self._norms, self._package, self._device, self._max_tile)

    def canvas(self) -> NDArray[np.float32]:
        """The field's first plane (H, W) at the model's scale, normalised."""
        return apply(self._planes[0], self._norms[0])

    def _cut(self, grid: TileGrid, tile: Tile) -> NDArray[np.float32]:
        return cut(self._planes, self._norms, grid, tile)


def levels(planes: Sequence[Plane], spec: InputSpec) -> tuple[Normalisation, ...]:
    """The levels of each raw plane (H, W), estimated from its own raw pixels. They stay the same when a plane is resized."""
    return tuple(
        estimate(plane, percentile=spec.percentile, floor_sigmas=spec.floor_sigmas, polarity=spec.polarity)
        for plane in planes
    )


def network_planes(planes: Sequence[Plane], spec: InputSpec) -> list[Plane]:
    """The raw planes (H, W) that the network sees, one for each of its inputs, from those of the package's roles.

    An input that shows one role has that role's plane. One that shows several has, at each pixel, the brightest of them, each measured from
    its own background in units of its own range (float32), so that a dim stain counts as much as a bright one.
    """
    if not spec.seen:
        return list(planes)
    return [_brightest([planes[place] for place in places], spec) for places in spec.inputs]


def _brightest(planes: Sequence[Plane], spec: InputSpec) -> Plane:
    if len(planes) == 1:
        return planes[0]
    above = [
        (without_debris(plane, norm).astype(np.float32) - np.float32(norm.background))
        / np.float32(norm.range)
        for plane, norm in zip(planes, levels(planes, spec), strict=True)
    ]
    brightest: Plane = np.maximum.reduce(above)
    return brightest


def whole_canvas(
    planes: Sequence[Plane], spec: InputSpec, stride: int, factor: float = 1.0
) -> NDArray[np.float32]:
    """Raw planes (H, W) as the network's input (h, w, C) in one piece, resized by `factor`.

    The sides are padded to multiples of `stride` as `images.tiles.cut` does.
    """
    norms = levels(planes, spec)
    scaled = [resize(without_debris(plane, norm), factor) for plane, norm in zip(planes, norms, strict=True)]
    height, width = scaled[0].shape
    grid = plan_tiles((height, width), stride=stride, radius=0, max_tile=max(height, width) + stride)
    return cut(scaled, norms, grid, grid.tiles[0])


class FieldVectors:
    """The outputs of a network that sees a field, or windows of it, as images of `side` x `side` px each.

    `seen` are the raw planes (H, W) that the network sees, and `norms` their levels.
    """

    def __init__(
        self,
        seen: Sequence[Plane],
        norms: Sequence[Normalisation],
        spec: InputSpec,
        side: int,
        device: TileDevice,
    ) -> None:
        self._seen, self._norms = list(seen), list(norms)
        self._spec, self._side, self._device = spec, side, device

    def of(self, windows: NDArray[np.int64], levels_of: Levels) -> NDArray[np.float32]:
        """The outputs (n, K) for windows (n, 4) y0 y1 x0 x1, half-open; (0, 0) without windows.

        Beyond the field there is its mirror image. A few windows are prepared ahead of the device.
        """
        calm: list[Plane] = []
        if levels_of is Levels.FIELD:
            calm = [without_debris(plane, norm) for plane, norm in zip(self._seen, self._norms, strict=True)]
        answers: deque[Future[MapArray]] = deque()
        found: list[NDArray[np.float32]] = []
        for y0, y1, x0, x1 in windows.tolist():
            window = (y0, y1, x0, x1)
            canvas = self._canvas(calm, self._norms, window) if calm else self._by_itself(window)
            answers.append(self._device.submit(canvas))
            if len(answers) > _VECTORS_AHEAD:
                found.append(np.asarray(answers.popleft().result(), np.float32).ravel())
        found += [np.asarray(answer.result(), np.float32).ravel() for answer in answers]
        return np.stack(found) if found else np.zeros((0, 0), np.float32)

    def _by_itself(self, window: Window) -> NDArray[np.float32]:
        """The network's input for a window that is normalised as if it was an image by itself."""
        y0, y1, x0, x1 = window
        inside = [np.ascontiguousarray(plane[max(0, y0) : y1, max(0, x0) : x1]) for plane in self._seen]
        norms = levels(inside, self._spec)
        calm = [without_debris(plane, norm) for plane, norm in zip(inside, norms, strict=True)]
        top, left = max(0, y0), max(0, x0)
        return self._canvas(calm, norms, (y0 - top, y1 - top, x0 - left, x1 - left))

    def _canvas(
        self, planes: Sequence[Plane], norms: Sequence[Normalisation], window: Window
    ) -> NDArray[np.float32]:
        """The network's input (side, side, C) for a window of planes (H, W)."""
        shape = (self._side, self._side)
        shown = [
            apply(resize_to(_cut_out(plane, window), shape), norm)
            for plane, norm in zip(planes, norms, strict=True)
        ]
        return np.ascontiguousarray(np.stack(shown, axis=-1), np.float32)


def _cut_out(plane: Plane, window: Window) -> Plane:
    """A window of a plane (H, W); what lies beyond the plane is its mirror image, as while networks are trained."""
    y0, y1, x0, x1 = window
    height, width = plane.shape
    top, bottom, left, right = max(0, y0), min(height, y1), max(0, x0), min(width, x1)
    inside = np.ascontiguousarray(plane[top:bottom, left:right])
    if inside.shape == (y1 - y0, x1 - x0):
        return inside
    beyond = ((top - y0, y1 - bottom), (left - x0, x1 - right))
    framed: Plane = np.pad(inside, beyond, mode="reflect")
    return framed


def canvas_maps(canvas: NDArray[np.float32], package: Package, device: TileDevice) -> MapArray:
    """Maps (h, w, K) of a normalised canvas (h, w, C) whose sides are multiples of the package's stride.

    The canvas goes to the device in one piece, and in tiles only if the device has no memory for that. Raises DeviceFull as `TiledMaps`.
    """

    def part(grid: TileGrid, tile: Tile) -> NDArray[np.float32]:
        return canvas[tile.y : tile.y + grid.tile[0], tile.x : tile.x + grid.tile[1]]

    height, width = canvas.shape[:2]
    return TiledMaps((height, width), part, package, device, max(height, width)).whole()


def _place_core(out: MapArray, core: MapArray, tile: Tile, window: Window) -> None:
    """Write the part of a tile's core that lies in `window` into `out`, the maps of that window."""
    top, bottom, left, right = tile.core
    y0, y1, x0, x1 = max(top, window[0]), min(bottom, window[1]), max(left, window[2]), min(right, window[3])
    out[y0 - window[0] : y1 - window[0], x0 - window[2] : x1 - window[2]] = core[
        y0 - top : y1 - top, x0 - left : x1 - left
    ]
