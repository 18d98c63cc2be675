"""Crops and batches: augmentation keeps image and labels together, and everything follows from the seed."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellcount_core.labelled.image import LabelledImage
from cellcount_core.labelled.label_files import median_diameter
from cellcount_core.models.package import InputSpec
from cellcount_core.tasks.instances.crops import draw_scale, sample_of
from cellcount_core.tasks.instances.learn import InstancesConfig, LabelLesson
from cellcount_core.tasks.object_size.looks import decode_diameter
from cellcount_core.training.augment import Placement, _saturate, crowd, cut, draw_crop, draw_empty, place
from cellcount_core.training.batches import Batch, make_batch, training_batches
from cellcount_core.training.learning import Images, chances, split_groups

NETWORK = {"outputs": 2, "stem": 2, "filters": [4, 8], "skip": "add", "up": "project", "batch_norm": True}


SPEC = InputSpec(("nuclei",), 20.0, 99.8, 12.0)


def config(**changes: object) -> InstancesConfig:
    return InstancesConfig.model_validate(
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


def lesson(images: list[LabelledImage], of: InstancesConfig | None = None) -> LabelLesson:
    return LabelLesson(of or config(), Images(images, images, images, images))


def batch(lesson: LabelLesson, key: tuple[int, int], count: int = 3) -> Batch:
    return make_batch(lesson.crop, lesson.chances(), count, key)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.5, 3.0))
def test_labels_stay_on_their_objects_through_every_placement(seed: int, scale: float) -> None:
    sample = sample_of(scene(1), SPEC)
    rng = np.random.default_rng(seed)
    where = place(rng, sample.labels, scale, 64)
    clean = (sample.labels > 0).astype(np.float32)
    crop, labels, _ = cut(clean, sample.labels, where, 64, cv2.BORDER_REFLECT_101)
    assert np.mean((crop > 0.5) == (labels > 0)) > 0.93


@pytest.mark.parametrize("quarter", [0, 1, 2, 3])
def test_a_quarter_turn_at_factor_one_takes_pixels_over_unchanged(quarter: int) -> None:
    sample = sample_of(scene(2, (128, 128)), SPEC)
    where = Placement(x=63.5, y=63.5, scale=1.0, degrees=90.0 * quarter, mirror=1, stretch=1.0)
    crop, labels, valid = cut(sample.linear[..., 0], sample.labels, where, 64, cv2.BORDER_CONSTANT)
    middle = np.s_[32:96, 32:96]
    np.testing.assert_array_equal(labels, np.rot90(sample.labels[middle], quarter))
    np.testing.assert_allclose(crop, np.rot90(sample.linear[middle][..., 0], quarter), atol=1e-5)
    assert valid.all()


def test_beyond_the_image_a_crop_says_so() -> None:
    sample = sample_of(scene(3, (40, 40)), SPEC)
    crop = draw_crop(np.random.default_rng(0), sample.linear, sample.labels, sample.sizes, 1.0, 64)
    assert 0.1 < crop.valid.mean() < 0.6


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_empty_crops_hold_no_object_and_finite_values(seed: int) -> None:
    crop = draw_empty(np.random.default_rng(seed), 64)
    assert not crop.labels.any()
    assert np.isfinite(crop.pixels).all()


def test_the_same_seed_and_step_give_the_same_batch() -> None:
    given = lesson([scene(1), scene(2)])
    one, two = (batch(given, (5, 7)) for _ in range(2))
    other = batch(given, (5, 8))
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[1], two[1])
    assert not np.array_equal(one[0], other[0])
    assert (one[0].shape, one[1].shape) == ((3, 64, 64, 1), (3, 64, 64, 3))


def test_going_on_in_the_middle_gives_the_batches_of_an_unbroken_run() -> None:
    given = lesson([scene(1), scene(2)])
    whole = dict(training_batches(given, config(), 0, 5))
    rest = dict(training_batches(given, config(), 3, 5))
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
    found = chances(images)
    assert found.sum() == pytest.approx(1.0)
    assert found[-1] == pytest.approx(found[:16].sum() / 4)


def test_scales_bring_objects_to_the_configured_diameters() -> None:
    rng = np.random.default_rng(0)
    only_scaled = config(augment={"natural_share": 0.0, "diameters_px": (8, 50)})
    found = (
        np.array(
            [draw_scale(rng, 25.0, only_scaled.augment, only_scaled.input.diameter_px) for _ in range(500)]
        )
        * 25
    )
    assert 7.99 < found.min() < 9
    assert 45 < found.max() < 50.01


def test_without_augmentation_images_come_as_they_are() -> None:
    image = scene(1, (64, 64))
    inputs, targets = batch(lesson([image], config(augment={"kind": "none"})), (0, 0))
    np.testing.assert_array_equal(targets[0, ..., 0], image.labels > 0)
    np.testing.assert_array_equal(inputs[0], inputs[1])


def test_an_elastic_bend_moves_image_and_labels_alike_and_other_than_none() -> None:
    sample = sample_of(scene(4, (128, 128)), SPEC)
    bend = np.random.default_rng(0).normal(0, 4, (6, 6, 2)).astype(np.float32)
    straight = Placement(x=63.5, y=63.5, scale=1.0, degrees=0.0, mirror=1, stretch=1.0)
    bent = Placement(x=63.5, y=63.5, scale=1.0, degrees=0.0, mirror=1, stretch=1.0, bend=bend)
    clean = (sample.labels > 0).astype(np.float32)
    crop, labels, _ = cut(clean, sample.labels, bent, 64, cv2.BORDER_CONSTANT)
    _, unmoved, _ = cut(clean, sample.labels, straight, 64, cv2.BORDER_CONSTANT)
    assert np.mean((crop > 0.5) == (labels > 0)) > 0.97
    assert np.mean(labels != unmoved) > 0.02
    assert set(np.unique(labels)) <= set(np.unique(sample.labels))


def test_some_placements_bend_and_most_do_not() -> None:
    sample = sample_of(scene(1), SPEC)
    rng = np.random.default_rng(0)
    bent = [place(rng, sample.labels, 1.0, 64).bend is not None for _ in range(400)]
    assert 0.1 < np.mean(bent) < 0.3


def test_saturation_makes_the_brightest_pixels_alike_and_full_scale() -> None:
    crop = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    found = _saturate(np.random.default_rng(1), crop)
    assert found.max() == pytest.approx(1.0)
    assert 0.004 < np.mean(found == found.max()) < 0.13
    dark = _saturate(np.random.default_rng(1), np.full((8, 8), 0.01, np.float32))
    assert dark.max() < 0.06


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_a_crops_sizes_are_those_of_the_whole_objects_at_its_scale(scale: float) -> None:
    sample = sample_of(scene(5), SPEC)
    crop = draw_crop(np.random.default_rng(3), sample.linear, sample.labels, sample.sizes, scale, 64)
    np.testing.assert_allclose(crop.sizes, sample.sizes * scale, rtol=1e-6)


def test_a_batch_tells_the_size_of_an_object_that_it_cuts() -> None:
    labels = np.zeros((64, 64), np.int32)
    cv2.circle(labels, (32, 32), 28, 1, -1)
    image = LabelledImage(
        "large", (500 + 2000 * labels).astype(np.uint16), labels, "g", "", median_diameter(labels)
    )
    small = config(
        augment={"kind": "none"},
        crop_px=32,
        maps=["foreground", "distance", "size"],
        network={**NETWORK, "outputs": 3},
    )
    _, targets = batch(lesson([image], small), (0, 0))
    inside = targets[..., 0] > 0
    assert not inside.all()
    np.testing.assert_allclose(decode_diameter(targets[..., 2][inside]), image.diameter_px, rtol=1e-3)


def test_scales_near_the_models_lie_log_normally_around_its_diameter() -> None:
    rng = np.random.default_rng(0)
    near = config(augment={"natural_share": 0.0, "near_share": 1.0}, input={"diameter_px": 24.0})
    found = np.log(
        np.array([draw_scale(rng, 40.0, near.augment, near.input.diameter_px) for _ in range(3000)]) * 40
    )
    assert np.exp(found.mean()) == pytest.approx(24, rel=0.02)
    assert found.std() == pytest.approx(0.25, rel=0.06)


def test_extreme_scales_come_from_their_own_range_and_shares_add_up() -> None:
    rng = np.random.default_rng(0)
    mixed = config(
        augment={
            "natural_share": 0.2,
            "near_share": 0.3,
            "extreme_share": 0.1,
            "diameters_px": (15, 30),
            "extreme_px": (3, 10),
        },
        input={"diameter_px": 20.0},
    )
    found = np.array([draw_scale(rng, 100.0, mixed.augment, mixed.input.diameter_px) for _ in range(4000)])
    assert np.mean(found >= 0.7) == pytest.approx(0.2, abs=0.03)
    assert np.mean(found * 100 < 9.5) == pytest.approx(0.1, abs=0.03)


def test_scales_stay_within_what_an_image_can_be_resized_by() -> None:
    rng = np.random.default_rng(0)
    extreme = config(augment={"natural_share": 0.0, "extreme_share": 1.0})
    found = [
        draw_scale(rng, diameter, extreme.augment, extreme.input.diameter_px)
        for diameter in (2.0, 2000.0)
        for _ in range(50)
    ]
    assert (min(found), max(found)) == (0.06, 8.0)


def test_dark_objects_are_prepared_as_a_field_is_when_it_is_counted() -> None:
    from cellcount_core.images.normalise import compress
    from cellcount_core.pipeline.maps import whole_canvas

    bright = scene(6, (64, 96))
    plane = (4000 - bright.plane.astype(np.int32)).astype(np.uint16)
    dark = LabelledImage("dark", plane, bright.labels, "g", "", bright.diameter_px)
    sample = sample_of(dark, SPEC)
    assert sample.linear[bright.labels > 0].mean() > 0.5
    np.testing.assert_allclose(
        compress(sample.linear.copy()), whole_canvas([plane], config().input.spec(), 4), atol=1e-6
    )


def crowded(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A sample's light and labels before, and light, labels and diameters after copies were put beside its objects."""
    sample = sample_of(scene(3, (96, 96)), SPEC)
    light = sample.linear[..., 0]
    pixels, labels, sizes = crowd(
        np.random.default_rng(seed), light, sample.labels, sample.sizes, np.ones((96, 96), np.bool_)
    )
    assert labels.dtype == np.int32
    assert pixels.dtype == sizes.dtype == np.float32
    return light, sample.labels, pixels, labels if sizes.size > labels.max() else np.zeros(0)


@pytest.mark.parametrize("seed", range(12))
def test_copies_lie_on_light_of_their_own_and_cover_little_of_others(seed: int) -> None:
    before, labels, after, more = crowded(seed)
    copies = np.flatnonzero(np.bincount(more.ravel()))[labels.max() + 1 :]
    for number in copies:
        # Objects of the scene are 2000 above a background of noise: so are the copies, give or take their own gain.
        assert np.median(after[more == number]) > 0.3 * np.median(before[labels > 0])
    for number in range(1, int(labels.max()) + 1):
        own = labels == number
        assert (own & (more == number)).sum() >= 0.69 * own.sum()
    # Light is only added, and only near copies.
    assert (after >= before - 1e-6).all()
    far = (
        cv2.dilate(
            np.isin(more, copies).astype(np.uint8) | (more != labels).astype(np.uint8),
            np.ones((15, 15), np.uint8),
        )
        == 0
    )
    np.testing.assert_array_equal(after[far], before[far])


def test_copies_make_objects_touch() -> None:
    def pairs(labels: np.ndarray) -> int:
        across = (labels[:, 1:] != labels[:, :-1]) & (labels[:, 1:] > 0) & (labels[:, :-1] > 0)
        return int(across.sum())

    added = [
        (labels.max(), more.max(), pairs(labels), pairs(more))
        for _, labels, _, more in map(crowded, range(20))
    ]
    assert sum(more - before for before, more, _, _ in added) > 20
    assert sum(more for *_, more in added) > 2 * sum(before for *_, before, _ in added)


def test_a_crop_without_whole_objects_is_left_as_it_is() -> None:
    sample = sample_of(scene(3, (96, 96)), SPEC)
    nothing = np.zeros((96, 96), np.bool_)
    pixels, labels, sizes = crowd(
        np.random.default_rng(0), sample.linear, sample.labels, sample.sizes, nothing
    )
    assert pixels is sample.linear
    assert labels is sample.labels
    assert sizes is sample.sizes


def test_crowded_crops_say_the_size_of_every_object() -> None:
    sample = sample_of(scene(4, (128, 128)), SPEC)
    for seed in range(10):
        crop = draw_crop(
            np.random.default_rng(seed), sample.linear, sample.labels, sample.sizes, 1.0, 64, crowded=1.0
        )
        assert (crop.sizes[np.unique(crop.labels[crop.labels > 0])] > 0).all()
