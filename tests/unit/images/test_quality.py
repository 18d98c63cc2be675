"""Quality: each figure answers to what it is named after, and to nothing else."""

from __future__ import annotations

import time
from itertools import pairwise

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from cellcount_core.images import quality
from cellcount_core.images.normalise import estimate
from cellcount_core.images.quality import Quality, assess, zero_tail


def cells(
    count: int = 40, size: int = 512, blur: float = 1.0, noise: float = 8.0, seed: int = 0
) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    image = np.zeros((size, size))
    for _ in range(count):
        y, x = rng.integers(12, size - 12, 2)
        cv2.circle(image, (int(x), int(y)), int(rng.integers(5, 9)), float(rng.uniform(800, 1500)), -1)
    image = cv2.GaussianBlur(image, (0, 0), blur)
    return image + 300.0 + rng.normal(0.0, noise, image.shape)


def judged(image: NDArray[np.float64], bit_max: int = 65535) -> Quality:
    plane = np.clip(np.rint(image), 0, bit_max).astype(np.uint16)
    return assess(plane, bit_max, estimate(plane))


def test_focus_falls_as_the_image_is_blurred() -> None:
    found = [judged(cells(blur=blur)).focus or 0.0 for blur in (0.7, 1.5, 3.0, 6.0)]
    assert all(sharper > 1.3 * blurred for sharper, blurred in pairwise(found)), found


def test_focus_does_not_answer_to_brightness_offset_or_number_of_cells() -> None:
    sharp = judged(cells()).focus
    assert judged(cells() * 4 + 3000).focus == pytest.approx(sharp, rel=0.02)
    assert judged(cells(count=8)).focus == pytest.approx(sharp, rel=0.15)
    assert judged(cells(noise=25.0)).focus == pytest.approx(sharp, rel=0.15)


def test_focus_does_not_answer_to_uneven_illumination() -> None:
    gradient = np.linspace(0, 1500, 512)[None, :]
    assert judged(cells() + gradient).focus == pytest.approx(judged(cells()).focus, rel=0.1)


def test_three_cells_in_a_large_field_are_not_an_empty_field() -> None:
    quality = judged(cells(count=3, size=1024))
    assert not quality.empty
    assert quality.signal == pytest.approx(1000, rel=0.5)


def test_noise_alone_is_empty_and_has_no_focus() -> None:
    quality = judged(cells(count=0))
    assert quality.empty
    assert quality.focus is None
    assert quality.background == pytest.approx(300, abs=10)
    assert quality.noise == pytest.approx(8, rel=0.15)


@pytest.mark.parametrize("value", [0, 700, 65535])
def test_a_constant_image_is_empty(value: int) -> None:
    quality = judged(np.full((64, 64), float(value)))
    assert (quality.empty, quality.signal, quality.focus) == (True, 0.0, None)
    assert quality.saturation == (1.0 if value == 65535 else 0.0)


def test_hot_pixels_are_no_signal() -> None:
    image = cells(count=0)
    image[100::97, 50::89] = 60000
    assert judged(image).empty


def test_saturation_is_the_part_of_pixels_at_the_largest_value_of_the_type() -> None:
    image = cells(count=0)
    image[:64, :64] = 70000
    assert judged(image).saturation == pytest.approx(64 * 64 / image.size)


@pytest.mark.parametrize("offset", [0, 32768])
def test_twelve_bits_clipped_in_sixteen_are_saturated_with_or_without_an_offset(offset: int) -> None:
    image = np.minimum(cells(count=60) * 4.0, 4095) + offset
    expected = np.count_nonzero(np.rint(image) == 4095 + offset) / image.size
    assert expected > 0.01
    assert judged(image).saturation == pytest.approx(expected)


def test_a_declared_depth_that_the_pixels_exceed_does_not_make_them_saturated() -> None:
    plane = np.rint(cells() + 32768).astype(np.uint16)
    assert assess(plane, 4095, estimate(plane)).saturation == 0.0


def test_bright_cells_that_are_not_clipped_are_not_saturated() -> None:
    assert judged(cells(count=60) * 4.0).saturation == 0.0


def test_float_planes_are_judged_by_their_own_largest_value() -> None:
    image = cells(count=60) / 2000.0
    clipped = np.minimum(image, 0.5).astype(np.float32)
    assert assess(clipped, 0, estimate(clipped)).saturation == pytest.approx(float((clipped == 0.5).mean()))
    unclipped = image.astype(np.float32)
    assert assess(unclipped, 0, estimate(unclipped)).saturation == 0.0


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 3), (3, 3), (5, 1), (7, 4000)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_any_shape_can_be_judged(shape: tuple[int, int], dtype: type[np.generic]) -> None:
    plane = np.random.default_rng(0).integers(0, 250, shape).astype(dtype)
    quality = assess(plane, 255, estimate(plane))
    assert 0.0 <= quality.saturation <= 1.0
    assert quality.focus is None or quality.focus >= 0.0


def test_a_tall_plane_of_many_strips_is_judged_as_its_parts_are() -> None:
    part = judged(cells())
    tall = judged(np.vstack([cells()] * 7))
    assert tall.signal == pytest.approx(part.signal, rel=0.01)
    assert tall.focus == pytest.approx(part.focus, rel=0.02)


def test_a_megapixel_takes_some_milliseconds() -> None:
    plane = np.rint(cells(count=160, size=1024)).astype(np.uint16)
    norm = estimate(plane)
    seconds = []
    for _ in range(7):
        start = time.thread_time()
        assess(plane, 65535, norm)
        seconds.append(time.thread_time() - start)
    assert min(seconds) < 0.06


def test_a_file_that_is_not_written_to_its_end_is_told_by_its_zeros() -> None:
    whole = np.clip(np.rint(cells()), 0, 65535).astype(np.uint16)
    assert not zero_tail(whole)
    for end in (4, 200, 511):
        rows = whole.copy()
        rows.reshape(-1)[(512 - end) * 512 + 100 :] = 0
        assert zero_tail(rows), end
        assert zero_tail(np.minimum(rows, 255).astype(np.uint8)), end
    tiles = whole.copy()
    tiles[384:] = 0
    tiles[256:384, 128:] = 0
    assert zero_tail(tiles)
    last_tile = whole.copy()
    last_tile[384:, 384:] = 0
    assert zero_tail(last_tile)


def test_a_black_end_is_no_tail_where_the_image_holds_zeros_elsewhere() -> None:
    clipped = np.clip(np.rint(cells() - 310), 0, 65535).astype(np.uint16)
    clipped[400:] = 0
    assert not zero_tail(clipped)
    framed = np.clip(np.rint(cells()), 0, 65535).astype(np.uint16)
    framed[:60] = framed[-60:] = 0
    assert not zero_tail(framed)
    assert not zero_tail(np.zeros((64, 64), np.uint16))
    speck = np.clip(np.rint(cells()), 0, 65535).astype(np.uint16)
    speck[-1] = 0
    assert not zero_tail(speck)


def test_the_median_is_numpys_bit_for_bit() -> None:
    rng = np.random.default_rng(0)
    smooth = rng.normal(size=70_001).astype(np.float32)
    for values in (
        smooth,
        smooth[:-1],
        np.sort(smooth),
        np.abs(np.round(smooth * 4)),
        np.zeros(9_000, np.float32),
        # Every pixel that is sampled is unlike the others.
        np.where(np.arange(smooth.size) % (smooth.size >> 10) == 0, np.float32(9), smooth),
        smooth[:1],
        smooth[:2],
    ):
        assert quality._median(values) == np.median(values)
