"""One of several classes for each image: the network looks at the field as a whole, and nothing in it is counted.

A package's section `classes` names the classes, in the order of the network's outputs, and the side in px to which an image is
resized. Such a package is evaluated with a table that has the true class of each image in the column `class`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field

from cellcount_core.domain.columns import Column, Kind, Merge, Null, Value
from cellcount_core.domain.errors import ConfigFault, ModelFault, nearest
from cellcount_core.domain.statistics import wilson
from cellcount_core.images.imagefile import Plane
from cellcount_core.models.package import Package
from cellcount_core.tasks.task import (
    NO_ESTIMATE,
    CanvasMaps,
    Compared,
    Found,
    Preparation,
    SizeEstimate,
    TaskColumns,
    TaskSection,
    Truth,
    TruthKind,
    View,
    read_section,
)

_LEAST = 1e-6


class ClassScoring:
    """Compares the class found for an image with its true one, from the column `class` of a table of truths."""

    truth = TruthKind.TABLE
    names = ("class",)

    def __init__(self, classes: tuple[str, ...]) -> None:
        self._classes = classes

    def score(self, truth: Truth, found: Found) -> Compared:
        """The values of one image: both classes, whether they are the same, and the probability given to the true one.

        Raises ConfigFault if the true class is not one of the package's.
        """
        true = truth.values["class"]
        if true not in self._classes:
            raise ConfigFault(f"class {true!r} is none of the package's{nearest(true, self._classes)}")
        chances = found.values["probability"]
        assert isinstance(chances, Sequence)
        chance = chances[self._classes.index(true)]
        assert isinstance(chance, float)
        told = found.values["class"]
        return Compared({"true": true, "found": told, "right": told == true, "probability_of_true": chance})

    def figures(self, scored: Sequence[Compared]) -> dict[str, Value]:
        """Over all images: the share that is right, with its Wilson interval; the mean of that share over classes; and the log loss."""
        rows = [one.values for one in scored]
        right = sum(bool(row["right"]) for row in rows)
        ends = wilson(right, len(rows)) or (None, None)
        shares = []
        for name in self._classes:
            own = [bool(row["right"]) for row in rows if row["true"] == name]
            shares += [sum(own) / len(own)] if own else []
        chances = [row["probability_of_true"] for row in rows]
        losses = [-math.log(max(_LEAST, chance)) for chance in chances if isinstance(chance, float)]
        return {
            "images": len(rows),
            "accuracy": right / len(rows) if rows else None,
            "accuracy_low": ends[0],
            "accuracy_high": ends[1],
            "balanced_accuracy": sum(shares) / len(shares) if shares else None,
            "log_loss": sum(losses) / len(losses) if losses else None,
        }


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
"""Tolerance of the sum of probabilities, which is 1."""


class ClassesSection(TaskSection):
    """`classes` are named in the order of the network's outputs; `side_px` is the side of the images that it takes."""

    classes: tuple[str, ...] = Field(min_length=2)
    side_px: int = Field(ge=8)


class Classes:
    """The task of telling one of several classes for each image."""

    name = "classes"
    learning = None
    preparation = Preparation.FIXED
    example: ClassVar[Mapping[str, object]] = {"classes": ["round", "long"], "side_px": 64}

    def columns(self, package: Package, _: tuple[str, ...]) -> TaskColumns:
        """The class with its probability, and the probabilities of all classes."""
        return TaskColumns(
            field=(CLASS, CERTAINTY, PROBABILITIES),
            results=(CLASS.name, PROBABILITIES.name),
            classes=read_section(ClassesSection, package).classes,
        )

    def head(self, package: Package) -> ClassesHead:
        """Raises ModelFault if the package's section is wrong."""
        return ClassesHead(package)

    def side(self, package: Package) -> int:
        """The side that the package's section states."""
        return read_section(ClassesSection, package).side_px

    def scoring(self, package: Package) -> ClassScoring:
        """Compares found classes with true ones."""
        return ClassScoring(read_section(ClassesSection, package).classes)


class ClassesHead:
    """Tells the class of fields by a package. Raises ModelFault if the package's section is wrong."""

    def __init__(self, package: Package) -> None:
        self._package = package
        self._classes = read_section(ClassesSection, package).classes

    def find(self, view: View) -> Found:
        """The class of a field. Raises ModelFault if the network's output is no probabilities of the package's classes."""
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
        """`NO_ESTIMATE`: a class does not depend on the size of objects."""
        return NO_ESTIMATE
