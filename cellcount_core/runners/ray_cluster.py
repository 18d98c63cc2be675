"""Connect to Ray, and decide from the cluster what the workers are: how many, on which devices, with how many threads."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

import ray

from cellcount_core.domain.config import ExecutionConfig
from cellcount_core.domain.errors import ConfigFault, StorageFault

_LOCAL_STORE_BYTES = 128 << 20
"""Receipts and shard lists are all that travel: the smallest object store is enough."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What the cluster has."""

    cpus: float
    gpus: float
    nodes: int


@dataclass(frozen=True, slots=True)
class Sizing:
    """What each worker is given, and how many are asked for."""

    actors: int
    cpus: float
    gpus: float
    threads: int
    memory_bytes: int | None


def connect(execution: ExecutionConfig) -> Resources:
    """Join the cluster named by `execution.address` or RAY_ADDRESS, or start a local one for this process.

    Raises StorageFault where the cluster cannot be reached.
    """
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray tells at every start that token authentication is on; it stays on, and a user need not hear of it.
    logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
    address = execution.address or os.environ.get("RAY_ADDRESS")
    try:
        if address and address != "local":
            ray.init(address=address, logging_level=logging.WARNING, log_to_driver=False)
        else:
            ray.init(
                address="local",
                include_dashboard=False,
                object_store_memory=_LOCAL_STORE_BYTES,
                logging_level=logging.WARNING,
                log_to_driver=False,
            )
    except (ConnectionError, RuntimeError) as error:
        where = address or "a local cluster"
        raise StorageFault(f"Ray: cannot reach {where}: {str(error).splitlines()[0]}") from error
    return resources()


def resources() -> Resources:
    """What the cluster this process is connected to has now."""
    totals: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    nodes: list[object] = ray.nodes()  # type: ignore[no-untyped-call]
    return Resources(cpus=totals.get("CPU", 0.0), gpus=totals.get("GPU", 0.0), nodes=max(1, len(nodes)))


def size_workers(execution: ExecutionConfig, resources: Resources, shards: int) -> Sizing:
    """Workers for these resources, never more than there are shards to do unless `execution.actors` says so.

    With GPUs: one worker a GPU (or `gpus_per_actor` of one). Without: one worker a core, each with one thread, because tiles
    are many and threads within one tile gain less; `threads` gives a worker more cores. Raises ConfigFault where `gpus_per_actor`
    asks for a GPU and the cluster has none and cannot grow one.
    """
    memory = execution.memory_mib << 20 if execution.memory_mib else None
    share = execution.gpus_per_actor
    gpus = (1.0 if resources.gpus >= 1 else 0.0) if share == "auto" else float(share)
    if gpus > 0:
        threads = 1 if execution.threads == "auto" else execution.threads
        fitting = int(resources.gpus / gpus)
        if fitting < 1 and execution.actors == "auto":
            raise ConfigFault(
                f"execution.gpus_per_actor is {gpus:g} but the cluster has {resources.gpus:g} GPUs now; "
                "set execution.actors to the number to wait for, or gpus_per_actor to 0"
            )
        actors = max(1, min(fitting, shards)) if execution.actors == "auto" else execution.actors
        return Sizing(actors, 1.0, gpus, threads, memory)
    cores = max(1, int(resources.cpus))
    if execution.actors == "auto":
        threads = 1 if execution.threads == "auto" else execution.threads
        return Sizing(max(1, min(cores // threads, shards)), float(threads), 0.0, threads, memory)
    threads = max(1, cores // execution.actors) if execution.threads == "auto" else execution.threads
    # More actors than cores is the user's wish: they then share cores instead of waiting for ever for one of their own.
    cpus = min(float(threads), resources.cpus / execution.actors) if resources.nodes == 1 else float(threads)
    return Sizing(execution.actors, cpus, 0.0, threads, memory)


def disconnect() -> None:
    """Leave the cluster (and end it, where this process started it)."""
    ray.shutdown()
