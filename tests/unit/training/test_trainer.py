"""The trainer, on tiny networks and a handful of steps."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.models.engines import load_engine
from cellcount_core.models.golden import check_golden
from cellcount_core.models.package import load_package
from cellcount_core.training.config import TrainConfig

pytest.importorskip("keras", reason="Keras is not installed (extra: train)")
pytest.importorskip("onnx", reason="onnx is not installed (extra: train)")

CONF = Path(__file__).resolve().parents[3] / "conf"


def write_archive(path: Path, count: int = 10, size: int = 32) -> None:
    rng = np.random.default_rng(0)
    images, masks = np.zeros((count, size, size, 1), np.float32), np.zeros((count, size, size, 1), np.uint8)
    for image, mask in zip(images, masks, strict=True):
        for _ in range(3):
            cv2.circle(mask[..., 0], (int(rng.integers(5, 27)), int(rng.integers(5, 27))), 4, 1, -1)
        image[..., 0] = 0.1 + 0.6 * mask[..., 0] + rng.normal(0, 0.02, (size, size))
    np.savez(path, X=images, y=masks)


def seed_recipe(folder: Path, **changes: object) -> TrainConfig:
    """The seed's configuration with a shrunken filter list and few epochs."""
    write_archive(folder / "X_and_y.npz")
    tree = yaml.safe_load((CONF / "train_seed_unet.yaml").read_text())
    tree["data"]["path"] = str(folder / "X_and_y.npz")
    tree["network"]["filters"] = [4, 4, 8, 8, 8]
    tree |= {"crop_px": 32, "batch": 4, "epochs": 2, "checkpoint_every": 2}
    tree |= {"work_dir": str(folder / "work"), "package_dir": str(folder / "package")}
    return TrainConfig.model_validate({**tree, **changes})


def compact(folder: Path, **changes: object) -> TrainConfig:
    network = {"outputs": 2, "stem": 2, "filters": [4, 8], "skip": "add", "up": "project", "batch_norm": True}
    tree: dict[str, object] = {
        "name": "tiny", "data": {"kind": "npz", "path": str(folder / "X_and_y.npz"), "fit_share": 0.2}, "network": network,
        "steps": 6, "batch": 2, "crop_px": 32, "checkpoint_every": 2, "optimiser": {"ema": 0.9},
        "work_dir": str(folder / "work"), "package_dir": str(folder / "package"),
    }  # fmt: skip
    return TrainConfig.model_validate({**tree, **changes})


def quiet(line: str) -> None:
    assert line


def test_the_seeds_recipe_ends_in_a_package_curves_and_counts(tmp_path: Path) -> None:
    from cellcount_core.training.trainer import train

    folder = train(seed_recipe(tmp_path), report=quiet)
    package = load_package(folder)
    assert (package.name, package.maps, package.separator["kind"]) == ("seed-unet", ("foreground",), "components")
    curve = (tmp_path / "work" / "curves.csv").read_text().splitlines()
    assert curve[0].startswith("step,seconds,learning_rate,loss,accuracy,validation_loss,validation_accuracy")
    assert [line.split(",")[0] for line in curve[1:]] == ["2", "4"]
    assert (tmp_path / "work" / "curves.png").read_bytes().startswith(b"\x89PNG")
    counts = (tmp_path / "work" / "counts.csv").read_text().splitlines()
    assert counts[0] == "index,count"
    assert [line.split(",")[0] for line in counts[1:]] == [str(index) for index in range(len(counts) - 1)]


def test_both_engines_of_a_trained_package_give_its_golden_tensors(tmp_path: Path) -> None:
    from cellcount_core.training.trainer import train

    write_archive(tmp_path / "X_and_y.npz")
    package = load_package(train(compact(tmp_path), report=quiet))
    for name in ("onnxruntime", "keras"):
        assert check_golden(package, load_engine(package, name, 1)) < 1e-4
    assert package.network["batch_norm"] is False
    manifest = json.loads((package.folder / "package.json").read_text())
    assert manifest["training"]["steps"] == 6
    assert manifest["accuracy"]["images"] == 2
    assert set(manifest["separator"]) == {"kind", "foreground", "core", "prominence", "core_area", "peak", "min_area"}


def test_an_interrupted_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    from cellcount_core.training.trainer import train

    write_archive(tmp_path / "X_and_y.npz")
    unbroken = compact(tmp_path, work_dir=str(tmp_path / "a"), package_dir=str(tmp_path / "pa"))
    train(unbroken, report=quiet)

    class Stopped(Exception):
        """Raised where a kill would strike."""

    def stop_after_four(line: str) -> None:
        if line.startswith("step 4/"):
            raise Stopped

    broken = compact(tmp_path, work_dir=str(tmp_path / "b"), package_dir=str(tmp_path / "pb"))
    with pytest.raises(Stopped):
        train(broken, report=stop_after_four)
    lines: list[str] = []
    train(broken, report=lines.append)
    assert "going on from step 4" in lines
    with np.load(tmp_path / "a" / "checkpoint.npz") as one, np.load(tmp_path / "b" / "checkpoint.npz") as two:
        for name in one.files:
            if name != "digest":
                np.testing.assert_allclose(one[name], two[name], rtol=2e-4, atol=2e-5, err_msg=name)


def test_a_package_can_be_written_while_a_run_goes_on(tmp_path: Path) -> None:
    from cellcount_core.training.export import package_now
    from cellcount_core.training.trainer import train

    write_archive(tmp_path / "X_and_y.npz")
    config = compact(tmp_path)
    with pytest.raises(ConfigFault, match="no checkpoint"):
        package_now(config, report=quiet)
    train(config, report=quiet)
    before = (tmp_path / "work" / "checkpoint.npz").read_bytes()
    folder = package_now(config, report=quiet)
    assert load_package(folder).name == "tiny"
    assert (tmp_path / "work" / "checkpoint.npz").read_bytes() == before


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path) -> None:
    from cellcount_core.training.trainer import train

    write_archive(tmp_path / "X_and_y.npz")
    train(compact(tmp_path), report=quiet)
    with pytest.raises(ConfigFault, match="another configuration"):
        train(compact(tmp_path, seed=3), report=quiet)


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    from cellcount_core.training.trainer import train

    write_archive(tmp_path / "X_and_y.npz", 6)
    config = compact(
        tmp_path, steps=60, batch=4, checkpoint_every=10, augment={"kind": "none"}, optimiser={"learning_rate": 0.01, "ema": 0}
    )
    train(config, report=quiet)
    rows = [line.split(",") for line in (tmp_path / "work" / "curves.csv").read_text().splitlines()[1:]]
    assert float(rows[-1][3]) < 0.7 * float(rows[0][3])
