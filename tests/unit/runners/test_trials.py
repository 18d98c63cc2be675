"""Trials: how a cluster is divided among them, and that one that dies takes none of the others with it."""

from __future__ import annotations

import os

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
