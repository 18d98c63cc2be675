"""How well boxes are found: average precision as COCO measures it, and the errors of counts, of all objects and of each class.

Precision is measured over all boxes from a low score on, ranked by score; counts are those of the boxes that are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.columns import Value
from cellcount_core.domain.errors import ConfigFault, nearest
from cellcount_core.tasks.boxes.section import Boxes, Corners, no_boxes
from cellcount_core.tasks.boxes.task import FoundBoxes
from cellcount_core.tasks.matching import THRESHOLDS, ImageScore, match_with_iou
from cellcount_core.tasks.task import Compared, Found, Truth, TruthKind

_NEAR = 0.1
"""Share of the true count by which a count may be off to be near."""

_AT_50 = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class ComparedBoxes:
    """The true boxes of an image (with scores of 1), those that were counted, and all that the network ranks."""

    true: Boxes
    counted: Boxes
    ranked: Boxes


@dataclass(frozen=True, slots=True, eq=False)
class ScoredBoxes(Compared):
    """What came of comparing the boxes of one image, with the boxes themselves."""

    compared: ComparedBoxes = field(default_factory=lambda: ComparedBoxes(no_boxes(), no_boxes(), no_boxes()))


class BoxScoring:
    """Compares boxes of these classes. Objects are paired by the overlap of their boxes, whatever their classes."""

    truth = TruthKind.BOXES

    def __init__(self, classes: tuple[str, ...]) -> None:
        self.names = classes

    def score(self, truth: Truth, found: Found) -> ScoredBoxes:
        """Compare one image. Raises ConfigFault if a true box has a class that is not one of the package's."""
        assert isinstance(found, FoundBoxes) and found.boxes is not None and found.classes is not None
        true = self._true(truth)
        counted = Boxes(found.boxes, found.classes, np.ones(len(found.boxes)))
        iou = box_overlap(true.boxes, counted.boxes)
        matches = [match_with_iou(iou, threshold) for threshold in THRESHOLDS]
        objects = ImageScore(
            truth.id,
            truth.modality,
            true.count,
            counted.count,
            tuple(match for match, _ in matches),
            matches[0][1],
            diameter_px=truth.diameter_px,
        )
        columns: dict[str, Value] = {}
        for of, boxes in (("true", true), ("counted", counted)):
            numbers = _numbers(boxes, len(self.names)).tolist()
            columns |= {f"{of}_{name}": number for name, number in zip(self.names, numbers, strict=True)}
        return ScoredBoxes(columns, objects, ComparedBoxes(true, counted, found.ranked()))

    def _true(self, truth: Truth) -> Boxes:
        boxes = np.zeros((0, 4)) if truth.boxes is None else truth.boxes
        for name in truth.classes:
            if name not in self.names:
                raise ConfigFault(f"class {name!r} is none of the package's{nearest(name, self.names)}")
        places = np.array([self.names.index(name) for name in truth.classes], np.int64)
        return Boxes(boxes, places, np.ones(len(boxes)))

    def figures(self, scored: Sequence[Compared]) -> dict[str, Value]:
        """Average precision as COCO measures it (`map_50`, `map_50_95`), and the errors of the counts of each class."""
        compared = [one.compared for one in scored if isinstance(one, ScoredBoxes)]
        found = box_figures(compared, self.names)
        renamed = {
            "map" + name.removeprefix("ap") if name.startswith("ap_") else name: value
            for name, value in found.items()
        }
        # What all tasks with objects state is left to them.
        return {name: value for name, value in renamed.items() if name not in _SHARED}


_SHARED = {"true", "counted", "count_mae", "count_mape", "count_bias"}


def box_overlap(true: Corners, counted: Corners) -> NDArray[np.float64]:
    """Intersection over union (n, m) of boxes (n, 4) with boxes (m, 4)."""
    low = np.maximum(true[:, None, :2], counted[None, :, :2])
    high = np.minimum(true[:, None, 2:], counted[None, :, 2:])
    both = np.maximum(0.0, high - low).prod(axis=2)
    areas = [np.asarray((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)) for boxes in (true, counted)]
    union = areas[0][:, None] + areas[1][None] - both
    return np.asarray(both / np.maximum(union, 1e-9), np.float64)


@dataclass(frozen=True, slots=True)
class Precision:
    """Average precision of one class (or the mean of all) at IoU 0.5, and averaged over IoU 0.5 to 0.95 in steps of 0.05.

    None if there is no true object of the class.
    """

    at_50: float | None
    mean: float | None


def box_figures(images: Sequence[ComparedBoxes], classes: Sequence[str]) -> dict[str, float | int | None]:
    """What the images amount to, by name; `docs/explanation/metrics.md` says what each is. None for what is not defined.

    Those of a class have its name at the end (`ap_50_RBC`); a single class has none of its own.
    """
    precision = average_precision(images, len(classes))
    numbers = np.array(
        [[_numbers(image.true, len(classes)), _numbers(image.counted, len(classes))] for image in images]
    )
    numbers = numbers.reshape(-1, 2, len(classes))
    found: dict[str, float | int | None] = {
        "ap_50": _mean([one.at_50 for one in precision]),
        "ap_50_95": _mean([one.mean for one in precision]),
        "true": int(numbers[:, 0].sum()),
        "counted": int(numbers[:, 1].sum()),
        **_errors(numbers.sum(axis=2)),
    }
    if len(classes) == 1:
        return found
    for place, name in enumerate(classes):
        own = numbers[:, :, place]
        found |= {
            f"ap_50_{name}": precision[place].at_50,
            f"ap_50_95_{name}": precision[place].mean,
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
