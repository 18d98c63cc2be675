"""What the network is to predict."""

from __future__ import annotations

import numpy as np
import pytest

from cellcount_core.tasks.instances.targets import (
    between_objects,
    diameters,
    foreground,
    normalised_distance,
    object_weights,
    stack_targets,
)
from cellcount_core.tasks.object_size.looks import decode_diameter, encode_diameter


def two_touching() -> np.ndarray:
    labels = np.zeros((20, 40), np.int32)
    labels[5:15, 5:15], labels[5:15, 15:25] = 1, 2
    return labels


def test_touching_objects_part_where_they_meet() -> None:
    distance = normalised_distance(two_touching())
    assert distance[10, 10] > 0.9
    assert distance[10, 20] > 0.9
    assert distance[10, 14:16].max() < 0.3


def test_the_distance_is_one_in_the_middle_of_small_and_large_objects_and_zero_outside() -> None:
    labels = np.zeros((60, 60), np.int32)
    labels[2:7, 2:7], labels[10:50, 10:50] = 1, 2
    distance = normalised_distance(labels)
    assert distance[labels == 1].max() == pytest.approx(1.0)
    assert distance[labels == 2].max() == pytest.approx(1.0)
    assert not distance[labels == 0].any()
    assert (distance[labels > 0] > 0).all()


def test_an_object_cut_by_the_image_rises_towards_the_edge() -> None:
    labels = np.zeros((30, 30), np.int32)
    labels[10:20, :8] = 1
    distance = normalised_distance(labels)
    assert distance[15, 0] == distance.max()


def test_an_object_that_fills_the_image_is_all_middle() -> None:
    assert (normalised_distance(np.ones((8, 8), np.int32)) == 1).all()


def test_small_objects_weigh_more_a_pixel_than_large_ones() -> None:
    labels = np.zeros((80, 80), np.int32)
    labels[2:8, 2:8], labels[20:70, 20:70] = 1, 2
    weights = object_weights(labels, diameters(labels))
    assert weights[4, 4] > 1 > weights[40, 40]
    assert (weights[labels == 0] == 1).all()


def test_targets_come_in_the_order_of_the_maps_with_the_weights_last() -> None:
    labels = two_touching()
    stacked = stack_targets(labels, diameters(labels), ("foreground", "distance"), "none")
    assert (stacked.shape, stacked.dtype) == ((20, 40, 3), np.float32)
    np.testing.assert_array_equal(stacked[..., 0], foreground(labels))
    np.testing.assert_array_equal(stacked[..., 1], normalised_distance(labels))
    assert (stacked[..., 2] == 1).all()


def test_diameters_are_those_of_circles_of_the_same_area_by_label_number() -> None:
    labels = np.zeros((20, 40), np.int32)
    labels[5:15, 5:15] = 3
    np.testing.assert_allclose(diameters(labels), [0, 0, 0, 2 * np.sqrt(100 / np.pi)], rtol=1e-6)
    assert diameters(np.zeros((4, 4), np.int32)).tolist() == [0]


def test_an_objects_size_is_told_wherever_the_object_is_and_nowhere_else() -> None:
    labels = two_touching()
    stacked = stack_targets(
        labels, np.array([0, 12, 40], np.float32), ("foreground", "distance", "size"), "none"
    )
    size = stacked[..., 2]
    assert not size[labels == 0].any()
    np.testing.assert_allclose(decode_diameter(size[labels == 1]), 12, rtol=1e-5)
    np.testing.assert_allclose(decode_diameter(size[labels == 2]), 40, rtol=1e-5)


def test_an_object_that_a_crop_cuts_keeps_the_size_and_the_weight_of_the_whole() -> None:
    cut = two_touching()[:, :8]
    whole = np.array([0, 11.3, 11.3], np.float32)
    stacked = stack_targets(cut, whole, ("foreground", "size"), "small_up")
    np.testing.assert_allclose(decode_diameter(stacked[cut == 1][:, 1]), 11.3, rtol=1e-5)
    np.testing.assert_allclose(stacked[cut == 1][:, 2], 20 / 11.3, rtol=1e-5)


def test_the_size_map_is_its_own_inverse_within_its_span_and_stops_at_its_ends() -> None:
    within = np.geomspace(3.6, 113, 50).astype(np.float32)
    values = encode_diameter(within)
    np.testing.assert_allclose(decode_diameter(values), within, rtol=1e-5)
    assert (np.diff(values) > 0).all()
    assert encode_diameter(np.array([20.0], np.float32))[0] == pytest.approx(0.5)
    assert encode_diameter(np.array([0.0, 1.0, 500.0], np.float32)).tolist() == [0.0, 0.0, 1.0]


def test_pixels_between_objects_are_those_with_two_of_them_within_two_pixels() -> None:
    labels = np.zeros((20, 60), np.int32)
    labels[5:15, 5:15], labels[5:15, 15:25] = 1, 2
    labels[5:15, 28:38], labels[5:15, 43:53] = 3, 4
    between = between_objects(labels)
    row = np.flatnonzero(between[10])
    # 1 and 2 touch at 15; 2 and 3 lie three pixels apart, 3 and 4 five.
    assert row.tolist() == [13, 14, 15, 16, 26]
    assert not between_objects(np.where(labels == 1, 1, 0).astype(np.int32)).any()


def test_touching_raises_the_weight_between_objects_alone() -> None:
    labels = two_touching()
    sizes = diameters(labels)
    plain = stack_targets(labels, sizes, ("foreground", "distance"), "small_up")
    raised = stack_targets(labels, sizes, ("foreground", "distance"), "small_up", touching=3.0)
    between = between_objects(labels)
    assert between.any()
    np.testing.assert_array_equal(raised[..., :2], plain[..., :2])
    np.testing.assert_allclose(raised[between, 2], 4 * plain[between, 2])
    np.testing.assert_array_equal(raised[~between, 2], plain[~between, 2])
