"""Tiny training runs that several tests look at."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import yaml

from cellcount_core.tasks.instances.learn import InstancesConfig

CONF = Path(__file__).resolve().parents[3] / "conf"


def write_archive(path: Path, count: int = 10, size: int = 32, erased: int = 0) -> None:
    """`count` square images of three discs; the masks of the first `erased` are empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    images, masks = np.zeros((count, size, size, 1), np.float32), np.zeros((count, size, size, 1), np.uint8)
    for image, mask in zip(images, masks, strict=True):
        for _ in range(3):
            cv2.circle(mask[..., 0], (int(rng.integers(5, 27)), int(rng.integers(5, 27))), 4, 1, -1)
        image[..., 0] = 0.1 + 0.6 * mask[..., 0] + rng.normal(0, 0.02, (size, size))
    masks[:erased] = 0
    np.savez(path, X=images, y=masks)


def seed_recipe(folder: Path, **changes: object) -> InstancesConfig:
    """The seed's configuration with a shrunken filter list and few epochs."""
    write_archive(folder / "X_and_y.npz")
    tree = yaml.safe_load((CONF / "train_seed_unet.yaml").read_text())
    tree["data"]["path"] = str(folder / "X_and_y.npz")
    tree["network"]["filters"] = [4, 4, 8, 8, 8]
    tree |= {"crop_px": 32, "batch": 4, "epochs": 2, "checkpoint_every": 2}
    tree |= {"work_dir": str(folder / "work"), "package_dir": str(folder / "package")}
    return InstancesConfig.model_validate({**tree, **changes})


def compact(folder: Path, **changes: object) -> InstancesConfig:
    network = {"outputs": 2, "stem": 2, "filters": [4, 8], "skip": "add", "up": "project", "batch_norm": True}
    tree: dict[str, object] = {
        "name": "tiny", "data": {"kind": "npz", "path": str(folder / "X_and_y.npz"), "fit_share": 0.2}, "network": network,
        "steps": 40, "batch": 2, "crop_px": 32, "checkpoint_every": 10, "validate_every": 20, "optimiser": {"learning_rate": 0.01, "ema": 0.9},
        "augment": {"natural_share": 1.0, "empty_share": 0.0},
        "work_dir": str(folder / "work"), "package_dir": str(folder / "package"),
    }  # fmt: skip
    return InstancesConfig.model_validate({**tree, **changes})


def smallest(folder: Path, **changes: object) -> InstancesConfig:
    """Two steps of a network of one level, which learns nothing: for what happens around a training."""
    network = {"outputs": 2, "stem": 2, "filters": [4], "skip": "add", "up": "project"}
    few: dict[str, object] = {"network": network, "steps": 2, "checkpoint_every": 1, "validate_every": 0}
    return compact(folder, **{**few, **changes})


def quiet(line: str) -> None:
    assert line
