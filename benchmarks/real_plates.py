"""Count real plates with every shipped package: BBBC013 (nuclei channel), an exported ImageXpress plate, a Harmony field.

    python benchmarks/real_plates.py DATA [--output FOLDER] [--record]

DATA is the folder that holds `plates/`. Prints fields by status, the counts, the CPU time, plan and reduction included, and for
BBBC013 the sums of each row of wells of the packages side by side with their correlation over wells. With `--output` the outputs
stay in FOLDER, which must be new, with their overlays.
"""

from __future__ import annotations

import argparse
import tempfile
import time
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
    parser.add_argument("--output", type=Path, help="a new folder to leave the outputs in")
    parser.add_argument(
        "--record", action="store_true", help="write the table to docs/explanation/performance.md"
    )
    arguments = parser.parse_args()
    if arguments.output is None:
        with tempfile.TemporaryDirectory() as scratch:
            table = _counted(arguments.data / "plates", Path(scratch))
    elif arguments.output.exists():
        # A run that is finished already would count nothing, and seem quick.
        parser.error(f"--output {arguments.output}: a new folder expected")
    else:
        table = _counted(arguments.data / "plates", arguments.output)
        for done in sorted(path.parent for path in arguments.output.glob("*/*/run")):
            draw_pictures(open_store(str(done), StorageOptions()), StorageOptions(), 6)
    record("real-plates", table)


def _counted(plates: Path, folder: Path) -> list[str]:
    """Count every plate with every package into `folder`/PLATE/PACKAGE: the table."""
    shipped = [load_package(path.parent) for path in sorted(shipped_folder().glob("*/package.json"))]
    packages = [package.name for package in shipped if "fluorescence" in package.modality]
    table = ["| plate | package | fields | objects | CPU s |", "|---|---|---|---|---|"]
    print("\n".join(table))
    for plate, run in PLATES.items():
        seen = set()
        for package in packages:
            job = JobConfig.model_validate(
                {
                    "input": str(plates / plate),
                    "output": str(folder / plate / package),
                    "run": {**run, "model": {"package": package}},
                    "execution": {"runner": "serial"},
                }
            )
            began = time.process_time()
            summary = run_job(job, Quiet()).summary
            spent = time.process_time() - began
            statuses = ", ".join(f"{count} {status}" for status, count in summary.statuses.items() if count)
            seen.add(statuses)
            assert len(seen) == 1, f"{plate}: packages counted other fields of it: {sorted(seen)}"
            table.append(f"| {plate} | {package} | {statuses} | {summary.totals['count']} | {spent:.1f} |")
            print(table[-1], flush=True)
    side = _side_by_side(folder / "bbbc013_sbs", packages)
    print("\n".join(side))
    return [*table, *side]


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
