"""Scores of boxes: precision as COCO measures it, also of dense images, and errors of counts."""

from __future__ import annotations

import numpy as np
import pytest

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.tasks.boxes.score import (
    BoxScoring,
    ComparedBoxes,
    average_precision,
    box_figures,
    box_iou,
    even_score,
)
from cellcount_core.tasks.boxes.section import Boxes, no_boxes
from cellcount_core.tasks.task import Found, Truth


def grid(number: int, *, place: int = 0, shift: float = 0.0, score: float = 1.0) -> Boxes:
    """Boxes of 10 x 10 px side by side."""
    corners = [
        [20.0 * (n // 40), 20.0 * (n % 40), 20.0 * (n // 40) + 10, 20.0 * (n % 40) + 10]
        for n in range(number)
    ]
    boxes = np.array(corners, np.float64).reshape(-1, 4) + np.array([0, shift, 0, shift])
    return Boxes(boxes, np.full(number, place, np.int64), np.full(number, score))


def both(one: Boxes, other: Boxes) -> Boxes:
    return Boxes(
        *(
            np.concatenate([getattr(one, name), getattr(other, name)])
            for name in ("boxes", "classes", "scores")
        )
    )


def test_what_is_found_exactly_has_a_precision_of_1_and_a_shift_costs_the_high_overlaps() -> None:
    exact = ComparedBoxes(grid(7), grid(7), grid(7))
    [found] = average_precision([exact], 1)
    assert (found.at_50, found.mean) == (pytest.approx(1), pytest.approx(1))
    # Shifted by 2 of 10 px: an IoU of 8 / 12, above 4 of the 10 thresholds.
    [moved] = average_precision([ComparedBoxes(grid(7), grid(7), grid(7, shift=2))], 1)
    assert (moved.at_50, moved.mean) == (pytest.approx(1), pytest.approx(0.4))


def test_more_than_a_hundred_objects_of_an_image_are_all_looked_at() -> None:
    dense = ComparedBoxes(grid(400), grid(400), grid(400))
    [found] = average_precision([dense], 1)
    assert found.at_50 == pytest.approx(1)


def test_a_surer_false_box_costs_more_than_a_less_sure_one() -> None:
    false = grid(1, shift=500)
    surer, weaker = (
        average_precision(
            [
                ComparedBoxes(
                    grid(4),
                    grid(4),
                    both(grid(4, score=0.5), Boxes(false.boxes, false.classes, np.array([s]))),
                )
            ],
            1,
        )[0]
        for s in (0.9, 0.1)
    )
    assert weaker.at_50 == pytest.approx(1)
    assert surer.at_50 == pytest.approx(4 / 5, abs=0.01)


def test_a_class_without_a_true_object_is_left_out_of_the_mean() -> None:
    first = ComparedBoxes(grid(3), grid(3), both(grid(3), grid(2, place=1, shift=200)))
    found = average_precision([first], 2)
    assert found[0].at_50 == pytest.approx(1)
    assert found[1].at_50 is None
    assert box_figures([first], ("a", "b"))["map_50"] == pytest.approx(1)


def test_nothing_found_is_a_precision_of_0_and_no_images_are_none() -> None:
    lost = ComparedBoxes(grid(3), no_boxes(), no_boxes())
    assert average_precision([lost], 1)[0].at_50 == 0
    assert average_precision([], 1)[0].at_50 is None
    assert box_figures([], ("a",))["count_mae"] is None


def test_errors_of_counts_are_those_of_all_objects_and_of_each_class() -> None:
    images = [
        ComparedBoxes(
            both(grid(10), grid(1, place=1, shift=5)), both(grid(11), grid(1, place=1, shift=5)), no_boxes()
        ),
        ComparedBoxes(
            both(grid(20), grid(2, place=1, shift=5)), both(grid(16), grid(2, place=1, shift=5)), no_boxes()
        ),
        ComparedBoxes(no_boxes(), grid(1), no_boxes()),
    ]
    found = box_figures(images, ("cells", "specks"))
    assert (found["true"], found["counted"]) == (33, 31)
    assert found["count_mae"] == pytest.approx((1 + 4 + 1) / 3)
    assert found["count_mae_share"] == pytest.approx(6 / 33)
    assert found["count_mape"] == pytest.approx((1 / 11 + 4 / 22) / 2)
    assert found["count_bias"] == pytest.approx(-2 / 33)
    assert found["count_near"] == pytest.approx(1 / 3)
    assert found["count_exact_cells"] == 0
    assert found["count_exact_specks"] == 1
    assert found["count_mape_cells"] == pytest.approx((1 / 10 + 4 / 20) / 2)


def test_the_overlap_of_boxes_is_that_of_their_pixels() -> None:
    rng = np.random.default_rng(3)
    low = rng.integers(0, 20, (12, 2))
    boxes = np.concatenate([low, low + rng.integers(1, 15, (12, 2))], axis=1).astype(np.float64)
    painted = np.zeros((12, 40, 40), bool)
    for number, (y0, x0, y1, x1) in enumerate(boxes.astype(int)):
        painted[number, y0:y1, x0:x1] = True
    both = (painted[:, None] & painted[None]).sum((2, 3))
    either = (painted[:, None] | painted[None]).sum((2, 3))
    assert box_iou(boxes, boxes) == pytest.approx(both / either)


def test_the_even_score_gives_as_many_boxes_as_there_are_objects() -> None:
    scores = np.array([0.9, 0.8, 0.4, 0.3, 0.2])
    ranked = Boxes(grid(5).boxes, np.zeros(5, np.int64), scores)
    assert even_score([ComparedBoxes(grid(3), grid(1), ranked)], 0) == pytest.approx(0.35)
    assert even_score([ComparedBoxes(grid(5), grid(1), ranked)], 0) == pytest.approx(0.2)
    assert even_score([ComparedBoxes(grid(6), grid(1), ranked)], 0) is None
    assert even_score([ComparedBoxes(no_boxes(), grid(1), ranked)], 0) is None


def test_a_found_object_needs_its_true_class() -> None:
    scoring = BoxScoring(("round", "long"))
    truth = Truth("a", boxes=grid(3).boxes, classes=("round", "long", "long"))
    found = Found({}, boxes=grid(3).boxes, classes=np.array([0, 0, 1]))
    scored = scoring.score(truth, found)
    assert scored.objects is not None
    assert (scored.objects.true, scored.objects.counted, scored.objects.matches[0].hits) == (3, 3, 2)
    assert dict(scored.values) == {"true_round": 1, "counted_round": 2, "true_long": 2, "counted_long": 1}
    figures = scoring.figures([scored])
    assert (figures["count_near"], figures["count_exact_round"], figures["count_bias_long"]) == (1, 0, -0.5)
    with pytest.raises(ConfigFault, match="class 'lng' is none of the package's; did you mean 'long'"):
        scoring.score(Truth("a", boxes=grid(1).boxes, classes=("lng",)), found)
