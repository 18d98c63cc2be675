"""Crops and batches: augmentation keeps image and labels together, and everything follows from the seed."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellcount_core.evaluation.dataset import LabelledImage, median_diameter
from cellcount_core.training.augment import Placement, cut, draw_crop, draw_empty, place
from cellcount_core.training.batches import (
    chances,
    draw_scale,
    make_batch,
    prepare,
    split_groups,
    training_batches,
)
from cellcount_core.training.config import TrainConfig

NETWORK = {"outputs": 2, "stem": 2, "filters": [4, 8], "skip": "add", "up": "project", "batch_norm": True}


def config(**changes: object) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "name": "tiny", "data": {"path": "unused"}, "network": NETWORK, "steps": 4, "batch": 3, "crop_px": 64,
            "work_dir": "unused", "package_dir": "unused", **changes,
        }
    )  # fmt: skip


def scene(seed: int, shape: tuple[int, int] = (90, 120), group: str = "") -> LabelledImage:
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.int32)
    for number in range(1, 9):
        centre = int(rng.integers(10, shape[1] - 10)), int(rng.integers(10, shape[0] - 10))
        cv2.circle(labels, centre, 6, number, -1)
    plane = (300 + 2000 * (labels > 0) + rng.normal(0, 20, shape)).astype(np.uint16)
    return LabelledImage(str(seed), plane, labels, group or str(seed), "", median_diameter(labels))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.5, 3.0))
def test_labels_stay_on_their_objects_through_every_placement(seed: int, scale: float) -> None:
    sample = prepare([scene(1)], 99.8, 12)[0]
    rng = np.random.default_rng(seed)
    where = place(rng, sample.labels, scale, 64)
    clean = (sample.labels > 0).astype(np.float32)
    crop, labels, _ = cut(clean, sample.labels, where, 64, cv2.BORDER_REFLECT_101)
    assert np.mean((crop > 0.5) == (labels > 0)) > 0.93


@pytest.mark.parametrize("quarter", [0, 1, 2, 3])
def test_a_quarter_turn_at_factor_one_takes_pixels_over_unchanged(quarter: int) -> None:
    sample = prepare([scene(2, (128, 128))], 99.8, 12)[0]
    where = Placement(x=63.5, y=63.5, scale=1.0, degrees=90.0 * quarter, mirror=1, stretch=1.0)
    crop, labels, valid = cut(sample.linear, sample.labels, where, 64, cv2.BORDER_CONSTANT)
    middle = np.s_[32:96, 32:96]
    np.testing.assert_array_equal(labels, np.rot90(sample.labels[middle], quarter))
    np.testing.assert_allclose(crop, np.rot90(sample.linear[middle], quarter), atol=1e-5)
    assert valid.all()


def test_beyond_the_image_a_crop_says_so() -> None:
    sample = prepare([scene(3, (40, 40))], 99.8, 12)[0]
    crop = draw_crop(np.random.default_rng(0), sample.linear, sample.labels, 1.0, 64)
    assert 0.1 < crop.valid.mean() < 0.6


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_empty_crops_hold_no_object_and_finite_values(seed: int) -> None:
    crop = draw_empty(np.random.default_rng(seed), 64)
    assert not crop.labels.any()
    assert np.isfinite(crop.pixels).all()


def test_the_same_seed_and_step_give_the_same_batch() -> None:
    samples = prepare([scene(1), scene(2)], 99.8, 12)
    weights = chances(samples)
    one, two = (make_batch(samples, weights, config(), (5, 7)) for _ in range(2))
    other = make_batch(samples, weights, config(), (5, 8))
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[1], two[1])
    assert not np.array_equal(one[0], other[0])
    assert (one[0].shape, one[1].shape) == ((3, 64, 64, 1), (3, 64, 64, 3))


def test_going_on_in_the_middle_gives_the_batches_of_an_unbroken_run() -> None:
    samples = prepare([scene(1), scene(2)], 99.8, 12)
    whole = dict(training_batches(samples, config(), 0, 5))
    rest = dict(training_batches(samples, config(), 3, 5))
    assert sorted(whole) == [0, 1, 2, 3, 4]
    for step in (3, 4):
        np.testing.assert_array_equal(whole[step][0], rest[step][0])


def test_a_group_is_never_split() -> None:
    images = [scene(number, group=f"g{number // 4}") for number in range(40)]
    rest, chosen = split_groups(images, 0.2)
    assert len(rest) + len(chosen) == 40
    assert 8 <= len(chosen) <= 12
    assert not {image.group for image in rest} & {image.group for image in chosen}


def test_a_large_group_does_not_drown_a_small_one() -> None:
    images = [scene(number, group="large") for number in range(16)] + [scene(99, group="small")]
    found = chances(prepare(images, 99.8, 12))
    assert found.sum() == pytest.approx(1.0)
    assert found[-1] == pytest.approx(found[:16].sum() / 4)


def test_scales_bring_objects_to_the_configured_diameters() -> None:
    rng = np.random.default_rng(0)
    only_scaled = config(augment={"natural_share": 0.0, "diameters_px": (8, 50)})
    found = np.array([draw_scale(rng, 25.0, only_scaled) for _ in range(500)]) * 25
    assert 7.99 < found.min() < 9
    assert 45 < found.max() < 50.01


def test_without_augmentation_images_come_as_they_are() -> None:
    samples = prepare([scene(1, (64, 64))], 99.8, 12)
    inputs, targets = make_batch(samples, np.ones(1), config(augment={"kind": "none"}), (0, 0))
    np.testing.assert_array_equal(targets[0, ..., 0], samples[0].labels > 0)
    np.testing.assert_array_equal(inputs[0], inputs[1])
