"""Which of several patterns an image shows: none, one or more; for example where in the cell a protein lies.

A package's section `patterns` names the patterns, in the order of the network's outputs, with the threshold of each: the probability from
which on an image is said to show it. Such a package is evaluated with a table that names the patterns of each image (labelled/patterns.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from pydantic import Field, model_validator

from cellcount_core.domain.columns import Column, Kind, Merge, Null
from cellcount_core.domain.errors import ModelFault
from cellcount_core.images.imagefile import Plane
from cellcount_core.models.package import Package
from cellcount_core.tasks.patterns.score import NEVER, PatternScoring, never_found
from cellcount_core.tasks.task import (
    NO_ESTIMATE,
    CanvasMaps,
    Found,
    Preparation,
    SizeEstimate,
    TaskColumns,
    TaskSection,
    View,
    read_section,
)

PATTERNS = Column(
    "patterns",
    Kind.STRINGS,
    "",
    "patterns that the image shows, in the order of the package; empty if it shows none of them; null unless ok",
    Null.UNLESS_OK,
    Merge.NAMES,
)
FOUND = Column(
    "patterns_found", Kind.INT, "patterns", "number of patterns that the image shows", Null.UNLESS_OK, Merge.MOMENTS, watched=True
)  # fmt: skip
PROBABILITIES = Column(
    "probability", Kind.FLOATS, "1", "probability of each pattern, in the order of the package", Null.UNLESS_OK, Merge.VECTOR
)  # fmt: skip


class PatternsSection(TaskSection):
    """`patterns` are named in the order of the network's outputs, and `thresholds` are theirs; `side_px` is the side of the images that it
    takes. A threshold of 2 is that of a pattern which is never found (`NEVER`).

    `common_threshold`, `strength` and `threshold_images` say how the thresholds were fitted: what they were shrunk to, the number of images
    that this weighs as much as, and how many images showed each pattern.
    """

    patterns: tuple[str, ...] = Field(min_length=2)
    thresholds: tuple[float, ...]
    side_px: int = Field(ge=8)
    common_threshold: float | None = None
    strength: float | None = None
    threshold_images: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _fit_together(self) -> PatternsSection:
        if len(self.thresholds) != len(self.patterns) or not all(
            0 < at < 1 or at == NEVER for at in self.thresholds
        ):
            raise ValueError(
                f"thresholds: one between 0 and 1 (or {NEVER:g}: never) for each of the {len(self.patterns)} patterns expected (got {list(self.thresholds)})"
            )
        return self


class Patterns:
    """The task of telling which patterns an image shows."""

    name = "patterns"
    learning = "cellcount_core.tasks.patterns.learn:PatternsLearning"
    preparation = Preparation.FIXED
    example: ClassVar[Mapping[str, object]] = {
        "patterns": ["Nucleoli", "Cytosol"], "thresholds": [0.4, 0.5], "side_px": 64,
    }  # fmt: skip

    def columns(self, package: Package, _: tuple[str, ...]) -> TaskColumns:
        """The patterns, their number, and the probabilities of all patterns."""
        return TaskColumns(
            field=(PATTERNS, FOUND, PROBABILITIES),
            results=(PATTERNS.name, PROBABILITIES.name),
            classes=read_section(PatternsSection, package).patterns,
        )

    def head(self, package: Package) -> PatternsHead:
        """Raises ModelFault if the package's section is wrong."""
        return PatternsHead(package)

    def side(self, package: Package) -> int:
        """The side that the package's section states."""
        return read_section(PatternsSection, package).side_px

    def notes(self, package: Package) -> list[str]:
        """The patterns that are never found."""
        section = read_section(PatternsSection, package)
        return [
            f"package {package.name!r}: {line}" for line in never_found(section.patterns, section.thresholds)
        ]

    def scoring(self, package: Package) -> PatternScoring:
        """Compares found patterns with those that are shown."""
        section = read_section(PatternsSection, package)
        return PatternScoring(section.patterns, section.thresholds)


class PatternsHead:
    """Tells the patterns of fields by a package. Raises ModelFault if the package's section is wrong."""

    def __init__(self, package: Package) -> None:
        self._package = package
        section = read_section(PatternsSection, package)
        self._names = section.patterns
        self._thresholds = np.array(section.thresholds)

    def find(self, view: View) -> Found:
        """The patterns of a field. Raises ModelFault if the network's output is no probabilities of the package's patterns."""
        with view.clock("infer"):
            vector = view.vector().astype(np.float64)
        chances, features = vector[: len(self._names)], vector[len(self._names) :]
        domain = self._package.domain
        described = 0 if domain is None else len(domain.features)
        within = ((chances >= 0) & (chances <= 1)).all()
        if len(chances) != len(self._names) or features.size < described or not within:
            raise ModelFault(
                f"package {self._package.name!r}: its network gives {vector.size} numbers"
                f"{'' if within else f', {float(chances.min()):.3g} to {float(chances.max()):.3g}'}; "
                f"probabilities of {len(self._names)} patterns expected{f' and {described} features' if described else ''}"
            )
        told = chances >= self._thresholds
        seen = tuple(map(float, features))
        return Found(
            {
                PATTERNS.name: tuple(name for name, there in zip(self._names, told, strict=True) if there),
                FOUND.name: int(told.sum()),
                PROBABILITIES.name: tuple(map(float, chances)),
            },
            features=seen or None,
            unlike=domain.unlikeness(seen) if domain is not None and seen else None,
        )

    def size(self, _: tuple[Plane, ...], __: CanvasMaps) -> SizeEstimate:
        """`NO_ESTIMATE`: patterns are told of the image as a whole."""
        return NO_ESTIMATE
