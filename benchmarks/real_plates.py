"""Count real plates with every shipped package: BBBC013 (nuclei channel), an exported ImageXpress plate, a Harmony field.

    python benchmarks/real_plates.py DATA [--output FOLDER]

DATA is the folder that holds `plates/`. Prints fields by status, the counts, and for BBBC013 the sums of each row of wells
of the packages side by side with their correlation over wells; the outputs with their overlays stay in FOLDER.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.record import record
from cellcount_core.cli.progress import Quiet
from cellcount_core.config import JobConfig
from cellcount_core.models.package import load_package, shipped_folder
from cellcount_core.report.pictures import draw_pictures
from cellcount_core.runners.job import run_job
from cellcount_core.stores.base import StorageOptions
from cellcount_core.stores.open import open_store

PLATES: dict[str, dict[str, object]] = {
    "bbbc013_sbs": {
        "layout": {
            "kind": "pattern",
            "pattern": r"Channel(?P<channel>\d)-\d+-(?P<row>[A-H])-(?P<column>\d+)\.tif",
            "plate": "BBBC013",
        },
        "channels": {"nuclei": "2"},
    },
    "imagexpress_htd_export": {"layout": {"kind": "imagexpress"}, "channels": {"nuclei": "w1"}},
    "harmony_operetta_v5": {
        "layout": {
            "kind": "pattern",
            "pattern": r"r(?P<row>\d+)c(?P<column>\d+)f(?P<site>\d+)p(?P<plane>\d+)-ch(?P<channel>\d+)sk(?P<timepoint>\d+)",
            "plate": "harmony",
        }
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--output", type=Path, default=Path("out/real_plates"))
    parser.add_argument(
        "--record", action="store_true", help="write the table to docs/explanation/performance.md"
    )
    arguments = parser.parse_args()
    shipped = [load_package(path.parent) for path in sorted(shipped_folder().glob("*/package.json"))]
    packages = [package.name for package in shipped if "fluorescence" in package.modality]
    table = ["| plate | package | fields | objects | seconds |", "|---|---|---|---|---|"]
    print("\n".join(table))
    for plate, run in PLATES.items():
        for package in packages:
            output = arguments.output / plate / package
            job = JobConfig.model_validate(
                {
                    "input": str(arguments.data / "plates" / plate),
                    "output": str(output),
                    "run": {**run, "model": {"package": package}},
                    "execution": {"runner": "serial"},
                }
            )
            result = run_job(job, Quiet())
            statuses = ", ".join(
                f"{count} {status}" for status, count in result.summary.statuses.items() if count
            )
            table.append(
                f"| {plate} | {package} | {statuses} | {result.summary.totals['count']} | {result.seconds:.1f} |"
            )
            print(table[-1], flush=True)
            draw_pictures(open_store(str(output), StorageOptions()), StorageOptions(), 6)
    side = _side_by_side(arguments.output / "bbbc013_sbs", packages)
    print("\n".join(side))
    record("real-plates", [*table, *side])


def _side_by_side(folder: Path, packages: list[str]) -> list[str]:
    wells = {package: pq.read_table(folder / package / "wells.parquet") for package in packages}
    names = wells[packages[0]]["Metadata_Well"].to_pylist()
    counts = {package: np.array(table["count"].to_pylist()) for package, table in wells.items()}
    table = ["", "| BBBC013, sum of a row | " + " | ".join(packages) + " |", "|---|" + "---|" * len(packages)]
    for row in "ABCDEFGH":
        mine = np.array([name.startswith(row) for name in names])
        table.append(
            f"| {row} | " + " | ".join(str(int(counts[package][mine].sum())) for package in packages) + " |"
        )
    for package in packages[1:]:
        r = np.corrcoef(counts[packages[0]], counts[package])[0, 1]
        table += ["", f"Correlation over the 96 wells, {packages[0]} and {package}: {r:.3f}."]
    return table


if __name__ == "__main__":
    main()
