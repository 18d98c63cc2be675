"""The shipped packages beside other counters of nuclei: accuracy, speed on one thread, start-up and memory in one table.

    python benchmarks/peers/run.py DATA [--systems watershed stardist cellprofiler packages] [--limit 8] [--record]

DATA is the folder that holds `dsb2018_nuclei/`. Every system counts the fluorescence images of `val` at their original size in
a process of its own: the same images in the same order, one thread, one core, no GPU. StarDist is trained first, on `train`,
for `--stardist-minutes` of CPU time on one thread; what was trained stays in `--cache` and is used again. Systems that cannot
be installed have a row that says so. How the comparison was made fair: docs/explanation/peers.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.peers import cellprofiler, manifest, star
from benchmarks.peers.environment import SystemFailed, python_with, worker
from benchmarks.peers.manifest import Entry
from benchmarks.peers.worker import LABELS, MEASURED, Measured, read_measured
from benchmarks.record import record
from cellcount_core.labelled.dataset import load_folder
from cellcount_core.labelled.image import LabelledImage
from cellcount_core.models.engines import ENGINES, ON_GPU
from cellcount_core.models.manifest import MANIFEST
from cellcount_core.models.package import Package, load_package, shipped_folder
from cellcount_core.tasks.instances.score import score_labels
from cellcount_core.tasks.matching import Report
from cellcount_core.training.learning import split_groups

GROUPS = ("watershed", "stardist", "cellprofiler", "packages")
MODALITY, FIT_SHARE = "fluorescence", 0.1
SPEED_BAR, AP_BAR, MEAN_AP_BAR = 15.0, 0.06, 0.12
CACHE = Path("~/.cache/cellcount-peers").expanduser()
HEADER = (
    "| system | trained on `train` | AP@0.5 | AP@0.7 | AP@0.9 | mean AP 0.5-0.9 | F1@0.5 | count MAPE | count bias | images a CPU s | start, CPU s | peak MiB |",
    "|---|---|---|---|---|---|---|---|---|---|---|---|",
)


@dataclass(frozen=True, slots=True)
class System:
    """A row: its name in the table, how the worker knows it, the group it is chosen by, and how long it was trained."""

    label: str
    key: str
    group: str
    trained: str


@dataclass(frozen=True, slots=True)
class Row:
    """What came out for a system: its scores and what its process measured."""

    system: System
    report: Report
    measured: Measured


def main() -> None:
    arguments = parse(sys.argv[1:])
    cache: Path = arguments.cache
    cache.mkdir(parents=True, exist_ok=True)
    train, fit, val = load_images(arguments.data, arguments.limit)
    folder = arguments.data.resolve() / "dsb2018_nuclei"
    listed = cache / ("images.json" if not arguments.limit else f"images-{arguments.limit}.json")
    manifest.write(
        listed, [*entries(folder, train, "train"), *entries(folder, fit, "fit"), *entries(folder, val, "val")]
    )
    rows: list[Row] = []
    lines: list[str] = []
    for system in systems(arguments.systems, cache, arguments.stardist_minutes):
        began = time.perf_counter()
        try:
            row = compare(system, listed, val, cache, arguments)
        except SystemFailed as failure:
            lines.append(f"| {system.label} | not run: {failure} |" + " |" * 10)
        else:
            rows.append(row)
            lines.append(shown(row))
        print(f"{lines[-1]}  ({time.perf_counter() - began:.0f} s)", flush=True)
    said = f"{len(val)} images{' (--limit)' if arguments.limit else ''}, {sum(i.labels.max() for i in val)} objects."
    table = [said, "", *HEADER, *lines, *beside_stardist(rows)]
    print("\n".join(["", *table]))
    record("peers", table)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("data", type=Path, help="the folder that holds dsb2018_nuclei/")
    made.add_argument("--systems", nargs="+", choices=GROUPS, default=list(GROUPS))
    made.add_argument("--cache", type=Path, default=CACHE, help="environments, trained models, label images")
    made.add_argument("--stardist-minutes", type=float, default=55, help="of CPU time, to train StarDist")
    made.add_argument("--limit", type=int, default=0, help="this many images, evenly spread (0: all)")
    made.add_argument("--starts", type=int, default=3, help="starts of which the least CPU time is shown")
    made.add_argument("--core", type=int, default=0, help="the core that all counting is held to")
    made.add_argument(
        "--record", action="store_true", help="write the table to docs/explanation/performance.md"
    )
    return made.parse_args(arguments)


def load_images(
    data: Path, limit: int
) -> tuple[list[LabelledImage], list[LabelledImage], list[LabelledImage]]:
    """The images that train, those that fit thresholds (as our own training divides `train`), and those that are counted."""
    folder = data / "dsb2018_nuclei"
    train, fit = split_groups(load_folder(folder, split="train", modality=(MODALITY,)), FIT_SHARE)
    return train, fit, spread(load_folder(folder, split="val", modality=(MODALITY,)), limit)


def spread(images: list[LabelledImage], limit: int) -> list[LabelledImage]:
    """`limit` images evenly spread over the list; all for 0."""
    if not 0 < limit < len(images):
        return images
    return [images[number * len(images) // limit] for number in range(limit)]


def entries(folder: Path, images: Sequence[LabelledImage], part: str) -> list[Entry]:
    """The images of a part as the workers read them."""
    return [
        Entry(
            image.id,
            str(folder / "images" / f"{image.id}.png"),
            str(folder / "labels" / f"{image.id}.png"),
            part,
        )
        for image in images
    ]


def systems(groups: Sequence[str], cache: Path, minutes: float) -> list[System]:
    """Everything to be compared, peers first."""
    used = star.read_state(cache / "stardist")
    trained = f"{(used['cpu_seconds'] / 60 if used['complete'] else minutes):.0f} CPU min"
    found = [
        System("Otsu + distance watershed (scikit-image)", "watershed", "watershed", "no"),
        System("CellProfiler 5.0 dev, IdentifyPrimaryObjects", "cellprofiler", "cellprofiler", "no"),
        System("StarDist 0.9.2, 32 rays, grid 2", "stardist", "stardist", trained),
        *(variant for package in shipped() for variant in variants(package)),
    ]
    return [system for system in found if system.group in groups]


def shipped() -> list[Package]:
    """The shipped packages that are for these images."""
    folders = sorted(folder.parent for folder in shipped_folder().glob(f"*/{MANIFEST}"))
    return [package for package in map(load_package, folders) if MODALITY in package.modality]


def variants(package: Package) -> list[System]:
    """A package on each of its CPU engines: by each image's own estimate of the size of its objects, and as the images are."""
    trained = json.loads((package.folder / MANIFEST).read_text(encoding="utf-8")).get("training")
    scales = ("auto", "model") if package.input.diameter_px is not None else ("model",)
    said = {"auto": ", diameter auto", "model": ", as it is" if len(scales) > 1 else ""}
    return [
        System(
            f"**{package.name}**, {engine}{said[scale]}",
            f"package:{package.name}:{engine}:{scale}",
            "packages",
            "see its card" if trained else "no",
        )
        for engine in package.engines
        if engine in ENGINES and engine not in ON_GPU
        for scale in scales
    ]


def compare(
    system: System, listed: Path, val: Sequence[LabelledImage], cache: Path, arguments: argparse.Namespace
) -> Row:
    """Install, train, start and count one system. Raises SystemFailed where it cannot be done."""
    python = interpreter(system, cache)
    folder = cache / "out" / system.key.replace(":", "-")
    if system.group == "stardist" and not star.read_state(cache / "stardist")["complete"]:
        log = cache / "stardist-train.log"
        print(f"training StarDist for {arguments.stardist_minutes:g} CPU min; see {log}", flush=True)
        words = ["train", str(listed), "--cache", str(cache), "--minutes", str(arguments.stardist_minutes)]
        worker(python, words, cache, log)
    starts = []
    for number in range(arguments.starts):
        words = ["count", system.key, str(listed), "--cache", str(cache), "--out", str(folder)]
        words += ["--core", str(arguments.core)]
        words += ["--only-start"] if number < arguments.starts - 1 else []
        worker(python, words, cache, folder / "log.txt")
        starts.append(read_measured(folder / MEASURED))
    best = min(measured.start_seconds for measured in starts)
    assert (starts[-1].cores or 0) < 1.05, f"{system.label}: counted on more than one core"
    with np.load(folder / LABELS) as counted:
        assert sorted(counted) == sorted(image.id for image in val), f"{system.label}: counted other images"
        report = Report(tuple(score_labels(image.truth, counted[image.id]) for image in val))
    return Row(system, report, starts[-1].with_start(best))


def interpreter(system: System, cache: Path) -> Path:
    """The Python of a system: ours, or that of its own environment."""
    own = {"stardist": star.REQUIREMENTS, "cellprofiler": cellprofiler.REQUIREMENTS}
    if system.group in own:
        return python_with(system.group, own[system.group], cache)
    return Path(sys.executable)


def shown(row: Row) -> str:
    """A line of the table."""
    report, measured = row.report, row.measured
    speed = "-" if measured.images_per_cpu_second is None else f"{measured.images_per_cpu_second:.1f}"
    return (
        f"| {row.system.label} | {row.system.trained} | {report.ap():.3f} | {report.ap(0.7):.3f} | {report.ap(0.9):.3f} | "
        f"{report.mean_ap():.3f} | {report.f1():.3f} | {report.count_mape():.1%} | {report.count_bias():+.1%} | "
        f"{speed} | {measured.start_seconds:.1f} | {measured.peak_mib:.0f} |"
    )


def beside_stardist(rows: Sequence[Row]) -> list[str]:
    """What each trained package gains over StarDist, with the bars it must pass; nothing where either is absent."""
    peer = next((row for row in rows if row.system.group == "stardist"), None)
    ours = [row for row in rows if row.system.trained == "see its card"]
    if peer is None or not ours:
        return []
    lines = [
        "",
        f"| beside StarDist | AP@0.5 (≥ +{AP_BAR}) | mean AP (≥ +{MEAN_AP_BAR}) | images a CPU s (≥ {SPEED_BAR:g}x, as it is) |",
        "|---|---|---|---|",
    ]
    for row in ours:
        ap, mean = row.report.ap() - peer.report.ap(), row.report.mean_ap() - peer.report.mean_ap()
        fast, slow = row.measured.images_per_cpu_second, peer.measured.images_per_cpu_second
        ratio = "-" if fast is None or slow is None else f"{fast / slow:.1f}x"
        lines.append(f"| {row.system.label} | {ap:+.3f} | {mean:+.3f} | {ratio} |")
    return lines


if __name__ == "__main__":
    if not hasattr(os, "sched_setaffinity"):
        raise SystemExit("this comparison holds every system to one core, which needs Linux")
    main()
