"""Joining planes and resizing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellcount_core.domain.errors import ConfigFault, FieldFault, Reason
from cellcount_core.images.pixels import project, resize
from tests.often import often

PLANES = [
    np.array([[0, 65535, 3]], np.uint16),
    np.array([[1, 65535, 4]], np.uint16),
    np.array([[1, 65535, 2]], np.uint16),
]


def test_the_largest_value_of_all_planes_wins_and_no_plane_is_changed() -> None:
    before = [plane.copy() for plane in PLANES]
    joined = project((plane for plane in PLANES), "max")
    np.testing.assert_array_equal(joined, [[1, 65535, 4]])
    assert joined.dtype == np.uint16
    assert all(np.array_equal(old, new) for old, new in zip(before, PLANES, strict=True))


def test_the_mean_is_rounded_and_does_not_overflow() -> None:
    joined = project(PLANES, "mean")
    np.testing.assert_array_equal(joined, [[1, 65535, 3]])
    assert joined.dtype == np.uint16


def test_the_mean_of_float_planes_stays_float() -> None:
    joined = project([np.full((2, 2), 0.25, np.float32), np.full((2, 2), 0.5, np.float32)], "mean")
    assert (joined.dtype, float(joined[0, 0])) == (np.float32, 0.375)


@pytest.mark.parametrize("mode", ["max", "mean", "first", 0])
def test_a_single_plane_is_given_back_as_it_is(mode: str | int) -> None:
    assert project([PLANES[0]], mode) is PLANES[0]  # type: ignore[arg-type]


def test_one_plane_is_taken_by_its_number() -> None:
    assert project(PLANES, "first") is PLANES[0]
    assert project(PLANES, 2) is PLANES[2]


@pytest.mark.parametrize("mode", ["max", "mean", 3])
def test_planes_that_are_missing_or_differ_are_a_field_fault(mode: str | int) -> None:
    for planes in ([], [PLANES[0], PLANES[0][:, :2]], [PLANES[0], PLANES[0].astype(np.uint8)]):
        with pytest.raises(FieldFault) as fault:
            project(planes, mode)  # type: ignore[arg-type]
        assert fault.value.reason is Reason.WRONG_SHAPE


@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.floats(1 / 32, 4),
    st.sampled_from(["uint8", "uint16", "float32"]),
)
@settings(max_examples=often(100), deadline=None)
def test_resizing_keeps_the_type_and_rounds_each_side(
    height: int, width: int, factor: float, dtype: str
) -> None:
    plane = np.full((height, width), 200, dtype)
    resized = resize(plane, factor)
    assert resized.shape == (max(1, round(height * factor)), max(1, round(width * factor)))
    assert resized.dtype == plane.dtype
    np.testing.assert_allclose(resized, 200, rtol=1e-5)


def test_factor_one_gives_the_same_array() -> None:
    plane = np.zeros((5, 7), np.uint16)
    assert resize(plane, 1.0) is plane


def test_halving_takes_the_mean_of_each_two_by_two_pixels() -> None:
    plane = np.random.default_rng(0).integers(0, 60000, (64, 64), dtype=np.uint16)
    means = plane.reshape(32, 2, 32, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(resize(plane, 0.5), means, atol=1)


@pytest.mark.parametrize("factor", [0.0, 1 / 40, 17.0, float("nan")])
def test_a_factor_out_of_range_is_refused_with_the_range(factor: float) -> None:
    with pytest.raises(ConfigFault, match=r"0.03125 to 16"):
        resize(np.zeros((4, 4), np.uint8), factor)
