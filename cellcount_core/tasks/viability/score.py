"""How viability is compared with what is true: with numbers of live and dead cells from a table (columns `live` and `dead`), or with boxes that a
person drew around living and dead cells."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.columns import Value
from cellcount_core.domain.errors import ConfigFault
from cellcount_core.domain.statistics import wilson
from cellcount_core.tasks.boxes.score import BoxesScored, BoxScoring, ComparedBoxes, box_iou
from cellcount_core.tasks.boxes.section import Boxes
from cellcount_core.tasks.matching import matched_pairs
from cellcount_core.tasks.task import Compared, Found, Truth, TruthKind
from cellcount_core.tasks.viability.columns import DEAD, LIVE

_COLUMNS = (LIVE, DEAD)

_SAME = 0.5
"""IoU from which on a found box and a true one are one cell."""


class ViabilityScoring:
    """Compares numbers of live and dead cells, and the viability that follows, with true numbers from a table."""

    truth = TruthKind.TABLE
    names = _COLUMNS
    headline = "intervals_that_hold"

    def score(self, truth: Truth, found: Found) -> Compared:
        """The row of one image: true and found numbers, both viabilities in %, and whether the interval holds the true one.

        Raises ConfigFault if a true number is not one.
        """
        true_live, true_dead = (_whole(truth.values[name], name) for name in _COLUMNS)
        live, dead = (found.values[name] for name in _COLUMNS)
        assert isinstance(live, int)
        assert isinstance(dead, int)
        true, told = _viability(true_live, true_dead), _viability(live, dead)
        ends = wilson(live, live + dead)
        holds = None if true is None or ends is None else 100 * ends[0] <= true <= 100 * ends[1]
        return Compared({
            "true_live": true_live, "true_dead": true_dead, "live": live, "dead": dead, "true_viability": true, "viability": told,
            "interval_holds": holds,
        })  # fmt: skip

    def figures(self, scored: Sequence[Compared]) -> dict[str, Value]:
        """Over all images: the errors of the count, of the pooled viability and of that of an image, in points, and how often intervals hold."""
        rows = [one.values for one in scored]
        total = {
            name: sum(_number(row[name]) for row in rows)
            for name in ("true_live", "true_dead", "live", "dead")
        }
        true, told = (
            _viability(total["true_live"], total["true_dead"]),
            _viability(total["live"], total["dead"]),
        )
        errors = [
            abs(_float(row["viability"]) - _float(row["true_viability"]))
            for row in rows
            if row["viability"] is not None and row["true_viability"] is not None
        ]
        held = [bool(row["interval_holds"]) for row in rows if row["interval_holds"] is not None]
        counted, truly = total["live"] + total["dead"], total["true_live"] + total["true_dead"]
        return {
            "images": len(rows),
            "true_cells": truly,
            "cells": counted,
            "count_bias": (counted - truly) / truly if truly else None,
            "true_viability": true,
            "viability": told,
            "pooled_error_points": None if true is None or told is None else told - true,
            "mean_error_points": math.fsum(errors) / len(errors) if errors else None,
            "largest_error_points": max(errors, default=None),
            "intervals_that_hold": sum(held) / len(held) if held else None,
        }


def _viability(live: int, dead: int) -> float | None:
    return 100 * live / (live + dead) if live + dead else None


def _whole(text: str, name: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 0:
        raise ConfigFault(f"column {name!r}: a number of cells expected (got {text!r})")
    return value


def _number(value: Value) -> int:
    assert isinstance(value, int)
    return value


def _float(value: Value) -> float:
    assert isinstance(value, float)
    return value


class BoxedViabilityScoring:
    """Compares boxes, their classes and the viability that follows with true boxes.

    `classes` are those of the boxes, in their order, with what each stands for ("live" or "dead").
    """

    truth = TruthKind.BOXES
    headline = "balanced_accuracy"

    def __init__(self, classes: Mapping[str, str]) -> None:
        self.names = tuple(classes)
        self._boxes = BoxScoring(self.names)
        self._kinds = tuple(classes.values())

    def score(self, truth: Truth, found: Found) -> BoxesScored:
        """Compare one image. Raises ConfigFault if a true box has a class that is not one of the package's."""
        return self._boxes.score(truth, found)

    def figures(self, scored: Sequence[Compared]) -> dict[str, Value]:
        """Those of boxes, and over all cells of all images:

        - `f1_pooled`: F1 at IoU 0.5, whatever the class; `recall_live` and `recall_dead`: the shares of matched cells of a class that got it;
          `balanced_accuracy`: their mean;
        - `true_viability` and `viability` in %, `viability_error`, the points between them;
        - `intervals_that_hold`: the share of images, of those with a viability, whose Wilson interval (95 %) holds the true one.
        """
        compared = [
            one.compared for one in scored if isinstance(one, BoxesScored) and one.compared is not None
        ]
        told = self._boxes.figures(scored)
        pairs = sum((self._pairs(image) for image in compared), np.zeros((2, 2), np.int64))
        true, counted = (
            self._numbers([i.true for i in compared]),
            self._numbers([i.counted for i in compared]),
        )
        boxes = int(true.sum() + counted.sum())
        recall = [_share(pairs[kind, kind], pairs[kind].sum()) for kind in range(2)]
        viability = [
            None if (share := _share(n[0], n.sum())) is None else 100 * share
            for n in (true.sum(axis=0), counted.sum(axis=0))
        ]
        held = [
            _holds(*numbers) for numbers in zip(true, counted, strict=True) if all(n.sum() for n in numbers)
        ]
        known = [one for one in recall if one is not None]
        return {
            **told,
            "f1_pooled": 2 * int(pairs.sum()) / boxes if boxes else None,
            "recall_live": recall[0],
            "recall_dead": recall[1],
            "balanced_accuracy": sum(known) / len(known) if known else None,
            "true_viability": viability[0],
            "viability": viability[1],
            "viability_error": None
            if viability[0] is None or viability[1] is None
            else viability[1] - viability[0],
            "intervals_that_hold": sum(held) / len(held) if held else None,
        }

    def _of(self, boxes: Boxes) -> NDArray[np.int64]:
        """0 for living and 1 for dead cells (n,); 2 for what is neither."""
        places = np.array(
            [(LIVE, DEAD).index(kind) if kind in (LIVE, DEAD) else 2 for kind in self._kinds], np.int64
        )
        return places[boxes.classes]

    def _pairs(self, image: ComparedBoxes) -> NDArray[np.int64]:
        """How many cells of each true class (rows: live, dead) were matched with each found one (2, 2)."""
        rows, columns, _ = matched_pairs(box_iou(image.true.boxes, image.counted.boxes), _SAME)
        table = np.zeros((3, 3), np.int64)
        np.add.at(table, (self._of(image.true)[rows], self._of(image.counted)[columns]), 1)
        return table[:2, :2]

    def _numbers(self, images: Sequence[Boxes]) -> NDArray[np.int64]:
        """Living and dead cells of each image, (n, 2)."""
        found = [np.bincount(self._of(boxes), minlength=3)[:2] for boxes in images]
        return np.array(found, np.int64).reshape(-1, 2)


def _share(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None


def _holds(true: NDArray[np.int64], counted: NDArray[np.int64]) -> bool:
    ends = wilson(int(counted[0]), int(counted.sum()))
    share = float(true[0] / true.sum())
    # The bound that an interval of equal numbers touches is rounded.
    return ends is not None and ends[0] - 1e-9 <= share <= ends[1] + 1e-9
