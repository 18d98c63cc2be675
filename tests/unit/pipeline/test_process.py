"""What a counting process sets up: freed memory is used again."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")
def test_the_memory_of_freed_arrays_is_not_asked_for_anew() -> None:
    [faults_as_it_is] = _churned("leave")
    held, faults = _churned("keep")
    assert held == "True"
    assert int(faults) < int(faults_as_it_is) / 10


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
