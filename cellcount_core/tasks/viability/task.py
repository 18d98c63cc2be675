"""Live and dead cells: every cell found, each told live, dead, both or neither, and the viability of a field with its interval.

Cells are found by another task, whose section stands inside that of viability: `instances` (outlines) or `boxes`. Which class a cell is of
stands in the picture itself (the classes of the boxes), or is told by how bright the cell is in the channels of the roles:

- `all` + `dead`: cells are found in `all`; those positive in `dead` are dead, the others live (neither, if `all` hardly shows them);
- `live` + `dead`: cells are found in the brighter of both; live, dead, both and neither.

Thresholds are given (`run.viability.thresholds`), or found on control wells, or between two populations (rule.py), on fields of the whole
plate while the run is planned. An image that is counted by itself goes by its own cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from cellcount_core.config import RunConfig
from cellcount_core.domain.errors import ConfigFault
from cellcount_core.models.package import Package
from cellcount_core.tasks.boxes.section import boxes_section
from cellcount_core.tasks.task import (
    PlateRule,
    Preparation,
    Scoring,
    TaskColumns,
)
from cellcount_core.tasks.viability.columns import (
    CLASSES,
    DEAD,
    LIVE,
    NEITHER,
    VIABILITY,
    field_columns,
)
from cellcount_core.tasks.viability.head import (
    ViabilityHead,
    finder_of,
    measures_circularity,
    object_columns_of,
)
from cellcount_core.tasks.viability.plate_rule import ViabilityRule
from cellcount_core.tasks.viability.score import BoxedViabilityScoring, ViabilityScoring


class Viability:
    """The task of telling live cells from dead ones."""

    name = "viability"
    learning = "cellcount_core.tasks.viability.learn:ViabilityLearning"
    preparation = Preparation.OBJECT_SIZE
    example: ClassVar[Mapping[str, object]] = {
        "instances": {"maps": ["foreground"], "stride": 1, "receptive_radius": 0, "separator": {"kind": "components"}}
    }  # fmt: skip

    def columns(self, package: Package, measured: tuple[str, ...]) -> TaskColumns:
        """Those of the finding task, the numbers of each class, viability with its interval, cells/mL, sizes, and the class of every cell."""
        finder = finder_of(package)
        inner = finder.task.columns(finder.package, measured)
        return replace(
            inner,
            field=(
                *(column for column in inner.field if column.name not in inner.results[1:]),
                *field_columns(),
            ),
            results=(VIABILITY.name, inner.object_count, LIVE, DEAD),
            objects=object_columns_of(finder, measured),
            classes=CLASSES,
        )

    def head(self, package: Package) -> ViabilityHead:
        """Raises ModelFault if the package's section is wrong."""
        return ViabilityHead(package)

    def plate_rule(self, package: Package, run: RunConfig) -> PlateRule | None:
        """What thresholds rest on, and the bits of the images whose units they are in; None if the picture itself tells the class.

        Raises ConfigFault if a threshold or a spill is given for a role that the package has not, or a gate by what is not measured of its
        objects.
        """
        finder = finder_of(package)
        roles = finder.roles
        settings = run.viability
        for setting, given in (("thresholds", settings.thresholds), ("spill", settings.spill)):
            for role in given:
                if role not in roles:
                    told = (
                        f"the roles are {', '.join(roles)}"
                        if roles
                        else "its classes are told by the picture"
                    )
                    raise ConfigFault(
                        f"run.viability.{setting}: package {package.name!r} has no role {role!r}: {told}"
                    )
        if settings.controls and not roles:
            raise ConfigFault(
                f"run.viability.controls: package {package.name!r} tells classes by the picture, and needs no controls"
            )
        if settings.min_circularity is not None and not measures_circularity(finder):
            raise ConfigFault(
                f"run.viability.min_circularity: package {package.name!r} finds cells as boxes, which have no outline, so their circularity is not "
                "known: leave --min-circularity out, or gate by the diameter (--min-diameter, --max-diameter)"
            )
        return ViabilityRule(package, run) if roles else None

    def scoring(self, package: Package) -> Scoring:
        """Compares the numbers of live and dead cells with true ones from a table; where the picture tells the class, boxes with boxes."""
        finder = finder_of(package)
        if not finder.classes:
            return ViabilityScoring()
        # A manifest's keys are sorted; what boxes have are places in the list of their own section.
        ordered = boxes_section(finder.package).classes
        return BoxedViabilityScoring({name: finder.classes.get(name, NEITHER) for name in ordered})

    def side(self, _: Package) -> int:
        """0: fields are not resized to a number of pixels."""
        return 0
