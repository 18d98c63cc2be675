"""Which nodes of a cluster may hold workers: those where the model could not be loaded are left out for the rest of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from cellcount_core.domain.errors import ModelFault
from cellcount_core.runners.ray_cluster import Sizing

_SHOWN = 12
"""Digits of a node's id that are told: enough to find it in what Ray lists."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the cluster and all of its resources, by Ray's names for them."""

    id: str
    host: str
    alive: bool
    resources: Mapping[str, float]

    def holds(self, sizing: Sizing) -> bool:
        """Whether a worker of this size has room here when nothing else does."""
        wanted = {"CPU": sizing.cpus, "GPU": sizing.gpus, "memory": float(sizing.memory_bytes or 0)}
        return self.alive and all(
            self.resources.get(name, 0.0) >= amount for name, amount in wanted.items() if amount
        )


@dataclass(frozen=True, slots=True)
class Unfit:
    """What a worker says instead of opening: where it is, and why the model cannot be used there."""

    node: str
    host: str
    fault: str

    @property
    def place(self) -> str:
        """The host and the node, as a user is told of them."""
        return f"{self.host} (node {self.node[:_SHOWN]})"


class NodeChoice:
    """The nodes that a run's workers may be placed on. `warn` is told of each that is left out, once.

    A node is left out by its id: one that joins later is tried, and so is one that was started anew.
    """

    def __init__(self, sizing: Sizing, warn: Callable[[str], None], *, patience_s: float) -> None:
        self._sizing = sizing
        self._warn = warn
        self._patience_s = patience_s
        self._none_since: float | None = None
        self._unfit: dict[str, Unfit] = {}

    def leave_out(self, unfit: Unfit, nodes: Iterable[Node]) -> None:
        """Place no more workers on that node. Raises ModelFault where none of `nodes`, those of the cluster, is left for them."""
        if unfit.node in self._unfit:
            return
        self._unfit[unfit.node] = unfit
        if not self._some_left(nodes):
            raise ModelFault(unfit.fault)
        self._warn(f"{unfit.place} is left out of this run: {unfit.fault}")

    def await_one(self, nodes: Iterable[Node], now: float) -> None:
        """For a pool that has left out nodes and has no open worker; `now` are seconds of any clock that does not jump.

        Those that were fit may be gone, and others may come in their place. Raises ModelFault where none has come for `patience_s`.
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
        """Ray's label selector of the nodes that are left, None where that is all of them."""
        return {"ray.io/node-id": f"!in({','.join(sorted(self._unfit))})"} if self._unfit else None
