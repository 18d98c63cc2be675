"""Accuracy of the shipped packages as the product counts: `cellcount count --labels` on labelled images, then matching.

    python benchmarks/accuracy.py DATA [--packages nuclei threshold]

DATA is the folder that holds `dsb2018_nuclei/` (images/, labels/, index.csv). The fluorescence images of its `val` split are
counted at their original size through the whole path, from files to label images, and those are compared with the labels.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile

from benchmarks.record import record
from cellcount_core.cli.progress import Quiet
from cellcount_core.domain.config import JobConfig
from cellcount_core.evaluation.dataset import load_folder
from cellcount_core.evaluation.evaluate import Report, score_image
from cellcount_core.runners.job import run_job


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--packages", nargs="+", default=["nuclei", "threshold"])
    parser.add_argument(
        "--record", action="store_true", help="write the table to docs/explanation/performance.md"
    )
    arguments = parser.parse_args()
    folder = arguments.data / "dsb2018_nuclei"
    labelled = load_folder(folder, split="val", modality=("fluorescence",))
    table = [
        "| package | F1@0.5 | AP@0.5 | AP@0.7 | AP@0.9 | mean AP 0.5-0.9 | count MAPE | count bias | images/s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for package in arguments.packages:
        with tempfile.TemporaryDirectory() as scratch:
            job = JobConfig.model_validate(
                {
                    "input": str(folder / "images"),
                    "output": scratch,
                    "run": {
                        "include": [f"{image.id}.png" for image in labelled],
                        "labels": "tiff",
                        "model": {"package": package},
                    },
                    "execution": {"runner": "serial", "threads": 1},
                }
            )
            began = time.perf_counter()
            run_job(job, Quiet())
            seconds = time.perf_counter() - began
            scores = []
            for image in labelled:
                counted = tifffile.imread(Path(scratch) / "labels" / f"{image.id}.png.labels.tif")
                scores.append(score_image(image, counted.astype(np.int32)))
        report = Report(tuple(scores))
        table.append(
            f"| {package} | {report.f1():.3f} | {report.ap():.3f} | {report.ap(0.7):.3f} | {report.ap(0.9):.3f} | "
            f"{report.mean_ap():.3f} | {report.count_mape():.1%} | {report.count_bias():+.1%} | {len(labelled) / seconds:.1f} |"
        )
    print("\n".join(table))
    record("accuracy", table)


if __name__ == "__main__":
    main()
