"""Coverage of intervals, and how well a score tells strange fields from familiar ones."""

from __future__ import annotations

import pytest

from benchmarks.uncertainty import coverage, roc_area


def test_an_interval_holds_its_own_ends() -> None:
    assert coverage([(3, 3, 5), (5, 3, 5), (6, 3, 5), (2.9, 3, 5)]) == 0.5


def test_a_score_that_parts_two_sets_has_an_area_of_one() -> None:
    assert roc_area([3, 4], [1, 2]) == 1.0
    assert roc_area([1, 2], [3, 4]) == 0.0
    assert roc_area([1, 1], [1, 1]) == 0.5
    assert roc_area([1, 3], [2, 0, 2]) == pytest.approx(4 / 6)
