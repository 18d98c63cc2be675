"""Tiles: the map assembled from tiles is the map of the uncut field."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.images.normalise import Normalisation, apply
from cellcount_core.images.tiles import TileGrid, cut, place, plan_tiles
from tests.often import often

NORM = Normalisation(background=0.0, range=1.0, noise=0.0)


def network(tile: NDArray[np.float32], radius: int, stride: int) -> NDArray[np.float32]:
    """A local operator with a network's habits: zero padding, a grid of `stride` px from the tile's origin, exact sums.

    Each cell of the grid takes the box sum around its first pixel, so that a pixel reaches exactly `radius` px.
    """
    reach = max(0, radius - (stride - 1))
    values = np.pad(tile[:, :, 0].astype(np.int64), reach)
    size = 2 * reach + 1
    sums = np.cumsum(np.cumsum(np.pad(values, ((1, 0), (1, 0))), axis=0), axis=1)
    box = sums[size:, size:] - sums[:-size, size:] - sums[size:, :-size] + sums[:-size, :-size]
    cells = np.repeat(np.repeat(box[::stride, ::stride], stride, axis=0), stride, axis=1)
    return np.dstack([cells, tile[:, :, 0].astype(np.int64)]).astype(np.float32)


def assembled(plane: NDArray[np.uint8], grid: TileGrid, radius: int, stride: int) -> NDArray[np.float32]:
    window = (0, grid.canvas[0], 0, grid.canvas[1])
    out = np.full((*grid.canvas, 2), np.nan, np.float32)
    for tile in grid.tiles_in(window):
        place(out, network(cut([plane], [NORM], grid, tile), radius, stride), grid, tile, window)
    return out


shapes = st.tuples(st.integers(1, 150), st.integers(1, 150))


@given(
    shapes,
    st.sampled_from([1, 2, 4, 8, 16]),
    st.integers(0, 24),
    st.integers(0, 60),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=often(100), deadline=None)
def test_the_assembled_map_is_bit_for_bit_the_map_of_the_uncut_field(
    shape: tuple[int, int], stride: int, radius: int, more: int, seed: int
) -> None:
    plane = np.random.default_rng(seed).integers(0, 200, shape, dtype=np.uint8)
    smallest = (2 * -(-radius // stride) + 1) * stride
    uncut = plan_tiles(shape, stride=stride, radius=radius, max_tile=10_000)
    grid = plan_tiles(shape, stride=stride, radius=radius, max_tile=smallest + more)
    assert len(uncut.tiles) == 1
    np.testing.assert_array_equal(
        assembled(plane, grid, radius, stride), assembled(plane, uncut, radius, stride)
    )


@given(shapes, st.sampled_from([1, 2, 4, 8, 16]), st.integers(0, 24), st.integers(0, 60))
@settings(max_examples=often(300), deadline=None)
def test_a_grid_partitions_the_canvas_into_cores_away_from_every_cut(
    shape: tuple[int, int], stride: int, radius: int, more: int
) -> None:
    max_tile = (2 * -(-radius // stride) + 1) * stride + more
    grid = plan_tiles(shape, stride=stride, radius=radius, max_tile=max_tile)
    assert all(
        side % stride == 0 and 0 <= side - own < stride for side, own in zip(grid.canvas, shape, strict=True)
    )
    assert all(side <= max(max_tile, 0) for side in grid.tile)
    covered = np.zeros(grid.canvas, int)
    for tile in grid.tiles:
        y0, y1, x0, x1 = tile.core
        covered[y0:y1, x0:x1] += 1
        for origin, low, high, size, side in (
            (tile.y, y0, y1, grid.tile[0], grid.canvas[0]),
            (tile.x, x0, x1, grid.tile[1], grid.canvas[1]),
        ):
            assert origin % stride == 0 and origin >= 0 and origin + size <= side
            assert low - origin >= radius or origin == 0
            assert origin + size - high >= radius or origin + size == side
    assert (covered == 1).all()


@given(st.integers(1, 400), st.sampled_from([1, 4, 16]), st.integers(0, 24), st.integers(0, 60))
@settings(max_examples=often(200), deadline=None)
def test_no_fewer_and_no_smaller_tiles_would_do(side: int, stride: int, radius: int, more: int) -> None:
    margin = -(-radius // stride) * stride
    max_tile = 2 * margin + stride + more
    grid = plan_tiles((1, side), stride=stride, radius=radius, max_tile=max_tile)
    count, tile, canvas = len(grid.tiles), grid.tile[1], grid.canvas[1]

    def reach(number: int, size: int) -> int:
        return number * size - 2 * margin * (number - 1)

    assert reach(count, tile) >= canvas
    if count > 1:
        assert reach(count - 1, max_tile // stride * stride) < canvas
        assert reach(count, tile - stride) < canvas


def test_a_field_of_2160_px_becomes_two_by_two_tiles_with_little_waste() -> None:
    grid = plan_tiles((2160, 2160), stride=16, radius=64, max_tile=1216)
    assert len(grid.tiles) == 4
    assert grid.tile == (1152, 1152)


def test_a_field_that_fits_is_one_tile_of_its_own_size() -> None:
    grid = plan_tiles((1000, 300), stride=16, radius=64, max_tile=1216)
    assert (grid.canvas, grid.tile, len(grid.tiles)) == ((1008, 304), (1008, 304), 1)


def test_a_tile_too_small_for_the_model_is_refused_with_the_smallest_that_works() -> None:
    with pytest.raises(ConfigFault, match="at least 144"):
        plan_tiles((5000, 5000), stride=16, radius=64, max_tile=128)
    assert plan_tiles((5000, 5000), stride=16, radius=64, max_tile=144).tile == (144, 144)


@given(st.tuples(st.integers(1, 40), st.integers(1, 40)), st.sampled_from([4, 16]), st.integers(0, 2**32 - 1))
@settings(max_examples=often(100), deadline=None)
def test_the_canvas_beyond_the_field_is_reflected_or_repeated(
    shape: tuple[int, int], stride: int, seed: int
) -> None:
    plane = np.random.default_rng(seed).integers(0, 60000, shape, dtype=np.uint16)
    grid = plan_tiles(shape, stride=stride, radius=0, max_tile=1000)
    norm = Normalisation(background=300.0, range=2000.0, noise=3.0)
    padded = plane
    for axis in (0, 1):
        extra = grid.canvas[axis] - shape[axis]
        kind = cv2.BORDER_REFLECT_101 if extra < shape[axis] else cv2.BORDER_REPLICATE
        bottom, right = (extra, 0) if axis == 0 else (0, extra)
        padded = np.asarray(cv2.copyMakeBorder(padded, 0, bottom, 0, right, kind))
    np.testing.assert_array_equal(cut([plane], [norm], grid, grid.tiles[0])[:, :, 0], apply(padded, norm))


def test_a_tile_has_each_plane_normalised_by_its_own_levels() -> None:
    planes = [np.full((32, 32), 100, np.uint8), np.full((32, 32), 900, np.uint16)]
    norms = [Normalisation(0.0, 200.0, 1.0), Normalisation(0.0, 1000.0, 1.0)]
    grid = plan_tiles((32, 32), stride=16, radius=4, max_tile=64)
    tile = cut(planes, norms, grid, grid.tiles[0])
    assert (tile.shape, tile.dtype) == ((32, 32, 2), np.float32)
    np.testing.assert_allclose(tile[0, 0], [0.5, 0.9], rtol=1e-6)


def test_a_plane_of_another_size_than_the_grid_is_refused() -> None:
    grid = plan_tiles((32, 32), stride=16, radius=4, max_tile=64)
    with pytest.raises(ValueError, match=r"\(32, 32\) is expected"):
        cut([np.zeros((32, 31), np.uint8)], [NORM], grid, grid.tiles[0])


@given(st.data())
@settings(max_examples=often(60), deadline=None)
def test_a_window_of_the_map_needs_only_the_tiles_whose_cores_meet_it(data: st.DataObject) -> None:
    plane = np.random.default_rng(1).integers(0, 200, (150, 130), dtype=np.uint8)
    grid = plan_tiles(plane.shape, stride=8, radius=9, max_tile=64)
    y0, x0 = data.draw(st.integers(0, 149)), data.draw(st.integers(0, 129))
    window = (y0, data.draw(st.integers(y0 + 1, 150)), x0, data.draw(st.integers(x0 + 1, 130)))
    out = np.full((window[1] - y0, window[3] - x0, 2), np.nan, np.float32)
    for tile in grid.tiles_in(window):
        place(out, network(cut([plane], [NORM], grid, tile), 9, 8), grid, tile, window)
    whole = assembled(plane, grid, 9, 8)
    np.testing.assert_array_equal(out, whole[window[0] : window[1], window[2] : window[3]])
