"""The first recipe (`conf/train_seed_unet.yaml`) as it was meant: an archive of 128 px crops, trained to a package that counts.

python -m benchmarks.seed_recipe DATA WORK [--crops 640] [--px 128] [--set steps=160] [--set dtype=mixed_bfloat16]

DATA is a folder of labelled images; crops of its fluorescence images of split `train` go to WORK/X_and_y.npz, once. The
recipe is then trained in a process of its own, which goes on where it was stopped, and what it needed is printed.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cellcount_core.labelled.dataset import choose, list_labelled
from cellcount_core.labelled.image import LabelledImage
from cellcount_core.models.package import MANIFEST
from cellcount_core.training.export import COUNTS

RECIPE = Path("conf/train_seed_unet.yaml")
_SEED = 0


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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--crops", type=int, default=640)
    parser.add_argument("--px", type=int, default=128)
    parser.add_argument("--set", action="append", default=[], dest="assignments")
    arguments = parser.parse_args()
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


if __name__ == "__main__":
    main()
