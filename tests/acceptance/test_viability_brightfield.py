"""What was asked of `viability-brightfield`, on images that were held out from its training (ldc_live_dead, split `test`)."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from benchmarks.brightfield import CLASSES, SPLIT
from cellcount_core.domain.columns import Value
from cellcount_core.evaluation.evaluate import Diameter, package_scorer
from cellcount_core.labelled.boxes import BoxReading, list_boxes
from cellcount_core.models.engines import load_engine, resolve_engine
from cellcount_core.models.package import find_package
from cellcount_core.tasks.task import task_of
from tests.data_dir import data_dir, needs_data

DATA = "ldc_live_dead"
pytestmark = needs_data(DATA)


@pytest.fixture(scope="module", params=["model", "auto"])
def reached(request: pytest.FixtureRequest) -> Mapping[str, Value]:
    """Figures of the images as they are, and each at its own estimated size."""
    folder, diameter = data_dir(), request.param
    assert folder is not None
    package = find_package("viability-brightfield")
    engine = load_engine(package, resolve_engine(package, "auto", gpus=0), 1)
    engine.batch = 1
    images = list_boxes(folder / DATA, BoxReading("voc", classes=CLASSES, table=SPLIT)).chosen("test")
    how: Diameter = "auto" if diameter == "auto" else "model"
    with package_scorer(package, engine, how) as score:
        scored = [score(entry.load(package.input.channels)) for entry in images]
    return task_of(package).scoring(package).figures(scored)


def test_cells_are_found_as_well_as_the_package_says(reached: Mapping[str, Value]) -> None:
    found = reached["f1_pooled"]
    assert isinstance(found, float)
    assert found >= 0.865


@pytest.mark.xfail(reason="F1 is 0.878; labels agree with themselves at 0.93", strict=True)
def test_cells_are_found_with_an_f1_of_90_percent(reached: Mapping[str, Value]) -> None:
    found = reached["f1_pooled"]
    assert isinstance(found, float)
    assert found >= 0.9


def test_living_and_dead_cells_are_told_apart(reached: Mapping[str, Value]) -> None:
    found = reached["balanced_accuracy"]
    assert isinstance(found, float)
    assert found >= 0.9


def test_viability_over_all_images_is_within_two_points(reached: Mapping[str, Value]) -> None:
    error = reached["viability_error"]
    assert isinstance(error, float)
    assert abs(error) <= 2


def test_intervals_hold_the_true_viability(reached: Mapping[str, Value]) -> None:
    share = reached["intervals_that_hold"]
    assert isinstance(share, float)
    assert 0.9 <= share <= 0.98
