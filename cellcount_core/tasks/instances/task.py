"""Counting objects: nuclei, cells or whatever a package's network tells from the background."""

from __future__ import annotations

from cellcount_core.models.package import Package
from cellcount_core.tasks.instances.columns import COUNT, FIELD, TWO_SIZES, object_columns
from cellcount_core.tasks.instances.head import InstancesHead
from cellcount_core.tasks.task import Preparation, TaskColumns


class Instances:
    """Objects, each with its outline and measurements."""

    name = "instances"
    preparation = Preparation.OBJECT_SIZE

    def columns(self, package: Package, measured: tuple[str, ...]) -> TaskColumns:
        """The count with its interval, and every object's place, shape and intensities."""
        return TaskColumns(
            field=tuple(made.column for made in FIELD),
            results=(COUNT,),
            scale=(TWO_SIZES.column,),
            objects=object_columns(package.object_name, measured),
            object_count=COUNT,
        )

    def head(self, package: Package) -> InstancesHead:
        """What counts by the package. Raises ModelFault if its section is wrong or names no separator."""
        return InstancesHead(package)

    def scoring(self, _: Package) -> None:
        """Counted objects are compared with label images (score.py)."""
        return

    def side(self, _: Package) -> int:
        """Fields are not brought to a number of pixels."""
        return 0
