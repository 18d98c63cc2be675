"""The separator's numbers for the estimate of the object size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from cellcount_core.labelled.image import LabelledImage
from cellcount_core.models.engines import load_engine
from cellcount_core.models.package import Package, find_package
from cellcount_core.tasks.instances.fit import SIZE_GRIDS, SIZE_START, fit_sizing, size_error
from cellcount_core.tasks.task import task_of
from tests.plates import nuclear_field


@pytest.fixture(scope="module")
def package() -> Package:
    return find_package("nuclei")


def maps_of(package: Package):
    engine = load_engine(package, "onnxruntime", 1)
    return lambda canvas: np.asarray(engine.run(canvas[None].repeat(engine.batch, axis=0))[0])


def image(diameter: float, count: int, seed: int) -> LabelledImage:
    plane: NDArray[np.generic] = nuclear_field(diameter, count, seed=seed)
    return LabelledImage(str(seed), plane, np.zeros(plane.shape, np.int32), "", "", diameter)


def test_what_is_fitted_tells_sizes_best_of_all_that_was_tried(package: Package) -> None:
    maps = maps_of(package)
    images = [image(14, 9, 1), image(30, 9, 2)]
    said: list[str] = []
    found = fit_sizing(package, images, maps, said.append)
    assert set(found) == set(SIZE_START)
    assert all(found[name] in grid for name, grid in SIZE_GRIDS.items())
    least = size_error(package, images, maps, found)
    assert least <= size_error(package, images, maps, SIZE_START)
    assert least < 0.2
    assert f"{least:.3f} octaves" in said[0]


def test_images_without_objects_do_not_count_and_those_without_estimate_by_an_octave(
    package: Package,
) -> None:
    maps = maps_of(package)
    empty = np.full((96, 96), 7, np.uint16)
    dark = LabelledImage("d", empty, np.zeros((96, 96), np.int32), "", "", 20.0)
    assert size_error(package, [dark], maps, SIZE_START) == 1.0
    assert size_error(package, [replace(dark, diameter_px=0.0)], maps, SIZE_START) == 0.0


def test_a_package_that_tells_no_sizes_has_nothing_to_fit() -> None:
    package = find_package("threshold")
    assert fit_sizing(package, [], lambda canvas: canvas, lambda text: None) == {}


def test_the_estimate_looks_with_the_packages_numbers_for_sizes(package: Package) -> None:
    maps = maps_of(package)
    plane = nuclear_field(24, 9, seed=3)
    plain = replace(package, section={**package.section, "sizing": {}})
    blind = replace(package, section={**package.section, "sizing": {"min_area": 1e6}})
    assert task_of(package).head(plain).size((plane,), maps).objects >= 8
    assert task_of(package).head(blind).size((plane,), maps).diameter_px is None
