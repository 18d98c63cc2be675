"""How well boxes are found: average precision as COCO measures it, and the errors of counts, of all objects and of each class.

Precision is measured over all boxes from a low score on, ranked by score; counts are those of the boxes that are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellcount_core.tasks.boxes.section import Boxes

_NEAR = 0.1
"""Share of the true count by which a count may be off to be near."""

_AT_50 = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class ComparedBoxes:
    """The true boxes of an image (with scores of 1), those that were counted, and all that the network ranks."""

    true: Boxes
    counted: Boxes
    ranked: Boxes


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
