"""Connect to Ray, and decide from the cluster's resources how many workers there are, on which nodes and
devices, and with how many threads.

Nodes on which the model cannot be loaded are not used for the rest of a run.
"""

from __future__ import annotations

import logging
import math
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import ray
from ray.exceptions import AuthenticationError, RayError

from cellcount_core.config import ExecutionConfig
from cellcount_core.domain.errors import ConfigFault, CredentialsFault, ModelFault, StorageFault

_HOST_PORT = re.compile(r"(?:ray://)?(?P<host>\[[0-9A-Fa-f:.%]+\]|[^:/\[\]]+):(?P<port>[0-9]+)")
_REACH_S = 15.0

_LOCAL_STORE_BYTES = 128 << 20
"""Receipts and shard lists are all that travel: the smallest object store is enough."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What the cluster has. `own` means that this process started it: it has one node and cannot grow."""

    cpus: float
    gpus: float
    own: bool


@dataclass(frozen=True, slots=True)
class Sizing:
    """What each worker gets, and how many workers are asked for."""

    actors: int
    cpus: float
    gpus: float
    threads: int
    memory_bytes: int | None


@contextmanager
def connected(execution: ExecutionConfig) -> Iterator[Resources]:
    """Join the cluster that `execution.address` or RAY_ADDRESS names, or start a local one, for as long as
    the context lasts.

    If this process is connected to Ray already, that connection is used and left as it is. Raises
    StorageFault if the cluster cannot be reached, CredentialsFault if it refuses the token, ConfigFault if
    the address is one that jobs are submitted to.
    """
    if ray.is_initialized():
        yield resources(execution)
        return
    _connect(_address(execution))
    try:
        yield resources(execution)
    except RayError as error:
        raise StorageFault(
            f"Ray: the cluster was lost: {_first_line(error)}; what is committed stays, and the same command goes on"
        ) from error
    finally:
        ray.shutdown()


def is_connected() -> bool:
    """Whether this process is connected to a cluster."""
    return bool(ray.is_initialized())


def _address(execution: ExecutionConfig) -> str | None:
    """The cluster to join; None to start one."""
    address = execution.address or os.environ.get("RAY_ADDRESS")
    return None if address in (None, "", "local") else address


def _refuse_unreachable(address: str) -> None:
    """Raise at once if nothing listens at the host and port of `address`, because Ray itself would try for
    minutes. Other forms of address pass.
    """
    if address.startswith(("http://", "https://")):
        raise ConfigFault(
            f"Ray: {address} is where a cluster takes jobs: cellcount submit --address {address}. Counting joins it at HOST:6379"
        )
    found = _HOST_PORT.fullmatch(address)
    if found is None:
        return
    host, port = found["host"].strip("[]"), int(found["port"])
    try:
        socket.create_connection((host, port), timeout=_REACH_S).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise StorageFault(
            f"Ray: cannot reach {address}: nobody listens there ({_first_line(error)}); is the cluster up (ray status), and the address "
            "its head's HOST:PORT? Without --address a local cluster is started"
        ) from error


def _connect(address: str | None) -> None:
    if address is not None:
        _refuse_unreachable(address)
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    # A cluster that is started here tells Ray's makers nothing; who wants it to sets the variable.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray tells at every start that token authentication is on; it stays on, and a user need not hear of it.
    logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
    try:
        with _own_sigterm():
            if address is not None:
                ray.init(address=address, logging_level=logging.WARNING, log_to_driver=False)
            else:
                ray.init(
                    address="local",
                    include_dashboard=False,
                    object_store_memory=_LOCAL_STORE_BYTES,
                    logging_level=logging.WARNING,
                    log_to_driver=False,
                )
    except AuthenticationError as error:
        raise CredentialsFault(
            f"Ray: {address} refuses this client's token: {str(error).splitlines()[0]}"
        ) from error
    except (OSError, RuntimeError, ValueError) as error:
        if address is not None or isinstance(error, ConnectionError):
            raise StorageFault(
                f"Ray: cannot reach {address or 'a local cluster'}: {_first_line(error)}"
            ) from error
        raise StorageFault(
            f"Ray: cannot start a local cluster: {_first_line(error)}. It needs a home folder that can be written "
            "(HOME, or RAY_AUTH_TOKEN_PATH for its token), a folder for its files (RAY_TMPDIR), and room for processes and open "
            "files; without a cluster: --runner serial"
        ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep the handler of SIGTERM that is set: ray.init replaces it by one that ends the process at once.

    A SIGTERM that comes meanwhile acts like Ctrl-C: KeyboardInterrupt.
    """
    before = signal.getsignal(signal.SIGTERM)
    ours = before not in (None, signal.SIG_DFL) and threading.current_thread() is threading.main_thread()
    try:
        yield
    except SystemExit:
        if not ours:
            raise
        raise KeyboardInterrupt from None
    finally:
        if ours:
            signal.signal(signal.SIGTERM, before)


def resources(execution: ExecutionConfig) -> Resources:
    """What the cluster that this process is connected to has now."""
    totals: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return Resources(totals.get("CPU", 0.0), totals.get("GPU", 0.0), own=_address(execution) is None)


def waiting_text(waiting: int, sizing: Sizing, left_out: Sequence[str] = ()) -> str:
    """What `waiting` workers of this size wait for, next to what the cluster has, so that a user sees what is
    missing.

    `left_out` are nodes of the cluster on which no worker is placed.
    """
    asked = (("CPU", sizing.cpus), ("GPU", sizing.gpus), ("memory", float(sizing.memory_bytes or 0)))
    totals: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
    lines = [
        f"{_amount(name, amount)} (the cluster has {_amount(name, totals.get(name, 0.0))}, "
        f"free {_amount(name, free.get(name, 0.0))})"
        for name, amount in asked
        if amount
    ]
    without = f", of which {', '.join(left_out)} got none of them" if left_out else ""
    return (
        f"{waiting} of {sizing.actors} workers have not started yet; each asks for {', '.join(lines)}{without}. They wait for room or still "
        "load the model; fewer or smaller ones: execution.actors, threads, gpus_per_actor, memory_mib"
    )


def _amount(name: str, amount: float) -> str:
    return f"{amount / 2**30:.1f} GiB" if name == "memory" else f"{amount:g} {name}"


def size_workers(execution: ExecutionConfig, resources: Resources, shards: int) -> Sizing:
    """The workers for these resources: as many as `execution.actors` says, but never more than there are
    shards.

    With GPUs there is one worker for each GPU (or for each `gpus_per_actor` of one). Without, there is one
    worker for each core with one thread each, because there are many tiles and several threads within one
    tile gain less; `threads` gives a worker more cores. Raises ConfigFault if `gpus_per_actor` asks for a
    GPU and the cluster has none and cannot add one.
    """
    memory = execution.memory_mib << 20 if execution.memory_mib else None
    share = execution.gpus_per_actor
    gpus = (1.0 if resources.gpus >= 1 else 0.0) if share == "auto" else float(share)
    if gpus > 1 and gpus != int(gpus):
        raise ConfigFault(
            f"execution.gpus_per_actor is {gpus:g}: expected a whole number or one below 1, such as {int(gpus)} or 0.5"
        )
    if gpus > 0:
        threads = 1 if execution.threads == "auto" else execution.threads
        fitting = int(resources.gpus / gpus)
        if fitting < 1 and (execution.actors == "auto" or resources.own):
            wait = "" if resources.own else "execution.actors to the number to wait for, or "
            raise ConfigFault(
                f"execution.gpus_per_actor is {gpus:g} but the cluster has {resources.gpus:g} GPUs now; set {wait}gpus_per_actor to 0"
            )
        wanted = fitting if execution.actors == "auto" else execution.actors
        return Sizing(max(1, min(wanted, shards)), 1.0, gpus, threads, memory)
    cores = max(1, int(resources.cpus))
    if execution.actors == "auto":
        threads = 1 if execution.threads == "auto" else execution.threads
        return Sizing(max(1, min(cores // threads, shards)), float(threads), 0.0, threads, memory)
    actors = max(1, min(execution.actors, shards))
    threads = max(1, cores // actors) if execution.threads == "auto" else execution.threads
    # More actors than cores is the user's wish: they then share cores instead of waiting for ever for one of their own.
    # A cluster that may grow is asked for whole cores, or it would never learn that it is too small.
    cpus = _share(resources.cpus / actors, threads) if resources.own else float(threads)
    return Sizing(actors, cpus, 0.0, threads, memory)


def _share(cpus: float, threads: int) -> float:
    """At most `threads` cores, rounded down to what Ray can give: whole cores, or below 1 ten-thousandths."""
    if cpus >= 1:
        return float(min(threads, int(cpus)))
    return math.floor(cpus * 10_000) / 10_000


_SHOWN = 12
"""Digits of a node's id that are told: enough to find it in what Ray lists."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the cluster with all of its resources, under Ray's names for them."""

    id: str
    host: str
    alive: bool
    resources: Mapping[str, float]

    def holds(self, sizing: Sizing) -> bool:
        """Whether a worker of this size would fit here if nothing else were running."""
        wanted = {"CPU": sizing.cpus, "GPU": sizing.gpus, "memory": float(sizing.memory_bytes or 0)}
        return self.alive and all(
            self.resources.get(name, 0.0) >= amount for name, amount in wanted.items() if amount
        )


@dataclass(frozen=True, slots=True)
class Unfit:
    """What a worker returns instead of opening: where it is, and why the model cannot be used there."""

    node: str
    host: str
    fault: str

    @property
    def place(self) -> str:
        """The host and the node, in the words that a user is shown."""
        return f"{self.host} (node {self.node[:_SHOWN]})"


class NodeChoice:
    """The nodes that a run's workers may be placed on. `warn` is told once about each that is left out.

    A node is left out by its id, so a node that joins later, or that was restarted, is tried.
    """

    def __init__(self, sizing: Sizing, warn: Callable[[str], None], *, patience_s: float) -> None:
        self._sizing = sizing
        self._warn = warn
        self._patience_s = patience_s
        self._none_since: float | None = None
        self._unfit: dict[str, Unfit] = {}

    def leave_out(self, unfit: Unfit, nodes: Iterable[Node]) -> None:
        """Place no more workers on that node. Raises ModelFault if none of `nodes`, the nodes of the cluster, remains."""
        if unfit.node in self._unfit:
            return
        self._unfit[unfit.node] = unfit
        if not self._some_left(nodes):
            raise ModelFault(unfit.fault)
        self._warn(f"{unfit.place} is left out of this run: {unfit.fault}")

    def await_one(self, nodes: Iterable[Node], now: float) -> None:
        """For a pool that has left out nodes and has no open worker. `now` are seconds of any clock that does
        not jump.

        The nodes that were fit may be gone, and others may join. Raises ModelFault if none has joined for
        `patience_s` seconds.
        """
        if self._some_left(nodes):
            self._none_since = None
            return
        if self._none_since is None:
            self._none_since = now
        if now - self._none_since >= self._patience_s:
            last = self.left_out[-1]
            raise ModelFault(
                f"{last.fault}; that is on {last.place}, and no node without a fault has come for {self._patience_s:g} s"
            )

    def _some_left(self, nodes: Iterable[Node]) -> bool:
        return any(node.holds(self._sizing) and node.id not in self._unfit for node in nodes)

    @property
    def left_out(self) -> tuple[Unfit, ...]:
        """The nodes that are left out, in the order in which they were found."""
        return tuple(self._unfit.values())

    def selector(self) -> dict[str, str] | None:
        """Ray's label selector for the remaining nodes; None if these are all."""
        return {"ray.io/node-id": f"!in({','.join(sorted(self._unfit))})"} if self._unfit else None
