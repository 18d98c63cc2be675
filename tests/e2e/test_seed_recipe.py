"""The first recipe whole and at its real size: an archive of images and masks, 31 million parameters, one epoch, a package, counts."""

from __future__ import annotations

import csv
import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cellcount_core.models.package import load_package
from tests.plates import discs

pytest.importorskip("keras", reason="Keras is not installed (extra: train)")
pytest.importorskip("onnx", reason="onnx is not installed (extra: train)")

pytestmark = pytest.mark.beside

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "conf" / "train_seed_unet.yaml"
MOST_GIB = 6.0
"""What docs/how-to/train-a-model.md states."""


def cellcount(*arguments: str | Path) -> str:
    command = [sys.executable, "-m", "cellcount_core.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_first_recipe_ends_in_a_package_that_counts_within_the_stated_memory(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    images = np.stack([discs(1 + seed % 4, 64, seed) for seed in range(8)])
    np.savez(
        source / "X_and_y.npz", X=images[..., None], y=(images[..., None] > images.mean()).astype(np.uint8)
    )
    settings = {
        "data.path": source / "X_and_y.npz", "epochs": 1, "crop_px": 64, "batch": 2,
        "checkpoint_every": 2, "work_dir": tmp_path / "work", "package_dir": tmp_path / "package",
    }  # fmt: skip
    told = cellcount(
        "train", RECIPE, *(part for name, value in settings.items() for part in ("--set", f"{name}={value}"))
    )
    assert "onnxruntime-int8, diameter model: " in told
    curve = (tmp_path / "work" / "curves.csv").read_text().splitlines()
    assert curve[0].startswith("step,seconds,learning_rate,loss,accuracy,validation_loss,validation_accuracy")
    assert [line.split(",")[0] for line in curve[1:]] == ["2", "3"]
    assert (tmp_path / "work" / "curves.png").read_bytes().startswith(b"\x89PNG")
    package = load_package(tmp_path / "package")
    assert (package.name, package.maps, package.section["separator"]["kind"]) == (
        "seed-unet",
        ("foreground",),
        "components",
    )
    manifest = json.loads((tmp_path / "package" / "package.json").read_text())
    assert manifest["network"]["filters"] == [64, 128, 256, 512, 1024]
    cellcount("count", source, tmp_path / "out", "--model", tmp_path / "package", "--runner", "serial")
    cellcount("export", tmp_path / "out", tmp_path / "counts.csv")
    for file, rows in (
        (tmp_path / "counts.csv", 8),
        (tmp_path / "work" / "counts.csv", manifest["accuracy"]["images"]),
    ):
        with file.open(newline="") as lines:
            counted = list(csv.DictReader(lines))
        assert [row["index"] for row in counted] == [str(index) for index in range(rows)]
        assert all(int(row["count"]) >= 0 for row in counted)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20 < MOST_GIB
