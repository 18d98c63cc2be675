"""SIGTERM, as a scheduler or `ray job stop` sends it: exit code 75, what is kept is said, no worker left, and the same command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from cellcount_core.domain.errors import ExitCode
from tests.faults.drill import judge
from tests.jobs import count
from tests.plates import Plate, write_plate
from tests.s3_jobs import Tables, tables

LONGEST_STOP_S = 120.0


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> Plate:
    """So many shards of one field that counting them takes longer than noticing the first."""
    return write_plate(tmp_path_factory.mktemp("input") / "plate", well_count=40, size=192)


@pytest.fixture(scope="module")
def unbroken(plate: Plate, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    output = tmp_path_factory.mktemp("unbroken") / "out"
    count(plate.folder, output, execution={"shard_fields": 64})
    return tables(output)


@pytest.mark.parametrize("runner", ["serial", pytest.param("ray", marks=pytest.mark.ray)])
def test_a_terminated_run_ends_as_an_interrupted_one_says_what_it_keeps_and_goes_on(
    plate: Plate, unbroken: Tables, tmp_path: Path, runner: str
) -> None:
    output = tmp_path / "out"
    driver = subprocess.Popen(
        [sys.executable, "-m", "cellcount_core.cli", "count", str(plate.folder), str(output), "--layout", "imagexpress",
         "--model", "threshold", "--runner", runner, "--actors", "1", "--progress", "json", "--set", "execution.shard_fields=1"],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("RAY_ADDRESS")},
    )  # fmt: skip
    while not list((output / "fields").glob("*.parquet")):
        assert driver.poll() is None
        time.sleep(0.01)
    family = psutil.Process(driver.pid).children(recursive=True)
    driver.send_signal(signal.SIGTERM)
    words = driver.communicate(timeout=LONGEST_STOP_S)[1].splitlines()
    assert driver.returncode == ExitCode.INTERRUPTED, words
    assert not [line for line in words if "Traceback" in line]
    assert psutil.wait_procs(family, timeout=LONGEST_STOP_S)[1] == []
    done = len(list((output / "fields").glob("*.parquet")))
    assert words[-1] == (
        f"cellcount: stopped; {done} of 80 fields are counted and kept in {output}; the same command goes on where this one stopped"
    )
    again = count(plate.folder, output)
    assert 0 < again.progress.shards == 80 - done
    judge(f"driver terminated (SIGTERM), {runner} runner", unbroken, output)
