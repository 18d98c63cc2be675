"""One of several classes for each image: the network looks at the field as a whole, and nothing in it is counted.

A package's section `classes` names the classes, in the order of the network's outputs, and the side in px that an image is brought to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from pydantic import Field

from cellcount_core.domain.columns import Column, Kind, Merge, Null
from cellcount_core.domain.errors import ModelFault
from cellcount_core.images.imagefile import Plane
from cellcount_core.models.package import Package
from cellcount_core.tasks.classes.score import ClassScoring
from cellcount_core.tasks.task import (
    NOTHING,
    CanvasMaps,
    Found,
    Preparation,
    SizeEstimate,
    TaskColumns,
    TaskSection,
    View,
    read_section,
)

CLASS = Column(
    "class", Kind.STRING, "", "most likely class of the image; null unless ok", Null.UNLESS_OK, Merge.TALLY
)
CERTAINTY = Column(
    "class_probability",
    Kind.FLOAT,
    "1",
    "probability of that class",
    Null.UNLESS_OK,
    Merge.MOMENTS,
    watched=True,
)
PROBABILITIES = Column(
    "probability", Kind.FLOATS, "1", "probability of each class, in the order of the package", Null.UNLESS_OK, Merge.VECTOR
)  # fmt: skip

_SUM = 0.01
"""By how much probabilities may miss a sum of 1."""


class ClassesSection(TaskSection):
    """`classes` are named in the order of the network's outputs; `side_px` is the side of what it looks at."""

    classes: tuple[str, ...] = Field(min_length=2)
    side_px: int = Field(ge=8)


class Classes:
    """One of several classes for each image."""

    name = "classes"
    preparation = Preparation.FIXED
    example: ClassVar[Mapping[str, object]] = {"classes": ["round", "long"], "side_px": 64}

    def columns(self, package: Package, _: tuple[str, ...]) -> TaskColumns:
        """The class with its probability, and the probability of every class."""
        return TaskColumns(
            field=(CLASS, CERTAINTY, PROBABILITIES),
            results=(CLASS.name, PROBABILITIES.name),
            classes=read_section(ClassesSection, package).classes,
        )

    def head(self, package: Package) -> ClassesHead:
        """What tells the class by the package."""
        return ClassesHead(package)

    def side(self, package: Package) -> int:
        """As the package's section says."""
        return read_section(ClassesSection, package).side_px

    def scoring(self, package: Package) -> ClassScoring:
        """Compares found classes with true ones."""
        return ClassScoring(read_section(ClassesSection, package).classes)


class ClassesHead:
    """Tells the class of fields by a package."""

    def __init__(self, package: Package) -> None:
        self._package = package
        self._classes = read_section(ClassesSection, package).classes

    def find(self, view: View) -> Found:
        """The class of a field. Raises ModelFault if the network gives no probabilities of the package's classes."""
        with view.clock("infer"):
            chances = view.vector()
        expected = len(self._classes)
        if chances.shape != (expected,) or not abs(float(chances.sum()) - 1) <= _SUM:
            raise ModelFault(
                f"package {self._package.name!r}: its network gives {chances.size} numbers of sum {float(chances.sum()):.3g}; "
                f"probabilities of {expected} classes expected"
            )
        best = int(np.argmax(chances))
        return Found(
            {
                CLASS.name: self._classes[best],
                CERTAINTY.name: float(chances[best]),
                PROBABILITIES.name: tuple(float(chance) for chance in chances),
            }
        )

    def size(self, _: tuple[Plane, ...], __: CanvasMaps) -> SizeEstimate:
        """An image has no size that its class would depend on."""
        return NOTHING
