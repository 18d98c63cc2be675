"""The images that robustness is measured on are spoiled as their names say."""

from __future__ import annotations

import numpy as np
import pytest

from cellcount_core.evaluation.suites.robustness import (
    DEGRADATIONS,
    inverted,
    is_far_off,
    low_contrast,
    offset,
    poisson,
    saturated,
    saturated_objects,
    uneven,
)
from cellcount_core.tasks.matching import ImageScore


@pytest.fixture
def plane() -> np.ndarray:
    """8 bits: a noisy background at 20 and blocks at 60 to 220 that cover 4 % of it."""
    rng = np.random.default_rng(1)
    pixels = rng.normal(20, 2, (200, 200))
    for number in range(10):
        y, x = divmod(number, 5)
        pixels[y * 80 + 10 : y * 80 + 22, x * 40 + 5 : x * 40 + 18] = 60 + 16 * number
    return np.rint(pixels).astype(np.uint8)


def test_low_contrast_keeps_all_within_three_percent_of_sixteen_bits(plane: np.ndarray) -> None:
    spoiled = low_contrast(plane, np.random.default_rng(0))
    assert spoiled.dtype == np.uint16
    assert (int(spoiled.min()), int(np.ptp(spoiled))) == (20_000, round(0.03 * 65_535))
    assert len(np.unique(spoiled)) == len(np.unique(plane))


def test_inverting_twice_gives_the_image_back(plane: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    assert inverted(plane, rng)[15, 170] < inverted(plane, rng)[100, 100]
    assert np.array_equal(inverted(inverted(plane, rng), rng), plane)


def test_an_offset_leaves_differences_alone(plane: np.ndarray) -> None:
    spoiled = offset(plane, np.random.default_rng(0)).astype(int)
    assert len(np.unique(spoiled - plane)) == 1
    assert spoiled.min() >= 2 * int(np.ptp(plane))


def test_a_twentieth_of_the_pixels_is_saturated_and_the_background_stays(plane: np.ndarray) -> None:
    spoiled = saturated(plane, np.random.default_rng(0))
    assert np.mean(spoiled == 255) == pytest.approx(0.05, abs=0.01)
    assert np.median(spoiled) == np.median(plane)


def test_no_background_is_saturated_where_objects_are_few(plane: np.ndarray) -> None:
    spoiled = saturated_objects(plane, np.random.default_rng(0))
    assert 0.01 < np.mean(spoiled == 255) < 0.04
    assert (plane[spoiled == 255] >= 60).all()


def test_shot_noise_follows_the_number_of_photons() -> None:
    plane = np.full((200, 200), 20, np.uint8)
    plane[:40] = 220
    for photons in (30, 1000):
        bright = poisson(photons)(plane, np.random.default_rng(0))[:40] * (photons / 20_000)
        assert bright.mean() == pytest.approx(1.1 * photons, rel=0.02)
        assert bright.std() == pytest.approx(np.sqrt(1.1 * photons), rel=0.05)


def test_uneven_light_dims_one_corner_to_a_third() -> None:
    spoiled = uneven(np.full((90, 120), 200, np.uint8), np.random.default_rng(0)).astype(float)
    assert spoiled.min() / spoiled.max() == pytest.approx(0.3, abs=0.01)


def test_every_degradation_gives_an_image_of_the_same_shape(plane: np.ndarray) -> None:
    for degradation in DEGRADATIONS:
        spoiled = degradation.degrade(plane, np.random.default_rng(0))
        assert spoiled.shape == plane.shape, degradation.name
        assert spoiled.dtype in (np.uint8, np.uint16, np.float32), degradation.name
        assert np.array_equal(spoiled, degradation.degrade(plane, np.random.default_rng(0))), degradation.name


def test_sixteen_bit_and_float_images_are_spoiled_within_their_own_range(plane: np.ndarray) -> None:
    wide = plane.astype(np.uint16) * 200 + 8000
    for image in (wide, (wide / 65_535).astype(np.float32)):
        spoiled = saturated(image, np.random.default_rng(0))
        assert np.mean(spoiled == 65_535) == pytest.approx(0.05, abs=0.01)
        for degradation in DEGRADATIONS:
            made = degradation.degrade(image, np.random.default_rng(0)).astype(float)
            objects = np.abs(made[plane > 55].mean() - np.median(made))
            noise = made[plane < 55].std()
            assert objects > 2 * noise, degradation.name


def test_an_offset_beyond_sixteen_bits_does_not_wrap(plane: np.ndarray) -> None:
    spoiled = offset(plane.astype(np.uint16) * 200, np.random.default_rng(0))
    assert spoiled.dtype == np.float32
    assert len(np.unique(spoiled - plane.astype(np.float32) * 200)) == 1


@pytest.mark.parametrize(
    ("true", "counted", "far"), [(7, 18, True), (7, 17, False), (100, 151, True), (100, 50, False)]
)
def test_a_count_is_far_off_by_half_of_the_truth_and_by_more_than_ten(
    true: int, counted: int, far: bool
) -> None:
    assert is_far_off(ImageScore("i", "", true, counted, ())) is far
