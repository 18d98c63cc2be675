"""How far the viability of made-up plates is from the truth, and what the all-alive field of the shared data comes to.

    python benchmarks/viability.py [--conditions NAME ...] [--cells N] [--data DATA]

Each plate holds wells from 0 to 100 % live cells and is counted as users count, by `cellcount count` with a shipped package: once with
thresholds found between populations, once on control wells (those of 100 % and 0 %). DATA is a folder that holds `fluo_live_dead/`.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import pyarrow.parquet as pq
import tifffile

from cellcount_core.cli.progress import Quiet
from cellcount_core.config import JobConfig
from cellcount_core.demo.live_dead import (
    CONDITIONS,
    MIXTURES,
    UM_PER_PX,
    Condition,
    TruthCells,
    render_live_dead,
)
from cellcount_core.output.runfile import RunFile
from cellcount_core.runners.job import run_job

PACKAGES = {"all": "viability-fluorescence", "live": "viability-live-dead"}
SEED = 22


@dataclass(frozen=True)
class Line:
    """What a plate came to: cells, bias of the count, pooled error and largest error of a well, in points, and how often intervals hold."""

    name: str
    cells: int
    bias: float
    pooled: float
    worst: float
    held: int
    wells: int
    rule: str


def job(
    images: Path,
    out: Path,
    roles: tuple[str, str],
    viability: dict[str, object],
    um_per_px: float = UM_PER_PX,
) -> JobConfig:
    run: dict[str, object] = {
        "layout": {"kind": "imagexpress"}, "um_per_px": um_per_px, "viability": viability,
        "model": {"package": PACKAGES[roles[0]]}, "channels": {roles[0]: "w1", roles[1]: "w2"},
    }  # fmt: skip
    return JobConfig.model_validate(
        {
            "input": str(images),
            "output": str(out),
            "run": run,
            "execution": {"runner": "serial", "threads": 1},
        }
    )


def controls() -> dict[str, object]:
    wells = {share: f"A{column:02d}" for column, share in enumerate(MIXTURES, 1)}
    return {"controls": {"live": [wells[1.0]], "dead": [wells[0.0]]}}


def measured(condition: Condition, folder: Path, cells: int, way: str) -> Line:
    truth = render_live_dead(folder, condition, SEED, cells=cells)
    settings = controls() if way == "controls" else {}
    result = run_job(job(folder / "images", folder / way, condition.roles, settings), Quiet())
    return line_of(condition.name, folder / way, truth, result.run)


def line_of(name: str, out: Path, truth: tuple[TruthCells, ...], run: RunFile) -> Line:
    wells = {row["Metadata_Well"]: row for row in pq.read_table(out / "wells.parquet").to_pylist()}
    live, dead, true_live, true_dead, held, errors = 0, 0, 0, 0, 0, []
    for well, row in wells.items():
        own = [each for each in truth if each.well == well]
        its_live, its_dead = sum(each.live for each in own), sum(each.dead for each in own)
        true = 100 * its_live / (its_live + its_dead)
        errors.append(row["viability"] - true)
        held += row["viability_low"] <= true <= row["viability_high"]
        live, dead = live + row["live"], dead + row["dead"]
        true_live, true_dead = true_live + its_live, true_dead + its_dead
    counted = sum(row["count"] for row in wells.values())
    truly = sum(each.live + each.dead + each.both for each in truth)
    numbers = run.plate_numbers[0].numbers
    rule = ", ".join(
        f"{role} > {numbers[f'{role}_threshold']:.0f} ({numbers[f'{role}_populations']:.0f} pop., spill {numbers[f'{role}_spill']:.3f})"
        for role in ("live", "dead")
        if f"{role}_threshold" in numbers
    )
    pooled = 100 * live / (live + dead) - 100 * true_live / (true_live + true_dead)
    return Line(name, truly, counted / truly - 1, pooled, max(errors, key=abs), held, len(wells), rule)


def all_alive(data: Path, folder: Path) -> str:
    images = folder / "images"
    images.mkdir()
    for channel, name in ((1, "live_nuclei"), (2, "dead_nuclei")):
        plane = cv2.imread(str(data / "fluo_live_dead" / f"sample_{name}.png"), cv2.IMREAD_UNCHANGED)
        tifffile.imwrite(images / f"P_A01_s1_w{channel}.TIF", plane)
    run_job(job(images, folder / "out", ("all", "dead"), {}, 0.3112), Quiet())
    row = pq.read_table(folder / "out" / "wells.parquet").to_pylist()[0]
    return f"fluo_live_dead (48 nuclei, all alive): {row['count']} cells, viability {row['viability']:.1f} % ({row['viability_low']:.1f} to {row['viability_high']:.1f})"


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--conditions", nargs="+", default=[each.name for each in CONDITIONS])
    made.add_argument("--cells", type=int, default=130, help="cells in a field; a well has two")
    made.add_argument("--data", type=Path)
    arguments = made.parse_args()
    print(
        "| plate | thresholds | cells | count bias | pooled error, points | worst well, points | intervals that hold |"
    )
    print("|---|---|---|---|---|---|---|")
    for condition in (each for each in CONDITIONS if each.name in arguments.conditions):
        for way in ("populations", "controls"):
            with tempfile.TemporaryDirectory() as folder:
                line = measured(condition, Path(folder), arguments.cells, way)
            print(
                f"| {line.name} | {way}: {line.rule} | {line.cells} | {line.bias:+.1%} | {line.pooled:+.2f} | {line.worst:+.2f} | "
                f"{line.held} of {line.wells} |",
                flush=True,
            )
    if arguments.data:
        with tempfile.TemporaryDirectory() as folder:
            print(all_alive(arguments.data, Path(folder)))


if __name__ == "__main__":
    main()
