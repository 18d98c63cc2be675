"""Run the same function with different arguments, each in a process of its own: as Ray tasks, or one after
the other on this machine.

If one fails, or its process dies, the others are not affected.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from threading import Thread
from typing import Generic, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from cellcount_core.config import ExecutionConfig
from cellcount_core.runners.pool import last_line
from cellcount_core.runners.ray_cluster import Resources, connected

Asked = TypeVar("Asked")
Given = TypeVar("Given")


@dataclass(frozen=True, slots=True)
class Trial(Generic[Asked]):
    """One piece of work: a name for messages, and its argument."""

    name: str
    argument: Asked


@dataclass(frozen=True, slots=True)
class Ended(Generic[Given]):
    """How a trial ended: with a value, or with None and `fault`, one line about what went wrong."""

    value: Given | None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Share:
    """What each trial gets: cores, GPUs, and threads for its arithmetic."""

    cpus: int
    gpus: int
    threads: int


def share_of(resources: Resources, trials: int, threads: int) -> Share:
    """Divide a cluster among trials: one GPU each if there are any, otherwise the cores in equal parts.
    `threads` asks for a number of threads (0 leaves it to this function).
    """
    cores = max(1, int(resources.cpus))
    if resources.gpus >= 1:
        return Share(1, 1, threads or max(1, cores // min(trials, int(resources.gpus))))
    wanted = threads or max(1, cores // trials)
    return Share(min(wanted, cores), 0, wanted)


def run_trials(
    act: Callable[[Asked, int], Given],
    trials: Sequence[Trial[Asked]],
    execution: ExecutionConfig,
    *,
    threads: int = 0,
    report: Callable[[str], None] = print,
) -> list[Ended[Given]]:
    """Call `act(argument, threads)` for every trial and return how each ended, in the order of `trials`.

    `act` must be a function of a module, and its argument and result must be picklable. `execution` says
    whether to use Ray (and which cluster) or this machine; `threads` 0 divides the cores. Raises
    StorageFault or CredentialsFault if the cluster cannot be joined.
    """
    if execution.runner == "serial":
        return [_in_own_process(act, trial, threads, report) for trial in trials]
    with connected(execution) as resources:
        return _on_ray(act, trials, share_of(resources, len(trials), threads), report)


def _in_own_process(
    act: Callable[[Asked, int], Given], trial: Trial[Asked], threads: int, report: Callable[[str], None]
) -> Ended[Given]:
    report(f"{trial.name}: begins")
    # A library that computes with threads must not be forked.
    spawning = multiprocessing.get_context("spawn")
    answer, told = spawning.Pipe(duplex=False)
    process = spawning.Process(target=_act_and_tell, args=(act, trial.argument, threads, told))
    process.start()
    told.close()
    ended: Ended[Given]
    try:
        ended = answer.recv()
    except EOFError:
        process.join()
        ended = Ended(None, f"its process died (exit code {process.exitcode})")
    finally:
        # Ctrl-C in this process must not leave the other one at work.
        process.terminate()
        process.join()
        answer.close()
    report(f"{trial.name}: {ended.fault or 'done'}")
    return ended


def _act_and_tell(
    act: Callable[[Asked, int], Given], argument: Asked, threads: int, told: Connection[Ended[Given], object]
) -> None:
    """Call `act` in a process of its own, which ends when the process that waits for the answer does."""
    Thread(target=_end_with_parent, name="watch-parent", daemon=True).start()
    try:
        ended = Ended(act(argument, threads))
    # Nothing is swallowed: the trial's line says it.
    except Exception as error:  # noqa: BLE001
        ended = Ended(None, last_line(error))
    told.send(ended)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _on_ray(
    act: Callable[[Asked, int], Given],
    trials: Sequence[Trial[Asked]],
    share: Share,
    report: Callable[[str], None],
) -> list[Ended[Given]]:
    task = ray.remote(num_cpus=share.cpus, num_gpus=share.gpus, max_retries=0)(act)
    report(
        f"{len(trials)} trials as Ray tasks of {share.cpus} CPU and {share.gpus} GPU, {share.threads} threads each"
    )
    waiting = {task.remote(trial.argument, share.threads): index for index, trial in enumerate(trials)}
    ended: dict[int, Ended[Given]] = {}
    while waiting:
        (reference,), _ = ray.wait(list(waiting), num_returns=1)
        index = waiting.pop(reference)
        try:
            ended[index] = Ended(ray.get(reference))
        except RayTaskError as error:
            ended[index] = Ended(
                None, last_line(error.cause if isinstance(error.cause, Exception) else error)
            )
        except RayError as error:
            ended[index] = Ended(None, last_line(error))
        report(f"{trials[index].name}: {ended[index].fault or 'done'}")
    return [ended[index] for index in range(len(trials))]
