"""Classes of objects: one package finds the objects of a field, and another tells of each which class it is of.

A run makes such a package of the two (`on_objects`): it is that of the finding task, with the network of the classes `beside` it. Around the
middle of each object as much of the field is shown to that network as the images showed that it was taught with.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cellcount_core.config import RunConfig
from cellcount_core.domain.columns import OBJECT_NUMBER, Column, Kind, Null, Value
from cellcount_core.domain.errors import ConfigFault, ModelFault, nearest
from cellcount_core.domain.statistics import Moments
from cellcount_core.images.imagefile import Plane
from cellcount_core.models.package import Package
from cellcount_core.output.rows import ObjectColumn
from cellcount_core.tasks.boxes.columns import corner_columns
from cellcount_core.tasks.classes.columns import (
    UNLIKE,
    Chances,
    count_columns,
    count_names,
    count_values,
    mostly_none,
    none_column,
    part_columns,
    part_values,
    unlikeness_of,
)
from cellcount_core.tasks.classes.task import ClassesSection, chances_of, domain_of, for_run
from cellcount_core.tasks.instances.columns import COUNTED, object_moments
from cellcount_core.tasks.task import (
    CanvasMaps,
    Found,
    Head,
    Preparation,
    Scoring,
    Shape,
    SizeEstimate,
    Task,
    TaskColumns,
    TaskSection,
    View,
    read_section,
    task_of,
)
from cellcount_core.tasks.viability.judging import gated, taken

_FINDERS = ("instances", "boxes")
_OF_CLASS = ("class", "class_probability")
"""Columns of the finding task that what is told here takes the place of."""

FOUND_AS = Column(
    "found_as", Kind.STRING, "", "class that the package which finds the objects gives the object", Null.NEVER
)
"""Of objects that are found with a class: a package may find red and white cells, and another tell the kinds of white ones."""

NONE = none_column(COUNTED, COUNTED)


class ObjectClassesSection(TaskSection):
    """`instances` or `boxes` is the section of the task that finds the objects, and `classes` that of the package which tells their classes.

    `of` are the classes of boxes that are meant, () all of them: objects of the others are left out.
    """

    instances: dict[str, object] | None = None
    boxes: dict[str, object] | None = None
    classes: dict[str, object]
    of: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Parts:
    """The task that finds the objects with the package as that task sees it, the section of the package that tells classes, and the classes of
    objects that are meant (() all)."""

    task: Task
    package: Package
    classes: ClassesSection
    of: tuple[str, ...]


def _parts_of(package: Package) -> _Parts:
    section = read_section(ObjectClassesSection, package)
    given = {name: part for name in _FINDERS if (part := getattr(section, name)) is not None}
    if len(given) != 1:
        raise ModelFault(
            f"package {package.name!r}: object_classes needs one section of {', '.join(_FINDERS)} (got {len(given)})"
        )
    [(name, part)] = given.items()
    finder = replace(package, task=name, section=part)
    classes = read_section(ClassesSection, replace(package, task="classes", section=section.classes))
    return _Parts(task_of(finder), finder, classes, section.of)


def on_objects(classes: Package, finder: Package, run: RunConfig) -> Package:
    """The package of a run that tells classes (by the package `classes`) of the objects that `finder` finds.

    Both look at the same channel if each looks at a single one, unless `run.channels` names one for both. Raises ConfigFault if the two cannot go together.
    """
    if finder.task not in _FINDERS:
        raise ConfigFault(
            f"run.model.objects: package {finder.name!r} is for the task {finder.task}, and finds no objects; one for {' or '.join(_FINDERS)} expected"
        )
    told = for_run(classes, run.classes.model_copy(update={"per": "tile", "of": ()}))
    found_as = task_of(finder).columns(finder, ()).classes
    for name in run.classes.of:
        if name not in found_as:
            raise ConfigFault(
                f"run.classes.of: package {finder.name!r} finds no objects of a class {name!r}"
                f"{nearest(name, found_as) if found_as else ': it gives them no class'}"
            )
    roles, own = finder.input.channels, classes.input.channels
    same = len(roles) == len(own) == 1 and not {*roles, *own} <= {*run.channels}
    called = dict(zip(own, roles, strict=True)) if same else {role: role for role in own}
    further = tuple(role for role in called.values() if role not in roles)
    seen = finder.input.seen or tuple((role,) for role in roles)
    package = replace(
        finder,
        name=f"{classes.name}+{finder.name}",
        version=f"{classes.version}+{finder.version}",
        digest=hashlib.sha256(f"{classes.digest}+{finder.digest}".encode()).hexdigest(),
        task=ObjectClasses.name,
        section={
            finder.task: dict(finder.section),
            "classes": dict(told.section),
            "of": list(run.classes.of),
        },
        input=replace(finder.input, channels=(*roles, *further), seen=seen if further else finder.input.seen),
        beside=replace(
            told,
            input=replace(
                told.input,
                channels=tuple(called.values()),
                seen=tuple(tuple(called[role] for role in shown) for shown in told.input.seen),
            ),
        ),
    )
    names = Counter(column.name for column in ObjectClasses().columns(package, ()).field)
    for name, number in names.items():
        if number > 1:
            raise ConfigFault(
                f"package {classes.name!r}: the objects of one of its classes would be counted in the column {name!r}, which has another meaning: "
                "rename that class"
            )
    return package


class ObjectClasses:
    """The task of telling the class of each object that another task finds."""

    name = "object_classes"
    learning: str | None = None
    preparation = Preparation.OBJECT_SIZE
    example: ClassVar[Mapping[str, object]] = {
        "instances": {"maps": ["foreground"], "stride": 1, "receptive_radius": 0, "separator": {"kind": "components"}},
        "classes": {"classes": ["round", "long"], "side_px": 64, "image_px": [64, 64], "per": "tile"},
    }  # fmt: skip

    def columns(self, package: Package, measured: tuple[str, ...]) -> TaskColumns:
        """Those of the finding task, the number of objects of each class with its share, and the class and probabilities of each object."""
        parts = _parts_of(package)
        inner = parts.task.columns(parts.package, measured)
        classes = parts.classes.classes
        told = domain_of(package.beside, parts.classes) is not None
        flags, unlike = ((NONE,), (UNLIKE,)) if told else ((), ())
        found_as = (FOUND_AS,) if inner.classes else ()
        return replace(
            inner,
            field=(
                *(column for column in inner.field if column.name not in inner.results[1:]),
                *count_columns(classes, COUNTED),
                *flags,
            ),
            results=(COUNTED.name, *count_names(classes, COUNTED), *(flag.name for flag in flags)),
            objects=(
                *(column for column in inner.objects if column.name not in _OF_CLASS),
                *found_as,
                *part_columns(classes),
                *unlike,
            ),
            classes=classes,
        )

    def head(self, package: Package) -> ObjectClassesHead:
        """Raises ModelFault if the package's section is wrong, or no package is beside it."""
        return ObjectClassesHead(package)

    def notes(self, package: Package) -> list[str]:
        """That objects of several classes are found, and all of them are told one of the other package's."""
        parts = _parts_of(package)
        found_as = parts.task.columns(parts.package, ()).classes
        if len(found_as) < 2 or parts.of:
            return []
        return [
            f"package {package.name!r}: objects are found as {', '.join(found_as)}, and each is told one of {', '.join(parts.classes.classes)}: if "
            f"only some are meant, name them (--set 'run.classes.of=[{found_as[0]}]')"
        ]

    def scoring(self, package: Package) -> Scoring:
        """Raises ConfigFault: each of the two packages is evaluated by itself."""
        raise ConfigFault(f"{package.name}: evaluate its two packages each by itself")

    def side(self, _: Package) -> int:
        """0: fields are not resized to a number of pixels."""
        return 0


class ObjectClassesHead:
    """Finds objects and tells the class of each. Raises ModelFault if the package's section is wrong, or no package is beside it."""

    def __init__(self, package: Package) -> None:
        if package.beside is None:
            raise ModelFault(
                f"package {package.name!r}: the classes of objects are told by a second package: count with that one and --per object"
            )
        self._parts = _parts_of(package)
        self._head: Head = self._parts.task.head(self._parts.package)
        self._classes = package.beside
        self._corners = corner_columns(package.object_name)

    def size(self, planes: tuple[Plane, ...], maps: CanvasMaps) -> SizeEstimate:
        """How large the objects of an image are, as the finding task estimates it."""
        return self._head.size(planes, maps)

    def find(self, view: View) -> Found:
        """The objects of a field, and the class of each."""
        found, columns, moments = self._meant(view, self._head.find(view))
        section = self._parts.classes
        assert found.objects is not None and section.tile is not None
        corners = np.stack([np.asarray(columns[name]).astype(np.float64) for name in self._corners], axis=1)
        with view.clock("classify"):
            windows = windows_around(corners, section.tile)
            chances, features = self._told(view.vectors(windows, section.levels))
        told = chances.argmax(axis=1)
        unlike = self._unlike(features)
        values: dict[str, Value] = {**found.values, **count_values(told, section.classes, COUNTED)}
        warnings = found.warnings
        if unlike is not None:
            values[NONE.name], mostly = mostly_none(unlike)
            warnings = (*warnings, *mostly)
        rows = partial(_rows, columns, moments, chances, section.classes, unlike)
        return replace(
            found,
            values=values,
            objects=replace(found.objects, rows=rows),
            classes=told,
            warnings=warnings,
        )

    def _meant(
        self, view: View, found: Found
    ) -> tuple[Found, Mapping[str, ObjectColumn], Mapping[str, Moments]]:
        """What was found, without the objects of classes that are not meant, and the columns and moments of those that are."""
        assert found.objects is not None
        columns, moments = found.objects.rows()
        if not self._parts.of:
            return found, columns, moments
        kept = np.array([name in self._parts.of for name in columns["class"]], np.bool_)
        chosen = {name: taken(values, kept) for name, values in columns.items()}
        chosen[OBJECT_NUMBER.name] = np.arange(1, int(kept.sum()) + 1, dtype=np.int64)
        declared = self._parts.task.columns(self._parts.package, view.measured).objects
        return gated(found, kept, view.shape), chosen, object_moments(chosen, declared)

    def _told(self, vectors: NDArray[np.float32]) -> tuple[Chances, NDArray[np.float64]]:
        """Probabilities (n, K) and features (n, F) from the network's vectors."""
        section = self._parts.classes
        if not len(vectors):
            return np.zeros((0, len(section.classes))), np.zeros((0, section.features))
        return chances_of(vectors, section, self._classes)

    def _unlike(self, features: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """How unlike the images that tell the classes each object is, (n,); None if the package does not say."""
        domain = domain_of(self._classes, self._parts.classes)
        return None if domain is None else unlikeness_of(domain, features)


def windows_around(corners: NDArray[np.float64], shape: Shape) -> NDArray[np.int64]:
    """Windows (n, 4) y0 y1 x0 x1 of `shape` (h, w) around the middles of boxes (n, 4) y0 x0 y1 x1. They may reach beyond the field.

    >>> windows_around(np.array([[0.0, 10.0, 4.0, 16.0]]), (8, 6)).tolist()
    [[-2, 6, 10, 16]]
    """
    height, width = shape
    top = np.floor((corners[:, 0] + corners[:, 2] - height) / 2 + 0.5).astype(np.int64)
    left = np.floor((corners[:, 1] + corners[:, 3] - width) / 2 + 0.5).astype(np.int64)
    return np.stack([top, top + height, left, left + width], axis=1)


def _rows(
    columns: Mapping[str, ObjectColumn],
    moments: Mapping[str, Moments],
    chances: Chances,
    classes: tuple[str, ...],
    unlike: NDArray[np.float64] | None,
) -> tuple[Mapping[str, ObjectColumn], Mapping[str, Moments]]:
    found_as = {FOUND_AS.name: columns["class"]} if "class" in columns else {}
    further = {} if unlike is None else {UNLIKE.name: unlike}
    return {**columns, **found_as, **part_values(chances, classes), **further}, moments
