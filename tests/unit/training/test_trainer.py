"""The trainer, on tiny networks and a handful of steps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.models.engines import check_golden, load_engine
from cellcount_core.models.package import load_package
from cellcount_core.training.config import TrainConfig
from tests.unit.training.tiny import quiet, seed_recipe, smallest, write_archive

pytest.importorskip("keras", reason="Keras is not installed (extra: train)")
pytest.importorskip("onnx", reason="onnx is not installed (extra: train)")
pytestmark = pytest.mark.slow


def test_both_engines_of_a_trained_package_give_its_golden_tensors(finished: TrainConfig) -> None:
    package = load_package(Path(finished.package_dir))
    for name in ("onnxruntime", "keras"):
        assert check_golden(package, load_engine(package, name, 1)) < 1e-4


def test_a_package_states_how_it_was_trained_fitted_and_measured(finished: TrainConfig) -> None:
    manifest = json.loads((Path(finished.package_dir) / "package.json").read_text())
    assert manifest["network"]["batch_norm"] is False
    assert (manifest["training"]["steps"], manifest["training"]["seed"]) == (40, 0)
    assert manifest["training"]["minutes"] > 0
    assert manifest["accuracy"]["images"] == 2
    assert manifest["instances"]["sizing"] == {}
    assert set(manifest["instances"]["separator"]) == {
        "kind",
        "foreground",
        "core",
        "prominence",
        "core_area",
        "peak",
        "min_area",
        "certain",
        "edge_area",
        "edge_peak",
        "outline",
    }


def test_the_validation_curve_is_of_images_that_do_not_train(tmp_path: Path, finished: TrainConfig) -> None:
    from cellcount_core.training.start import load_lesson

    for config in (finished, seed_recipe(tmp_path)):
        images = load_lesson(config)
        assert images.watched
        assert not {image.id for image in images.watched} & {image.id for image in images.train}


def test_training_lowers_the_loss(finished: TrainConfig) -> None:
    rows = [line.split(",") for line in (Path(finished.work_dir) / "curves.csv").read_text().splitlines()[1:]]
    assert float(rows[-1][3]) < float(rows[0][3])
    assert float(rows[-1][5]) < 0.95 * float(rows[0][5])


def test_an_interrupted_run_goes_on_to_the_same_weights(tmp_path: Path, finished: TrainConfig) -> None:
    from cellcount_core.training.start import load_lesson
    from cellcount_core.training.trainer import train_network

    class StoppedError(Exception):
        """Raised where a kill would strike."""

    def stop_after_twenty(line: str) -> None:
        if line.startswith("step 20/"):
            raise StoppedError

    config = finished.model_copy(update={"work_dir": str(tmp_path)})
    images = load_lesson(config)
    with pytest.raises(StoppedError):
        train_network(config, images, report=stop_after_twenty)
    lines: list[str] = []
    train_network(config, images, report=lines.append)
    assert "going on from step 20" in lines
    with (
        np.load(Path(finished.work_dir) / "checkpoint.npz") as one,
        np.load(tmp_path / "checkpoint.npz") as two,
    ):
        assert int(one["step"]) == int(two["step"]) == 40
        for name in one.files:
            if name not in ("digest", "data"):
                np.testing.assert_allclose(one[name], two[name], rtol=5e-3, atol=5e-4, err_msg=name)


def test_a_package_can_be_written_while_a_run_goes_on(tmp_path: Path, finished: TrainConfig) -> None:
    from cellcount_core.training.export import package_now

    checkpoint = Path(finished.work_dir) / "checkpoint.npz"
    before = checkpoint.read_bytes()
    early = finished.model_copy(update={"package_dir": str(tmp_path / "early")})
    folder = package_now(early, report=quiet)
    assert load_package(folder).name == "tiny"
    (folder / "README.md").write_text("card")
    assert (package_now(early, report=quiet) / "README.md").read_text() == "card"
    assert checkpoint.read_bytes() == before


def test_without_a_checkpoint_there_is_no_package(tmp_path: Path, finished: TrainConfig) -> None:
    from cellcount_core.training.export import package_now

    with pytest.raises(ConfigFault, match="no checkpoint"):
        package_now(finished.model_copy(update={"work_dir": str(tmp_path)}), report=quiet)


def test_a_folder_that_is_no_package_is_never_replaced(tmp_path: Path, finished: TrainConfig) -> None:
    from cellcount_core.training.trainer import train

    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigFault, match="neither empty nor a model package"):
        train(finished.model_copy(update={"package_dir": str(tmp_path)}), report=quiet)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_checkpoint_of_another_configuration_is_refused(finished: TrainConfig) -> None:
    from cellcount_core.training.trainer import train

    with pytest.raises(ConfigFault, match="another configuration"):
        train(finished.model_copy(update={"seed": 3}), report=quiet)


def test_changed_data_is_said_and_a_checkpoint_that_does_not_know_its_data_is_taken(
    tmp_path: Path, finished: TrainConfig
) -> None:
    from cellcount_core.training.export import package_now
    from cellcount_core.training.trainer import train

    def here(**changes: object) -> TrainConfig:
        data = finished.data.model_copy(update=changes)
        return finished.model_copy(update={"data": data, "package_dir": str(tmp_path / "package")})

    checkpoint = Path(finished.work_dir) / "checkpoint.npz"
    same = Path(finished.data.path)
    with pytest.raises(
        ConfigFault, match=r"checkpoint\.npz: this run was trained on other data: images, labels"
    ):
        train(here(partial=("000001",)), report=quiet)
    kept = same.read_bytes()
    try:
        for count, erased in ((10, 3), (11, 0)):
            write_archive(same, count=count, erased=erased)
            with pytest.raises(ConfigFault, match="give another work_dir, or remove"):
                train(here(), report=quiet)
            with pytest.raises(ConfigFault, match="trained on other data"):
                package_now(here(), report=quiet)
    finally:
        same.write_bytes(kept)
    before = checkpoint.read_bytes()
    with np.load(checkpoint) as stored:
        np.savez(
            checkpoint, allow_pickle=False, **{key: stored[key] for key in stored.files if key != "data"}
        )
    try:
        assert package_now(here(partial=("000001",)), report=quiet).is_dir()
    finally:
        checkpoint.write_bytes(before)


def test_a_run_that_holds_its_rate_goes_on_where_it_is_made_longer(tmp_path: Path) -> None:
    from cellcount_core.training.start import load_lesson
    from cellcount_core.training.trainer import train_network

    write_archive(tmp_path / "X_and_y.npz")
    holding = {"learning_rate": 0.01, "ema": 0.9, "schedule": "trapezoid", "warmup_steps": 2}
    config = smallest(tmp_path, optimiser=holding, steps=10, checkpoint_every=5)
    images, lines = load_lesson(config), list[str]()
    train_network(config.model_copy(update={"steps": 5}), images, report=quiet)
    train_network(config, images, report=lines.append)
    assert "going on from step 5" in lines
    assert any(line.startswith("step 10/10") for line in lines)
