"""Normalisation by the noise floor, of bright objects and of dark ones."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellcount_core.domain.scales import Polarity
from cellcount_core.images.normalise import apply, estimate
from cellcount_core.images.quality import assess
from tests.often import often
from tests.plates import discs


def noise_image(seed: int, sigma: float = 30.0, shape: tuple[int, int] = (256, 256)) -> np.ndarray:
    return np.random.default_rng(seed).normal(500, sigma, shape)


def with_discs(image: np.ndarray, centres: list[tuple[int, int]], radius: int, height: float) -> np.ndarray:
    yy, xx = np.mgrid[: image.shape[0], : image.shape[1]]
    result = image.copy()
    for y, x in centres:
        result[(yy - y) ** 2 + (xx - x) ** 2 <= radius**2] += height
    return result


def normalised(image: np.ndarray) -> np.ndarray:
    return apply(image, estimate(image))


@pytest.mark.parametrize("value", [0, 7, 255])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_constant_image_is_all_zeros(value: int, dtype: type) -> None:
    assert not normalised(np.full((40, 50), value, dtype)).any()


@settings(max_examples=often(40), deadline=None)
@given(seed=st.integers(0, 1000), factor=st.floats(0.01, 200), offset=st.floats(-1000, 1000))
def test_gain_and_offset_of_the_camera_change_nothing(seed: int, factor: float, offset: float) -> None:
    image = with_discs(noise_image(seed, shape=(64, 80)), [(20, 20), (40, 60)], 6, 900)
    np.testing.assert_allclose(normalised(factor * image + offset), normalised(image), atol=2e-4)


@settings(max_examples=often(30), deadline=None)
@given(
    seed=st.integers(0, 10_000),
    sigma=st.floats(3, 300),
    kind=st.sampled_from(["float", "uint16", "blurred", "poisson"]),
)
def test_pure_noise_stays_far_below_full_scale(seed: int, sigma: float, kind: str) -> None:
    import cv2

    image = noise_image(seed, sigma) + 2000
    if kind == "uint16":
        image = np.clip(image, 0, 65535).astype(np.uint16)
    elif kind == "blurred":
        image = cv2.GaussianBlur(image, (0, 0), 1.0)
    elif kind == "poisson":
        image = np.random.default_rng(seed).poisson(sigma, (256, 256)).astype(np.uint16)
    result = np.abs(normalised(image))
    # Of a few photons a pixel, single ones may reach full scale; a thousandth of the pixels may not.
    assert np.quantile(result, 0.999) < 0.75
    assert result.std() < 0.15


def test_dark_8_bit_noise_of_few_values_is_not_stretched() -> None:
    image = (np.random.default_rng(0).random((256, 256)) < 0.02).astype(np.uint8)
    assert normalised(image).max() < 0.5


@pytest.mark.parametrize("height", [600.0, 5000.0, 60000.0])
def test_three_nuclei_in_a_large_field_are_bright_but_not_blown_up(height: float) -> None:
    image = with_discs(noise_image(1, 20, (1024, 1024)), [(200, 200), (500, 700), (900, 300)], 8, height)
    result = normalised(image)
    assert 0.8 < result[500, 700] < 1.3
    assert result[:100, :100].max() < 0.6


def test_a_dense_field_keeps_its_background_at_zero() -> None:
    rng = np.random.default_rng(2)
    centres = [(int(y), int(x)) for y in range(10, 250, 15) for x in range(10, 250, 15)]
    image = with_discs(noise_image(2, 10), centres, 7, 1) - 500
    image = np.where(image > 0.5, image + rng.uniform(500, 900, image.shape), image)
    background = np.random.default_rng(3).normal(0, 10, image.shape)
    norm = estimate(np.where(image > 400, image, background))
    assert abs(norm.background) < 40


def test_outliers_are_compressed_in_order_and_not_cut() -> None:
    image = with_discs(noise_image(4), [(50, 50), (120, 120), (200, 60)], 20, 1000)
    image[10, 10], image[10, 12], image[10, 14] = 5_000, 20_000, 60_000
    result = normalised(image)
    assert 1 < result[10, 10] < result[10, 12] < result[10, 14] < 6
    assert 0.7 < result[120, 120] < 1.2


def test_integer_and_float_planes_give_the_same_levels() -> None:
    image = np.clip(with_discs(noise_image(5), [(90, 90)], 20, 3000), 0, 65535).astype(np.uint16)
    assert estimate(image) == estimate(image.astype(np.float32))


@settings(max_examples=often(150), deadline=None)
@given(
    seed=st.integers(0, 10_000),
    shape=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    centre=st.integers(-40, 300),
    sigma=st.sampled_from([0.3, 1.0, 6.0, 40.0, 200.0]),
    polarity=st.sampled_from(["bright", "dark", "auto"]),
)
def test_8_bits_give_what_the_same_values_of_16_bits_give(
    seed: int, shape: tuple[int, int], centre: int, sigma: float, polarity: Polarity
) -> None:
    # Values of 8 bits are counted, all others sorted.
    values = np.clip(np.random.default_rng(seed).normal(centre, sigma, shape), 0, 255)
    narrow, wide = values.astype(np.uint8), values.astype(np.uint16)
    levels = estimate(narrow, polarity=polarity)
    assert levels == estimate(wide, polarity=polarity)
    found = apply(narrow, levels)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, apply(wide, levels))


def test_a_tile_is_normalised_as_it_is_within_its_plane() -> None:
    image = with_discs(noise_image(6), [(90, 90)], 20, 3000)
    norm = estimate(image)
    np.testing.assert_array_equal(apply(image[30:90, 40:140], norm), apply(image, norm)[30:90, 40:140])


@pytest.mark.slow
def test_a_plane_of_400_megapixels_takes_little_memory() -> None:
    row = np.random.default_rng(7).integers(100, 4000, 20_000).astype(np.uint16)
    plane = np.broadcast_to(row, (20_000, 20_000))
    tracemalloc.start()
    estimate(plane)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * 2**20


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (3, 2)])
def test_the_smallest_planes_have_levels(shape: tuple[int, int]) -> None:
    plane = np.arange(shape[0] * shape[1], dtype=np.uint16).reshape(shape)
    assert estimate(plane).range > 0
    assert np.isfinite(normalised(plane)).all()


@pytest.mark.parametrize("shape", [(0, 4), (3,), (2, 2, 2)])
def test_what_is_no_plane_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(H, W\)"):
        estimate(np.zeros(shape, np.uint8))


def test_small_objects_side_by_side_are_not_taken_for_noise() -> None:
    """A pixel or two of background between them: of pixels four apart, most pairs lie across an edge."""
    centres = [(y, x) for y in range(6, 384, 12) for x in range(6, 384, 12)]
    levels = estimate(with_discs(noise_image(1, 12.0, (384, 384)), centres, 5, 1500))
    assert levels.noise < 25
    assert levels.range == pytest.approx(1500, rel=0.1)


def test_noise_of_two_values_is_noise_however_wide() -> None:
    specks = np.where(np.random.default_rng(3).random((256, 256)) < 0.5, 300, 1800)
    assert estimate(specks).noise > 1000


@pytest.mark.parametrize("count", [1, 12])
def test_the_negative_of_an_image_is_normalised_as_the_image(count: int) -> None:
    image = discs(count, 128, seed=count)
    negative = (60_000 - image.astype(np.int64)).astype(np.uint16)
    levels, turned = estimate(image, polarity="auto"), estimate(negative, polarity="auto")
    assert (levels.inverted, turned.inverted) == (False, True)
    assert turned.background == pytest.approx(60_000 - levels.background)
    np.testing.assert_allclose(apply(negative, turned), apply(image, levels), atol=1e-4)


def test_an_empty_noisy_image_is_not_taken_for_an_inverted_one() -> None:
    noise = np.random.default_rng(0).normal(1000, 30, (256, 256)).astype(np.uint16)
    assert not estimate(noise, polarity="auto").inverted


def test_a_polarity_that_is_given_is_kept() -> None:
    image = discs(12, 128, seed=3)
    assert not estimate(60_000 - image, polarity="bright").inverted
    assert estimate(image, polarity="dark").inverted


def test_quality_of_a_negative_has_the_signal_of_its_dark_objects() -> None:
    image = discs(12, 128, seed=4)
    negative = (60_000 - image.astype(np.int64)).astype(np.uint16)
    levels, turned = estimate(image, polarity="auto"), estimate(negative, polarity="auto")
    upright, inverted = assess(image, 65535, levels), assess(negative, 65535, turned)
    assert inverted.signal == pytest.approx(upright.signal, rel=1e-3)
    assert (inverted.empty, upright.empty) == (False, False)
    assert inverted.focus == pytest.approx(upright.focus, rel=1e-3)
