"""Two drivers on one output: the second is refused while the first lives, and takes over once it is dead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cellcount_core.domain.errors import ExitCode
from cellcount_core.runners.lease import LEASE
from cellcount_core.stores.local import open_local
from tests.faults.drill import judge
from tests.faults.drivers import LONGEST_S
from tests.jobs import count
from tests.plates import Plate, write_plate
from tests.s3_jobs import tables


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> Plate:
    """So many shards of one field that counting them takes longer than a second driver needs to be refused."""
    return write_plate(tmp_path_factory.mktemp("input") / "plate", well_count=96, size=192)


def start(plate: Plate, output: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cellcount_core.cli", "count", str(plate.folder), str(output), "--layout", "imagexpress",
         "--model", "threshold", "--runner", "serial", "--progress", "json", "--set", "execution.shard_fields=1"],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for_parts(driver: subprocess.Popen[str], output: Path) -> None:
    until = time.monotonic() + LONGEST_S
    while not list((output / "fields").glob("*.parquet")):
        assert driver.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_second_driver_is_refused_and_takes_over_from_a_killed_one(plate: Plate, tmp_path: Path) -> None:
    output = tmp_path / "out"
    first = start(plate, output)
    try:
        wait_for_parts(first, output)
        # The first is held still: it lives, and cannot be done before the second has looked.
        os.kill(first.pid, signal.SIGSTOP)
        second = start(plate, output)
        words = second.communicate(timeout=LONGEST_S)[1].splitlines()
        assert second.returncode == ExitCode.BUSY, words
        assert words[-1].startswith(
            f"cellcount: {output}: another run is at work on this output: process {first.pid} on "
        )
    finally:
        first.kill()
        first.communicate()
    done = len(list((output / "fields").glob("*.parquet")))
    third = start(plate, output)
    words = third.communicate(timeout=LONGEST_S)[1].splitlines()
    assert third.returncode == ExitCode.OK, words
    assert any(f"taking over from process {first.pid} on" in line for line in words)
    assert 0 < done < 192
    count(plate.folder, tmp_path / "unbroken", execution={"shard_fields": 64})
    judge("two drivers on one output, the first killed", tables(tmp_path / "unbroken"), output)


def test_a_driver_whose_output_was_taken_over_stops_and_reduces_nothing(plate: Plate, tmp_path: Path) -> None:
    output = tmp_path / "out"
    driver = start(plate, output)
    try:
        wait_for_parts(driver, output)
        store = open_local(output)
        store.put(f"{LEASE}/000002.json", store.get(f"{LEASE}/000001.json"))
        words = driver.communicate(timeout=LONGEST_S)[1].splitlines()
    finally:
        driver.kill()
        driver.communicate()
    assert driver.returncode == ExitCode.BUSY, words
    assert "another run took this output over" in words[-1]
    assert not (output / "summary.json").exists()
