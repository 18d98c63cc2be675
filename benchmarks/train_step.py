"""Seconds of one training step of a recipe on the Keras backend at hand (KERAS_BACKEND), on made-up crops.

KERAS_BACKEND=torch python benchmarks/train_step.py [conf/train_nuclei.yaml] [--threads 2] [--batch 16] [--steps 8]
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
import yaml

from cellcount_core.training.config import TrainConfig
from cellcount_core.training.trainer import compiled, prepare_backend


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path, nargs="?", default=Path("conf/train_nuclei.yaml"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=8)
    arguments = parser.parse_args()
    config = TrainConfig.model_validate(yaml.safe_load(arguments.recipe.read_text()))
    prepare_backend(arguments.threads)
    _, trainee = compiled(config, 1000)
    side, batch = config.crop_px, arguments.batch
    rng = np.random.default_rng(0)
    inputs = rng.random((batch, side, side, 1), np.float32)
    targets = rng.random((batch, side, side, len(config.maps) + 1), np.float32)
    seconds = []
    for _ in range(arguments.steps + 3):
        began = time.perf_counter()
        trainee.train_on_batch(inputs, targets)
        seconds.append(time.perf_counter() - began)
    print(
        f"{os.environ.get('KERAS_BACKEND', 'tensorflow')}, {config.dtype}, {arguments.threads} threads, {batch} crops of {side} px: "
        f"{np.median(seconds[3:]):.2f} s a step (median of {arguments.steps})"
    )


if __name__ == "__main__":
    main()
