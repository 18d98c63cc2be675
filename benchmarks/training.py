"""What training costs: one step of a recipe on made-up crops, and the first recipe from an archive of crops to a package that counts.

    KERAS_BACKEND=torch python -m benchmarks.training step [conf/train_nuclei.yaml] [--threads 2] [--batch 16] [--steps 8]
    python -m benchmarks.training recipe DATA WORK [--crops 640] [--px 128] [--set steps=160] [--set dtype=mixed_bfloat16]

step: seconds of one training step on the Keras backend at hand (KERAS_BACKEND).

recipe: `conf/train_seed_unet.yaml` as it was meant. DATA is a folder of labelled images; crops of its fluorescence images of split `train` go
to WORK/X_and_y.npz, once. The recipe is then trained in a process of its own, which goes on where it was stopped, and what it needed is printed.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from cellcount_core.labelled.dataset import choose, list_labelled
from cellcount_core.labelled.image import LabelledImage
from cellcount_core.models.manifest import MANIFEST
from cellcount_core.training.export import COUNTS
from cellcount_core.training.learning import train_config
from cellcount_core.training.network import compiled, prepare_backend

RECIPE = Path("conf/train_seed_unet.yaml")
_SEED = 0


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = made.add_subparsers(required=True)
    of_step = commands.add_parser("step")
    of_step.add_argument("recipe", type=Path, nargs="?", default=Path("conf/train_nuclei.yaml"))
    of_step.add_argument("--threads", type=int, default=2)
    of_step.add_argument("--batch", type=int, default=16)
    of_step.add_argument("--steps", type=int, default=8)
    of_step.set_defaults(measure=step)
    of_recipe = commands.add_parser("recipe")
    of_recipe.add_argument("data", type=Path)
    of_recipe.add_argument("work", type=Path)
    of_recipe.add_argument("--crops", type=int, default=640)
    of_recipe.add_argument("--px", type=int, default=128)
    of_recipe.add_argument("--set", action="append", default=[], dest="assignments")
    of_recipe.set_defaults(measure=recipe)
    arguments = made.parse_args()
    arguments.measure(arguments)


def step(arguments: argparse.Namespace) -> None:
    """Print the median seconds of a step."""
    config = train_config(yaml.safe_load(arguments.recipe.read_text()))
    prepare_backend(arguments.threads)
    _, trainee = compiled(config, 1000)
    side, batch = config.crop_px, arguments.batch
    rng = np.random.default_rng(0)
    inputs = rng.random((batch, side, side, len(config.input.channels)), np.float32)
    # A target for each map, and the weight of each pixel.
    targets = rng.random((batch, side, side, len(config.outputs()) + 1), np.float32)
    seconds = []
    for _ in range(arguments.steps + 3):
        began = time.perf_counter()
        trainee.train_on_batch(inputs, targets)
        seconds.append(time.perf_counter() - began)
    print(
        f"{os.environ.get('KERAS_BACKEND', 'tensorflow')}, {config.dtype}, {arguments.threads} threads, {batch} crops of {side} px: "
        f"{np.median(seconds[3:]):.2f} s a step (median of {arguments.steps})"
    )


def recipe(arguments: argparse.Namespace) -> None:
    """Train the recipe; print time, peak memory, the accuracy in the package, and what it counts."""
    archive, package = arguments.work / "X_and_y.npz", arguments.work / "package"
    if not archive.is_file():
        write_archive(arguments.data, archive, arguments.crops, arguments.px)
    settings = [f"data.path={archive}", f"work_dir={arguments.work / 'run'}", f"package_dir={package}"]
    command = [sys.executable, "-m", "cellcount_core.cli", "train", str(RECIPE)]
    for assignment in [*settings, *arguments.assignments]:
        command += ["--set", assignment]
    began = time.monotonic()
    subprocess.run(command, check=True)
    seconds = time.monotonic() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"{seconds / 60:.1f} min, peak resident memory {peak:.2f} GiB")
    print(json.dumps(json.loads((package / MANIFEST).read_text())["accuracy"]))
    with (arguments.work / "run" / COUNTS).open(newline="") as lines:
        counts = [int(row["count"]) for row in csv.DictReader(lines)]
    print(f"{COUNTS}: {len(counts)} images, {sum(counts)} objects")


def crops_of(
    images: list[LabelledImage], count: int, px: int
) -> tuple[NDArray[np.generic], NDArray[np.uint16], list[str]]:
    """`count` crops (count, px, px) with their label images and groups: one of every image in turn, from anywhere in it."""
    rng = np.random.default_rng(_SEED)
    large = [image for image in images if min(image.plane.shape) >= px]
    planes, labels, groups = [], [], []
    for number in range(count):
        image = large[number % len(large)]
        top, left = (int(rng.integers(side - px + 1)) for side in image.plane.shape)
        part = np.s_[top : top + px, left : left + px]
        planes.append(image.plane[part])
        labels.append(image.labels[part].astype(np.uint16))
        groups.append(image.group)
    return np.stack(planes), np.stack(labels), groups


def write_archive(data: Path, path: Path, count: int, px: int) -> None:
    """Write the archive that the recipe reads: `X`, `y` and the group that each crop was cut from."""
    entries = choose(list_labelled(data), "train", ("fluorescence",))
    planes, labels, groups = crops_of([entry.load() for entry in entries], count, px)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, X=planes, y=labels, group=np.array(groups))
    print(f"{path}: {len(planes)} crops of {px} px of {len(set(groups))} groups")


if __name__ == "__main__":
    main()
