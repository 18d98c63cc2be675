"""Nuclei are planted so that their number is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from cellcount_core.demo.scene import MIN_VISIBLE, Scene, plant

SHAPE = (300, 340)


def scene(count: int, seed: int = 3) -> Scene:
    return plant(np.random.default_rng(seed), SHAPE, count)


@pytest.mark.parametrize("count", [0, 1, 40, 90])
def test_the_true_count_is_the_number_of_labels_to_be_seen(count: int) -> None:
    planted = scene(count)
    labels = np.unique(planted.owners)
    assert planted.count == count
    assert labels[labels > 0].tolist() == list(range(1, count + 1))


def test_every_nucleus_keeps_most_of_its_area_in_view() -> None:
    planted = scene(90)
    in_view = np.bincount(planted.owners.ravel())[1:] / np.array(planted.areas)
    assert in_view.min() >= MIN_VISIBLE
    assert in_view.min() < 1, "some are cut by the edge or lie below another"
    assert in_view.max() == 1


def test_nuclei_are_12_to_30_pixels_across() -> None:
    diameters = 2 * np.sqrt(np.array(scene(90).areas) / np.pi)
    assert diameters.min() > 9
    assert diameters.max() < 30
    assert 16 < np.median(diameters) < 22


def test_a_crowded_field_holds_clumps_of_touching_nuclei() -> None:
    planted = scene(90)
    _, groups = ndimage.label(planted.owners > 0)
    assert groups < 0.8 * planted.count


def test_a_field_takes_no_more_nuclei_than_there_is_room_for_and_says_how_many() -> None:
    planted = plant(np.random.default_rng(1), (64, 64), 500)
    assert 5 < planted.count < 40
    assert planted.owners.max() == planted.count


def test_stain_is_where_the_nuclei_are() -> None:
    planted = scene(40)
    assert (planted.stain[planted.owners > 0] > 0.1).all()
    assert (planted.stain[planted.owners == 0] == 0).all()


def test_equal_seeds_plant_equal_fields() -> None:
    one, two, other = scene(40), scene(40), scene(40, seed=4)
    assert np.array_equal(one.owners, two.owners)
    assert np.array_equal(one.stain, two.stain)
    assert not np.array_equal(one.owners, other.owners)
