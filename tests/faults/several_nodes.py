"""A Ray cluster of several nodes in this machine, on two of which the model cannot be used, and jobs on it.

Run as a process of its own: `python -m tests.faults.several_nodes PLATE FOLDER` prints a JSON line for each job.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cellcount_core.cli.progress import Quiet
from cellcount_core.config import JobConfig
from cellcount_core.domain.errors import RunFault
from cellcount_core.domain.fields import Receipt, Shard
from cellcount_core.models.package import shipped_folder
from cellcount_core.output.runfile import read_run
from cellcount_core.runners.events import Progress
from cellcount_core.runners.job import run_job
from cellcount_core.runners.places import Places, make_context
from cellcount_core.runners.pool import Mode, ShardTask
from cellcount_core.runners.ray_cluster import Sizing
from cellcount_core.runners.ray_pool import RayPool, cluster_nodes
from cellcount_core.stores.base import StorageOptions
from cellcount_core.stores.open import open_store
from tests.jobs import job

_STORE_BYTES = 100 << 20
_GONE_S = 300.0
_PATIENCE_S = 0.2
"""A tenth of how long a pool waits for nodes in the place of those that were lost."""

_LATER_S = 6.0
"""Long enough for a worker to start anew on a node that it should avoid."""

_COMPUTES_SOMETHING_ELSE = """
import os, pathlib
import cv2

smooth = cv2.GaussianBlur

def GaussianBlur(*given, **named):
    (pathlib.Path(__file__).parent / f"tried-by-{os.getpid()}").touch()
    return smooth(*given, **named) + 2048

cv2.GaussianBlur = GaussianBlur
"""


class Nodes:
    """Nodes of one core each. A worker finds the package in its home, so each node may have another one, or none."""

    def __init__(self, folder: Path) -> None:
        self._whole, self._bare, self._odd = (folder / name for name in ("whole", "bare", "odd"))
        shutil.copytree(shipped_folder() / "threshold", self._whole / "package")
        self._bare.mkdir()
        self._odd.mkdir()
        (self._odd / "sitecustomize.py").write_text(_COMPUTES_SOMETHING_ELSE)
        # The driver's own.
        os.environ["HOME"] = str(self._whole)
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": _STORE_BYTES}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)  # type: ignore[no-untyped-call]

    def tries(self) -> int:
        """How many workers tried the model on odd nodes."""
        return len([*self._odd.glob("tried-by-*")])

    def good(self) -> Any:
        """A node on which the model is as it should be."""
        return self._add({"HOME": str(self._whole)})

    def odd(self) -> Any:
        """A node whose arithmetic gives other maps than the golden ones."""
        paths = [str(self._odd), *filter(None, [os.environ.get("PYTHONPATH")])]
        return self._add({"HOME": str(self._whole), "PYTHONPATH": os.pathsep.join(paths)})

    def bare(self) -> Any:
        """A node without the package."""
        return self._add({"HOME": str(self._bare)})

    def remove(self, node: Any) -> None:
        """End a node; back when the cluster knows."""
        self.cluster.remove_node(node)  # type: ignore[no-untyped-call]
        until = time.monotonic() + _GONE_S
        while any(one.id == node.node_id and one.alive for one in cluster_nodes()):
            if time.monotonic() > until:
                raise TimeoutError(f"node {node.node_id} is still told as alive")
            time.sleep(0.2)

    def _add(self, environment: dict[str, str]) -> Any:
        return self.cluster.add_node(num_cpus=1, object_store_memory=_STORE_BYTES, env_vars=environment)


class Heard(Quiet):
    """Keeps the warnings and the processes that counted. A while after the second warning `then` is done."""

    def __init__(self, then: Callable[[], None] | None = None) -> None:
        self._then = then
        self._due = float("inf")
        self.warnings: list[str] = []
        self.workers: set[int] = set()

    def warn(self, text: str) -> None:
        self.warnings.append(text)
        if len(self.warnings) == 2:
            self._due = time.monotonic() + _LATER_S

    def tick(self, progress: Progress) -> None:
        if self._then is not None and time.monotonic() >= self._due:
            self._then()
            self._then = None

    def receipt(self, receipt: Receipt, progress: Progress) -> None:
        self.workers.add(receipt.pid)


@ray.remote(num_cpus=1)
class Busy:
    """Somebody else's actor that holds a node's core."""

    def ready(self) -> None:
        pass


@contextmanager
def busy(node: Any) -> Iterator[None]:
    """The node's core is taken meanwhile."""
    there = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
    actor = Busy.options(scheduling_strategy=there).remote()
    ray.get(actor.ready.remote(), timeout=_GONE_S)
    yield
    ray.kill(actor)


def configured(source: Path, output: Path, nodes: Nodes) -> JobConfig:
    """A job of two workers on the cluster."""
    address = nodes.cluster.address
    execution = {"runner": "ray", "address": address, "actors": 2, "shard_fields": 1, "in_flight": 1}
    return job(source, output, run={"model": {"package": "~/package"}}, execution=execution)


def count(name: str, source: Path, output: Path, nodes: Nodes, heard: Heard) -> None:
    """Do a job; one line of what came of it."""
    before = nodes.tries()
    try:
        code, said = run_job(configured(source, output, nodes), heard).exit_code, ""
    except RunFault as fault:
        code, said = fault.exit_code, str(fault)
    told = {
        "job": name,
        "code": code,
        "said": said,
        "warnings": heard.warnings,
        "workers": len(heard.workers),
    }
    print(json.dumps({**told, "tries": nodes.tries() - before}), flush=True)


def lose(nodes: Nodes, good: list[Any], plate: Path, output: Path) -> None:
    """Workers that are open on the good nodes, which are lost; one line of what the pool then does."""
    run = read_run(open_store(output, StorageOptions()))
    options = StorageOptions()
    places = Places(str(plate), options, str(output), options)
    context = make_context(run, configured(plate, output, nodes).run, places, readers=1)
    sizing = Sizing(actors=4, cpus=1.0, gpus=0.0, threads=1, memory_bytes=None)
    warnings: list[str] = []
    pool = RayPool(context, sizing, in_flight=1, warn=warnings.append, patience_s=_PATIENCE_S)
    said = ""
    try:
        until = time.monotonic() + _GONE_S
        while pool.capacity() < len(good) or sum("left out" in text for text in warnings) < 2:
            pool.wait(0.5)
            if time.monotonic() > until:
                raise TimeoutError(f"{pool.capacity()} workers are open; {warnings}")
        for node in good:
            nodes.remove(node)
        for _ in range(pool.capacity()):
            pool.submit(ShardTask(Shard(0, ()), Mode.PROBE, 60.0))
        while time.monotonic() < until:
            pool.wait(0.5)
    except RunFault as fault:
        said = f"{type(fault).__name__}: {fault}"
    finally:
        pool.close()
    print(json.dumps({"job": "the good ones are lost", "said": said, "warnings": warnings}), flush=True)


def main(plate: Path, folder: Path) -> None:
    """The two bad nodes have the only free cores; some time after both were left out a good one joins. Then the good ones are lost."""
    nodes = Nodes(folder)
    try:
        taken = nodes.good()
        for add in (nodes.odd, nodes.bare):
            add()
        ray.init(address=nodes.cluster.address, logging_level=logging.ERROR, log_to_driver=False)
        joined: list[Any] = []
        with busy(taken):
            heard = Heard(lambda: joined.append(nodes.good()))
            count("one node joins", plate, folder / "out", nodes, heard)
        lose(nodes, [taken, *joined], plate, folder / "out")
        count("none is left", plate, folder / "none", nodes, Heard())
    finally:
        ray.shutdown()
        nodes.cluster.shutdown()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
