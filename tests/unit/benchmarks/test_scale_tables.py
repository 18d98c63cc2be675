"""How the benchmarks of scale, accuracy and speed come to their figures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.accuracy import FIGURES, Result, table_of
from benchmarks.predict import Counter, told
from benchmarks.scale import Outcome, cut_to, pool_ratio, pools, resize_image, weighted_median
from benchmarks.speed import at_scale
from cellcount_core.evaluation.evaluate import Report, labels_of, score_image
from cellcount_core.labelled.image import LabelledImage, median_diameter
from cellcount_core.pipeline.sizing import SizeEstimate


def labelled(shape: tuple[int, int] = (60, 80), group: str = "g", side: int = 10) -> LabelledImage:
    labels = np.zeros(shape, np.int32)
    labels[5 : 5 + side, 5 : 5 + side] = 1
    labels[30 : 30 + side, 40 : 40 + side] = 2
    plane = np.where(labels > 0, 200, 10).astype(np.uint8)
    return LabelledImage("i", plane, labels, group, "fluorescence", median_diameter(labels))


def outcome(told: float | None, true: float, objects: int) -> Outcome:
    return Outcome(1.0, objects, objects, SizeEstimate(told, objects, 1.0), true)


def test_a_median_is_weighed_by_objects() -> None:
    assert weighted_median([10, 20, 30], [1, 1, 10]) == 30
    assert weighted_median([10, 20, 30], [5, 6, 1]) == 20
    assert weighted_median([10.0], [0]) == 0.0


def test_one_misleading_image_of_few_objects_does_not_change_its_pool() -> None:
    good = [outcome(20.0, 20.0, 50)] * 11
    assert pool_ratio([*good, outcome(90.0, 20.0, 2)]) == pytest.approx(1.0)
    assert pool_ratio([outcome(None, 20.0, 0)] * 12) == 0.0


def test_pools_hold_twelve_images_of_one_size_at_least() -> None:
    images = [labelled(group="a")] * 14 + [labelled((60, 90))] * 11
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


def test_a_counter_takes_images_as_they_are_or_by_a_given_size() -> None:
    plane = np.zeros((64, 96), np.uint8)
    for diameter, told_px in (("model", 20.0), ("40", 40.0)):
        counter = Counter("nuclei", "onnxruntime", diameter)
        seen = counter.count(plane)
        assert labels_of(seen).shape == plane.shape
        assert seen.scale.factor == 20.0 / told_px
        assert told(counter, seen) == SizeEstimate(told_px, 0, 1.0)


def test_images_at_the_model_s_scale_keep_their_size() -> None:
    image = labelled((256, 256))
    small, large = at_scale(image, image.diameter_px / 2), at_scale(image, image.diameter_px * 2)
    assert small.shape == large.shape == (256, 256)
    assert (small > 100).sum() < 2 * (image.plane > 100).sum() < (large > 100).sum()


def test_figures_stand_beside_what_is_asked_for() -> None:
    image = labelled()
    missing = np.where(image.labels == 1, 1, 0).astype(np.int32)
    perfect = Report((score_image(image, image.labels),))
    halved = Report((score_image(image, missing),))
    rows = table_of([Result("a", perfect, 1.0), Result("b", halved, 0.5)], FIGURES["fluorescence"])
    by_name = {row.split("|")[1].strip(): row for row in rows}
    assert by_name["AP@0.5"] == "| AP@0.5 | ≥ 0.870 | ≥ 0.830 | 1.000 (goal) | **0.500** |"
    assert by_name["count bias"] == "| count bias | ≤ 2.0% | ≤ 3.0% | +0.0% (goal) | **-50.0%** |"
    assert by_name["AP@0.7"].split("|")[2:4] == ["  ", "  "]


def test_a_bias_below_the_floor_counts_whatever_its_sign() -> None:
    figure = next(f for f in FIGURES["fluorescence"] if f.name == "count bias")
    image = labelled()
    score = score_image(image, image.labels)
    report = Report((replace(score, true=200, counted=195),))
    assert figure.shown(report) == "-2.5% (floor)"
