"""Splits, merges and panoptic quality on label images whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from cellcount_core.labelled.image import LabelledImage
from cellcount_core.labelled.label_files import median_diameter
from cellcount_core.tasks.instances.score import merges, score_labels, shared_pixels, splits
from cellcount_core.tasks.matching import Match

Box = tuple[int, int, int, int]


def drawn(*boxes: Box) -> np.ndarray:
    labels = np.zeros((30, 60), np.int32)
    for number, (y0, y1, x0, x1) in enumerate(boxes, 1):
        labels[y0:y1, x0:x1] = number
    return labels


def faults(true: np.ndarray, counted: np.ndarray) -> tuple[int, int]:
    shared = shared_pixels(true, counted)
    return splits(shared), merges(shared)


WHOLE, LEFT, RIGHT = (5, 15, 5, 25), (5, 15, 5, 15), (5, 15, 15, 25)


def test_an_object_counted_as_two_halves_is_one_split() -> None:
    assert faults(drawn(WHOLE), drawn(LEFT, RIGHT)) == (1, 0)


def test_two_objects_counted_as_one_are_one_merge() -> None:
    assert faults(drawn(LEFT, RIGHT), drawn(WHOLE)) == (0, 1)


def test_an_object_in_three_pieces_is_still_one_split() -> None:
    assert faults(drawn(WHOLE), drawn((5, 15, 5, 11), (5, 15, 11, 18), (5, 15, 18, 25))) == (1, 0)


def test_what_is_shifted_missed_or_made_up_is_neither() -> None:
    assert faults(drawn(LEFT, RIGHT), drawn((6, 16, 6, 16), (20, 28, 40, 50))) == (0, 0)


def test_a_piece_with_just_half_of_its_pixels_inside_does_not_lie_in_the_object() -> None:
    half_out, more_in = (5, 15, 20, 30), (5, 15, 19, 29)
    assert faults(drawn(WHOLE), drawn((5, 15, 5, 15), half_out)) == (0, 0)
    assert faults(drawn(WHOLE), drawn((5, 15, 5, 15), more_in)) == (1, 0)


def test_neighbours_counted_exactly_are_no_fault() -> None:
    assert faults(drawn(LEFT, RIGHT), drawn(LEFT, RIGHT)) == (0, 0)


def image(labels: np.ndarray) -> LabelledImage:
    return LabelledImage("a", labels.astype(np.uint8), labels, "a", "f", median_diameter(labels))


def test_panoptic_quality_is_the_mean_overlap_of_pairs_times_f1() -> None:
    true = drawn((0, 10, 0, 10), (0, 10, 20, 30), (20, 30, 0, 10))
    counted = drawn((0, 10, 0, 10), (0, 10, 20, 28), (20, 30, 40, 50))
    score = score_labels(image(true).truth, counted)
    assert score.matches[0] == Match(hits=2, misses=1, extras=1)
    mean_overlap, f1 = (1.0 + 0.8) / 2, 4 / 6
    assert score.panoptic_quality == pytest.approx(mean_overlap * f1)
    assert score.matched_iou == pytest.approx(1.8)


def test_nothing_counted_where_there_is_nothing_has_full_quality() -> None:
    assert score_labels(image(drawn()).truth, drawn()).panoptic_quality == 1.0
    assert score_labels(image(drawn()).truth, drawn(WHOLE)).panoptic_quality == 0.0
    assert score_labels(image(drawn(WHOLE)).truth, drawn()).panoptic_quality == 0.0


def test_a_score_carries_splits_merges_and_the_size_of_its_objects() -> None:
    lone = (20, 30, 40, 50)
    score = score_labels(image(drawn(WHOLE, lone)).truth, drawn(LEFT, RIGHT, lone))
    assert (score.true, score.counted, score.splits, score.merges) == (2, 3, 1, 0)
    assert score.diameter_px == pytest.approx((2 * np.sqrt(200 / np.pi) + 2 * np.sqrt(100 / np.pi)) / 2)
