"""What the network is to predict."""

from __future__ import annotations

import numpy as np
import pytest

from cellcount_core.training.targets import foreground, normalised_distance, object_weights, stack_targets


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
    weights = object_weights(labels)
    assert weights[4, 4] > 1 > weights[40, 40]
    assert (weights[labels == 0] == 1).all()


def test_targets_come_in_the_order_of_the_maps_with_the_weights_last() -> None:
    labels = two_touching()
    stacked = stack_targets(labels, ("foreground", "distance"), "none")
    assert (stacked.shape, stacked.dtype) == ((20, 40, 3), np.float32)
    np.testing.assert_array_equal(stacked[..., 0], foreground(labels))
    np.testing.assert_array_equal(stacked[..., 1], normalised_distance(labels))
    assert (stacked[..., 2] == 1).all()
