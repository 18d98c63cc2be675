"""How images that are copies of each other are found, and how they stay together in a split."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.brightfield import agreement, deal, find_copies, join, turned, turned_boxes
from cellcount_core.labelled.boxes import BoxedImage

SHAPE = (90, 110)
BOXES = np.array([[10.0, 20.0, 30.0, 44.0], [50.0, 70.0, 72.0, 95.0]])


def image(name: str, plane: np.ndarray, boxes: np.ndarray = BOXES, *classes: str) -> BoxedImage:
    return BoxedImage(name, {"": plane}, boxes, classes or ("Living Cell", "Dead Cell"), name)


def picture(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    plane = rng.normal(120, 4, SHAPE)
    for y0, x0, y1, x1 in BOXES.astype(int):
        plane[y0:y1, x0:x1] -= rng.uniform(20, 60, (y1 - y0, x1 - x0))
    return plane.astype(np.uint8)


@pytest.mark.parametrize("orientation", range(8))
def test_a_turned_copy_of_other_brightness_is_found_with_its_boxes(orientation: int) -> None:
    # Turning back is turning on, but for mirrored images, which turn back by themselves.
    back = orientation if orientation >= 4 else -orientation % 4
    plane = picture(1)
    other = (turned(plane, orientation) * 0.6 + 30).astype(np.uint8)
    lying = turned_boxes(BOXES, orientation, SHAPE)
    first, second = image("a", plane), image("b", other, lying)
    [copy] = find_copies([first, image("else", picture(2)), second])
    assert (copy.first, copy.second, copy.orientation) == ("a", "b", back)
    told = agreement([first, second])
    assert (told.pairs, told.f1, told.same_class, told.median_iou) == (1, 1.0, 1.0, 1.0)


def test_labels_of_copies_that_differ_agree_less() -> None:
    plane = picture(1)
    first = image("a", plane)
    second = image("b", plane.copy(), np.array([BOXES[0], [0.0, 0.0, 9.0, 9.0]]), "Dead Cell", "Dead Cell")
    told = agreement([first, second])
    assert (told.boxes, told.matched, told.f1, told.same) == (4, 1, 0.5, 0)


def test_what_is_chained_is_one_group_and_goes_to_one_part() -> None:
    groups = join("abcdefgh", [("c", "b"), ("d", "c"), ("f", "e")])
    assert groups == {"a": ["a"], "b": ["b", "c", "d"], "e": ["e", "f"], "g": ["g"], "h": ["h"]}
    parts = deal(groups, dict.fromkeys(groups, "one"), (0.5, 0.5), "salt")
    assert set(parts) == set(groups)
    sizes = [sum(len(groups[name]) for name in groups if parts[name] == part) for part in (0, 1)]
    assert max(sizes) - min(sizes) <= 2
