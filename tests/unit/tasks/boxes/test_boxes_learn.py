"""Networks that find boxes are trained from files with boxes to a package that finds them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.labelled.box_writers import BoxedFile, write_boxes
from cellcount_core.models.engines import check_golden, load_engine
from cellcount_core.models.package import load_package
from cellcount_core.tasks.boxes.learn import BoxesConfig, BoxLesson, unbiased_threshold
from cellcount_core.training.learning import train_config

pytest.importorskip("keras", reason="Keras is not installed (extra: train)")
pytest.importorskip("onnx", reason="onnx is not installed (extra: train)")
pytest.importorskip("faster_coco_eval", reason="faster-coco-eval is not installed (extra: evaluate)")
pytestmark = pytest.mark.slow

SIDE, COUNT = 96, 24
CLASSES = ("large", "small")


def write_discs(folder: Path) -> None:
    """Photos of large grey discs and small bright ones that may touch, with boxes in Pascal VOC."""
    rng = np.random.default_rng(0)
    files = []
    for number in range(COUNT):
        image = rng.normal(30, 4, (SIDE, SIDE)).astype(np.float32)
        boxes, classes = [], []
        for _ in range(9):
            kind = int(rng.integers(2))
            radius = float(rng.uniform(8, 10) if kind == 0 else rng.uniform(4, 5.5))
            y, x = rng.uniform(radius, SIDE - radius, 2)
            if any(np.hypot(y - (b[0] + b[2]) / 2, x - (b[1] + b[3]) / 2) < radius + 8 for b in boxes):
                continue
            rows, columns = np.mgrid[:SIDE, :SIDE]
            inside = np.hypot(rows + 0.5 - y, columns + 0.5 - x) < radius
            image[inside] += 90 if kind == 0 else 180
            boxes.append([y - radius, x - radius, y + radius, x + radius])
            classes.append(CLASSES[kind])
        cv2.imwrite(str(folder / f"photo{number:02d}.png"), np.clip(image, 0, 255).astype(np.uint8))
        corners = np.array(boxes).reshape(-1, 4)
        files.append(BoxedFile(f"photo{number:02d}.png", SIDE, SIDE, corners, classes, [None] * len(classes)))
    for name, body in write_boxes("voc", files, CLASSES):
        (folder / Path(name).name).write_bytes(body)


def recipe(folder: Path, **changes: object) -> BoxesConfig:
    tree: dict[str, object] = {
        "name": "discs", "task": "boxes", "classes": list(CLASSES),
        "data": {"kind": "voc", "path": str(folder), "validation_split": "", "validation_share": 0.2, "fit_share": 0.2},
        "input": {"channel": "cells", "diameter_px": 16, "polarity": "bright"},
        "network": {"inputs": 1, "outputs": 4, "stem": 2, "filters": [16, 24, 32], "encoder": [1, 1, 1], "decoder": [1, 1],
                    "skip": "add", "up": "project", "batch_norm": True},
        "optimiser": {"learning_rate": 0.01, "warmup_steps": 10, "ema": 0.95}, "steps": 160, "batch": 8, "crop_px": 64,
        "augment": {"scale_sigma": 0.05, "wide_share": 0.0}, "checkpoint_every": 80, "validate_every": 80, "threads": 1,
        "work_dir": str(folder / "work"), "package_dir": str(folder / "package"),
    }  # fmt: skip
    config = train_config({**tree, **changes})
    assert isinstance(config, BoxesConfig)
    return config


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("discs")
    write_discs(folder)
    return folder


def lesson_of(config: BoxesConfig) -> BoxLesson:
    from cellcount_core.training.start import load_lesson

    lesson = load_lesson(config)
    assert isinstance(lesson, BoxLesson)
    return lesson


def test_a_short_training_finds_discs_of_two_classes_and_ships_what_it_says(discs: Path) -> None:
    from cellcount_core.training.trainer import train

    told: list[str] = []
    package = load_package(train(recipe(discs), report=told.append))
    manifest = json.loads((package.folder / "package.json").read_text())
    accuracy = manifest["accuracy"]
    assert accuracy["map_50"] > 0.9
    assert abs(accuracy["count_bias"]) < 0.15
    assert manifest["boxes"]["classes"] == list(CLASSES)
    assert set(manifest["boxes"]["thresholds"]) == set(CLASSES)
    for name in ("onnxruntime", "keras"):
        assert check_golden(package, load_engine(package, name, 1)) < 1e-3
    with np.load(package.file(package.golden)) as golden:
        assert golden["boxes"].shape[1] == 7
        assert len(golden["boxes"]) > 1
    assert any("thresholds fitted on" in line for line in told)


def test_images_of_one_size_are_brought_to_scale_by_the_median_box_of_all(discs: Path) -> None:
    lesson = lesson_of(recipe(discs))
    sides = np.concatenate([image.boxes[:, 2:] - image.boxes[:, :2] for image in lesson.train])
    assert lesson.image_diameter == pytest.approx(float(np.median(np.sqrt(sides.prod(axis=1)))))
    assert lesson_of(recipe(discs, image_diameter=40.0)).diameters() == (40.0,)


def test_a_class_without_boxes_in_a_partly_labelled_image_is_not_taken_for_absent(discs: Path) -> None:
    config = recipe(discs)
    image = lesson_of(config).train[0]
    others = type(image)(image.id, image.planes, image.boxes[:0], (), image.group)
    named = recipe(discs, data={**config.data.model_dump(), "partial": [image.id]})
    assert lesson_of(named).labelled(others).unlabelled == (0, 1)
    assert lesson_of(config).labelled(others).unlabelled == ()


def test_what_a_network_gives_follows_from_the_classes_and_need_not_be_said(discs: Path) -> None:
    network = {
        name: value for name, value in recipe(discs).network.items() if name not in ("inputs", "outputs")
    }
    assert recipe(discs, network=network).network == {**network, "outputs": 4}


def test_thresholds_give_as_many_objects_as_there_are() -> None:
    scores = np.array([0.9, 0.2, 0.8, 0.5, 0.4])
    for true in range(6):
        assert (scores >= unbiased_threshold(scores, true)).sum() == true
    assert unbiased_threshold(scores, 50) == pytest.approx(0.1)
    assert unbiased_threshold(np.zeros(0), 3) == pytest.approx(0.5)


@pytest.mark.parametrize("classes", [[], ["a", "a"]])
def test_classes_must_be_named_each_once(discs: Path, classes: list[str]) -> None:
    with pytest.raises(ValueError, match="each once"):
        recipe(discs, classes=classes)


def test_a_box_of_another_class_is_told_before_anything_is_trained(discs: Path) -> None:
    with pytest.raises(ConfigFault, match="small"):
        lesson_of(recipe(discs, classes=["large", "tiny"]))


@pytest.mark.parametrize("name", ["border", "low", "high", "per_mm2", "per_field_mean", ""])
def test_a_class_whose_column_there_is_already_is_refused_before_anything_is_trained(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(ValueError, match=f"classes: {name!r} would give a column that there is"):
        recipe(tmp_path, classes=["large", name])
