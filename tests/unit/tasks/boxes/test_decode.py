"""Maps are decoded to boxes: crossing cells survive, duplicates do not, and blocks give what the whole gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from cellcount_core.images.normalise import Normalisation
from cellcount_core.tasks.boxes.decode import MOST_BELOW, Peaks, decode, decode_blocks, find_peaks, settle
from cellcount_core.tasks.boxes.section import BoxesSection, maps_of
from cellcount_core.tasks.boxes.targets import BoxLossConfig, LabelledBoxes, stack_targets

CLASSES = ("round", "long")
MapArray = NDArray[np.float32]


def section(classes: tuple[str, ...] = CLASSES, apart: float = 0.2, score: float = 0.5) -> BoxesSection:
    return BoxesSection(
        classes=classes, maps=maps_of(classes), stride=16, receptive_radius=60,
        thresholds=dict.fromkeys(classes, score), apart=apart,
    )  # fmt: skip


def ideal(boxes: list[list[float]], kinds: list[int], shape: tuple[int, int]) -> MapArray:
    """The maps of a network that has learnt its targets perfectly."""
    labelled = LabelledBoxes(np.array(boxes, np.float64).reshape(-1, 4), np.array(kinds, np.intp))
    targets = stack_targets(labelled, shape, len(CLASSES), BoxLossConfig())
    return targets[..., : len(CLASSES) + 2]


@dataclass(frozen=True)
class Whole:
    """Maps that lie in memory, asked for by windows as those of a field are."""

    array: MapArray

    @property
    def shape(self) -> tuple[int, int]:
        return self.array.shape[0], self.array.shape[1]

    @property
    def norm(self) -> Normalisation:
        return Normalisation(0.0, 1.0, 0.0)

    def whole(self) -> MapArray:
        return self.array

    def window(self, y0: int, y1: int, x0: int, x1: int) -> MapArray:
        return self.array[y0:y1, x0:x1]

    def cores(self):
        yield self.array

    def canvas(self) -> MapArray:
        return self.array[..., 0]

    def resized(self, factor: float) -> Whole:
        raise NotImplementedError


def test_boxes_come_back_with_their_sides_and_centres_between_pixels():
    boxes = [[3.2, 4.7, 21.9, 30.1], [30.0, 40.0, 38.5, 90.0], [60.5, 10.5, 92.0, 20.0]]
    found = decode(ideal(boxes, [0, 1, 1], (100, 100)), section())
    assert found.classes.tolist() == [0, 1, 1]
    # The pixel of a centre holds 1 whatever the place of the centre within it, so a centre is known to about half a pixel.
    assert np.abs(found.boxes - np.array(boxes)).max() < 0.6


def test_two_long_cells_that_cross_are_two_objects():
    """Their boxes overlap by more than half: removing boxes by overlap would lose one."""
    boxes = [[10.0, 10.0, 50.0, 50.0], [14.0, 22.0, 54.0, 62.0], [4.0, 20.0, 44.0, 60.0]]
    assert decode(ideal(boxes, [1, 1, 1], (80, 80)), section()).count == 3


def test_a_thin_cell_within_the_box_of_another_is_an_object_of_its_own():
    boxes = [[10.0, 10.0, 70.0, 70.0], [25.0, 20.0, 29.0, 60.0]]
    assert decode(ideal(boxes, [1, 1], (80, 80)), section()).count == 2


def test_of_two_peaks_on_one_object_the_stronger_is_kept():
    maps = ideal([[20.0, 20.0, 60.0, 60.0]], [0], (80, 80))
    maps[20:60, 20:60, 2:] = maps[40, 40, 2:]
    maps[44, 44, 0] = 0.9
    assert decode(maps, section()).scores.tolist() == [1.0]
    assert decode(maps, section(apart=0.0)).count == 2


def test_one_object_has_one_class_the_one_that_is_further_above_its_threshold():
    maps = ideal([[20.0, 20.0, 60.0, 60.0]], [0], (80, 80))
    maps[..., 1] = maps[..., 0] * np.float32(0.8)
    lower = section().model_copy(update={"thresholds": {"round": 0.7, "long": 0.4}})
    assert decode(maps, section()).classes.tolist() == [0]
    assert decode(maps, lower).classes.tolist() == [1]


def test_objects_at_the_edges_and_corners_are_found_and_their_boxes_end_at_the_edge():
    boxes = [
        [0.0, 0.0, 10.0, 4.0],
        [0.0, 50.0, 6.0, 70.0],
        [70.0, 60.0, 80.0, 80.0],
        [79.0, 20.0, 80.0, 30.0],
    ]
    found = decode(ideal(boxes, [0, 0, 0, 1], (80, 80)), section())
    assert found.count == 4
    assert found.boxes[:, :2].min() >= 0
    assert found.boxes[:, 2:].max() <= 80


def test_equal_neighbours_are_one_peak():
    maps = ideal([[20.0, 20.0, 60.0, 60.0]], [0], (80, 80))
    maps[39:42, 39:42, 0] = 0.97
    assert decode(maps, section(apart=0.0)).count == 1


def test_a_lower_limit_adds_objects_and_changes_none():
    rng = np.random.default_rng(1)
    maps = rng.random((120, 90, 4)).astype(np.float32)
    few, many = decode(maps, section(score=0.9)), decode(maps, section(score=0.9), lowest=0.5)
    assert many.count > few.count
    above = many.taken(many.scores >= 0.9)
    assert np.array_equal(above.boxes, few.boxes)
    assert np.array_equal(above.scores, few.scores)


@pytest.mark.parametrize("side", [16, 37, 64, 500])
def test_blocks_give_the_same_boxes_as_the_whole(side):
    rng = np.random.default_rng(side)
    maps = rng.random((150, 131, 4)).astype(np.float32)
    # Equal neighbours across the edge of a block are one peak as well.
    maps[15:17, :, 0] = 0.99
    whole, blocks = decode(maps, section()), decode_blocks(Whole(maps), section(), side=side)
    assert whole.count > 100
    assert np.array_equal(whole.boxes, blocks.boxes)
    assert np.array_equal(whole.classes, blocks.classes)
    assert np.array_equal(whole.scores, blocks.scores)


def test_of_noise_below_the_threshold_the_surest_are_looked_at_and_no_more():
    maps = np.random.default_rng(2).random((400, 400, 4)).astype(np.float32) * np.float32(0.49)
    assert decode(maps, section()).count == 0
    found = decode(maps, section(apart=0.0), lowest=0.05)
    assert found.count == MOST_BELOW
    every = find_peaks(maps, section(), (0, 400, 0, 400), (0, 0), 0.05).scores
    assert found.scores.min() == np.sort(every)[-MOST_BELOW]


@pytest.mark.parametrize("seed", range(20))
def test_among_boxes_of_all_sizes_each_gives_way_to_stronger_ones_that_are_too_near(seed):
    rng = np.random.default_rng(seed)
    y, x = rng.uniform(0, 80, (2, 60))
    height, width = np.exp(rng.normal(2.5, 1.0, (2, 60)))
    peaks = Peaks(y, x, height, width, np.zeros(60, np.int64), np.sort(rng.uniform(0.5, 1, 60))[::-1])
    kept: list[int] = []
    for one in range(60):
        sides = [(min(height[one], height[other]), min(width[one], width[other])) for other in kept]
        away = [
            np.hypot((y[one] - y[other]) / down, (x[one] - x[other]) / across)
            for other, (down, across) in zip(kept, sides, strict=True)
        ]
        if min(away, default=1.0) >= 0.2:
            kept.append(one)
    assert sorted(settle(peaks, section(), (80, 80)).scores) == sorted(peaks.scores[kept])


def test_maps_without_a_peak_give_no_box():
    assert decode(np.zeros((64, 64, 4), np.float32), section()).count == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"maps": ("centre_round", "height", "width")}, "maps"),
        ({"thresholds": {"round": 0.5}}, "thresholds"),
        ({"thresholds": {"round": 0.5, "long": 1.5}}, "thresholds"),
        ({"classes": ("round", "round")}, "classes"),
    ],
)
def test_a_section_that_does_not_fit_together_is_refused(change, said):
    whole = section().model_dump() | change
    with pytest.raises(ValidationError, match=said):
        BoxesSection(**whole)
