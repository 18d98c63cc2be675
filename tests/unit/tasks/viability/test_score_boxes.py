"""Viability told by the picture, compared with boxes that a person drew."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.images.imagefile import COLOURS
from cellcount_core.tasks.task import Compared, Found, Scoring, Truth, task_of
from cellcount_core.tasks.viability.score import BoxedViabilityScoring
from tests.boxes import box_package

SCORING = BoxedViabilityScoring({"Living Cell": "live", "Dead Cell": "dead"})


def boxes(count: int) -> np.ndarray:
    """Boxes of 20 px, side by side."""
    left = np.arange(count) * 30.0
    return np.stack([np.zeros(count), left, np.full(count, 20.0), left + 20], axis=1)


def compared(true: str, found: str, scoring: Scoring = SCORING) -> Compared:
    """An image whose cells, in their order, are live (L), dead (D) or not there (-)."""
    here, there = (np.array([letter != "-" for letter in kinds], bool) for kinds in (true, found))
    truth = Truth(
        "image",
        boxes=boxes(len(true))[here],
        classes=tuple(scoring.names["LD".index(kind)] for kind in true if kind != "-"),
    )
    kinds = np.array(["LD".index(k) for k in found if k != "-"], np.int64)
    return scoring.score(truth, Found({}, boxes=boxes(len(found))[there], classes=kinds))


def test_cells_are_matched_whatever_their_class_and_the_classes_are_judged_on_the_matched_ones() -> None:
    told = SCORING.figures([compared("LLLD-", "LLD-D")])
    assert told["f1_pooled"] == pytest.approx(2 * 3 / 8)
    assert told["recall_live"] == pytest.approx(2 / 3)
    assert (told["recall_dead"], told["balanced_accuracy"]) == (None, pytest.approx(2 / 3))


def test_viability_is_that_of_all_images_together() -> None:
    told = SCORING.figures([compared("LLLL", "LLLL"), compared("LD", "DD"), compared("", "")])
    assert told["true_viability"] == pytest.approx(100 * 5 / 6)
    assert told["viability"] == pytest.approx(100 * 4 / 6)
    assert told["viability_error"] == pytest.approx(-100 / 6)


def test_an_interval_holds_if_it_reaches_the_true_viability_and_images_without_cells_have_none() -> None:
    told = SCORING.figures([compared("LLDD", "LLLD"), compared("DDDDDDDDD", "LLLLLLLLL"), compared("", "L")])
    assert told["intervals_that_hold"] == pytest.approx(0.5)
    none = SCORING.figures([compared("", "")])
    assert none["intervals_that_hold"] is None
    assert (none["viability"], none["viability_error"], none["f1_pooled"]) == (None, None, None)


def test_a_class_of_another_name_is_refused() -> None:
    with pytest.raises(ConfigFault, match="did you mean 'Dead Cell'"):
        SCORING.score(
            Truth("image", boxes=boxes(1), classes=("Dead cell",)),
            Found({}, boxes=boxes(0), classes=np.zeros(0, int)),
        )


def test_classes_have_the_order_of_the_boxes_section_whatever_that_of_the_manifest(tmp_path: Path) -> None:
    written = box_package(tmp_path / "cells", roles=COLOURS)
    assert written.section["classes"] == ["reds", "blues"]
    sorted_keys = {"boxes": dict(written.section), "classes": {"blues": "dead", "reds": "live"}}
    package = replace(written, task="viability", section=sorted_keys)
    scoring = task_of(package).scoring(package)
    assert scoring.names == ("reds", "blues")
    told = scoring.figures([compared("LLD", "LLD", scoring)])
    assert (told["viability"], told["balanced_accuracy"]) == (pytest.approx(200 / 3), 1.0)
