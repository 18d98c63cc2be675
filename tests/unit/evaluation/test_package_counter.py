"""Counting whole images with a package at the scale that a diameter leads to."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from cellcount_core.evaluation.assess import ImageRow, SizeCheck, check_sizes
from cellcount_core.evaluation.evaluate import MAX_CANVAS_PX, ImageScore, PackageCounter, package_predictor
from cellcount_core.evaluation.labelled import LabelledImage, median_diameter
from cellcount_core.models.engines import load_engine
from cellcount_core.models.package import Package, find_package


@pytest.fixture(scope="module")
def package() -> Package:
    """The threshold package, told that its objects are 10 px."""
    found = find_package("threshold")
    return replace(found, input=replace(found.input, diameter_px=10.0))


def discs(radius: int = 10) -> LabelledImage:
    labels = np.zeros((120, 160), np.int32)
    for number, (x, y) in enumerate(((30, 30), (80, 40), (120, 80), (50, 90)), 1):
        cv2.circle(labels, (x, y), radius, number, -1)
    plane = np.where(labels > 0, 3000, 200) + np.random.default_rng(0).integers(0, 20, labels.shape)
    return LabelledImage("discs", plane.astype(np.uint16), labels, "", "", median_diameter(labels))


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


@pytest.mark.parametrize(
    ("diameter", "canvas", "counted_at"), [("model", (120, 160), None), (20.0, (60, 80), 20.0)]
)
def test_a_diameter_brings_the_image_to_the_models_scale_and_labels_come_back_at_its_own(
    package: Package, diameter: float | str, canvas: tuple[int, int], counted_at: float | None
) -> None:
    engine, image = Seen(package), discs()
    found = PackageCounter(package, engine, diameter).count(image.plane)
    assert engine.shapes == [canvas]
    assert (found.labels.shape, int(found.labels.max()), found.diameter_px) == ((120, 160), 4, counted_at)


def test_each_image_is_counted_at_its_own_size_and_as_it_is_where_none_is_told(package: Package) -> None:
    engine = Seen(package)
    sizes = iter((40.0, None))
    counter = PackageCounter(package, engine, "auto", size=lambda plane: next(sizes))
    found = [counter.count(discs().plane) for _ in range(2)]
    assert engine.shapes == [(30, 40), (120, 160)]
    assert [each.diameter_px for each in found] == [40.0, None]
    assert [each.labels.shape for each in found] == [(120, 160)] * 2


def test_a_package_that_counts_at_any_scale_is_asked_for_no_size() -> None:
    scale_free = find_package("threshold")
    found = PackageCounter(scale_free, Seen(scale_free), "auto").count(discs().plane)
    assert (int(found.labels.max()), found.diameter_px) == (4, None)


def test_a_size_that_is_far_too_small_asks_for_no_more_memory_than_is_allowed(package: Package) -> None:
    engine = Seen(package)
    plane = np.zeros((1500, 2000), np.uint8)
    found = PackageCounter(package, engine, 0.1).count(plane)
    assert np.prod(engine.shapes[0]) <= 1.01 * MAX_CANVAS_PX
    assert found.labels.shape == (1500, 2000)
    assert found.diameter_px == pytest.approx(10.0 / (MAX_CANVAS_PX / plane.size) ** 0.5)


def test_the_predictor_takes_images_as_they_are_unless_told_otherwise(package: Package) -> None:
    image = discs()
    as_is, scaled = (package_predictor(package, "smooth", 1, *extra)(image) for extra in ((), (20.0,)))
    assert (as_is.shape, scaled.shape) == (image.plane.shape,) * 2
    assert int(as_is.max()) == int(scaled.max()) == 4
    assert (as_is != scaled).any()


def row(true_px: float, counted_at: float | None) -> ImageRow:
    return ImageRow(ImageScore("a", "", int(true_px > 0), 1, (), diameter_px=true_px), 64, 64, counted_at)


def test_sizes_are_checked_on_images_with_objects_and_one_not_told_is_not_within() -> None:
    rows = [row(20, 24.9), row(20, 16.1), row(20, 29), row(20, 60), row(20, None), row(0, 33)]
    assert check_sizes(rows) == SizeCheck(images=5, within_1_25=2 / 5, within_1_5=3 / 5, not_told=1)
    assert check_sizes([row(0, 33)]) is None
