"""Made-up images hold as many nuclei of the size that is stated; images without nuclei hold none."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from cellcount_core.evaluation.suites.empty import KINDS, empty_image, part_without_objects, specks
from cellcount_core.evaluation.suites.made_up import (
    BACKGROUNDS,
    DIAMETERS,
    MAX_PIXELS,
    NUMBERS,
    combinations,
    make,
    shape_for,
)
from cellcount_core.labelled.image import LabelledImage
from cellcount_core.labelled.label_files import median_diameter


@pytest.mark.parametrize("arrangement", ["sparse", "confluent"])
@pytest.mark.parametrize(("diameter", "number"), [(8, 100), (20, 1), (40, 10), (120, 3)])
def test_the_stated_number_of_nuclei_of_the_stated_size_is_drawn(
    diameter: int, number: int, arrangement: str
) -> None:
    image = make(diameter, number, arrangement, "dark")
    assert image.count == number
    assert len(np.unique(image.labels)) == number + 1
    assert image.diameter_px == pytest.approx(median_diameter(image.labels))
    assert image.diameter_px == pytest.approx(diameter, rel=0.25)


def test_no_nucleus_is_cut_by_the_edge_or_hidden_by_another() -> None:
    image = make(12, 1000, "confluent", "noisy")
    edge = np.concatenate([image.labels[0], image.labels[-1], image.labels[:, 0], image.labels[:, -1]])
    assert not edge.any()
    areas = np.bincount(image.labels.ravel())[1:]
    assert areas.min() > 0.45 * np.median(areas)


def test_confluent_nuclei_touch_and_sparse_ones_hardly_do() -> None:
    pieces = {
        arrangement: cv2.connectedComponents(
            (make(20, 100, arrangement, "dark").labels > 0).astype(np.uint8)
        )[0]
        - 1
        for arrangement in ("sparse", "confluent")
    }
    assert pieces["sparse"] > 90
    assert pieces["confluent"] < 50


def test_nuclei_are_brighter_than_their_surroundings_on_every_background() -> None:
    for background in BACKGROUNDS:
        image = make(20, 30, "sparse", background)
        ring = cv2.dilate((image.labels > 0).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
        assert image.plane[image.labels > 0].mean() > image.plane[ring & (image.labels == 0)].mean() + 40


def test_the_same_image_comes_every_time_and_backgrounds_share_their_nuclei() -> None:
    assert np.array_equal(make(12, 10, "sparse", "dark").plane, make(12, 10, "sparse", "dark").plane)
    assert np.array_equal(make(12, 10, "sparse", "dark").labels, make(12, 10, "sparse", "uneven").labels)


def test_the_table_covers_all_sizes_and_numbers_within_memory() -> None:
    rows = list(combinations(DIAMETERS, NUMBERS))
    assert {diameter for diameter, _, _ in rows} == set(DIAMETERS)
    assert {number for diameter, _, number in rows if diameter == 8} == set(NUMBERS)
    assert all(
        np.prod(shape_for(diameter, number, arrangement)) <= MAX_PIXELS
        for diameter, arrangement, number in rows
    )


@pytest.mark.slow
def test_images_without_nuclei_come_in_every_kind_and_depth() -> None:
    images = [empty_image(number) for number in range(4 * len(KINDS))]
    assert {kind for kind, _ in images} == set(KINDS)
    assert {plane.dtype for _, plane in images} == {np.dtype(np.uint8), np.dtype(np.uint16)}
    assert all(256 <= side <= 1024 for _, plane in images for side in plane.shape)
    assert np.array_equal(empty_image(3)[1], images[3][1])


def test_specks_are_no_larger_than_a_speck() -> None:
    pixels = specks(np.random.default_rng(2), (256, 256))
    bright = (pixels > pixels.mean() + 0.08).astype(np.uint8)
    count, _, boxes, _ = cv2.connectedComponentsWithStats(bright)
    assert count > 3
    # Two of them may lie side by side.
    assert np.median(boxes[1:, cv2.CC_STAT_WIDTH]) <= 3
    assert boxes[1:, cv2.CC_STAT_AREA].max() < 30


def test_a_part_without_objects_is_the_largest_square_away_from_all_of_them() -> None:
    labels = np.zeros((300, 400), np.int32)
    labels[:, 100:120] = 1
    plane = np.broadcast_to(np.arange(400, dtype=np.uint16), (300, 400)).copy()
    image = LabelledImage("i", plane, labels, "i", "", 20.0)
    part = part_without_objects(image)
    assert part is not None
    # 300 px high, 280 px wide right of the stripe, 10 px away from it.
    assert 250 <= part.shape[0] == part.shape[1] <= 280
    assert part.min() >= 130
    labels[:, ::60] = 1
    assert part_without_objects(LabelledImage("i", plane, labels, "i", "", 20.0)) is None
