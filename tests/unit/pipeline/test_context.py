"""What a counting process sets up: a gate in front of its memory, and freed memory that is used again."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
import time

import pytest

from cellcount_core.pipeline.context import MemoryGate


def test_a_heavy_field_is_not_passed_by_light_ones_for_ever() -> None:
    gate = MemoryGate(10)
    gate.enter(4)
    entered = threading.Event()

    def heavy() -> None:
        gate.enter(100)
        entered.set()
        gate.leave(100)

    thread = threading.Thread(target=heavy, daemon=True)
    thread.start()
    time.sleep(0.05)

    light_inside = threading.Event()

    def light() -> None:
        gate.enter(4)
        light_inside.set()
        gate.leave(4)

    threading.Thread(target=light, daemon=True).start()
    assert not light_inside.wait(0.1)
    gate.leave(4)
    assert entered.wait(120)
    assert light_inside.wait(120)
    thread.join(5)


def test_what_is_inside_never_weighs_more_than_the_limit_unless_it_is_alone() -> None:
    gate = MemoryGate(10)
    lock = threading.Lock()
    inside: list[int] = []
    seen: list[tuple[int, ...]] = []

    def visit(weight: int) -> None:
        gate.enter(weight)
        with lock:
            inside.append(weight)
            seen.append(tuple(inside))
        time.sleep(0.001)
        with lock:
            inside.remove(weight)
        gate.leave(weight)

    threads = [threading.Thread(target=visit, args=(weight,)) for weight in [3, 4, 25, 1, 6, 10, 2, 5] * 6]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(seen) == 48
    assert all(sum(weights) <= 10 or len(weights) == 1 for weights in seen)


_CHURN = """
import resource, sys
import numpy as np
from cellcount_core.pipeline.context import keep_freed_memory

if sys.argv[1] == "keep":
    print(keep_freed_memory())

def churn():
    fields = [np.ones(1 << 20, np.float32) for _ in range(12)]
    return sum(float(field[0]) for field in fields)

churn()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    churn()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _churned(word: str, **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", _CHURN, word],
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
        env={**os.environ, **environment},
    )
    return done.stdout.split()


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")
def test_the_memory_of_freed_arrays_is_not_asked_for_anew() -> None:
    [faults_as_it_is] = _churned("leave")
    held, faults = _churned("keep")
    assert held == "True"
    assert int(faults) < int(faults_as_it_is) / 10


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")
@pytest.mark.parametrize(
    "own",
    [
        {"MALLOC_TRIM_THRESHOLD_": "131072"},
        {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"},
    ],
)
def test_settings_of_the_users_own_stand(own: dict[str, str]) -> None:
    assert _churned("keep", **own)[0] == "False"
