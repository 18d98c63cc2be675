"""A cell's signal is how bright it is above its surroundings, wherever in the light it lies."""

from __future__ import annotations

import numpy as np
import pytest

from cellcount_core.tasks.viability.signal import backdrop, bright_area
from tests.unit.objects.scenes import draw


def test_the_background_follows_the_light_and_not_the_cells() -> None:
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:600, :800]
    light = 300 + 0.5 * y + 0.3 * x
    plane = light + rng.normal(0, 10, light.shape)
    for cy, cx in ((100, 100), (300, 400), (500, 700)):
        plane[draw(light.shape, [(cy, cx, 12)]).astype(bool)] += 900
    found = backdrop(plane.astype(np.uint16), 10.0).at(
        np.array([100.0, 300.0, 500.0]), np.array([100.0, 400.0, 700.0])
    )
    assert found == pytest.approx([light[100, 100], light[300, 400], light[500, 700]], abs=8)


def test_a_crowded_corner_has_the_background_of_its_neighbours() -> None:
    plane = np.random.default_rng(1).normal(200, 5, (512, 512))
    plane[:40, :40] += 800
    level = backdrop(plane.astype(np.uint16), 5.0).at(np.array([16.0]), np.array([16.0]))
    assert level[0] == pytest.approx(200, abs=10)


def test_an_image_of_one_cell_of_the_grid_has_one_background() -> None:
    plane = np.full((20, 30), 77, np.uint16)
    assert backdrop(plane, 0.0).at(np.array([0.0, 19.0]), np.array([0.0, 29.0])).tolist() == [77.0, 77.0]


def test_bright_area_counts_pixels_above_the_background() -> None:
    plane = np.random.default_rng(1).normal(200, 5, (300, 300))
    shape = draw(plane.shape, [(150, 150, 20)]).astype(bool)
    plane[shape] += 300
    found = bright_area(plane.astype(np.uint16), backdrop(plane.astype(np.uint16), 5.0), 150.0)
    assert found == pytest.approx(int(shape.sum()), rel=0.03)


def test_noise_is_no_bright_area() -> None:
    plane = np.random.default_rng(1).normal(300, 20, (400, 400)).astype(np.uint16)
    assert bright_area(plane, backdrop(plane, 20.0), 30.0) == 0


def test_bright_area_does_not_depend_on_the_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    plane = np.random.default_rng(1).normal(300, 20, (200, 100)).astype(np.uint16)
    plane[90:110] += 200
    whole = bright_area(plane, backdrop(plane, 20.0), 100.0)
    monkeypatch.setattr("cellcount_core.tasks.viability.signal._STRIP", 100 * 7)
    assert bright_area(plane, backdrop(plane, 20.0), 100.0) == whole > 1800
