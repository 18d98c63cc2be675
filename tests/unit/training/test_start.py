"""Fine-tuning: a run that starts from a package."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cellcount_core.domain.errors import ConfigFault, ModelFault
from cellcount_core.models.engines import load_engine
from cellcount_core.models.package import load_package
from cellcount_core.tasks.boxes.learn import BoxesConfig
from cellcount_core.tasks.instances.learn import InstancesConfig, InstancesLearning
from cellcount_core.training.config import TrainConfig
from cellcount_core.training.start import hold_start, start_package, start_record, started
from tests.unit.training.tiny import quiet

pytest.importorskip("keras", reason="Keras is not installed (extra: train)")
pytest.importorskip("onnx", reason="onnx is not installed (extra: train)")
pytestmark = pytest.mark.slow


def tuning(folder: Path, finished: TrainConfig, **changes: object) -> InstancesConfig:
    """Fine-tuning of the finished run's package on its own images."""
    tree: dict[str, object] = {
        "name": "tuned", "start_from": finished.package_dir, "data": {"kind": "auto", "path": finished.data.path, "fit_share": 0},
        "optimiser": {"learning_rate": 0.003, "warmup_steps": 2, "ema": 0.5}, "augment": {"kind": "none"},
        "steps": 12, "batch": 4, "crop_px": 32, "checkpoint_every": 4, "validate_every": 0,
        "work_dir": str(folder / "work"), "package_dir": str(folder / "package"),
    }  # fmt: skip
    return InstancesConfig.model_validate({**tree, **changes})


def test_what_a_run_leaves_out_is_the_packages(tmp_path: Path, finished: TrainConfig) -> None:
    package = load_package(Path(finished.package_dir))
    config = started(tuning(tmp_path, finished, input={"percentile": 99.0}))
    assert isinstance(config, InstancesConfig)
    assert config.network == package.network
    assert config.network["batch_norm"] is False
    assert (config.maps, config.object, config.separator) == (package.maps, package.object_name, "cores")
    assert (config.input.channels, config.input.diameter_px) == (("nuclei",), package.input.diameter_px)
    assert (config.input.percentile, config.input.floor_sigmas) == (99.0, package.input.floor_sigmas)
    assert started(config) == config


def test_the_first_maps_are_the_packages(tmp_path: Path, finished: TrainConfig) -> None:
    from cellcount_core.training.network import compiled

    package = load_package(Path(finished.package_dir))
    engine = load_engine(package, "onnxruntime", 1)
    tiles = np.random.default_rng(0).random((engine.batch, 32, 32, 1), np.float32)
    network, _ = compiled(tuning(tmp_path, finished), 12)
    np.testing.assert_allclose(network.predict_on_batch(tiles), engine.run(tiles), atol=1e-5)


def test_fine_tuning_lowers_the_loss_and_ends_in_a_package_with_the_thresholds_it_started_from(
    tmp_path: Path, finished: TrainConfig
) -> None:
    from cellcount_core.training.trainer import train

    lines: list[str] = []
    tuned = load_package(train(tuning(tmp_path, finished), report=lines.append))
    before = load_package(Path(finished.package_dir))
    rows = [line.split(",") for line in (tmp_path / "work" / "curves.csv").read_text().splitlines()[1:]]
    assert float(rows[-1][3]) < float(rows[0][3])
    assert tuned.section["separator"] == before.section["separator"]
    assert any("0 images set aside" in line and "'tiny' are kept" in line for line in lines)
    assert any("layout 'npz'" in line for line in lines)
    assert any("starting from package 'tiny'" in line for line in lines)
    manifest = json.loads((tuned.folder / "package.json").read_text())
    assert manifest["training"]["started_from"]["digest"] == before.digest


def test_thresholds_are_fitted_anew_where_enough_images_are_set_aside(
    tmp_path: Path, finished: TrainConfig
) -> None:
    few = tuning(tmp_path, finished, data={"kind": "npz", "path": finished.data.path, "fit_share": 0.2})
    many = tuning(
        tmp_path,
        finished,
        data={"kind": "npz", "path": finished.data.path, "fit_share": 0.49, "validation_share": 0.01},
    )
    kept, fitted, own = (InstancesLearning().load(started(each), quiet) for each in (few, many, finished))
    assert kept.kept(quiet) is not None
    assert len(fitted.fit) >= 5
    assert fitted.kept(quiet) is None
    assert own.kept(quiet) is None


def test_another_package_under_the_same_name_is_another_run(tmp_path: Path, finished: TrainConfig) -> None:
    from cellcount_core.models.package import write_package
    from cellcount_core.training.network import config_digest

    config = tuning(tmp_path, finished)
    other = tmp_path / "other"
    other.mkdir()
    for path in Path(finished.package_dir).iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    moved = config.model_copy(update={"start_from": str(other)})
    assert config_digest(moved) == config_digest(config)
    manifest = json.loads((other / "package.json").read_text())
    del manifest["files"]
    write_package(other, manifest | {"version": "9.9.9"})
    assert config_digest(moved) != config_digest(config)
    assert config_digest(config) != config_digest(finished)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"maps": ["foreground", "distance", "size"]},
            r"has the maps \['foreground', 'distance'\], the configuration asks for",
        ),
        ({"network": {"outputs": 2, "stem": 2, "filters": [4, 16]}}, "another network: filters is"),
        ({"crop_px": 33}, "multiple of the network's stride"),
    ],
)
def test_a_package_that_does_not_fit_is_refused_with_the_reason(
    tmp_path: Path, finished: TrainConfig, changes: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigFault, match=said):
        started(tuning(tmp_path, finished, **changes))


def of_boxes(folder: Path, finished: TrainConfig, **changes: object) -> BoxesConfig:
    """The training of a box network that starts from the finished run's package, which is of another task."""
    tree: dict[str, object] = {
        "name": "boxes", "task": "boxes", "start_from": finished.package_dir, "data": {"path": str(folder)}, "classes": ["round", "long"],
        "input": {"channels": ["brightfield"], "diameter_px": 12}, "steps": 12, "batch": 4, "crop_px": 32,
        "work_dir": str(folder / "work"), "package_dir": str(folder / "package"),
    }  # fmt: skip
    return BoxesConfig.model_validate({**tree, **changes})


def test_a_package_of_another_task_gives_every_layer_but_the_last(
    tmp_path: Path, finished: TrainConfig
) -> None:
    from cellcount_core.models.families import LOGITS
    from cellcount_core.models.families.unet import build_unet
    from cellcount_core.training.network import compiled

    package = load_package(Path(finished.package_dir))
    config = of_boxes(tmp_path, finished)
    filled = started(config)
    assert filled.network == {**package.network, "outputs": 4}
    assert (filled.input, started(filled)) == (config.input, filled)
    assert start_record(config)["started_from"] == {
        "name": "tiny", "version": package.version, "digest": package.digest, "layers": "all layers but the last",
    }  # fmt: skip
    network, _ = compiled(config, 12)
    given = build_unet(package.network)
    given.load_weights(str(package.file("network.weights.h5")))
    for layer in network.layers:
        if layer.weights and layer.name != LOGITS:
            for mine, theirs in zip(
                layer.get_weights(), given.get_layer(layer.name).get_weights(), strict=True
            ):
                np.testing.assert_array_equal(mine, theirs)
    rare = network.predict_on_batch(np.zeros((1, 32, 32, 1), np.float32))[..., :2]
    assert rare.max() < 0.1


def test_a_package_of_another_number_of_channels_or_of_another_stride_is_refused(
    tmp_path: Path, finished: TrainConfig
) -> None:
    colours = {"channels": ["red", "green", "blue"], "diameter_px": 12}
    with pytest.raises(
        ConfigFault, match=r"looks at 1 channels, the configuration at 3 \(red, green, blue\)"
    ):
        started(of_boxes(tmp_path, finished, input=colours))
    with pytest.raises(ConfigFault, match="multiple of the network's stride"):
        started(of_boxes(tmp_path, finished, crop_px=33))


def test_the_package_started_from_is_not_overwritten(tmp_path: Path, finished: TrainConfig) -> None:
    with pytest.raises(ConfigFault, match="a folder of its own"):
        started(tuning(tmp_path, finished, package_dir=finished.package_dir))


def test_a_package_without_a_network_cannot_be_trained(tmp_path: Path, finished: TrainConfig) -> None:
    with pytest.raises(ConfigFault, match="no network that can be trained"):
        start_package(tuning(tmp_path, finished, start_from="threshold"))
    with pytest.raises(ModelFault, match="did you mean 'nuclei'"):
        start_package(tuning(tmp_path, finished, start_from="nucleii"))


def test_a_run_keeps_the_package_it_started_from(tmp_path: Path, finished: TrainConfig) -> None:
    from cellcount_core.models.package import write_package

    source = tmp_path / "source"
    source.mkdir()
    for path in Path(finished.package_dir).iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    config = tuning(tmp_path, finished, start_from=str(source))
    held = hold_start(config)
    assert held.start_from == str(tmp_path / "work" / "start")
    assert hold_start(config) == held == hold_start(held)
    manifest = json.loads((source / "package.json").read_text())
    del manifest["files"]
    replaced = write_package(source, manifest | {"version": "9.9.9"})
    (tmp_path / "work" / "checkpoint.npz").write_bytes(b"")
    with pytest.raises(ConfigFault, match="to go on with it set start_from="):
        hold_start(config)
    (tmp_path / "work" / "checkpoint.npz").unlink()
    assert load_package(Path(hold_start(config).start_from)).digest == replaced.digest
