"""The registry of tasks, by the `task` of a package's manifest. Each is loaded when it is first asked for."""

from __future__ import annotations

from importlib import import_module

from cellcount_core.domain.errors import ModelFault, nearest
from cellcount_core.models.package import Package
from cellcount_core.tasks.task import Task

TASKS = {
    "instances": "cellcount_core.tasks.instances.task:Instances",
    "classes": "cellcount_core.tasks.classes.task:Classes",
}
"""Name of every task, and the class that it is."""


def task_of(package: Package) -> Task:
    """The task of a package. Raises ModelFault naming the nearest one if there is none of that name."""
    if package.task not in TASKS:
        raise ModelFault(
            f"package {package.name!r} is for the task {package.task!r}, which this version does not know"
            f"{nearest(package.task, TASKS)}"
        )
    module, _, name = TASKS[package.task].partition(":")
    task: Task = getattr(import_module(module), name)()
    return task
