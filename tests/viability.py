"""A made-up plate of live and dead cells for tests of viability by fluorescence: five wells of known mixtures, and how they are counted."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cellcount_core.cli.main import main
from cellcount_core.demo.live_dead import UM_PER_PX, Condition, TruthCells, render_live_dead
from cellcount_core.domain.errors import ExitCode

MIXTURES = (0.0, 0.25, 0.5, 0.9, 1.0)
CONDITION = Condition("dim, crosstalk, uneven light", first=0.7, dead=0.45, spill=0.06, fall_off=0.45)


@pytest.fixture(scope="session")
def stained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five wells of two sites, from all dead to all live."""
    folder = tmp_path_factory.mktemp("plates") / "P"
    render_live_dead(folder, CONDITION, 5, mixtures=MIXTURES, cells=90, side=384)
    return folder


@pytest.fixture(scope="session")
def judged(stained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Counted by the serial runner."""
    out = tmp_path_factory.mktemp("counted") / "out"
    assert (
        count(stained, out, "--runner", "serial", "--chamber", "improved_neubauer", "--dilution", "2")
        == ExitCode.OK
    )
    return out


def truth(stained: Path) -> dict[str, TruthCells]:
    """The true numbers of both sites of each well."""
    lines = [line.split(",") for line in (stained / "truth.csv").read_text().splitlines()[1:]]
    wells: dict[str, TruthCells] = {}
    for well, _, live, dead, both, _ in lines:
        before = wells.get(well, TruthCells(well, 0, 0, 0))
        wells[well] = TruthCells(
            well, 0, before.live + int(live), before.dead + int(dead), before.both + int(both)
        )
    return wells


def count(
    stained: Path, out: Path, *more: str, model: str = "viability-fluorescence", first: str = "all"
) -> int:
    return main(
        ["count", str(stained / "images"), str(out), "--layout", "imagexpress", "--model", model, "--channel", f"{first}=w1",
         "--channel", "dead=w2", "--um-per-px", str(UM_PER_PX), "--set", "execution.shard_fields=3", *more]
    )  # fmt: skip


def wells_of(out: Path) -> dict[str, dict[str, object]]:
    return {row["Metadata_Well"]: row for row in pq.read_table(out / "wells.parquet").to_pylist()}


def number(row: dict[str, object], column: str) -> float:
    """A value of a row that must be a number."""
    value = row[column]
    assert isinstance(value, int | float), (column, value)
    return value
