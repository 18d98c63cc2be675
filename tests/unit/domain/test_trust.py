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


def test_classes_whose_counts_miss_the_labels_by_more_than_a_quarter_are_named() -> None:
    figures = {
        "count_mape_RBC": 0.26,
        "count_bias_RBC": -0.02,
        "count_mape_WBC": 0.25,
        "count_mape_odd": float("nan"),
    }
    told = distrust("blood", figures)
    assert told.endswith("misses its labels by 26 % in the mean for RBC (all images together -2 %)")
    assert distrust("blood", {"count_mape_WBC": 0.25, "count_mape": 0.9}) == ""
    assert "by 30 % in the mean for dead" in distrust(
        "b", {"at_estimated_diameter": {"count_mape_dead": 0.3}}
    )
    assert distrust("b", {**figures, "f1_50": 0.2}).startswith("counts of `b` are not to be trusted")


def test_of_the_shipped_packages_the_one_for_blood_tells_of_red_cells() -> None:
    told = {package.name: distrust(package.name, package.accuracy) for package in shipped_packages()}
    assert [name for name, text in told.items() if text] == ["blood"]
    assert "counts as its training images were labelled" in told["blood"]
    assert "RBC" in told["blood"] and "WBC" not in told["blood"]


def test_no_shipped_package_is_one_of_those() -> None:
    assert [package.name for package in shipped_packages() if untrusted(package.accuracy)] == []
