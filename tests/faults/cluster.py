"""A small Ray cluster of its own for fault tests: several runs connect to it one after the other."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_HOST = """
import logging, sys
import ray
context = ray.init(
    address="local", num_cpus=2, include_dashboard=False, object_store_memory=128 << 20, logging_level=logging.ERROR
)
print("address", context.address_info["gcs_address"], flush=True)
sys.stdin.read()
"""


@contextmanager
def ray_cluster(environment: Mapping[str, str]) -> Iterator[str]:
    """The address of a cluster of two cores whose workers get `environment`; it ends with the context."""
    folder = tempfile.mkdtemp(prefix="cc-ray-")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    host = subprocess.Popen(
        [sys.executable, "-c", _HOST],
        env={**kept, **environment, "RAY_TMPDIR": folder, "RAY_USAGE_STATS_ENABLED": "0"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert host.stdin is not None
    assert host.stdout is not None
    try:
        yield _address(host.stdout)
    finally:
        host.stdin.close()
        try:
            host.wait(timeout=30)
        except subprocess.TimeoutExpired:
            host.kill()
            host.wait(timeout=10)
        shutil.rmtree(folder, ignore_errors=True)


def _address(lines: Iterator[str]) -> str:
    for line in lines:
        if line.startswith("address "):
            return line.split()[1]
    raise RuntimeError("the Ray cluster did not start")
