"""Whole images counted while a network is being trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from cellcount_core.labelled.image import LabelledImage
from cellcount_core.labelled.label_files import median_diameter
from cellcount_core.tasks.instances.learn import InstancesConfig, LabelLesson
from cellcount_core.tasks.instances.targets import foreground, normalised_distance
from cellcount_core.training.config import TrainConfig
from cellcount_core.training.learning import Images
from cellcount_core.training.watching import CurvePoint, read_curve, write_curve

pytest.importorskip("keras", reason="Keras is not installed (extra: train)")
pytestmark = pytest.mark.slow

WHOLE = {"f1": 0.5, "ap": 0.4, "bias": -0.1}


def test_counting_whole_images_leaves_weights_and_optimiser_as_they_were(finished: TrainConfig) -> None:
    from keras import ops

    from cellcount_core.training.network import compiled
    from cellcount_core.training.start import load_lesson
    from cellcount_core.training.watching import watch_whole

    network, trainee = compiled(finished, 40)
    rng = np.random.default_rng(0)
    for inputs in (rng.random((2, 32, 32, 1), np.float32), rng.random((2, 32, 32, 1), np.float32)):
        trainee.train_on_batch(inputs, np.ones((2, 32, 32, 3), np.float32))
    variables = [*network.weights, *trainee.optimizer.variables]
    before = [np.array(ops.convert_to_numpy(variable)) for variable in variables]
    momenta = [layer.momentum for layer in network.layers if layer.name.endswith("_norm")]
    whole = watch_whole(finished, network, trainee, load_lesson(finished))
    for variable, value in zip(variables, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), value, err_msg=variable.path)
    assert momenta == [layer.momentum for layer in network.layers if layer.name.endswith("_norm")]
    assert 0 <= whole["ap"] <= whole["f1"] <= 1


def lesson(config: TrainConfig, images: list[LabelledImage]) -> LabelLesson:
    assert isinstance(config, InstancesConfig)
    return LabelLesson(config, Images(images, images, images, images))


def test_whole_images_are_brought_to_the_models_diameter_and_never_too_many(finished: TrainConfig) -> None:
    from cellcount_core.training.start import load_lesson

    image = load_lesson(finished).train[0]
    assert isinstance(image, LabelledImage)
    found = lesson(finished, [replace(image, id=str(number)) for number in range(60)]).whole_images
    assert len(found) == 24
    assert len({whole.image.id for whole in found}) == 24
    factor = 20 / image.diameter_px
    assert found[0].shape[0] == pytest.approx(32 * factor, abs=1)
    assert found[0].canvas.shape[0] % 4 == 0


def test_a_perfect_network_would_score_one(finished: TrainConfig) -> None:
    config = finished.model_copy(update={"input": finished.input.model_copy(update={"diameter_px": None})})
    labels = np.zeros((64, 96), np.int32)
    for number, centre in enumerate([(16, 16), (40, 40), (80, 30)], start=1):
        cv2.circle(labels, centre, 9, number, -1)
    plane = (300 + 2000 * (labels > 0)).astype(np.uint16)
    images = [LabelledImage(name, plane, labels, name, "", median_diameter(labels)) for name in "ab"]
    given = iter([np.stack([foreground(i.labels), normalised_distance(i.labels)], axis=-1) for i in images])
    assert lesson(config, images).watch(lambda canvas: next(given)) == {"f1": 1.0, "ap": 1.0, "bias": 0.0}


def test_the_curve_has_whole_images_at_every_so_many_steps_and_at_the_last(finished: TrainConfig) -> None:
    points = read_curve(Path(finished.work_dir))
    assert [(point.step, set(point.whole) == {"f1", "ap", "bias"}) for point in points] == [
        (10, False),
        (20, True),
        (30, False),
        (40, True),
    ]


def test_a_progress_line_tells_of_whole_images(tmp_path: Path, finished: TrainConfig) -> None:
    from cellcount_core.training.start import load_lesson
    from cellcount_core.training.trainer import train_network

    lines: list[str] = []
    short = finished.model_copy(
        update={"work_dir": str(tmp_path), "steps": 2, "validate_every": 1, "checkpoint_every": 1}
    )
    train_network(short, load_lesson(short), report=lines.append)
    assert sum("whole images F1" in line for line in lines) == 2
    silent = short.model_copy(update={"work_dir": str(tmp_path / "silent"), "validate_every": 0})
    lines.clear()
    train_network(silent, load_lesson(silent), report=lines.append)
    assert not any("whole images" in line for line in lines)


def test_a_curve_written_before_whole_images_were_counted_is_read(tmp_path: Path) -> None:
    (tmp_path / "curves.csv").write_text(
        "step,seconds,learning_rate,loss,accuracy,validation_loss,validation_accuracy\n2,1.5,0.1,0.9,0.5,0.8,0.6\n"
    )
    points = read_curve(tmp_path)
    assert points == [CurvePoint(2, 1.5, 0.1, 0.9, 0.5, 0.8, 0.6)]
    write_curve(tmp_path, [*points, CurvePoint(4, 3.0, 0.1, 0.7, 0.6, 0.7, 0.7, WHOLE)])
    assert [point.whole for point in read_curve(tmp_path)] == [{}, WHOLE]


def test_the_picture_has_a_third_panel_once_whole_images_were_counted(tmp_path: Path) -> None:
    import cv2

    plain = [CurvePoint(2, 1.5, 0.1, 0.9, 0.5, 0.8, 0.6)]
    heights = []
    for points in (plain, [*plain, CurvePoint(4, 3.0, 0.1, 0.7, 0.6, 0.7, 0.7, WHOLE)]):
        write_curve(tmp_path, points)
        picture = cv2.imread(str(tmp_path / "curves.png"))
        assert picture is not None
        heights.append(picture.shape[0])
    assert heights[1] == pytest.approx(1.5 * heights[0], rel=0.02)
