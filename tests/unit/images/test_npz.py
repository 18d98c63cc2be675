"""NPZ and NPY stacks."""

from __future__ import annotations

import io
import tracemalloc

import numpy as np
import pytest

from cellcount_core.domain.errors import Reason
from tests.unit.images.encoded import noise, npy, npz, opened, reason, refusal


@pytest.mark.parametrize("compressed", [True, False])
def test_the_images_of_a_stack_are_read_in_any_order(compressed: bool) -> None:
    stack = noise(5, 12, 15)
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, X=stack, y=stack[:, :2])
    image = opened(buffer.getvalue())
    assert (image.images, image.shape, image.channels, image.bit_max) == (5, (12, 15), ("",), 65535)
    for index in (0, 1, 2, 4, 1, 3, 3):
        np.testing.assert_array_equal(image.read("", 0, index), stack[index])


def test_the_array_is_x_else_arr_0_else_the_only_one() -> None:
    one, two = noise(4, 8, 8, seed=1), noise(4, 8, 8, seed=2)
    for arrays in ({"X": one, "arr_0": two}, {"arr_0": one, "y": two}, {"images": one}):
        np.testing.assert_array_equal(opened(npz(**arrays)).read("", 0, 3), one[3])
    fault = refusal(npz(a=one, b=two))
    assert fault.reason is Reason.WRONG_SHAPE
    assert "'a', 'b'" in fault.detail


def test_an_axis_of_one_is_grey_and_of_three_is_colour() -> None:
    grey, colour = noise(4, 8, 9, 1), noise(4, 8, 9, 3)
    np.testing.assert_array_equal(opened(npy(grey)).read("", 0, 2), grey[2, :, :, 0])
    np.testing.assert_array_equal(opened(npy(colour)).read("green", 0, 2), colour[2, :, :, 1])


def test_one_image_may_be_saved_alone_and_in_fortran_order() -> None:
    pixels = noise(8, 9)
    for saved in (pixels, np.asfortranarray(pixels)):
        image = opened(npy(saved))
        assert image.images == 1
        np.testing.assert_array_equal(image.read("", 0), pixels)
    stack = noise(3, 8, 9)
    np.testing.assert_array_equal(opened(npz(X=np.asfortranarray(stack))).read("", 0, 2), stack[2])


@pytest.mark.parametrize("shape", [(9,), (2, 3, 4, 5, 6), (0, 8, 8), (4, 8, 8, 2), (20, 30, 3)])
def test_a_shape_that_is_no_image_or_could_be_two_things_is_refused(shape: tuple[int, ...]) -> None:
    assert reason(npy(noise(*shape))) is Reason.WRONG_SHAPE


@pytest.mark.parametrize(
    ("saved", "expected", "bit_max"),
    [
        (np.array([[True, False]]), np.array([[1, 0]], np.uint8), 1),
        (np.array([[0, 127]], np.int8), np.array([[0, 127]], np.uint8), 127),
        (np.array([[0, 32767]], np.int16), np.array([[0, 32767]], np.uint16), 32767),
        (np.array([[-5, 32767]], np.int16), np.array([[-5, 32767]], np.float32), 32767),
        (np.array([[0, 65535]], np.int32), np.array([[0, 65535]], np.uint16), 2**31 - 1),
        (np.array([[0, 65536]], np.uint32), np.array([[0, 65536]], np.float32), 2**32 - 1),
        (np.array([[7, 3]], ">u2"), np.array([[7, 3]], np.uint16), 65535),
        (np.array([[0.5, 1.5]], np.float16), np.array([[0.5, 1.5]], np.float32), 0),
        (np.array([[0.1, -2.5]], np.float64), np.array([[0.1, -2.5]], np.float32), 0),
    ],
)
def test_every_type_becomes_one_that_is_counted(
    saved: np.ndarray, expected: np.ndarray, bit_max: int
) -> None:
    image = opened(npy(saved))
    pixels = image.read("", 0)
    assert (pixels.dtype, pixels.dtype.isnative, image.bit_max) == (expected.dtype, True, bit_max)
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize(
    "saved",
    [
        np.array([[1j]]),
        np.array([["a"]]),
        np.array([[1e300]]),
        np.zeros((2, 2), "M8[s]"),
        np.zeros((2, 2), "i4,i4"),
    ],
)
def test_other_types_are_refused(saved: np.ndarray) -> None:
    assert reason(npy(saved)) is Reason.WRONG_DTYPE


def test_pickled_objects_are_never_loaded() -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([[{}]], object), allow_pickle=True)
    assert reason(buffer.getvalue()) is Reason.WRONG_DTYPE


def test_pixels_that_are_not_finite_are_refused_with_their_number_and_place() -> None:
    for dtype in ("float32", "float64", ">f4"):
        pixels = noise(40, 50).astype(dtype)
        pixels[7, 11], pixels[30, 2] = np.nan, np.inf
        fault = refusal(npy(pixels))
        assert fault.reason is Reason.NON_FINITE
        assert "2 of 2000 pixels" in fault.detail
        assert "x=11, y=7" in fault.detail


@pytest.mark.parametrize("body", [npy(noise(9, 20, 20)), npz(X=noise(9, 20, 20))])
def test_a_file_cut_anywhere_is_truncated(body: bytes) -> None:
    for length in (9, 60, len(body) // 2, len(body) - 1):
        assert reason(body[:length]) is Reason.TRUNCATED, length


def test_a_damaged_member_is_unreadable() -> None:
    body = bytearray(npz(X=np.random.default_rng(0).integers(0, 65535, (4, 40, 40), dtype=np.uint16)))
    body[len(body) // 2] ^= 0xFF
    assert reason(bytes(body)) is Reason.UNREADABLE


def test_reading_one_image_of_a_large_stack_takes_the_memory_of_one() -> None:
    body = npz(X=np.zeros((200, 500, 500), np.uint16))
    tracemalloc.start()
    try:
        opened(body).read("", 0, 150)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6_000_000
