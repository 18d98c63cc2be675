"""The Ray runner's pool: actors that hold the model, each with a few shards in hand.

Ray's own retries are turned off. A worker that dies is replaced, and what it had in hand is reported as a
death, which the driver counts. Only shards (lists of file names) are sent to workers, and only receipts
come back.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from cellcount_core.domain.errors import ModelFault, Reason, RunFault
from cellcount_core.domain.fields import Receipt, Shard
from cellcount_core.pipeline.context import RunContext
from cellcount_core.runners.pool import Death, EndedAttempt, Mode, ShardTask, attempt, last_line
from cellcount_core.runners.ray_cluster import Node, NodeChoice, Sizing, Unfit, waiting_text

_MAX_FRUITLESS_DEATHS = 60
"""Workers lost in a row without one receipt: then it is not the fields, it is the cluster or the model. A pool of many may lose
more at once, with a part of the network."""

_ASK_EVERY_S = 1.0
"""How often a worker is asked how far it is."""

_PATIENCE_S = 60.0
"""After this long a worker that has not started is spoken of; ten times as long later, again. So long is waited for a node, too, where
only those are left on which the model cannot be used."""


class CountingActor:
    """A ShardWorker in a process of its own."""

    def open(self, context: RunContext) -> int | Unfit:
        """Load the model and check its golden tensors. Returns the process id, or why the model cannot be used on this node."""
        from cellcount_core.pipeline.worker import ShardWorker

        try:
            self._worker = ShardWorker(context)
        except ModelFault as fault:
            return Unfit(ray.get_runtime_context().get_node_id(), socket.gethostname(), str(fault))
        return os.getpid()

    def count(self, shard: Shard) -> Receipt | Death:
        """Count a shard and commit its part."""
        return attempt(self._worker.count, shard)

    def probe(self, shard: Shard) -> Receipt | Death:
        """Count without committing."""
        return attempt(self._worker.probe, shard)

    def progress(self) -> dict[int, int]:
        """How many fields are counted of each shard in hand."""
        return self._worker.progress()


@dataclass(slots=True, eq=False)
class _Worker:
    handle: Any
    opening: ray.ObjectRef[Any] | None
    avoids: frozenset[str]
    pid: int = 0
    in_hand: dict[ray.ObjectRef[Any], tuple[ShardTask, float]] = field(default_factory=dict)
    asked: ray.ObjectRef[Any] | None = None
    asked_at: float = 0.0
    progress: dict[int, int] = field(default_factory=dict)


class RayPool:
    """The actors of one run. `sizing` says how many there are and what each gets; `warn` is told about workers that do not start."""

    def __init__(
        self,
        context: RunContext,
        sizing: Sizing,
        in_flight: int,
        warn: Callable[[str], None],
        *,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self._context = ray.put(context)
        self._sizing = sizing
        self._in_flight = in_flight
        self._warn = warn
        self._patience_s = patience_s
        self._speak_at = time.monotonic() + patience_s
        self._nodes = NodeChoice(sizing, warn, patience_s=10 * patience_s)
        self._isolated = False
        self._fruitless = 0
        self._fruitless_limit = max(_MAX_FRUITLESS_DEATHS, 3 * sizing.actors)
        self._workers = [self._start() for _ in range(sizing.actors)]

    def _start(self) -> _Worker:
        # Ray makes the class's methods remote ones, which types cannot follow.
        remote: Any = ray.remote(CountingActor)
        handle = remote.options(
            max_restarts=0,
            max_task_retries=0,
            num_cpus=self._sizing.cpus,
            num_gpus=self._sizing.gpus,
            memory=self._sizing.memory_bytes,
            max_concurrency=self._in_flight + 1,
            label_selector=self._nodes.selector(),
        ).remote()
        avoids = frozenset(unfit.node for unfit in self._nodes.left_out)
        return _Worker(handle, handle.open.remote(self._context), avoids)

    def pids(self) -> list[int]:
        """Process ids of the workers that have loaded their model."""
        return [worker.pid for worker in self._workers if worker.opening is None]

    def capacity(self) -> int:
        """How many attempts the open workers can have in hand."""
        return sum(self._in_flight for worker in self._workers if worker.opening is None)

    def submit(self, task: ShardTask) -> None:
        """Give the attempt to the open worker with the fewest in hand."""
        open_workers = [worker for worker in self._workers if worker.opening is None]
        worker = min(open_workers, key=lambda one: len(one.in_hand))
        method = worker.handle.count if task.mode is Mode.COMMIT else worker.handle.probe
        worker.in_hand[method.remote(task.shard)] = (task, time.monotonic())

    def wait(self, timeout_s: float) -> Sequence[EndedAttempt]:
        """The attempts that ended. Workers that started or were lost meanwhile are dealt with too."""
        refs = [ref for worker in self._workers for ref in worker.in_hand]
        refs += [worker.opening for worker in self._workers if worker.opening is not None]
        ready, _ = ray.wait(refs, num_returns=1, timeout=timeout_s)
        # One ready reference is waited for; all that are ready by then are taken, so that a fast pool is not polled one by one.
        ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0) if ready else (ready, refs)
        outcomes: list[EndedAttempt] = []
        for worker in list(self._workers):
            outcomes += self._collect(worker, set(ready))
        outcomes += self._end_overdue()
        self._speak_of_waiting()
        if self._nodes.left_out and all(worker.opening is not None for worker in self._workers):
            self._nodes.await_one(cluster_nodes(), time.monotonic())
        return outcomes

    def _collect(self, worker: _Worker, ready: set[ray.ObjectRef[Any]]) -> list[EndedAttempt]:
        if worker.opening is not None:
            if worker.opening in ready:
                self._take_in(worker, worker.opening)
            return []
        outcomes: list[EndedAttempt] = []
        words = ""
        for ref in [ref for ref in worker.in_hand if ref in ready]:
            try:
                end = ray.get(ref)
            except RayTaskError as error:
                end = _failure(error)
            except RayError as error:
                # What it had finished before counts: it is buried when all of that is taken.
                words = _last_words(error)
                continue
            self._fruitless = 0
            outcomes.append(EndedAttempt(worker.in_hand.pop(ref)[0], end))
        return outcomes + self._bury(worker, words) if words else outcomes

    def _take_in(self, worker: _Worker, opening: ray.ObjectRef[Any]) -> None:
        try:
            opened = ray.get(opening)
        except RayTaskError as error:
            cause = error.cause
            raise (
                cause if isinstance(cause, RunFault) else RunFault(f"a worker cannot start: {cause!r}")
            ) from error
        except RayError as error:
            self._replace(worker, _last_words(error))
            return
        if isinstance(opened, Unfit):
            self._move(worker, opened)
            return
        worker.pid, worker.opening = opened, None
        if self._isolated:
            self._fruitless = 0

    def _move(self, worker: _Worker, unfit: Unfit) -> None:
        """Start a worker for this one on another node. What stands open on the same node has shown that it counts as it should."""
        if unfit.node in worker.avoids:
            self._replace(worker, f"placed on a node that it was to avoid, {unfit.place}: {unfit.fault}")
            return
        self._nodes.leave_out(unfit, cluster_nodes())
        self._restart(worker)

    def _bury(self, worker: _Worker, words: str) -> list[EndedAttempt]:
        lost = [task for task, _ in worker.in_hand.values()]
        self._replace(worker, words)
        return [EndedAttempt(task, Death(Reason.WORKER_DIED, words)) for task in lost]

    def _replace(self, worker: _Worker, words: str) -> None:
        # In isolation a worker that dies of its shard is what is looked for; one that cannot even start is not.
        if worker.opening is not None or not self._isolated:
            self._fruitless += 1
        if self._fruitless > self._fruitless_limit:
            raise RunFault(
                f"{self._fruitless} workers died in a row without counting anything; the last: {words}"
            )
        self._restart(worker)

    def _restart(self, worker: _Worker) -> None:
        # One that only seems dead, behind a broken connection, must not go on holding its device.
        ray.kill(worker.handle, no_restart=True)
        worker.in_hand.clear()
        self._workers[self._workers.index(worker)] = self._start()

    def _end_overdue(self) -> list[EndedAttempt]:
        now = time.monotonic()
        outcomes: list[EndedAttempt] = []
        for worker in list(self._workers):
            overdue = [task for task, since in worker.in_hand.values() if now - since > task.timeout_s]
            if not overdue:
                continue
            others = [task for task, _ in worker.in_hand.values() if task not in overdue]
            self._replace(worker, "ended after the shard's time limit")
            outcomes += [
                EndedAttempt(task, Death(Reason.TIMED_OUT, f"not done after {task.timeout_s:g} s"))
                for task in overdue
            ]
            outcomes += [EndedAttempt(task, None) for task in others]
        return outcomes

    def _speak_of_waiting(self) -> None:
        waiting = sum(worker.opening is not None for worker in self._workers)
        if not waiting:
            self._speak_at = time.monotonic() + self._patience_s
        elif time.monotonic() >= self._speak_at:
            self._speak_at = time.monotonic() + 10 * self._patience_s
            places = [unfit.place for unfit in self._nodes.left_out]
            self._warn(waiting_text(waiting, self._sizing, places))

    def progress(self) -> int:
        """How many fields are counted in shards in hand, by the workers' last answers. Each is asked again once it has answered."""
        asked = [worker.asked for worker in self._workers if worker.asked is not None]
        now = time.monotonic()
        answered = set(ray.wait(asked, num_returns=len(asked), timeout=0)[0]) if asked else set()
        for worker in self._workers:
            if worker.asked in answered:
                worker.progress = _progress_of(worker.asked)
                worker.asked = None
            if worker.asked is None and worker.in_hand and now - worker.asked_at >= _ASK_EVERY_S:
                worker.asked, worker.asked_at = worker.handle.progress.remote(), now
        return sum(
            worker.progress.get(task.shard.number, 0)
            for worker in self._workers
            for task, _ in worker.in_hand.values()
        )

    def isolate(self) -> None:
        """From now on one attempt per worker."""
        self._in_flight = 1
        self._isolated = True

    def close(self) -> None:
        """End the actors at once."""
        for worker in self._workers:
            ray.kill(worker.handle, no_restart=True)


def _progress_of(asked: ray.ObjectRef[Any]) -> dict[int, int]:
    """A worker's answer, or nothing if it is gone, which its shards will soon show."""
    try:
        told: dict[int, int] = ray.get(asked)
    except RayError:
        return {}
    return told


def cluster_nodes() -> list[Node]:
    """The nodes of the cluster, including those that were lost."""
    told: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [
        Node(node["NodeID"], node["NodeManagerHostname"], node["Alive"], node["Resources"]) for node in told
    ]


def _failure(error: RayTaskError) -> Death:
    cause = error.cause
    if isinstance(cause, RunFault):
        raise cause from error
    return Death(Reason.INTERNAL, last_line(cause))


def _last_words(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [
        line
        for line in lines
        if "exit" in line.lower() or "killed" in line.lower() or "memory" in line.lower()
    ]
    return (telling or lines or [type(error).__name__])[0][:300]
