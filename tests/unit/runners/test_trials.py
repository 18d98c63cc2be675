"""Trials: how a cluster is divided among them, and that one that dies takes none of the others with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from cellcount_core.config import ExecutionConfig
from cellcount_core.runners.ray_cluster import Resources
from cellcount_core.runners.trials import Share, Trial, run_trials, share_of


@pytest.mark.parametrize(
    ("cpus", "gpus", "trials", "threads", "expected"),
    [
        (8, 0, 2, 0, Share(4, 0, 4)),
        (2, 0, 3, 0, Share(1, 0, 1)),
        (2, 0, 3, 4, Share(2, 0, 4)),
        (16, 4, 3, 0, Share(1, 1, 5)),
        (16, 2, 3, 0, Share(1, 1, 8)),
    ],
)
def test_a_trial_has_a_gpu_of_its_own_or_its_part_of_the_cores(
    cpus: float, gpus: float, trials: int, threads: int, expected: Share
) -> None:
    assert share_of(Resources(cpus, gpus, own=True), trials, threads) == expected


def halve(number: int, threads: int) -> tuple[float, int]:
    """The half of an even number; an odd one is an error, and 0 ends the process."""
    if number == 0:
        os._exit(9)
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number / 2, threads


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["serial", "ray"])
def test_a_trial_that_fails_or_dies_is_one_line_and_the_others_have_their_values(runner: str) -> None:
    lines: list[str] = []
    trials = [Trial(f"number {number}", number) for number in (4, 3, 0, 6)]
    execution = ExecutionConfig.model_validate({"runner": runner})
    ended = run_trials(halve, trials, execution, threads=1, report=lines.append)
    assert [end.value for end in ended] == [(2.0, 1), None, None, (3.0, 1)]
    assert "ValueError: 3 is odd" in ended[1].fault
    assert ended[2].fault
    assert "number 6: done" in lines


def mark_and_sleep(folder: str, _: int) -> None:
    """Write this process's number to a file, and stay."""
    file = Path(folder) / "pid.part"
    file.write_text(str(os.getpid()))
    file.replace(Path(folder) / "pid")
    time.sleep(300)


PARENT = """
import sys
from cellcount_core.config import ExecutionConfig
from cellcount_core.runners.trials import Trial, run_trials
from tests.unit.runners.test_trials import mark_and_sleep

if __name__ == "__main__":
    run_trials(mark_and_sleep, [Trial("one", sys.argv[1])], ExecutionConfig(runner="serial"), threads=1)
"""


def is_alive(pid: int) -> bool:
    """Whether a process runs (one that ended and was not waited for does not)."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.mark.slow
@pytest.mark.parametrize("killed_by", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_process_of_a_trial_ends_with_the_one_that_started_it(
    tmp_path: Path, killed_by: signal.Signals
) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    parent = subprocess.Popen([sys.executable, str(tmp_path / "parent.py"), str(tmp_path)], env=environment)
    wait_until(lambda: (tmp_path / "pid").exists())
    child = int((tmp_path / "pid").read_text())
    parent.send_signal(killed_by)
    parent.wait(30)
    wait_until(lambda: not is_alive(child))


def wait_until(true: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until something is true; a failure if it is not in time."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.05)
