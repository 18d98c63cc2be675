"""How the suites come to their figures."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest

from cellcount_core.evaluation.evaluate import labels_of
from cellcount_core.evaluation.suites.accuracy import BARS, accuracy_table
from cellcount_core.evaluation.suites.base import image_without_objects, open_counters
from cellcount_core.evaluation.suites.scale import (
    ScaledScore,
    cut_to,
    images_alike,
    pool_ratio,
    pools,
    resize_image,
    told,
    weighted_median,
)
from cellcount_core.evaluation.suites.uncertainty import coverage, roc_area
from cellcount_core.labelled.image import LabelledImage
from cellcount_core.labelled.label_files import median_diameter
from cellcount_core.models.package import find_package
from cellcount_core.tasks.instances.score import score_labels
from cellcount_core.tasks.matching import Report
from cellcount_core.tasks.task import SizeEstimate


def labelled(shape: tuple[int, int] = (60, 80), group: str = "g", side: int = 10) -> LabelledImage:
    labels = np.zeros(shape, np.int32)
    labels[5 : 5 + side, 5 : 5 + side] = 1
    labels[30 : 30 + side, 40 : 40 + side] = 2
    plane = np.where(labels > 0, 200, 10).astype(np.uint8)
    return LabelledImage("i", plane, labels, group, "fluorescence", median_diameter(labels))


def outcome(told: float | None, true: float, objects: int) -> ScaledScore:
    return ScaledScore(1.0, objects, objects, SizeEstimate(told, objects, 1.0), true)


def test_a_median_is_weighed_by_objects() -> None:
    assert weighted_median([10, 20, 30], [1, 1, 10]) == 30
    assert weighted_median([10, 20, 30], [5, 6, 1]) == 20
    assert weighted_median([10.0], [0]) == 0.0


def test_one_misleading_image_of_few_objects_does_not_change_its_pool() -> None:
    good = [outcome(20.0, 20.0, 50)] * 11
    assert pool_ratio([*good, outcome(90.0, 20.0, 2)]) == pytest.approx(1.0)
    assert pool_ratio([outcome(None, 20.0, 0)] * 12) == 0.0


def test_pools_hold_twelve_images_of_one_size_at_least() -> None:
    images = [replace(outcome(20.0, 20.0, 5), group="a", shape=(60, 80))] * 14
    images += [replace(outcome(20.0, 20.0, 5), group="b", shape=(60, 90))] * 11
    found = pools(images)
    assert found["images of one experiment"] == [list(range(14))]
    assert found["images of one size"] == [list(range(14))]
    assert all(len(set(pool)) == 12 for pool in found["12 random images of one size"])


def test_an_image_is_resized_in_its_own_type() -> None:
    plane = labelled().plane
    for factor, shape in ((0.5, (30, 40)), (1.5, (90, 120)), (3, (180, 240))):
        resized = resize_image(plane, factor)
        assert (resized.shape, resized.dtype) == (shape, plane.dtype)


def test_a_cut_image_knows_the_size_of_what_is_left_in_it() -> None:
    image = cut_to(labelled((60, 80), side=12), 50)
    assert image.plane.shape == image.labels.shape == (50, 50)
    assert image.diameter_px == median_diameter(image.labels)
    assert cut_to(labelled(), 80).plane.shape == (60, 80)


def test_the_images_that_are_planned_are_large_and_the_most_of_one_size() -> None:
    def image(px: float, side: int = 600) -> LabelledImage:
        return replace(labelled((side, side)), diameter_px=px)

    chosen = images_alike([image(20), image(30), image(31), image(40), image(30, side=400), image(0)])
    assert [each.diameter_px for each in chosen] == [30, 31, 40]
    assert images_alike([image(0)]) == []


@pytest.mark.parametrize(("diameter", "told_px"), [("model", 20.0), (40.0, 40.0)])
def test_a_counter_takes_images_as_they_are_or_by_a_given_size(
    diameter: float | Literal["model"], told_px: float
) -> None:
    plane = np.zeros((64, 96), np.uint8)
    (counter,) = open_counters([find_package("nuclei")], engine="onnxruntime", threads=1, diameter=diameter)
    seen = counter.count(image_without_objects("i", plane))
    assert labels_of(seen).shape == plane.shape
    assert seen.scale.factor == 20.0 / told_px
    assert told(counter, seen) == SizeEstimate(told_px, 0, 1.0)
    counter.close()


def test_of_several_engines_each_package_takes_those_it_has() -> None:
    packages = [find_package("nuclei"), find_package("threshold")]
    counters = open_counters(packages, engine="auto,onnxruntime", threads=1, diameter="model")
    assert [counter.title for counter in counters] == [
        "nuclei, onnxruntime-int8",
        "nuclei, onnxruntime",
        "threshold, smooth",
    ]
    for counter in counters:
        counter.close()


def cells(found: np.ndarray) -> dict[str, list[str]]:
    """The rows of the table of one image with two objects, by their figure."""
    (counter,) = open_counters([find_package("threshold")], engine="auto", threads=1, diameter="model")
    report = Report((score_labels(labelled().truth, found),))
    table = accuracy_table([counter], [report], BARS["fluorescence"])
    counter.close()
    return {row[0].text: [cell.judged for cell in row[1:]] for row in table.rows}


def test_figures_stand_beside_what_is_asked_for() -> None:
    labels = labelled().labels
    assert cells(labels)["AP@0.5"] == ["≥ 0.870", "≥ 0.830", "1.000 (goal)"]
    halved = cells(np.where(labels == 1, 1, 0).astype(np.int32))
    assert halved["AP@0.5"][2] == "**0.500**"
    assert halved["count bias"] == ["≤ 2.0%", "≤ 3.0%", "**-50.0%**"]
    assert halved["AP@0.7"] == ["", "", "0.500"]


def test_a_bias_below_the_floor_counts_whatever_its_sign() -> None:
    bar = BARS["fluorescence"]["count_bias"]
    assert [bar.verdict(bias) for bias in (-0.02, 0.02, -0.025, 0.031)] == ["goal", "goal", "floor", "missed"]


def test_an_interval_holds_its_own_ends() -> None:
    assert coverage([(3, 3, 5), (5, 3, 5), (6, 3, 5), (2.9, 3, 5)]) == 0.5


def test_a_score_that_parts_two_sets_has_an_area_of_one() -> None:
    assert roc_area([3, 4], [1, 2]) == 1.0
    assert roc_area([1, 2], [3, 4]) == 0.0
    assert roc_area([1, 1], [1, 1]) == 0.5
    assert roc_area([1, 3], [2, 0, 2]) == pytest.approx(4 / 6)
