"""A small Ray cluster of its own for fault tests: several runs connect to it one after the other."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_HOST = """
import logging, sys
import ray
context = ray.init(
    address="local", num_cpus=2, include_dashboard=False, object_store_memory=128 << 20, logging_level=logging.ERROR
)
print("address", context.address_info["gcs_address"], flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class RayCluster:
    """The address of a cluster, and the environment of a driver that holds its token."""

    address: str
    environment: dict[str, str]


@contextmanager
def ray_cluster(environment: Mapping[str, str]) -> Iterator[RayCluster]:
    """A cluster of two cores whose workers get `environment`; it ends with the context."""
    folder = Path(tempfile.mkdtemp(prefix="cc-ray-"))
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    both = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        **environment,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    host = subprocess.Popen(
        [sys.executable, "-c", _HOST],
        env={**both, "RAY_TMPDIR": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert host.stdin is not None
    assert host.stdout is not None
    try:
        yield RayCluster(_address(host.stdout), both)
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
