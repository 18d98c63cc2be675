"""One of several classes for each image: the network looks at the field as a whole, and nothing in it is counted.

A package's section `classes` names the classes, in the order of the network's outputs, and the side in px to which an image is
resized. Such a package is evaluated with a table that has the true class of each image in the column `class`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cellcount_core.domain.columns import Column, Kind, Merge, Null, Value
from cellcount_core.domain.errors import ConfigFault, ModelFault, nearest
from cellcount_core.domain.statistics import wilson
from cellcount_core.images.imagefile import Plane
from cellcount_core.models.package import Package
from cellcount_core.tasks.classes.judge import calibration_error, confusion
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
from cellcount_core.tasks.whole import tile_vectors

_LEAST = 1e-6

COLUMN = "class"
"""The column of a table of truths that names the class of an image."""

Chances = NDArray[np.float64]


def tempered(chances: Chances, temperature: float) -> Chances:
    """Probabilities (..., K) flattened (temperature above 1) or sharpened (below 1): p^(1/T), made to add up to 1 again.

    >>> tempered(np.array([0.8, 0.2]), 2.0).round(3).tolist()
    [0.667, 0.333]
    """
    if temperature == 1:
        return chances
    logits = np.log(np.maximum(chances, 1e-12)) / temperature
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float64)


class ClassScoring:
    """Compares the class found for an image with its true one, from the column `class` of a table of truths."""

    truth = TruthKind.TABLE
    names = (COLUMN,)
    headline = "balanced_accuracy"

    def __init__(self, classes: tuple[str, ...]) -> None:
        self._classes = classes

    def score(self, truth: Truth, found: Found) -> Compared:
        """The values of one image: both classes, whether they are the same, and the probability given to the true one.

        Raises ConfigFault if the true class is not one of the package's.
        """
        true = truth.values[COLUMN]
        if true not in self._classes:
            raise ConfigFault(f"class {true!r} is none of the package's{nearest(true, self._classes)}")
        chances = found.values["probability"]
        assert isinstance(chances, Sequence)
        chance = chances[self._classes.index(true)]
        assert isinstance(chance, float)
        told = found.values["class"]
        return Compared(
            {"true": true, "found": told, "right": told == true, "probability_of_true": chance,
             "probability": max(float(str(each)) for each in chances)}
        )  # fmt: skip

    def figures(self, scored: Sequence[Compared]) -> dict[str, Value]:
        """Over all images: the share that is right, with its Wilson interval; the mean of that share over classes; the share of the largest
        class, which one reaches by always telling it; how far probabilities are off (see `calibration_error`); the log loss; and how many
        images of each class were told as which (`<true>_told_<found>`).
        """
        rows = [one.values for one in scored]
        right = sum(bool(row["right"]) for row in rows)
        ends = wilson(right, len(rows)) or (None, None)
        shares = []
        for name in self._classes:
            own = [bool(row["right"]) for row in rows if row["true"] == name]
            shares += [sum(own) / len(own)] if own else []
        numbers = [
            np.array([self._classes.index(str(row[name])) for row in rows], np.int64)
            for name in ("true", "found")
        ]
        table = confusion(numbers[0], numbers[1], len(self._classes))
        sure = np.array([row["probability"] for row in rows], np.float64)
        chances = [row["probability_of_true"] for row in rows]
        losses = [-math.log(max(_LEAST, chance)) for chance in chances if isinstance(chance, float)]
        return {
            "images": len(rows),
            "accuracy": right / len(rows) if rows else None,
            "accuracy_low": ends[0],
            "accuracy_high": ends[1],
            "balanced_accuracy": sum(shares) / len(shares) if shares else None,
            "majority_accuracy": int(table.sum(axis=1).max()) / len(rows) if rows else None,
            "calibration_error": calibration_error(sure, numbers[0] == numbers[1]) if rows else None,
            "log_loss": sum(losses) / len(losses) if losses else None,
            **{
                f"{true}_told_{told}": int(table[row, column])
                for row, true in enumerate(self._classes)
                for column, told in enumerate(self._classes)
            },
        }


CLASS = Column(
    "class", Kind.STRING, "", "most likely class of the image; null unless ok", Null.UNLESS_OK, Merge.NAMES
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
    """`classes` are named in the order of the network's outputs; `side_px` is the side of the images that it takes.

    `tile_px` is the side, in px of the field, of the tiles that it looks at; None if it looks at the field as one. `temperature` is what its
    probabilities are flattened by so that they tell how often it is right. `features` numbers that describe the image come behind them.
    """

    classes: tuple[str, ...] = Field(min_length=2)
    side_px: int = Field(ge=8)
    tile_px: int | None = Field(None, ge=8)
    temperature: float = Field(1.0, gt=0)
    features: int = Field(0, ge=0)


class Classes:
    """The task of telling one of several classes for each image."""

    name = "classes"
    learning = "cellcount_core.tasks.classes.learn:ClassesLearning"
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
        self._section = read_section(ClassesSection, package)

    def find(self, view: View) -> Found:
        """The class of a field: of the mean over its tiles, if it is looked at in tiles.

        Raises ModelFault if the network's output is no probabilities of the package's classes.
        """
        with view.clock("infer"):
            _, vectors = tile_vectors(view, self._section.tile_px)
        chances, features = self._parts(vectors)
        told = chances.mean(axis=0)
        best = int(np.argmax(told))
        described = tuple(map(float, features.mean(axis=0)))
        domain = self._package.domain
        return Found(
            {
                CLASS.name: self._section.classes[best],
                CERTAINTY.name: float(told[best]),
                PROBABILITIES.name: tuple(float(chance) for chance in told),
            },
            features=described or None,
            unlike=domain.unlikeness(described) if domain is not None and described else None,
        )

    def _parts(self, vectors: NDArray[np.float32]) -> tuple[Chances, NDArray[np.float64]]:
        """Probabilities (n, K), at the package's temperature, and the features (n, F) behind them."""
        count, described = len(self._section.classes), self._section.features
        chances, features = np.split(vectors.astype(np.float64), [count], axis=1)
        sums = chances.sum(axis=1)
        if vectors.shape[1] != count + described or not (np.abs(sums - 1) <= _SUM).all():
            raise ModelFault(
                f"package {self._package.name!r}: its network gives {vectors.shape[1]} numbers, the first {count} of sum {float(sums[0]):.3g}; "
                f""
                f"probabilities of {count} classes expected{f' and {described} features' if described else ''}"
            )
        return tempered(chances, self._section.temperature), features

    def size(self, _: tuple[Plane, ...], __: CanvasMaps) -> SizeEstimate:
        """`NO_ESTIMATE`: a class does not depend on the size of objects."""
        return NO_ESTIMATE
