"""Trainings of networks that tell patterns: how images are split, what an error costs, when a run stops, and the package it ends in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from cellcount_core.demo.patterns import CHANNELS, PATTERNS
from cellcount_core.domain.errors import ConfigFault, ModelFault
from cellcount_core.models.engines import check_golden, load_engine
from cellcount_core.models.package import load_package
from cellcount_core.tasks.patterns.learn import PatternLesson, PatternsConfig, PatternsLearning, shown_of
from cellcount_core.training.start import load_lesson
from tests.patterns import tiny_patterns


def lesson_of(config: PatternsConfig) -> PatternLesson:
    lesson = load_lesson(config)
    assert isinstance(lesson, PatternLesson)
    return lesson


def test_thresholds_are_fitted_on_one_hold_out_and_the_accuracy_is_measured_on_another(
    tmp_path: Path,
) -> None:
    lesson = lesson_of(tiny_patterns(tmp_path))
    parts = [{image.id for image in part} for part in (lesson.train, lesson.fit, lesson.validation)]
    assert [len(part) for part in parts] == pytest.approx([45, 15, 20], abs=2)
    assert len(set.union(*parts)) == 80
    shares = [shown_of(part, PATTERNS).mean(axis=0)[:4] for part in (lesson.train, lesson.validation)]
    assert np.abs(shares[0] - shares[1]).max() < 0.15


def test_groups_and_splits_of_the_table_are_kept(tmp_path: Path) -> None:
    config = tiny_patterns(tmp_path)
    table = tmp_path / "made" / "patterns.csv"
    rows = [line.split(",") for line in table.read_text().splitlines()[1:]]
    lines = [f"{name},{target},slide {number // 4}" for number, (name, target) in enumerate(rows)]
    table.write_text("\n".join(["Id,Target,group", *lines, ""]))
    lesson = lesson_of(config)
    groups = [{image.group for image in part} for part in (lesson.train, lesson.fit, lesson.validation)]
    assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]
    lines = [
        f"{name},{target},{'val' if number % 4 == 0 else 'train'}"
        for number, (name, target) in enumerate(rows)
    ]
    table.write_text("\n".join(["Id,Target,split", *lines, ""]))
    lesson = lesson_of(config)
    assert len(lesson.validation) == 20
    assert {int(image.id[-5:]) % 4 for image in lesson.validation} == {0}
    lines = [f"{line},slide {number // 8}" for number, line in enumerate(lines)]
    table.write_text("\n".join(["Id,Target,split,group", *lines, ""]))
    with pytest.raises(ConfigFault, match="images of group 'slide 0' are in several splits"):
        lesson_of(config)


def test_too_few_images_to_fit_thresholds_on_are_told_before_the_training(tmp_path: Path) -> None:
    config = tiny_patterns(tmp_path, images=16)
    with pytest.raises(
        ConfigFault,
        match=r"[1-4] of 16 images are left to fit thresholds on, 5 or more expected: a larger data.fit_share \(0.25",
    ):
        lesson_of(config)


def test_images_whose_split_is_in_no_part_are_told(tmp_path: Path) -> None:
    config = tiny_patterns(tmp_path)
    table = tmp_path / "made" / "patterns.csv"
    rows = table.read_text().splitlines()[1:]
    splits = ("val", "train", "train", "test")
    lines = [f"{row},{splits[number % 4]}" for number, row in enumerate(rows)]
    table.write_text("\n".join(["Id,Target,split", *lines, ""]))
    said: list[str] = []
    PatternsLearning().load(config, said.append)
    assert any(line.startswith("data: images in no part, of the split 'test': 20") for line in said)
    table.write_text(table.read_text().replace(",val\n", ",Val\n"))
    with pytest.raises(
        ConfigFault, match=r"row 2 \(.*\): split 'Val'; 'train' or 'val' expected; did you mean 'val'"
    ):
        lesson_of(config)


def test_copies_of_an_image_are_on_one_side_of_the_split(tmp_path: Path) -> None:
    config = tiny_patterns(tmp_path)
    folder = tmp_path / "made"
    lines = (folder / "patterns.csv").read_text().splitlines()
    for number, (turns, extra) in enumerate(((0, "same"), (1, "turned"), (2, "half"))):
        name, target = lines[1 + number].split(",")
        for channel in CHANNELS:
            plane = cv2.imread(str(folder / "images" / f"{name}_{channel}.png"), cv2.IMREAD_GRAYSCALE)
            assert plane is not None
            cv2.imwrite(str(folder / "images" / f"{extra}_{channel}.png"), np.rot90(plane, turns))
        lines.append(f"{extra},{target}")
    (folder / "patterns.csv").write_text("\n".join([*lines, ""]))
    said: list[str] = []
    lesson = PatternsLearning().load(config, said.append)
    groups = [[image.group for image in part] for part in (lesson.train, lesson.fit, lesson.validation)]
    for number in range(3):
        holding = [part.count(f"made-up-{number:05d}") for part in groups]
        assert sorted(holding) == [0, 0, 2]
    assert any(line.startswith("3 pairs of copies, which are put on one side of the split") for line in said)
    alone = tiny_patterns(tmp_path, data={**config.data.model_dump(), "copies": "ignore"})
    assert len({image.group for image in lesson_of(alone).train}) == len(lesson_of(alone).train)


def test_rare_patterns_are_drawn_more_often_and_weigh_more(tmp_path: Path) -> None:
    lesson = lesson_of(tiny_patterns(tmp_path))
    shown = shown_of(lesson.train, PATTERNS)
    numbers = shown.sum(axis=0)
    rarest, commonest = int(np.argmin(numbers)), int(np.argmax(numbers))
    chances = lesson.chances()
    assert chances[shown[:, rarest]].mean() > 1.5 * chances[shown[:, commonest]].mean()
    targets = lesson.targets(lesson.train[int(np.argmax(shown[:, rarest]))])
    assert targets.shape == (56,)
    assert targets[28 + rarest] > 1.5 > targets[28:].min()


def test_faults_of_the_annotations_stop_a_training_with_their_report(tmp_path: Path) -> None:
    config = tiny_patterns(tmp_path)
    table = tmp_path / "made" / "patterns.csv"
    table.write_text(table.read_text().replace("\nmade-up-00003,", "\nmade-up-00003,28 "))
    with pytest.raises(
        ConfigFault, match=r"row 5 \(made-up-00003\): Target '28 .* has '28'; numbers 0 to 27"
    ):
        lesson_of(config)
    skipping = {**config.data.model_dump(), "skip": ["unknown_pattern"]}
    left = lesson_of(tiny_patterns(tmp_path, data=skipping))
    assert sum(len(part) for part in (left.train, left.fit, left.validation)) == 79
    with pytest.raises(ValidationError, match="no kind 'unknown_patern'; did you mean"):
        tiny_patterns(tmp_path, data={**skipping, "skip": ["unknown_patern"]})


def test_names_of_patterns_are_a_list_a_table_or_the_shipped_ones(tmp_path: Path) -> None:
    assert tiny_patterns(tmp_path).patterns == PATTERNS
    assert tiny_patterns(tmp_path, patterns="structures").patterns[25] == "Cytosol"
    with pytest.raises(ValidationError, match="neither a file nor the name of a shipped list"):
        tiny_patterns(tmp_path, patterns="structure")


@pytest.mark.slow
class TestTrained:
    """One tiny run."""

    @pytest.fixture(scope="class")
    @classmethod
    def finished(cls, tmp_path_factory: pytest.TempPathFactory) -> PatternsConfig:
        pytest.importorskip("keras", reason="Keras is not installed (extra: train)")
        from cellcount_core.training.trainer import train

        config = tiny_patterns(tmp_path_factory.mktemp("run"))
        train(config, report=lambda _: None)
        return config

    def test_the_package_holds_a_threshold_for_each_pattern_and_its_golden_tensors(
        self, finished: PatternsConfig
    ) -> None:
        package = load_package(Path(finished.package_dir))
        assert package.section["patterns"] == list(PATTERNS)
        thresholds = package.section["thresholds"]
        assert isinstance(thresholds, list)
        assert len(thresholds) == 28
        assert len(set(thresholds)) > 1
        for engine in ("onnxruntime", "keras"):
            assert check_golden(package, load_engine(package, engine, 1)) < 1e-3

    def test_it_states_macro_f1_beside_flat_thresholds_on_images_nothing_was_fitted_to(
        self, finished: PatternsConfig
    ) -> None:
        accuracy = json.loads((Path(finished.package_dir) / "package.json").read_text())["accuracy"]
        assert accuracy["images"] == pytest.approx(20, abs=2)
        assert accuracy["macro_f1_low"] <= accuracy["macro_f1"] <= accuracy["macro_f1_high"]
        assert {"macro_f1_flat_0.5", "macro_f1_flat_0.15", "weak_patterns"} <= set(accuracy)

    def test_a_run_whose_validation_loss_rises_ends_with_the_checkpoint_at_which_it_was_lowest(
        self, tmp_path: Path
    ) -> None:
        from cellcount_core.training.start import CHECKPOINT
        from cellcount_core.training.trainer import train_network

        # So large a rate that the loss rises.
        config = tiny_patterns(
            tmp_path, steps=60, checkpoint_every=2, validate_every=0, stop_after=3,
            optimiser={"learning_rate": 0.5, "ema": 0.0, "schedule": "constant"},
        )  # fmt: skip
        said: list[str] = []
        train_network(config, lesson_of(config), report=said.append)
        assert "stopped at step" in said[-1]
        rows = [line.split(",") for line in (tmp_path / "work" / "curves.csv").read_text().splitlines()[1:]]
        losses = {int(row[0]): float(row[5]) for row in rows}
        lowest = min(losses, key=lambda step: losses[step])
        assert max(losses) == lowest + 6 < 60
        with np.load(tmp_path / "work" / CHECKPOINT) as stored:
            assert int(stored["step"]) == lowest
        train_network(config, lesson_of(config), report=said.append)
        assert said[-1] == f"ended at step {lowest}: the validation loss has not fallen since"

    def test_focal_loss_forgives_what_is_told_rightly(self) -> None:
        targets = np.array([[1, 0, 1, 1]], np.float32)
        costs = {}
        for kind in ("focal", "cross_entropy"):
            config = PatternsConfig.model_validate(
                {
                    "name": "x", "task": "patterns", "patterns": ["a", "b"], "data": {"path": "x"}, "network": {"preset": "compact"}, "steps": 1,
                    "loss": {"kind": kind, "focusing": 2.0}, "work_dir": "x", "package_dir": "x",
                }
            )  # fmt: skip
            loss = PatternsLearning().loss(config, 1)
            costs[kind] = [float(loss(targets, np.array([[at, -at]], np.float32))) for at in (3.0, -3.0)]
        assert costs["cross_entropy"] == pytest.approx(
            [2 * np.log1p(np.exp(-3)), 2 * np.log1p(np.exp(3))], rel=1e-4
        )
        assert costs["focal"][0] < 0.01 * costs["cross_entropy"][0]
        assert costs["focal"][1] > 0.85 * costs["cross_entropy"][1]

    @pytest.fixture
    @classmethod
    def untraced(cls) -> Iterator[None]:
        """Functions of TensorFlow run line by line: to make a graph of a backbone takes a minute, two steps of it take seconds."""
        tensorflow = pytest.importorskip("tensorflow", reason="TensorFlow is not installed (extra: train)")
        tensorflow.config.run_functions_eagerly(True)
        yield
        tensorflow.config.run_functions_eagerly(False)

    @pytest.mark.usefixtures("untraced")
    def test_a_backbone_runs_by_keras_and_says_where_its_weights_are_not(self, tmp_path: Path) -> None:
        from cellcount_core.training.trainer import train

        network = {"backbone": "MobileNetV3Small", "pool": "average"}
        plain = {"learning_rate": 0.001, "ema": 0.0}
        config = tiny_patterns(
            tmp_path, network=network, optimiser=plain, steps=2, crop_px=32, validate_every=0
        )
        package = load_package(train(config, report=lambda _: None))
        assert set(package.engines) == {"keras"}
        lost = tiny_patterns(
            tmp_path, network=network, optimiser=plain, steps=2, crop_px=32, backbone_weights=str(tmp_path / "gone.h5"),
            work_dir=str(tmp_path / "other"),
        )  # fmt: skip
        with pytest.raises(ModelFault, match=r"backbone_weights: .*gone.h5: not weights of MobileNetV3Small"):
            train(lost, report=lambda _: None)
        unknown = tiny_patterns(tmp_path, network={"backbone": "MobileNet3"}, optimiser=plain, crop_px=32)
        with pytest.raises(ModelFault, match=r"network.backbone: 'MobileNet3' is no network"):
            train(unknown, report=lambda _: None)
