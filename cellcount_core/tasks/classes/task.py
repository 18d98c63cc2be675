"""One of several classes for each image: the network looks at the field as a whole, or tile by tile.

A package's section `classes` names the classes, in the order of the network's outputs, and the side in px to which an image is
resized. Such a package is evaluated with a table that has the true class of each image in the column `class`, or with a folder of images for each class.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cellcount_core.config import RunClassesConfig
from cellcount_core.domain.columns import Value
from cellcount_core.domain.doubts import Doubt
from cellcount_core.domain.errors import ConfigFault, ModelFault, nearest
from cellcount_core.domain.statistics import TrainingDomain, wilson
from cellcount_core.images.imagefile import Plane
from cellcount_core.models.package import Package
from cellcount_core.tasks.classes.columns import (
    CERTAINTY,
    CLASS,
    PROBABILITIES,
    TILE,
    TILES,
    TOLD,
    UNLIKE,
    Chances,
    count_columns,
    count_names,
    count_values,
    mostly_none,
    none_column,
    tile_columns,
    tile_values,
    unlikeness_of,
)
from cellcount_core.tasks.classes.judge import calibration_error, confusion
from cellcount_core.tasks.task import (
    NO_ESTIMATE,
    CanvasMaps,
    Compared,
    Found,
    Levels,
    Parts,
    Preparation,
    Shape,
    SizeEstimate,
    TaskColumns,
    TaskSection,
    Truth,
    TruthKind,
    View,
    read_section,
)
from cellcount_core.tasks.whole import showing, square, tile_vectors

_LEAST = 1e-6

_LARGER = 2.0
"""From this many times as wide or high as the images of the training, an image that is looked at as a whole is told to be larger. They are resized
to one side, so all that it shows is half as large as in the training, or smaller."""

COLUMN = "class"
"""The column of a table of truths that names the class of an image."""


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
        """The values of one image: both classes, whether they are the same, and the probability given to the true one. Of an image that shows
        nothing no class is found: it is not right, and all classes are as likely.

        Raises ConfigFault if the true class is not one of the package's.
        """
        true = truth.values[COLUMN]
        if true not in self._classes:
            raise ConfigFault(f"class {true!r} is none of the package's{nearest(true, self._classes)}")
        chances = found.values["probability"] or (1 / len(self._classes),) * len(self._classes)
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
        images of each class were told as which (`<true>_told_<found>`). Images of which no class is found are not right; they are in no
        `<true>_told_<found>`.
        """
        rows = [one.values for one in scored]
        right = sum(bool(row["right"]) for row in rows)
        ends = wilson(right, len(rows)) or (None, None)
        shares = []
        for name in self._classes:
            own = [bool(row["right"]) for row in rows if row["true"] == name]
            shares += [sum(own) / len(own)] if own else []
        told_of = [row for row in rows if row["found"] is not None]
        numbers = [
            np.array([self._classes.index(str(row[name])) for row in told_of], np.int64)
            for name in ("true", "found")
        ]
        table = confusion(numbers[0], numbers[1], len(self._classes))
        sure = np.array([row["probability"] for row in rows], np.float64)
        are_right = np.array([bool(row["right"]) for row in rows], np.bool_)
        most = Counter(row["true"] for row in rows).most_common(1)
        chances = [row["probability_of_true"] for row in rows]
        losses = [-math.log(max(_LEAST, chance)) for chance in chances if isinstance(chance, float)]
        return {
            "images": len(rows),
            "accuracy": right / len(rows) if rows else None,
            "accuracy_low": ends[0],
            "accuracy_high": ends[1],
            "balanced_accuracy": sum(shares) / len(shares) if shares else None,
            "majority_accuracy": most[0][1] / len(rows) if rows else None,
            "calibration_error": calibration_error(sure, are_right) if rows else None,
            "log_loss": sum(losses) / len(losses) if losses else None,
            **{
                f"{true}_told_{told}": int(table[row, column])
                for row, true in enumerate(self._classes)
                for column, told in enumerate(self._classes)
            },
        }


_SUM = 0.01
"""Tolerance of the sum of probabilities, which is 1."""


class ClassesSection(TaskSection):
    """`classes` are named in the order of the network's outputs; `side_px` is the side of the images that it takes.

    `tile_px` is the side, in px of the field, of the tiles that it looks at; None if it looks at the field as one. `image_px` are the usual
    height and width in px of the images that such a network was taught with: a tile or an object is shown to it in as much of a field.
    `temperature` is what its probabilities are flattened by so that they tell how often it is right. `features` numbers that describe the image
    come behind them. `per` is set by a run that looks at fields otherwise than the package does (see `for_run`).
    """

    classes: tuple[str, ...] = Field(min_length=2)
    side_px: int = Field(ge=8)
    tile_px: int | None = Field(None, ge=8)
    image_px: tuple[int, int] | None = None
    temperature: float = Field(1.0, gt=0)
    features: int = Field(0, ge=0)
    per: Literal["auto", "image", "tile"] = "auto"

    @property
    def tile(self) -> Shape | None:
        """The (h, w) in px of the tiles that fields are looked at in; None if they are looked at as one."""
        return self.image_px if self.per == "tile" and self.tile_px is None else square(self.tile_px)

    @property
    def levels(self) -> Levels:
        """By which levels tiles are normalised: as the images were that the network was taught with."""
        return Levels.FIELD if self.tile is None or self.tile_px is not None else Levels.OWN

    @property
    def has_tiles(self) -> bool:
        """Whether tiles have rows of their own."""
        return self.tile is not None and self.per != "image"


def for_run(package: Package, settings: RunClassesConfig) -> Package:
    """The package of a run, whose section says what the run asks for.

    Raises ConfigFault if the package tells no classes, or does not say how much of a field it is shown of a tile.
    """
    if package.task != Classes.name:
        raise ConfigFault(
            f"run.classes is for packages that tell classes; `{package.name}` is for the task {package.task}: choose another with --model (see "
            "`cellcount models`), or leave these settings out"
        )
    section = read_section(ClassesSection, package)
    per = settings.per
    if settings.of:
        raise ConfigFault(
            f"run.classes.of ({', '.join(settings.of)}) says which objects are meant: give --per object with it, or leave it out"
        )
    if per == "auto":
        per = "image" if section.tile_px is None and settings.crop_px is None else "tile"
    changes: dict[str, object] = {"per": per}
    if settings.crop_px is not None:
        if per == "image":
            raise ConfigFault(
                f"run.classes.crop_px ({settings.crop_px}) is the side of a tile, and images are told as a whole: give --per tile, or leave it out"
            )
        changes |= (
            {"image_px": [settings.crop_px] * 2} if section.tile_px is None else {"tile_px": settings.crop_px}
        )
    elif per == "tile" and section.tile_px is None and section.image_px is None:
        raise ConfigFault(
            f"package {package.name!r} looks at images as a whole and does not say how large those were that it was taught with: give the side of "
            "a tile in px (--crop PX)"
        )
    return replace(package, section={**package.section, **changes})


_NONE = none_column(TILES, TOLD)


class Classes:
    """The task of telling one of several classes for each image, and for each tile of it where it is looked at in tiles."""

    name = "classes"
    learning = "cellcount_core.tasks.classes.learn:ClassesLearning"
    preparation = Preparation.FIXED
    example: ClassVar[Mapping[str, object]] = {"classes": ["round", "long"], "side_px": 64, "tile_px": 256}

    def columns(self, package: Package, _: tuple[str, ...]) -> TaskColumns:
        """The class with its probability, and the probabilities of all classes; of tiles how many are of each class, and a row each.

        Raises ModelFault if a class has a name for which two columns would be called the same.
        """
        section = read_section(ClassesSection, package)
        image = TaskColumns(
            field=(CLASS, CERTAINTY, PROBABILITIES),
            results=(CLASS.name, PROBABILITIES.name),
            classes=section.classes,
        )
        if not section.has_tiles:
            return image
        known = domain_of(package, section) is not None
        flags, unlike = ((_NONE,), (UNLIKE,)) if known else ((), ())
        field = (*image.field, TILES, TOLD, *count_columns(section.classes, TILES, TOLD), *flags)
        for name, number in Counter(column.name for column in field).items():
            if number > 1:
                raise ModelFault(
                    f"package {package.name!r}: the tiles of one of its classes would be counted in the column {name!r}, which has another "
                    "meaning: rename that class"
                )
        return replace(
            image,
            field=field,
            results=(*image.results, *count_names(section.classes, TILES), *(flag.name for flag in flags)),
            objects=(*tile_columns(section.classes), *unlike),
            object_count=TILES.name,
            object_name=TILE,
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
        """The class of a field: of the mean over its tiles, if it is looked at in tiles; and then the class of each tile.

        What shows nothing, a tile or a field, has no class and is part of no mean and no share. Raises ModelFault if the network's output is no probabilities of the package's classes.
        """
        section = self._section
        with view.clock("infer"):
            windows, vectors = tile_vectors(view, section.tile, section.levels)
            shown = showing(view, windows)
        chances, features = chances_of(vectors, section, self._package)
        found = self._of_field(view, shown, chances, features)
        if not section.has_tiles:
            return found
        best_of = chances.argmax(axis=1)[shown]
        numbers: dict[str, Value] = {
            TILES.name: len(windows),
            TOLD.name: int(shown.sum()),
            **count_values(best_of, section.classes, TILES),
        }
        domain = domain_of(self._package, section)
        unlike = None if domain is None else unlikeness_of(domain, features)
        mostly: tuple[Doubt, ...] = ()
        if unlike is not None:
            numbers[_NONE.name], mostly = mostly_none(unlike[shown])
        return replace(
            found,
            values={**found.values, **numbers},
            warnings=(*found.warnings, *mostly),
            tiles=Parts(
                len(windows), lambda: (tile_values(windows, shown, chances, section.classes, unlike), {})
            ),
            boxes=windows[shown][:, [0, 2, 1, 3]].astype(np.float64),
            classes=best_of,
        )

    def _of_field(
        self, view: View, shown: NDArray[np.bool_], chances: Chances, features: NDArray[np.float64]
    ) -> Found:
        """What is told of a field as one, from the probabilities (n, K) and features (n, F) of its windows and whether they show something (n,)."""
        section = self._section
        if not shown.any():
            none = dict.fromkeys((CLASS.name, CERTAINTY.name, PROBABILITIES.name))
            return Found(none, warnings=(Doubt.SHOWS_NOTHING,))
        told = chances[shown].mean(axis=0)
        best = int(np.argmax(told))
        # A package that looks at tiles knows its training images by the means over all of their tiles.
        described = tuple(map(float, features[shown | (section.tile_px is not None)].mean(axis=0)))
        domain = self._package.domain
        return Found(
            {
                CLASS.name: section.classes[best],
                CERTAINTY.name: float(told[best]),
                PROBABILITIES.name: tuple(float(chance) for chance in told),
            },
            warnings=_larger(view.shape, section),
            features=described or None,
            unlike=domain.unlikeness(described) if domain is not None and described else None,
        )

    def size(self, _: tuple[Plane, ...], __: CanvasMaps) -> SizeEstimate:
        """`NO_ESTIMATE`: a class does not depend on the size of objects."""
        return NO_ESTIMATE


def domain_of(package: Package | None, section: ClassesSection) -> TrainingDomain | None:
    """By which parts of an image that are unlike the images of the training are told; None if the package does not say, or says it of means over
    tiles.
    """
    return None if package is None or section.tile_px is not None else package.domain


def _larger(shape: Shape, section: ClassesSection) -> tuple[str, ...]:
    """The doubt that an image of `shape` (H, W), looked at as a whole, is much larger than those of the training, with how many times; () if not."""
    if section.tile is not None or section.image_px is None:
        return ()
    times = max(side / usual for side, usual in zip(shape, section.image_px, strict=True))
    return (f"{Doubt.IMAGE_LARGER}:{times:.2g} times",) if times >= _LARGER else ()


def chances_of(
    vectors: NDArray[np.float32], section: ClassesSection, package: Package
) -> tuple[Chances, NDArray[np.float64]]:
    """Probabilities (n, K), at the package's temperature, and the features (n, F) behind them, from vectors (n, K + F).

    Raises ModelFault if the vectors are no probabilities of the package's classes.
    """
    count, described = len(section.classes), section.features
    chances, features = np.split(vectors.astype(np.float64), [count], axis=1)
    sums = chances.sum(axis=1)
    if vectors.shape[1] != count + described or not (np.abs(sums - 1) <= _SUM).all():
        raise ModelFault(
            f"package {package.name!r}: its network gives {vectors.shape[1]} numbers, the first {count} of sum {float(sums[0]):.3g}; "
            f"probabilities of {count} classes expected{f' and {described} features' if described else ''}"
        )
    return tempered(chances, section.temperature), features
