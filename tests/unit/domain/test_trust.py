"""One rule says when the accuracy of a package is too low for its counts to be trusted."""

from __future__ import annotations

import pytest

from cellcount_core.domain.trust import distrust, untrusted
from cellcount_core.models.package import shipped_packages


@pytest.mark.parametrize(
    ("accuracy", "said"),
    [
        ({"f1_50": 0.5, "count_bias": 0.3}, ""),
        ({"f1_50": 0.49, "count_bias": None}, "F1 0.49 (0.50 or more expected)"),
        ({"f1_50": 0.8, "count_bias": -0.31}, "counts 31 % too low (within 30 % expected)"),
        ({"f1_50": None, "count_bias": float("nan")}, ""),
        ({"map_50": 0.1}, ""),
        ({}, ""),
    ],
)
def test_f1_below_a_half_or_a_bias_beyond_30_percent_is_a_reason(
    accuracy: dict[str, object], said: str
) -> None:
    assert untrusted(accuracy) == said
    assert (said in distrust("algae", accuracy)) if said else distrust("algae", accuracy) == ""


def test_figures_of_images_counted_as_usual_come_before_those_of_images_as_they_are() -> None:
    as_usual = {"f1_50": 0.9, "count_bias": 0.0}
    assert untrusted({"f1_50": 0.2, "at_estimated_diameter": as_usual}) == ""
    assert untrusted({**as_usual, "at_estimated_diameter": {"f1_50": 0.2}}).startswith("F1 0.20")


def test_no_shipped_package_is_one_of_those() -> None:
    assert [package.name for package in shipped_packages() if untrusted(package.accuracy)] == []
