"""Accuracy on the labelled validation images at their original size, beside what is asked for.

    python benchmarks/accuracy.py DATA [--packages nuclei threshold] [--engines all] [--diameter auto] [--record]
    python benchmarks/accuracy.py DATA --seeds --packages FOLDER-seed0 FOLDER-seed1 FOLDER-seed2 [--record]

DATA is the folder that holds `dsb2018_nuclei/` (images/, labels/, index.csv). Every image is counted by itself, as the split
mixes experiments; `--diameter auto` never sees the true size. `--through product` counts the same images from files to label
images with the whole job, each in a folder of its own. `--seeds` takes the packages for one recipe trained with several seeds
(`cellcount train --seeds`) and shows how far their figures spread.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import tifffile
from numpy.typing import NDArray

from benchmarks.predict import Counter
from benchmarks.record import record
from cellcount_core.cli.progress import Quiet
from cellcount_core.config import JobConfig
from cellcount_core.evaluation.evaluate import Report, labels_of, score_image
from cellcount_core.labelled.dataset import load_folder
from cellcount_core.labelled.image import LabelledImage
from cellcount_core.models.engines import ENGINES
from cellcount_core.models.package import MANIFEST, find_package
from cellcount_core.pipeline.process import prepare_process
from cellcount_core.runners.job import run_job


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a report, how it is written, and what is asked of it: at least so much, or (`at_most`) at most."""

    name: str
    of: Callable[[Report], float]
    form: str
    goal: float | None = None
    floor: float | None = None
    at_most: bool = False

    def shown(self, report: Report) -> str:
        """The value with the bar it reaches; bold where it reaches none."""
        value = self.of(report)
        text = format(value, self.form)
        if self.goal is None or self.floor is None:
            return text
        if self._reaches(value, self.goal):
            return f"{text} (goal)"
        return f"{text} (floor)" if self._reaches(value, self.floor) else f"**{text}**"

    def spread(self, reports: Sequence[Report]) -> str:
        """Mean and standard deviation over several packages."""
        values = [self.of(report) for report in reports]
        return f"{fmean(values):{self.form}} | {stdev(values):{self.form.lstrip('+')}}"

    def bar(self, value: float | None) -> str:
        """A goal or floor as the table shows it."""
        if value is None:
            return ""
        return f"{'≤' if self.at_most else '≥'} {format(value, self.form.lstrip('+'))}"

    def _reaches(self, value: float, bar: float) -> bool:
        return abs(value) <= bar if self.at_most else value >= bar


_REST = (
    Figure("AP@0.7", lambda report: report.ap(0.7), ".3f"),
    Figure("AP@0.9", lambda report: report.ap(0.9), ".3f"),
)

FIGURES: Mapping[str, tuple[Figure, ...]] = {
    "fluorescence": (
        Figure("AP@0.5", Report.ap, ".3f", 0.87, 0.83),
        Figure("mean AP 0.5-0.9", Report.mean_ap, ".3f", 0.72, 0.66),
        Figure("F1@0.5", Report.f1, ".3f", 0.92, 0.895),
        Figure("count MAPE", Report.count_mape, ".1%", 0.06, 0.08, at_most=True),
        Figure("count bias", Report.count_bias, "+.1%", 0.02, 0.03, at_most=True),
        *_REST,
    ),
    "histology": (
        Figure("F1@0.5", Report.f1, ".3f", 0.75, 0.75),
        Figure("AP@0.5", Report.ap, ".3f"),
        Figure("mean AP 0.5-0.9", Report.mean_ap, ".3f"),
        Figure("count MAPE", Report.count_mape, ".1%"),
        Figure("count bias", Report.count_bias, "+.1%"),
        *_REST,
    ),
}
"""What is asked for on images of each modality."""


@dataclass(frozen=True, slots=True)
class Result:
    """A package on one engine: its scores, and seconds for all images."""

    name: str
    report: Report
    seconds: float


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("data", type=Path)
    made.add_argument("--packages", nargs="+", default=["nuclei", "threshold"])
    made.add_argument("--engines", nargs="+", default=["auto"], help="names, or all that a package has")
    made.add_argument("--diameter", default="auto", help="auto, model (images as they are), or px")
    made.add_argument("--modality", choices=sorted(FIGURES), default="fluorescence")
    made.add_argument("--through", choices=("library", "product"), default="library")
    made.add_argument("--seeds", action="store_true", help="the packages are one recipe's: show their spread")
    made.add_argument("--limit", type=int, default=0, help="only this many images (0: all)")
    made.add_argument(
        "--record", action="store_true", help="write the table to docs/explanation/performance.md"
    )
    arguments = made.parse_args()
    if arguments.seeds and (len(arguments.packages) < 2 or len(arguments.engines) > 1):
        made.error("--seeds: two packages or more, and one engine expected")
    prepare_process()
    folder = arguments.data / "dsb2018_nuclei"
    images = load_folder(folder, split="val", modality=(arguments.modality,))
    if arguments.limit:
        images = images[:: max(1, len(images) // arguments.limit)][: arguments.limit]
    results = []
    for package in arguments.packages:
        for engine in engines_of(package, arguments.engines):
            through = _product if arguments.through == "product" else _library
            results.append(through(folder, images, package, engine, arguments.diameter))
    objects = sum(score.true for score in results[0].report.images)
    caption = (
        f"{len(images)} {arguments.modality} images, {objects:,} nuclei, diameter {arguments.diameter}, "
        f"through the {arguments.through}."
    )
    if arguments.seeds:
        seeds = [seed_of(package) for package in arguments.packages]
        results = [replace(result, name=seed) for seed, result in zip(seeds, results, strict=True)]
    table = [caption, "", *table_of(results, FIGURES[arguments.modality], spread=arguments.seeds)]
    print("\n".join(table))
    section = "accuracy" if arguments.modality == "fluorescence" else f"accuracy-{arguments.modality}"
    record(f"{section}-seeds" if arguments.seeds else section, table)


def seed_of(package: str) -> str:
    """How the table calls a package that was trained with one of several seeds."""
    manifest = json.loads((find_package(package).folder / MANIFEST).read_text(encoding="utf-8"))
    return f"seed {manifest.get('training', {}).get('seed', 'unknown')}"


def engines_of(package: str, asked: Sequence[str]) -> list[str]:
    """Those of the engines asked for that the package has; "auto" stands for itself, "all" for every one."""
    known = [name for name in find_package(package).engines if name in ENGINES]
    if "all" in asked:
        return known
    return [name for name in asked if name == "auto" or name in known]


def table_of(results: Sequence[Result], figures: Sequence[Figure], *, spread: bool = False) -> list[str]:
    """A row a figure, a column a result, with what is asked for beside it, and if wanted their mean and standard deviation."""
    more = ["mean", "sd"] if spread else []
    rows = [
        f"| | goal | floor | {' | '.join([*(result.name for result in results), *more])} |",
        "|---|---|---|" + "---|" * (len(results) + len(more)),
    ]
    reports = [result.report for result in results]
    for figure in figures:
        values = " | ".join([*map(figure.shown, reports), *([figure.spread(reports)] if spread else [])])
        rows.append(f"| {figure.name} | {figure.bar(figure.goal)} | {figure.bar(figure.floor)} | {values} |")
    if spread:
        return rows
    rates = " | ".join(f"{len(result.report.images) / result.seconds:.1f}" for result in results)
    return [*rows, f"| images/s, size told included | | | {rates} |"]


def _library(
    folder: Path, images: Sequence[LabelledImage], package: str, engine: str, diameter: str
) -> Result:
    counter = Counter(package, engine, diameter)
    began = time.perf_counter()
    counted = [labels_of(counter.count(image.plane)) for image in images]
    seconds = time.perf_counter() - began
    return Result(f"{counter.package.name}, {counter.engine_name}", _report(images, counted), seconds)


def _product(
    folder: Path, images: Sequence[LabelledImage], package: str, engine: str, diameter: str
) -> Result:
    with tempfile.TemporaryDirectory() as scratch:
        source, output = Path(scratch) / "in", Path(scratch) / "out"
        for image in images:
            own = source / image.id / f"{image.id}.png"
            own.parent.mkdir(parents=True)
            own.write_bytes((folder / "images" / own.name).read_bytes())
        job = JobConfig.model_validate(
            {
                "input": str(source),
                "output": str(output),
                "run": {
                    "labels": "tiff",
                    "diameter": diameter,
                    "model": {"package": package, "engine": engine},
                },
                "execution": {"runner": "serial", "threads": 1},
            }
        )
        began = time.perf_counter()
        run_job(job, Quiet())
        seconds = time.perf_counter() - began
        labels = output / "labels"
        counted = [
            tifffile.imread(labels / image.id / f"{image.id}.png.labels.tif").astype(np.int32)
            for image in images
        ]
    return Result(f"{find_package(package).name}, {engine}", _report(images, counted), seconds)


def _report(images: Sequence[LabelledImage], counted: Sequence[NDArray[np.int32]]) -> Report:
    return Report(tuple(score_image(image, labels) for image, labels in zip(images, counted, strict=True)))


if __name__ == "__main__":
    main()
