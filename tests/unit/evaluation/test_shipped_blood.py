"""The shipped `blood` package, on a few of its test photos (docs/explanation/boxes.md has the figures of all of them)."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from cellcount_core.evaluation.evaluate import count_image, counting_of, in_turn, score_found
from cellcount_core.labelled.box_faults import policy_of
from cellcount_core.labelled.boxes import BoxReading, list_boxes
from cellcount_core.models.engines import check_golden, load_engine
from cellcount_core.models.package import Package, load_package
from cellcount_core.pipeline.field import planes_kit
from tests.data_dir import data_dir, needs_data

FOLDER = Path(__file__).resolve().parents[3] / "models" / "blood"
RED_CELL_PX = 102.0
PHOTOS = 12


@pytest.fixture(scope="module")
def package() -> Package:
    return load_package(FOLDER)


def test_it_gives_its_golden_tensors_and_is_small(package: Package) -> None:
    assert check_golden(package, load_engine(package, "onnxruntime", 1)) < 1e-3
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 10_000_000


def test_it_states_accuracy_on_photos_that_did_not_train(package: Package) -> None:
    assert package.accuracy["images"] == 72
    map_50 = package.accuracy["map_50"]
    assert isinstance(map_50, float)
    assert map_50 >= 0.9


@needs_data("bccd_blood")
@pytest.mark.slow
def test_it_finds_cells_of_three_kinds_in_photos_of_smears(package: Package) -> None:
    pytest.importorskip("faster_coco_eval", reason="faster-coco-eval is not installed")
    folder = data_dir()
    assert folder is not None
    data = list_boxes(
        folder / "bccd_blood",
        BoxReading(classes=("RBC", "WBC", "Platelets"), policy=policy_of({"zero_area": "skip"})),
    )
    entries = data.chosen("test")
    photos = [entry.load(package.input.channels) for entry in entries[:: len(entries) // PHOTOS][:PHOTOS]]
    with closing(
        planes_kit(package, load_engine(package, "onnxruntime", 1), counting_of(RED_CELL_PX))
    ) as kit:
        scored = list(in_turn(lambda photo: score_found(kit, photo, count_image(kit, photo)), photos))
        figures = kit.task.scoring(package).figures(scored)
    map_50, white = figures["map_50"], figures["map_50_WBC"]
    assert isinstance(map_50, float)
    assert map_50 > 0.87
    assert isinstance(white, float)
    assert white > 0.9
