"""Matching of counted with true objects."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellcount_core.tasks.instances.score import overlap
from cellcount_core.tasks.matching import Match, match


def test_the_overlap_of_shifted_squares_is_their_intersection_over_their_union() -> None:
    true, counted = np.zeros((20, 20), np.int32), np.zeros((20, 20), np.int32)
    true[2:12, 2:12] = 1
    counted[2:12, 7:17] = 1
    np.testing.assert_allclose(overlap(true, counted), [[50 / 150]])


def test_gaps_in_the_numbers_leave_no_empty_objects() -> None:
    true, counted = np.zeros((10, 10), np.int32), np.zeros((10, 10), np.int32)
    true[:3], true[6:] = 4, 9
    counted[:3] = 7
    np.testing.assert_allclose(overlap(true, counted), [[1.0], [0.0]])


def test_images_without_any_background_are_compared_too() -> None:
    true = np.ones((4, 4), np.int32)
    counted = np.repeat([[1, 2]], 4, axis=0).repeat(2, axis=1).astype(np.int32)
    np.testing.assert_allclose(overlap(true, counted), [[0.5, 0.5]])


def test_label_images_of_two_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        overlap(np.zeros((4, 4), np.int32), np.zeros((4, 5), np.int32))


def test_a_merged_pair_is_one_hit_or_none_and_never_two() -> None:
    true = np.zeros((10, 30), np.int32)
    true[:, :20], true[:, 20:] = 1, 2
    merged = np.ones((10, 30), np.int32)
    assert match(overlap(true, merged), 0.5) == Match(hits=1, misses=1, extras=0)
    assert match(overlap(true, merged), 0.7) == Match(hits=0, misses=2, extras=1)


def test_an_empty_image_counted_as_empty_is_perfect() -> None:
    empty = match(np.zeros((0, 0)), 0.5)
    assert (empty.f1, empty.ap) == (1.0, 1.0)


def test_objects_counted_in_an_empty_image_are_extras() -> None:
    assert match(np.zeros((0, 3)), 0.5) == Match(0, 0, 3)
    assert match(np.zeros((0, 3)), 0.5).f1 == 0.0


def test_f1_and_ap_follow_their_formulas() -> None:
    found = Match(hits=6, misses=2, extras=4)
    assert found.f1 == pytest.approx(12 / 18)
    assert found.ap == pytest.approx(6 / 12)


def most_pairs(iou: np.ndarray, threshold: float) -> int:
    """The largest number of one-to-one pairs above the threshold, by trying every assignment."""
    wide = iou if iou.shape[0] <= iou.shape[1] else iou.T
    return max(
        sum(bool(wide[row, column] >= threshold) for row, column in enumerate(columns))
        for columns in permutations(range(wide.shape[1]), wide.shape[0])
    )


@settings(max_examples=80, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    seed=st.integers(0, 10_000),
    threshold=st.sampled_from([0.3, 0.5, 0.7]),
)
def test_no_other_assignment_has_more_pairs(shape: tuple[int, int], seed: int, threshold: float) -> None:
    iou = np.random.default_rng(seed).random(shape)
    found = match(iou, threshold)
    assert found.hits == most_pairs(iou, threshold)
    assert (found.hits + found.misses, found.hits + found.extras) == shape
