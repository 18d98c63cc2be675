"""Made-up images of three classes that differ plainly, as files, as a table, and the settings of a tiny training on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from cellcount_core.tasks.classes.learn import ClassesConfig

CLASSES = ("dots", "rings", "stripes")
SIDE = 96


def shape_image(kind: str, seed: int) -> NDArray[np.uint16]:
    """One image (96, 96) of a class on noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    shape = np.zeros((SIDE, SIDE))
    if kind == "stripes":
        angle = rng.uniform(0, np.pi)
        shape = (np.sin((x * np.cos(angle) + y * np.sin(angle)) / rng.uniform(3, 4)) > 0.3).astype(float)
    else:
        for _ in range(6):
            far = np.hypot(y - rng.uniform(12, SIDE - 12), x - rng.uniform(12, SIDE - 12))
            shape = np.maximum(shape, far < 5 if kind == "dots" else np.abs(far - 10) < 1.5)
    bright = rng.normal(300, 12, (SIDE, SIDE)) + rng.uniform(1500, 4000) * shape
    return np.clip(bright, 0, 65535).astype(np.uint16)


def class_table(folder: Path, count: int, *, groups: int = 1, kinds: Sequence[str] = CLASSES) -> Path:
    """`count` images and truth.csv, which says the class of each; so many images of a class in a row are a group."""
    lines = ["image,class,group"]
    for number in range(count):
        kind = kinds[number % len(kinds)]
        tifffile.imwrite(folder / f"{number}.tif", shape_image(kind, 1000 + number))
        lines.append(f"{number}.tif,{kind},{kind}{number // len(kinds) // groups}-{number % len(kinds)}")
    (folder / "truth.csv").write_text("\n".join([*lines, ""]), encoding="utf-8")
    return folder / "truth.csv"


def tiny_classes(folder: Path, **changes: object) -> ClassesConfig:
    """A training on the table of `class_table` in `folder`, of a network that learns it in 60 steps."""
    tree: dict[str, object] = {
        "name": "shapes", "task": "classes", "classes": list(CLASSES), "input": {"channels": ["image"]},
        "data": {"kind": "table", "path": str(folder / "truth.csv"), "validation_share": 0.2, "fit_share": 0.2},
        "network": {"preset": "compact", "filters": [8, 16, 16], "convolutions": [1, 1, 1]},
        "steps": 60, "batch": 12, "crop_px": 32, "checkpoint_every": 30, "validate_every": 30, "threads": 1,
        "optimiser": {"learning_rate": 0.01, "ema": 0.9, "schedule": "constant"},
        "work_dir": str(folder / "work"), "package_dir": str(folder / "shapes"),
    }  # fmt: skip
    return ClassesConfig.model_validate({**tree, **changes})
