"""The pictures of an evaluation."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from cellcount_core.evaluation.assess import GroupFigures
from cellcount_core.evaluation.figures import measure
from cellcount_core.evaluation.pictures import (
    BOTH,
    COUNTED,
    TRUE,
    calibration_png,
    f1_by_size_png,
    outlines_png,
)
from cellcount_core.tasks.matching import THRESHOLDS, ImageScore, Match
from cellcount_core.tasks.task import Found, Truth


def pixels(png: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]


def box(y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
    labels = np.zeros((240, 480), np.int32)
    labels[y0:y1, x0:x1] = 1
    return labels


def layers(true: np.ndarray, counted: np.ndarray) -> tuple[Truth, Found]:
    return Truth("a", labels=true), Found({}, labels=counted)


def test_boxes_are_drawn_as_boxes_in_the_same_colours() -> None:
    true, counted = np.array([[20.0, 20.0, 80.0, 80.0]]), np.array([[20.0, 20.0, 80.0, 60.0]])
    image = pixels(
        outlines_png(np.zeros((240, 480), np.uint8), Truth("a", boxes=true), Found({}, boxes=counted))[0]
    )
    assert tuple(image[20, 40]) == BOTH
    assert tuple(image[50, 79]) == TRUE
    assert tuple(image[50, 59]) == COUNTED
    assert tuple(image[50, 40]) not in (BOTH, TRUE, COUNTED)


def test_outlines_are_coloured_by_who_drew_them() -> None:
    true, counted = box(20, 80, 20, 80), box(20, 80, 20, 60)
    image = pixels(outlines_png(np.zeros((240, 480), np.uint8), *layers(true, counted))[0])
    assert tuple(image[20, 40]) == BOTH
    assert tuple(image[50, 79]) == TRUE
    assert tuple(image[50, 59]) == COUNTED
    assert tuple(image[50, 40]) not in (BOTH, TRUE, COUNTED)
    assert tuple(image[19, 40]) not in (BOTH, TRUE, COUNTED)


@pytest.mark.parametrize(
    ("shape", "shown"), [((100, 50), (500, 250)), ((480, 480), (480, 480)), ((3000, 1500), (960, 480))]
)
def test_small_images_are_enlarged_by_a_whole_factor_and_large_ones_reduced(
    shape: tuple[int, int], shown: tuple[int, int]
) -> None:
    empty = np.zeros(shape, np.int32)
    png, width, height = outlines_png(np.zeros(shape, np.uint16), *layers(empty, empty))
    assert (height, width) == shown == pixels(png).shape[:2]


def test_labels_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        outlines_png(
            np.zeros((8, 8), np.uint8), *layers(np.zeros((8, 8), np.int32), np.zeros((8, 9), np.int32))
        )


def score(true: int, counted: int, diameter: float, modality: str = "fluorescence") -> ImageScore:
    match = Match(min(true, counted), max(0, true - counted), max(0, counted - true))
    return ImageScore(
        "a", modality, true, counted, (match,) * len(THRESHOLDS), diameter_px=diameter if true else 0.0
    )


@pytest.mark.parametrize(
    "scores",
    [
        [score(3, 3, 20.0)],
        [score(0, 0, 0.0)],
        [score(0, 4, 0.0), score(0, 0, 0.0, "")],
        [score(1, 0, 2.0), score(3000, 2800, 120.0, "a $ _b"), score(20, 22, 9.0, "")],
    ],
)
def test_plots_are_drawn_for_one_image_for_none_with_objects_and_for_wide_ranges(
    scores: list[ImageScore],
) -> None:
    group = GroupFigures("16 to 24", 1, 1, measure(scores, resamples=20))
    for png in (calibration_png(scores), f1_by_size_png(scores, [group])):
        image = pixels(png)
        assert image.shape[0] > 400
        assert image.std() > 5


def test_equal_scores_give_equal_plots() -> None:
    scores = [score(3, 4, 20.0), score(90, 80, 12.0)]
    assert calibration_png(scores) == calibration_png(scores)
    assert calibration_png(scores) != calibration_png([score(3, 4, 20.0), score(90, 70, 12.0)])
