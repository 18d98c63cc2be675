"""How well boxes are found: average precision as COCO measures it, and the errors of counts, of all objects and of each class.

Precision is measured over all boxes from a low score on, ranked by score; counts are those of the boxes that are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.columns import Value
from cellcount_core.domain.errors import ConfigFault, nearest
from cellcount_core.tasks.boxes.section import Boxes, Corners, no_boxes
from cellcount_core.tasks.matching import THRESHOLDS, ImageScore, match_with_iou
from cellcount_core.tasks.task import Compared, Found, Truth, TruthKind

_NEAR = 0.1
"""Share of the true count by which a count may be off to be near."""

_AT_50 = 0.5


LOWEST = 0.05
"""Score from which on boxes are ranked to measure how precise a network is, though fewer are counted."""


@dataclass(frozen=True, slots=True, eq=False)
class FoundBoxes(Found):
    """What was found in a field. `ranked` makes all boxes from a score of `LOWEST` on, those that are counted among them."""

    ranked: Callable[[], Boxes] = no_boxes


@dataclass(frozen=True, slots=True, eq=False)
class ComparedBoxes:
    """The true boxes of an image (with scores of 1), those that were counted, and all that the network ranks."""

    true: Boxes
    counted: Boxes
    ranked: Boxes


@dataclass(frozen=True, slots=True, eq=False)
class BoxesScored(Compared):
    """What came of comparing one image, with its boxes."""

    compared: ComparedBoxes | None = None


class BoxScoring:
    """Compares found boxes with true ones, for a package that tells these classes."""

    truth = TruthKind.BOXES
    headline = "map_50"

    def __init__(self, classes: tuple[str, ...]) -> None:
        self.names = classes

    def score(self, truth: Truth, found: Found) -> BoxesScored:
        """The true and counted objects of each class, and which true objects were found with their class, by the overlap of boxes.

        Raises ConfigFault if a true class is none of the package's.
        """
        true = self._true(truth)
        counted = Boxes(
            np.zeros((0, 4)) if found.boxes is None else found.boxes,
            np.zeros(0, np.int64) if found.classes is None else found.classes,
            np.ones(0 if found.boxes is None else len(found.boxes)),
        )
        ranked = found.ranked() if isinstance(found, FoundBoxes) else counted
        iou = iou_of_classes(true, counted)
        matches = [match_with_iou(iou, threshold) for threshold in THRESHOLDS]
        score = ImageScore(
            truth.id, truth.modality, true.count, counted.count, tuple(match for match, _ in matches), matches[0][1],
            diameter_px=truth.diameter_px,
        )  # fmt: skip
        return BoxesScored(self._values(true, counted), score, ComparedBoxes(true, counted, ranked))

    def figures(self, scored: Sequence[Compared]) -> dict[str, Value]:
        """Average precision as COCO measures it, and the errors of counts; see `box_figures`. What all tasks with objects state is left out."""
        images = [one.compared for one in scored if isinstance(one, BoxesScored) and one.compared is not None]
        found = box_figures(images, self.names)
        return {name: value for name, value in found.items() if name not in _SHARED}

    def _true(self, truth: Truth) -> Boxes:
        for name in truth.classes:
            if name not in self.names:
                raise ConfigFault(f"class {name!r} is none of the package's{nearest(name, self.names)}")
        boxes = np.zeros((0, 4)) if truth.boxes is None else truth.boxes
        places = np.array([self.names.index(name) for name in truth.classes], np.int64)
        return Boxes(boxes, places, np.ones(len(boxes)))

    def _values(self, true: Boxes, counted: Boxes) -> dict[str, Value]:
        """Columns of the image's row: true and counted objects of each class, where there are several."""
        if len(self.names) == 1:
            return {}
        both = [_numbers(boxes, len(self.names)) for boxes in (true, counted)]
        return {
            f"{word}_{name}": int(numbers[place])
            for place, name in enumerate(self.names)
            for word, numbers in zip(("true", "counted"), both, strict=True)
        }


_SHARED = ("true", "counted", "count_mae", "count_mape", "count_bias")


def iou_of_classes(one: Boxes, other: Boxes) -> NDArray[np.float64]:
    """Intersection over union (n, m) of boxes; 0 where classes differ."""
    iou = box_iou(one.boxes, other.boxes)
    return np.where(one.classes[:, None] == other.classes[None, :], iou, 0.0)


def box_iou(one: Corners, other: Corners) -> NDArray[np.float64]:
    """Intersection over union (n, m) of boxes (n, 4) with boxes (m, 4), y0 x0 y1 x1.

    >>> box_iou(np.array([[0.0, 0.0, 2.0, 2.0]]), np.array([[0.0, 1.0, 2.0, 3.0]])).round(3).tolist()
    [[0.333]]
    """
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    both = np.maximum(0.0, high - low).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (one, other)]
    union = areas[0][:, None] + areas[1][None, :] - both
    return np.asarray(both / np.maximum(union, 1e-12), np.float64)


@dataclass(frozen=True, slots=True)
class Precision:
    """Average precision of one class (or the mean of all) at IoU 0.5, and averaged over IoU 0.5 to 0.95 in steps of 0.05.

    None if there is no true object of the class.
    """

    at_50: float | None
    mean: float | None


def box_figures(images: Sequence[ComparedBoxes], classes: Sequence[str]) -> dict[str, float | int | None]:
    """What the images amount to, by name; `docs/how-to/count-boxes.md` says what each is. None for what is not defined.

    `map_50` and `map_50_95` are the means of average precision over classes. Those of a class have its name at the end (`map_50_RBC`); a
    single class has none of its own.
    """
    precision = average_precision(images, len(classes))
    even = [even_score(images, place) for place in range(len(classes))]
    numbers = np.array(
        [[_numbers(image.true, len(classes)), _numbers(image.counted, len(classes))] for image in images]
    )
    numbers = numbers.reshape(-1, 2, len(classes))
    found: dict[str, float | int | None] = {
        "map_50": _mean([one.at_50 for one in precision]),
        "map_50_95": _mean([one.mean for one in precision]),
        "true": int(numbers[:, 0].sum()),
        "counted": int(numbers[:, 1].sum()),
        **_errors(numbers.sum(axis=2)),
        **{f"even_score_{name}": score for name, score in zip(classes, even, strict=True)},
    }
    if len(classes) == 1:
        return found
    for place, name in enumerate(classes):
        own = numbers[:, :, place]
        found |= {
            f"map_50_{name}": precision[place].at_50,
            f"map_50_95_{name}": precision[place].mean,
            **{f"{figure}_{name}": value for figure, value in _errors(own).items()},
        }
    return found


def _numbers(boxes: Boxes, classes: int) -> NDArray[np.int64]:
    return np.bincount(boxes.classes, minlength=classes).astype(np.int64)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _errors(numbers: NDArray[np.int64]) -> dict[str, float | None]:
    """Errors of counts (n, 2), true and counted: mean absolute error, the same in parts of the mean count, mean absolute error in parts of
    each count, signed bias in parts of all, and the shares of images with a count within a tenth and an exact one.
    """
    true, counted = numbers[:, 0].astype(np.float64), numbers[:, 1].astype(np.float64)
    if not true.size:
        return dict.fromkeys(
            ("count_mae", "count_mae_share", "count_mape", "count_bias", "count_near", "count_exact")
        )
    off = np.abs(counted - true)
    some = true > 0
    total = float(true.sum())
    return {
        "count_mae": float(off.mean()),
        "count_mae_share": float(off.sum()) / total if total else None,
        "count_mape": float((off[some] / true[some]).mean()) if some.any() else None,
        "count_bias": float((counted - true).sum()) / total if total else None,
        "count_near": float((off <= _NEAR * true).mean()),
        "count_exact": float((off == 0).mean()),
    }


def even_score(images: Sequence[ComparedBoxes], place: int) -> float | None:
    """The score from which on as many boxes of a class are ranked as there are true objects: as a threshold it gives counts without bias.

    On images that did not train, that is. None without a true object, or if fewer boxes are ranked.
    """
    true = sum(int((image.true.classes == place).sum()) for image in images)
    scores = np.concatenate(
        [image.ranked.scores[image.ranked.classes == place] for image in images] or [np.zeros(0)]
    )
    ordered = np.sort(scores)[::-1]
    if not 0 < true <= ordered.size:
        return None
    last = float(ordered[true - 1])
    return last if true == ordered.size else (last + float(ordered[true])) / 2


def average_precision(images: Sequence[ComparedBoxes], classes: int) -> list[Precision]:
    """Average precision of each class over all images, as COCO measures it.

    COCO looks at the 100 surest boxes of an image only; here all are looked at, because dense images hold more.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    most = max([image.ranked.count for image in images], default=0)
    data = {
        "images": [{"id": number} for number in range(1, len(images) + 1)],
        "categories": [{"id": number, "name": str(number)} for number in range(1, classes + 1)],
        "annotations": _annotations([image.true for image in images]),
    }
    if not most or not data["annotations"]:
        there = {place for image in images for place in image.true.classes.tolist()}
        return [Precision(0.0, 0.0) if place in there else Precision(None, None) for place in range(classes)]
    truth = COCO(data)
    judge = COCOeval_faster(truth, truth.loadRes(_annotations([image.ranked for image in images])), "bbox")
    judge.params.maxDets = [1, 10, max(most, 11)]
    judge.evaluate()
    judge.accumulate()
    # (IoU thresholds, recalls, classes, sizes of objects, most boxes); -1 where there is no true object.
    precision = np.asarray(judge.eval["precision"], np.float64)[:, :, :, 0, -1]
    at_50 = int(np.argmin(np.abs(np.asarray(judge.params.iouThrs) - _AT_50)))
    return [
        Precision(_known(precision[at_50, :, place]), _known(precision[:, :, place]))
        for place in range(classes)
    ]


def _known(precision: NDArray[np.float64]) -> float | None:
    told = precision[precision > -1]
    return float(told.mean()) if told.size else None


def _annotations(images: Sequence[Boxes]) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for number, boxes in enumerate(images, 1):
        for (y0, x0, y1, x1), place, score in zip(
            boxes.boxes.tolist(), boxes.classes.tolist(), boxes.scores.tolist(), strict=True
        ):
            found.append(
                {
                    "id": len(found) + 1, "image_id": number, "category_id": place + 1, "iscrowd": 0, "score": score,
                    "bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0),
                }
            )  # fmt: skip
    return found
