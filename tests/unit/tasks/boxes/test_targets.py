"""Targets are made of boxes so that each object keeps a peak, and crops carry the boxes that they show."""

from __future__ import annotations

import numpy as np
import pytest

from cellcount_core.models.package import InputSpec
from cellcount_core.tasks.boxes.crops import BoxAugmentConfig, draw_boxes, plain_boxes, prepare_boxes
from cellcount_core.tasks.boxes.targets import BoxLossConfig, LabelledBoxes, make_loss, stack_targets
from cellcount_core.tasks.object_size.looks import decode_diameter

CALM = BoxAugmentConfig(
    scale_sigma=0,
    wide_share=0,
    stretch_sigma=0,
    gain_sigma=0,
    colour_sigma=0,
    shift_sigma=0,
    uneven=0,
    blur_share=0,
    noise=0,
)


def labelled(boxes: list[list[float]], kinds: list[int], **others: object) -> LabelledBoxes:
    return LabelledBoxes(np.array(boxes, np.float64).reshape(-1, 4), np.array(kinds, np.int64), **others)  # type: ignore[arg-type]


def targets(given: LabelledBoxes, side: int = 64, classes: int = 2, **settings: float) -> np.ndarray:
    return stack_targets(given, (side, side), classes, BoxLossConfig(**settings))


def test_each_object_is_one_pixel_of_height_one_in_the_map_of_its_class():
    made = targets(labelled([[10, 10, 30, 20], [12, 30, 50, 60], [40, 2, 60, 12]], [0, 1, 1]))
    assert [tuple(at) for at in np.argwhere(made[..., 0] == 1)] == [(20, 15)]
    assert [tuple(at) for at in np.argwhere(made[..., 1] == 1)] == [(31, 45), (50, 7)]


def test_crossing_long_cells_keep_a_peak_each_and_the_valley_between_them():
    made = targets(labelled([[10, 10, 50, 50], [10, 20, 50, 60]], [0, 0]))[..., 0]
    assert made[30, 30] == made[30, 40] == 1
    assert made[30, 35] < 0.9


def test_the_sides_are_told_at_the_centre_and_weigh_one_an_object():
    made = targets(labelled([[10, 10, 18, 40], [30, 30, 62, 38]], [0, 1]))
    for y, x, height, width in ((14, 25, 8, 30), (46, 34, 32, 8)):
        assert decode_diameter(made[y, x, 2:4]) == pytest.approx([height, width], rel=1e-5)
    assert made[..., -1].sum() == pytest.approx(2)


def test_where_two_gaussians_overlap_the_nearer_object_tells_its_sides():
    made = targets(labelled([[0, 0, 40, 40], [17, 16, 25, 24]], [0, 0]))
    assert decode_diameter(made[21, 20, 2]) == pytest.approx(8, rel=1e-5)


def test_a_class_that_may_lack_boxes_teaches_no_background():
    made = targets(labelled([[10, 10, 30, 30]], [1], unlabelled=(0,)))
    assert made[..., 4].sum() == 0
    assert made[20, 20, 5] == made[50, 50, 5] == 1


def test_nothing_is_taught_where_an_object_is_half_seen_but_at_a_centre_that_lies_there():
    made = targets(labelled([[10, 10, 30, 30]], [0], ignored=np.array([[15.0, 15, 40, 40]])))
    assert made[35, 35, 4] == 0
    assert made[20, 20, 4] == 1
    assert made[12, 12, 4] == pytest.approx(1, abs=0.01)


def test_an_object_at_the_corner_has_its_peak_inside_the_image():
    made = targets(labelled([[63.5, 63.2, 64, 64]], [0]))
    assert made[63, 63, 0] == 1


def test_no_boxes_are_background_and_teach_no_sides():
    made = targets(labelled([], []))
    assert made[..., :2].max() == 0
    assert made[..., -1].max() == 0
    assert made[..., 4:6].min() == 1


@pytest.mark.slow
def test_a_perfect_answer_costs_almost_nothing_and_a_missed_object_much():
    made = targets(labelled([[10, 10, 30, 30], [40, 40, 60, 60]], [0, 1]))[None]
    chance = np.clip(made[..., :4], 1e-4, 1 - 1e-4)
    chance[..., :2][made[..., :2] < 1] = 1e-4
    perfect = np.log(chance / (1 - chance)).astype(np.float32)
    missed = perfect.copy()
    missed[0, 20, 20, 0] = -9
    loss = make_loss(BoxLossConfig(), 2)
    assert float(loss(made, perfect)) < 0.01
    assert float(loss(made, missed)) > 1


def sample(diameter: float = 20.0):
    rng = np.random.default_rng(0)
    plane = rng.integers(0, 50, (90, 120)).astype(np.uint8)
    plane[20:40, 30:50] = 200
    given = labelled([[20, 30, 40, 50]], [0])
    return prepare_boxes((plane, plane), given, InputSpec(("red", "green"), 20.0, 99.8, 12.0), diameter)


@pytest.mark.parametrize("diameter", [10.0, 20.0, 50.0])
def test_a_crop_shows_the_object_at_the_models_scale_where_its_box_says(diameter):
    pixels, boxes = plain_boxes(np.random.default_rng(0), sample(diameter), 256)
    y0, x0, y1, x1 = boxes.boxes[0]
    assert [y0, x0, y1, x1] == pytest.approx(np.array([20, 30, 40, 50]) * 20 / diameter, abs=1)
    inside = pixels[round(y0) + 1 : round(y1) - 1, round(x0) + 1 : round(x1) - 1]
    assert inside.min() > 0.7
    assert pixels.shape == (256, 256, 2)


def test_augmented_crops_keep_box_and_object_together_in_all_eight_positions():
    given, rng = sample(), np.random.default_rng(3)
    seen = 0
    for _ in range(60):
        pixels, boxes = draw_boxes(rng, given, 64, CALM)
        bright = pixels[..., 0] > 0.6
        for y0, x0, y1, x1 in np.rint(boxes.boxes).astype(int):
            # The object fills its box; what is bright elsewhere is mirrored beyond the edge.
            assert bright[y0 + 1 : y1 - 1, x0 + 1 : x1 - 1].mean() > 0.95
            seen += 1
    assert seen > 20


def test_an_object_cut_by_the_crop_is_told_by_what_is_seen_of_it_or_not_taught():
    given, rng = sample(), np.random.default_rng(4)
    for _ in range(200):
        _, boxes = draw_boxes(rng, given, 32, CALM)
        sides = boxes.boxes[:, 2:] - boxes.boxes[:, :2]
        assert (sides.prod(axis=1) >= 0.39 * 400).all()
        assert boxes.boxes.size == 0 or (boxes.boxes.min() >= 0 and boxes.boxes.max() <= 32)
