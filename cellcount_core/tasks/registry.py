"""The registry of tasks, by the `task` of a package's manifest. Each is loaded when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable

from cellcount_core.domain.errors import ModelFault, nearest
from cellcount_core.models.package import Package
from cellcount_core.tasks.task import Task


def _instances() -> Task:
    from cellcount_core.tasks.instances.task import Instances

    return Instances()


TASKS: dict[str, Callable[[], Task]] = {
    "instances": _instances,
}
"""Name of every task and what loads it."""


def task_of(package: Package) -> Task:
    """The task of a package. Raises ModelFault naming the nearest one if there is none of that name."""
    if package.task not in TASKS:
        raise ModelFault(
            f"package {package.name!r} is for the task {package.task!r}, which this version does not know"
            f"{nearest(package.task, TASKS)}"
        )
    return TASKS[package.task]()
