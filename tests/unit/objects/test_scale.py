"""Labels brought back to the original image: every object stays, and a window maps as it does in the whole."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from cellcount_core.objects.labels import number_in_raster_order
from cellcount_core.objects.measure import measure
from cellcount_core.objects.outline import (
    labels_to_original,
    map_to_original,
    objects_to_original,
    window_to_original,
)

from .scenes import draw

SHAPES = [((100, 120), (250, 300)), ((250, 300), (100, 120)), ((97, 131), (101, 130)), ((64, 64), (64, 64))]


@pytest.mark.parametrize(("model", "original"), SHAPES)
def test_centres_move_with_the_scale(model: tuple[int, int], original: tuple[int, int]) -> None:
    labels = draw(model, [(30, 30, 9), (50, 50, 6)]).astype(np.int32)
    labels[labels > 0] = np.where(np.argwhere(labels)[:, 0] + np.argwhere(labels)[:, 1] < 84, 1, 2)
    labels = number_in_raster_order(labels)
    scaled = labels_to_original(labels, original)
    assert scaled.shape == original
    assert scaled.dtype == np.int32
    before, after = measure(labels, {}), measure(scaled, {})
    factor_y, factor_x = original[0] / model[0], original[1] / model[1]
    assert after.center_y + 0.5 == pytest.approx((before.center_y + 0.5) * factor_y, abs=1)
    assert after.center_x + 0.5 == pytest.approx((before.center_x + 0.5) * factor_x, abs=1)
    assert after.area == pytest.approx(before.area * factor_y * factor_x, rel=0.15)


def test_numbers_above_sixteen_bits_survive() -> None:
    labels = np.arange(1, 300 * 300 + 1, dtype=np.int32).reshape(300, 300)
    assert np.array_equal(
        labels_to_original(labels, (600, 600))[::2, ::2], labels_to_original(labels, (600, 600))[1::2, 1::2]
    )
    assert labels_to_original(labels, (600, 600)).max() == 90_000


@pytest.mark.parametrize("seed", range(20))
def test_no_object_is_lost_when_the_original_is_smaller(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.zeros((90, 90), np.int32)
    places = rng.choice(90 * 90, 150, replace=False)
    labels.ravel()[places] = np.arange(1, 151)
    labels = number_in_raster_order(labels)
    scaled = labels_to_original(labels, (30, 35))
    assert np.unique(scaled).tolist() == list(range(151))
    table = measure(scaled, {})
    assert table.count == 150


def test_an_object_that_falls_between_pixels_keeps_the_pixel_of_its_centre() -> None:
    labels = np.zeros((40, 40), np.int32)
    labels[20, 20] = 1
    scaled = labels_to_original(labels, (10, 10))
    assert np.argwhere(scaled).tolist() == [[5, 5]]


@pytest.mark.parametrize(("model", "original"), SHAPES)
def test_a_window_is_scaled_as_it_is_in_the_whole(model: tuple[int, int], original: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    field = draw(model, [(int(rng.integers(model[0])), int(rng.integers(model[1])), 5) for _ in range(12)])
    whole = labels_to_original(pieces_of(field), original) > 0
    for _ in range(30):
        y, x = int(rng.integers(model[0] - 20)), int(rng.integers(model[1] - 20))
        alone = np.zeros(model, np.int32)
        alone[y : y + 20, x : x + 20] = pieces_of(field[y : y + 20, x : x + 20])
        expected = labels_to_original(alone, original)
        objects, (top, left) = window_to_original(
            np.ascontiguousarray(alone[y : y + 20, x : x + 20]), (y, x), model, original
        )
        window = objects.painted()
        placed = np.zeros(original, np.int32)
        placed[top : top + window.shape[0], left : left + window.shape[1]] = window
        assert np.array_equal(placed, expected)
        assert not (placed.astype(bool) & ~whole).any()


def test_a_map_is_scaled_as_labels_are() -> None:
    labels = pieces_of(draw((60, 70), [(20, 30, 11), (45, 50, 8)]))
    for shape in ((60, 70), (150, 170), (33, 41)):
        score = map_to_original(labels.astype(np.float32), shape)
        assert score.dtype == np.float32
        assert np.array_equal(score > 0, labels_to_original(labels, shape) > 0)


@pytest.mark.parametrize("original", [(60, 60), (87, 81), (33, 38)])
def test_an_object_is_its_largest_piece(original: tuple[int, int]) -> None:
    labels = pieces_of(draw((60, 60), [(15, 15, 9), (40, 40, 12)]))
    stray = labels.copy()
    # Apart, at a corner, and over a row's end.
    stray[40, 4], stray[52, 52], stray[30, 59], stray[31, 0] = 1, 2, 2, 2
    np.testing.assert_array_equal(labels_to_original(stray, original), labels_to_original(labels, original))
    outline = np.ones(labels.shape, np.float32)
    drawn = objects_to_original(stray, outline, 0.5, original).painted()
    for number in (1, 2):
        assert ndimage.label(drawn == number)[1] == 1


def pieces_of(mask: NDArray[np.generic]) -> NDArray[np.int32]:
    """Label image of a mask's connected pieces, in raster order."""
    return number_in_raster_order(ndimage.label(mask)[0].astype(np.int32))
