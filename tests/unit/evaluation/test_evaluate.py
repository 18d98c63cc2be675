"""Scores of a counter over labelled images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from cellcount_core.evaluation.evaluate import Score, evaluate, group_scores, true_size_scorer
from cellcount_core.labelled.image import LabelledImage
from cellcount_core.labelled.label_files import median_diameter
from cellcount_core.models.engines import load_engine
from cellcount_core.models.package import Package, find_package
from cellcount_core.tasks.instances.score import LabelScoring
from cellcount_core.tasks.task import Found


def image(name: str, squares: int, modality: str = "fluorescence") -> LabelledImage:
    labels = np.zeros((64, 64), np.int32)
    for number in range(squares):
        y, x = divmod(number, 4)
        labels[4 + 15 * y : 14 + 15 * y, 4 + 15 * x : 14 + 15 * x] = number + 1
    return LabelledImage(name, (labels > 0) * np.uint8(200), labels, name, modality, median_diameter(labels))


class Seen:
    """The threshold package's engine, with the shapes it was given."""

    name = "smooth"
    batch = 1

    def __init__(self, package: Package) -> None:
        self._engine = load_engine(package, "smooth", 1)
        self.shapes: list[tuple[int, ...]] = []

    def run(self, tiles: np.ndarray) -> np.ndarray:
        self.shapes.append(tiles.shape[1:3])
        return self._engine.run(tiles)


def scored(count: Callable[[LabelledImage], np.ndarray]) -> Score:
    """Scores the label images that `count` gives."""
    return lambda image: LabelScoring().score(image.truth, Found({}, labels=count(image)))


def without_last(given: LabelledImage) -> np.ndarray:
    return np.where(given.labels == given.labels.max(initial=0), 0, given.labels)


def test_a_perfect_counter_scores_one_and_has_no_count_error() -> None:
    report = evaluate(scored(lambda given: given.labels), [image("a", 3), image("b", 0)])
    assert (report.f1(), report.ap(0.9), report.mean_ap()) == (1.0, 1.0, 1.0)
    assert (report.count_mape(), report.count_bias()) == (0.0, 0.0)


def test_a_missed_object_shows_in_every_figure() -> None:
    report = evaluate(scored(without_last), [image("a", 2), image("b", 4)])
    assert report.f1() == pytest.approx((2 / 3 + 6 / 7) / 2)
    assert report.ap() == pytest.approx((1 / 2 + 3 / 4) / 2)
    assert report.count_mape() == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert report.count_bias() == pytest.approx(-2 / 6)
    assert report.summary()["objects"] == 6


def test_modalities_are_scored_apart() -> None:
    report = evaluate(scored(without_last), [image("a", 2), image("b", 4, "histology")])
    assert {name: len(part.images) for name, part in group_scores(report).items()} == {
        "fluorescence": 1,
        "histology": 1,
    }
    assert group_scores(report)["histology"].ap() == pytest.approx(3 / 4)


def test_the_upper_bound_counts_at_the_models_scale_and_compares_at_the_originals() -> None:
    found = find_package("threshold")
    package = replace(found, input=replace(found.input, diameter_px=2 * image("a", 4).diameter_px))
    engine = Seen(package)
    given = replace(image("a", 4), plane=np.where(image("a", 4).labels > 0, 3000, 100).astype(np.uint16))
    nothing = replace(given, labels=np.zeros_like(given.labels), diameter_px=0.0)
    with true_size_scorer(package, engine) as score:
        report = evaluate(score, [given, nothing])
    assert sorted(engine.shapes) == [(64, 64), (128, 128)]
    assert (report.images[0].true, report.images[0].counted) == (4, 4)


def test_labels_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        evaluate(scored(lambda given: given.labels[:-1]), [image("a", 1)])
