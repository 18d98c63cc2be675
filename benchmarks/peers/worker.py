"""The process of one system: train it, or count with it and write label images, times and memory.

    python -m benchmarks.peers.worker train MANIFEST --cache FOLDER --minutes 55
    python -m benchmarks.peers.worker count SYSTEM MANIFEST --cache FOLDER --out FOLDER --core 0

Run by `benchmarks.peers.run`, with the interpreter of the system's own environment; nothing of cellcount is imported here.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.peers import manifest, systems
from benchmarks.peers.manifest import Entry, Plane

TIMED_SIDE, TIMED_IMAGES, WARM_UP, ROUNDS = 256, 40, 8, 3
LABELS, MEASURED = "labels.npz", "measured.json"


@dataclass(frozen=True, slots=True)
class Measured:
    """What a system's process measured of itself.

    `start_seconds`: CPU time from the start of the process until its first image was counted. `images_per_cpu_second`: warm,
    images of 256 x 256, the best of three rounds; None where there is no such image. `cores`: CPU time / wall time of that
    round, so at most 1 where one thread was kept to. `peak_mib`: largest resident memory, all images counted.
    """

    start_seconds: float
    images_per_cpu_second: float | None
    images_per_second: float | None
    cores: float | None
    peak_mib: float

    def with_start(self, seconds: float) -> Measured:
        """The same with another `start_seconds`."""
        return replace(self, start_seconds=seconds)


def read_measured(path: Path) -> Measured:
    """What a worker wrote."""
    return Measured(**json.loads(path.read_text(encoding="utf-8")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train")
    counting = commands.add_parser("count")
    counting.add_argument("system")
    for command in (training, counting):
        command.add_argument("manifest", type=Path)
        command.add_argument("--cache", type=Path, required=True)
    training.add_argument("--minutes", type=float, required=True)
    counting.add_argument("--out", type=Path, required=True)
    counting.add_argument("--core", type=int, required=True)
    counting.add_argument("--only-start", action="store_true", help="end after the first image")
    arguments = parser.parse_args()
    if arguments.command == "train":
        from benchmarks.peers import star

        star.prepare_threads()
        train, fit = (manifest.read(arguments.manifest, part) for part in ("train", "fit"))
        star.train(train, fit, arguments.cache / "stardist", arguments.minutes)
        return
    os.sched_setaffinity(0, {arguments.core})
    cv2.setNumThreads(1)
    images = manifest.read(arguments.manifest, "val")
    count = systems.load(arguments.system, arguments.cache)
    count(images[0].plane())
    start_seconds = time.process_time()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if not arguments.only_start:
        count_images(count, images, arguments.out / LABELS)
    measured = measure(count, [] if arguments.only_start else images, start_seconds)
    (arguments.out / MEASURED).write_text(json.dumps(asdict(measured)), encoding="utf-8")


def count_images(count: systems.Count, images: Sequence[Entry], path: Path) -> None:
    """Count every image and write the label images: an NPZ with an array an image id."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for image in images:
            plane = image.plane()
            with archive.open(f"{image.id}.npy", "w") as stream:
                np.lib.format.write_array(stream, checked(count(plane), plane, image.id))


def measure(count: systems.Count, images: Sequence[Entry], start_seconds: float) -> Measured:
    """Time the images of 256 x 256 among `images`, and read the memory used so far."""
    planes = [plane for plane in (image.plane() for image in images) if plane.shape == (TIMED_SIDE,) * 2]
    timed = planes[:TIMED_IMAGES]
    peak_mib = peak_of(Path("/proc/self/status").read_text(encoding="utf-8"))
    if not timed:
        return Measured(start_seconds, None, None, None, peak_mib)
    cpu, wall = best_round(count, timed)
    return Measured(start_seconds, len(timed) / cpu, len(timed) / wall, cpu / wall, peak_mib)


def peak_of(status: str) -> float:
    """The largest resident memory (MiB) in a process's status: `getrusage` would count the parent's, kept over the exec."""
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def checked(labels: NDArray[np.int32], plane: Plane, name: str) -> NDArray[np.int32]:
    """The labels of a plane as int32. Raises ValueError where their size is not the plane's."""
    if labels.shape != plane.shape:
        raise ValueError(f"image {name}: label image of shape {plane.shape} expected, {labels.shape} came")
    return labels.astype(np.int32)


def best_round(count: systems.Count, planes: Sequence[Plane]) -> tuple[float, float]:
    """CPU and wall seconds that counting all planes takes: the round with the least CPU time, after a few planes to warm up."""
    for plane in planes[:WARM_UP]:
        count(plane)
    rounds = []
    for _ in range(ROUNDS):
        cpu, wall = time.process_time(), time.perf_counter()
        for plane in planes:
            count(plane)
        rounds.append((time.process_time() - cpu, time.perf_counter() - wall))
    return min(rounds)


if __name__ == "__main__":
    main()
