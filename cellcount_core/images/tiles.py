"""Cutting a field into tiles so that the map assembled from them equals, bit for bit, the map of the whole field.

Tiles begin at multiples of the network's total stride. Each tile gives its own part of the map (its core), and every
pixel of the core lies at least the network's receptive radius away from each edge at which the tile was cut. An edge
of the canvas is no cut: there the network's own padding acts on the whole field too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.images.imagefile import Plane
from cellcount_core.images.normalise import Normalisation, apply

Window = tuple[int, int, int, int]
"""(y0, y1, x0, x1) in px of the canvas; y1 and x1 are not included."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile: its first pixel (y, x) on the canvas, and `core`, the part of the map that is taken from it."""

    y: int
    x: int
    core: Window


@dataclass(frozen=True, slots=True)
class TileGrid:
    """All tiles of a field, row by row.

    `shape` is the field's (H, W); `canvas` is that shape, padded at the bottom and right to multiples of the stride;
    `tile` is the (h, w) of every tile. Each pixel of the canvas belongs to exactly one core.
    """

    shape: tuple[int, int]
    canvas: tuple[int, int]
    tile: tuple[int, int]
    tiles: tuple[Tile, ...]

    def tiles_in(self, window: Window) -> tuple[Tile, ...]:
        """The tiles whose cores overlap `window`, row by row."""
        return tuple(tile for tile in self.tiles if _meet(tile.core, window) is not None)


@dataclass(frozen=True, slots=True)
class _Axis:
    length: int
    tile: int
    spans: tuple[tuple[int, int, int], ...]


def plan_tiles(shape: tuple[int, int], *, stride: int, radius: int, max_tile: int) -> TileGrid:
    """The fewest tiles of equal size with sides of at most `max_tile` px, each as small as that number of tiles
    allows.

    `stride` and `radius` (px) are the network's total stride and receptive radius. Raises ConfigFault if a tile of
    `max_tile` px leaves no room for a core (the message names the smallest that does), ValueError if shape, stride or
    radius is out of range.
    """
    if min(shape) < 1 or stride < 1 or radius < 0:
        raise ValueError(f"shape {shape}, stride {stride} and radius {radius} must be at least 1, 1 and 0")
    rows = _plan_axis(shape[0], stride, radius, max_tile)
    columns = _plan_axis(shape[1], stride, radius, max_tile)
    tiles = tuple(Tile(y, x, (y0, y1, x0, x1)) for y, y0, y1 in rows.spans for x, x0, x1 in columns.spans)
    return TileGrid(shape, (rows.length, columns.length), (rows.tile, columns.tile), tiles)


def smallest_tile(stride: int, radius: int) -> int:
    """The side (px) of the smallest tile with a core: one stride, and on both sides of it the receptive radius in
    whole strides."""
    return (2 * -(-radius // stride) + 1) * stride


def _plan_axis(side: int, stride: int, radius: int, max_tile: int) -> _Axis:
    """One axis in units of the stride: tiles are spread evenly, and cores meet in the middle of each overlap."""
    length = -(-side // stride)
    margin = -(-radius // stride)
    largest = max_tile // stride
    if length <= largest:
        return _Axis(length * stride, length * stride, ((0, 0, length * stride),))
    if largest <= 2 * margin:
        smallest = min(smallest_tile(stride, radius), length * stride)
        raise ConfigFault(
            f"run.tile is {max_tile} px; a model of stride {stride} and receptive radius {radius} px needs at least"
            f" {smallest}"
        )
    count = 1 + -(-(length - largest) // (largest - 2 * margin))
    tile = -(-(length + 2 * margin * (count - 1)) // count)
    origins = [number * (length - tile) // (count - 1) for number in range(count)]
    cuts = [0, *((left + tile + right) // 2 for left, right in pairwise(origins)), length]
    spans = tuple(
        (origin * stride, start * stride, end * stride)
        for origin, start, end in zip(origins, cuts[:-1], cuts[1:], strict=True)
    )
    return _Axis(length * stride, tile * stride, spans)


def cut(
    planes: Sequence[Plane], norms: Sequence[Normalisation], grid: TileGrid, tile: Tile
) -> NDArray[np.float32]:
    """The normalised input (h, w, C) of one tile, from C raw planes of the field's shape and a `Normalisation` for
    each.

    Only the tile is copied. Beyond the field, pixels are reflected at the last one (reflect101), or the last one is
    repeated if the field is too small to reflect. Raises ValueError if a plane has another shape.
    """
    rows = _source_indices(tile.y, grid.tile[0], grid.shape[0], grid.canvas[0])
    columns = _source_indices(tile.x, grid.tile[1], grid.shape[1], grid.canvas[1])
    result = np.empty((*grid.tile, len(planes)), np.float32)
    for number, (plane, norm) in enumerate(zip(planes, norms, strict=True)):
        if plane.shape != grid.shape:
            raise ValueError(f"a plane of shape {grid.shape} is expected (got {plane.shape})")
        inside = tile.y + grid.tile[0] <= grid.shape[0] and tile.x + grid.tile[1] <= grid.shape[1]
        raw = (
            plane[tile.y : tile.y + grid.tile[0], tile.x : tile.x + grid.tile[1]]
            if inside
            else plane[np.ix_(rows, columns)]
        )
        result[:, :, number] = apply(raw, norm)
    return result


def _source_indices(start: int, size: int, side: int, canvas: int) -> NDArray[np.intp]:
    at = np.arange(start, start + size)
    beyond = 2 * (side - 1) - at if canvas - side < side else np.full_like(at, side - 1)
    return np.where(at < side, at, beyond)


def place(
    out: NDArray[np.float32], tile_map: NDArray[np.float32], grid: TileGrid, tile: Tile, window: Window
) -> None:
    """Write the core of `tile_map` (h, w, K) into `out` (H, W, K), the map of `window` of the canvas.

    Once all of `grid.tiles_in(window)` are placed, every pixel of `out` has been written exactly once. Raises
    ValueError if the shapes do not fit.
    """
    if tile_map.shape[:2] != grid.tile or out.shape[:2] != (window[1] - window[0], window[3] - window[2]):
        raise ValueError(
            f"map {tile_map.shape} or output {out.shape} does not fit tile {grid.tile} and window {window}"
        )
    shared = _meet(tile.core, window)
    if shared is None:
        return
    y0, y1, x0, x1 = shared
    out[y0 - window[0] : y1 - window[0], x0 - window[2] : x1 - window[2]] = tile_map[
        y0 - tile.y : y1 - tile.y, x0 - tile.x : x1 - tile.x
    ]


def _meet(first: Window, second: Window) -> Window | None:
    y0, y1 = max(first[0], second[0]), min(first[1], second[1])
    x0, x1 = max(first[2], second[2]), min(first[3], second[3])
    return (y0, y1, x0, x1) if y0 < y1 and x0 < x1 else None
