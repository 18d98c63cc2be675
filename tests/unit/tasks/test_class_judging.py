"""Confusion, calibration, chance, and what curves say."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from cellcount_core.tasks.classes.judge import (
    Curves,
    balanced_accuracy,
    calibration_error,
    chance_of_as_good,
    confusion,
    distinguishable,
    what_curves_say,
)
from cellcount_core.training.told_classes import ToldClasses, write_told
from cellcount_core.training.watching import CurvePoint, write_curve, written_whole

TRUE = np.array([0, 0, 0, 0, 1, 1])
TOLD = np.array([0, 0, 0, 1, 1, 0])


def test_the_confusion_has_true_classes_as_rows() -> None:
    assert confusion(TRUE, TOLD, 2).tolist() == [[3, 1], [1, 1]]
    assert balanced_accuracy(TRUE, TOLD) == pytest.approx((0.75 + 0.5) / 2)


def test_probabilities_that_are_as_often_right_as_they_say_have_no_error() -> None:
    right = np.arange(100) < 80
    assert calibration_error(np.full(100, 0.8), right) == pytest.approx(0)
    assert calibration_error(np.full(100, 0.95), right) == pytest.approx(0.15)


def test_what_chance_reaches_is_judged_by_groups_and_not_by_images() -> None:
    """Four photos of five tiles each, all told right: twenty tiles look like proof, four photos are none."""
    true = np.repeat([0, 0, 1, 1], 5)
    by_image = chance_of_as_good(true, true, [str(number) for number in range(20)])
    by_photo = chance_of_as_good(true, true, [str(number // 5) for number in range(20)])
    assert by_image < 0.01 < 0.1 < by_photo
    assert distinguishable(by_photo).startswith("not distinguishable")
    assert distinguishable(by_image).startswith("told apart")


@pytest.mark.slow
def test_classes_that_do_not_differ_are_called_so_about_as_often_as_is_said() -> None:
    rng = np.random.default_rng(0)
    found = [
        chance_of_as_good(rng.integers(0, 2, 40), rng.integers(0, 2, 40), [str(n) for n in range(40)], seed)
        for seed in range(20)
    ]
    assert sum(chance < 0.05 for chance in found) <= 4
    assert chance_of_as_good(np.zeros(5, int), np.zeros(5, int), list("abcde")) == 1


@pytest.mark.parametrize(
    ("train", "held_out", "said"),
    [
        ([0.5, 0.9, 1.0, 1.0], [0.5, 0.6, 0.62, 0.62], "memorising: 100% of the training images right, 62% of 40 watched ones and 62% of 30 measured ones, and all of the training images from point 3 on"),
        ([0.5, 0.7, 0.85, 0.9], [0.5, 0.7, 0.82, 0.88], "learning: 90% of the training images right, 88% of 40 watched ones and 88% of 30 measured ones"),
        ([0.5, 0.49, 0.52, 0.51], [0.5, 0.5, 0.48, 0.5], "not learning: 51% of the training images right, 50% of 40 watched ones and 50% of 30 measured ones, where guessing gives 50%"),
    ],
)  # fmt: skip
def test_curves_are_told_in_words(train: list[float], held_out: list[float], said: str) -> None:
    assert what_curves_say(Curves(train, held_out, 40, held_out[-1], 30), 2).startswith(said)


@pytest.mark.parametrize(
    ("held_out", "watched", "measured", "images", "said"),
    [
        (0.5, 4, 1.0, 10, "learning: 84% of the training images right, 100% of 10 measured ones"),
        (0.5, 4, 1.0, 9, "too few images to say whether it learns or remembers: 4 are watched and 9 measured, 10 or more expected"),
        (0.5, 12, 1.0, 10, "undecided: 84% of the training images right, 50% of 12 watched ones and 100% of 10 measured ones: the two sets of images differ"),
        (0.5, 12, 0.6, 10, "memorising: 84% of the training images right, 50% of 12 watched ones and 60% of 10 measured ones: more images"),
    ],
)  # fmt: skip
def test_few_images_give_no_verdict_and_none_against_those_measured(
    held_out: float, watched: int, measured: float, images: int, said: str
) -> None:
    assert what_curves_say(Curves([0.84], [held_out], watched, measured, images), 2).startswith(said)


def test_what_is_written_halfway_leaves_what_was_there(tmp_path: Path) -> None:
    points = [CurvePoint(step, 1.0, 0.01, 0.5, 0.9, 0.6, 0.8, {"balanced_accuracy": 0.7}) for step in (1, 2)]
    write_curve(tmp_path, points)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(KeyboardInterrupt), written_whole(tmp_path / "curves.png") as path:
        path.write_bytes(b"")
        raise KeyboardInterrupt
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert set(before) == {"curves.csv", "curves.png"} and all(before.values())


@pytest.mark.parametrize(("images", "rows"), [(6, 1), (20, 3)])
def test_the_picture_has_a_mark_for_a_single_point_and_no_empty_rows(
    tmp_path: Path, images: int, rows: int
) -> None:
    true = np.arange(images) % 2
    found = ToldClasses(
        ("a", "b"), true, true, np.full(images, 0.9), tuple(map(str, range(images))), (0.9,), (0.8,), 12
    )
    write_told(tmp_path, found, [np.full((16, 16, 1), 0.5, np.float32)] * images)
    shown = cv2.imread(str(tmp_path / "learning.png"))
    assert shown.shape[0] == pytest.approx(110 * (1.7 * rows + 3.4), abs=2)
    orange = np.abs(shown.astype(int) - (14, 127, 255)).sum(axis=2) < 30
    # The line in the legend has some 60 px; the mark of the point is added to that of the legend.
    assert cv2.connectedComponents(orange.astype(np.uint8))[0] - 1 == 2
