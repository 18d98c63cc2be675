"""Small Ray clusters of their own for fault tests: several runs connect to one, one after the other."""

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
from typing import IO

import psutil

_HOST = """
import logging, sys
import ray
context = ray.init(
    address="local", num_cpus=2, include_dashboard=False, object_store_memory=128 << 20, logging_level=logging.ERROR
)
print("address", context.address_info["gcs_address"], flush=True)
sys.stdin.read()
"""

_HOST_OF_NODES = """
import logging, sys, time
import ray
from ray.cluster_utils import Cluster
from ray.util import placement_group_table
STORE = 100 << 20
quiet = {"include_dashboard": False, "object_store_memory": STORE}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **quiet})
def add():
    node = cluster.add_node(num_cpus=1, object_store_memory=STORE)
    nodes[node.all_processes["raylet"][0].process.pid] = node
    return list(nodes)[-1]
nodes = {}
add(), add()
ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)
print("address", cluster.address, flush=True)
for command in sys.stdin:
    word, *given = command.split()
    if word == "add":
        print("done", add(), flush=True)
    elif word == "remove":
        cluster.remove_node(nodes.pop(int(given[0])), allow_graceful=False)
        print("done", flush=True)
    elif word == "held":
        total, free = ray.cluster_resources(), ray.available_resources()
        groups = [one for one in placement_group_table().values() if one["state"] != "REMOVED"]
        print("done", total.get("CPU", 0) - free.get("CPU", 0) + len(groups), flush=True)
ray.shutdown()
cluster.shutdown()
"""


@dataclass(frozen=True)
class RayCluster:
    """The address of a cluster, and the environment of a driver that holds its token."""

    address: str
    environment: dict[str, str]


@dataclass(frozen=True)
class Nodes(RayCluster):
    """A cluster whose nodes come and go: a head without cores, and at first two nodes of one core each."""

    host: subprocess.Popen[str]

    def add(self) -> int:
        """One more node of one core; the process that is the parent of all that work there."""
        return int(self._ask("add"))

    def remove(self, node: int) -> None:
        """A node, named by its process, ends as if its power went; whoever worked there ends with it."""
        self._ask(f"remove {node}")

    def held(self) -> float:
        """Cores that somebody holds, and placement groups that are not removed."""
        return float(self._ask("held"))

    def workers(self) -> list[int]:
        """Processes that count, or were started to."""
        family = psutil.Process(self.host.pid).children(recursive=True)
        return [one.pid for one in family if _title(one).startswith("ray::CountingActor")]

    def _ask(self, command: str) -> str:
        assert self.host.stdin is not None
        assert self.host.stdout is not None
        self.host.stdin.write(f"{command}\n")
        self.host.stdin.flush()
        return _answer(self.host.stdout, "done")


@contextmanager
def ray_cluster(environment: Mapping[str, str]) -> Iterator[RayCluster]:
    """A cluster of two cores whose workers get `environment`; it ends with the context."""
    with _hosted(_HOST, environment) as (_, address, both):
        yield RayCluster(address, both)


@contextmanager
def ray_nodes(environment: Mapping[str, str]) -> Iterator[Nodes]:
    """As `ray_cluster`, of nodes that come and go."""
    with _hosted(_HOST_OF_NODES, environment) as (host, address, both):
        yield Nodes(address, both, host)


@contextmanager
def _hosted(
    program: str, environment: Mapping[str, str]
) -> Iterator[tuple[subprocess.Popen[str], str, dict[str, str]]]:
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
        [sys.executable, "-c", program],
        env={**both, "RAY_TMPDIR": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert host.stdin is not None
    assert host.stdout is not None
    try:
        yield host, _answer(host.stdout, "address"), both
    finally:
        host.stdin.close()
        try:
            host.wait(timeout=300)
        except subprocess.TimeoutExpired:
            host.kill()
            host.wait(timeout=120)
        shutil.rmtree(folder, ignore_errors=True)


def _answer(lines: IO[str], word: str) -> str:
    """What comes after `word` in the first line that begins with it."""
    for line in lines:
        if line.split()[:1] == [word]:
            return line.removeprefix(word).strip()
    raise RuntimeError(f"the Ray cluster ended before it said {word!r}")


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""
