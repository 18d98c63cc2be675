"""What a task is: how a field is prepared for it, what it finds in a field, and what the tables say about that.

A task is a folder here and a line in `TASKS`. The pipeline prepares a field and passes it to the task's `Head` as a `View`; the head
returns what it `Found`. Everything else (shards, commits, merging, verifying, reports, nights) asks the task for its columns.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from importlib import import_module
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from cellcount_core.config import RunConfig
from cellcount_core.domain.columns import Column, Value
from cellcount_core.domain.errors import ModelFault, nearest
from cellcount_core.domain.statistics import Moments
from cellcount_core.images.imagefile import Plane
from cellcount_core.images.normalise import Normalisation
from cellcount_core.models.package import Package
from cellcount_core.output.rows import ObjectColumn
from cellcount_core.tasks.matching import ImageScore

Shape = tuple[int, int]
MapArray = NDArray[np.float32]
CanvasMaps = Callable[[NDArray[np.float32]], MapArray]
"""Gives the maps (h, w, K) of a normalised canvas (h, w, C) whose sides are multiples of the package's stride."""

Clock = Callable[[str], AbstractContextManager[None]]
"""`with clock("separate"):` adds the time spent inside to that stage."""


class Levels(StrEnum):
    """By which levels a window of a field is normalised."""

    FIELD = "field"
    """By those of the whole field: the window is a part of one image."""
    OWN = "own"
    """By its own, as if it was an image by itself."""


class Preparation(StrEnum):
    """How a field is prepared before its network sees it."""

    OBJECT_SIZE = "object_size"
    """Resized so that its objects have the size that the network counts best."""
    FIXED = "fixed"
    """Resized to the number of pixels that the network takes."""


class Maps(Protocol):
    """The network's maps (H, W, K) of a prepared field of `shape`; they are made when they are asked for."""

    @property
    def shape(self) -> Shape:
        """(H, W) of the field at the model's scale."""
        ...

    @property
    def norm(self) -> Normalisation:
        """Levels of the first plane that the network sees."""
        ...

    def whole(self) -> MapArray:
        """The maps of the whole field."""
        ...

    def window(self, y0: int, y1: int, x0: int, x1: int) -> MapArray:
        """The maps of rows y0 to y1 and columns x0 to x1, half-open."""
        ...

    def cores(self) -> Iterator[MapArray]:
        """The maps in pieces that together cover the field, each pixel once."""
        ...

    def canvas(self) -> NDArray[np.float32]:
        """The first plane (H, W) that the network sees, at the model's scale, normalised."""
        ...

    def resized(self, factor: float) -> Maps:
        """The maps of the same field, enlarged or reduced by `factor`."""
        ...


class View(Protocol):
    """A field as a task sees it."""

    @property
    def planes(self) -> Mapping[str, Plane]:
        """Raw planes (H, W) by channel name: those of the package's roles, and others whose intensities are measured."""
        ...

    @property
    def counted(self) -> tuple[str, ...]:
        """Names of the planes of the package's roles, in their order."""
        ...

    @property
    def seen(self) -> tuple[Plane, ...]:
        """The raw planes (H, W) that the network sees, in the order of its inputs."""
        ...

    @property
    def norms(self) -> tuple[Normalisation, ...]:
        """Levels of the planes of the roles, in their order."""
        ...

    @property
    def empty(self) -> bool:
        """Whether the signal of no plane of the roles rises above its noise."""
        ...

    @property
    def numbers(self) -> Mapping[str, float]:
        """What was found on the field's plate when the run was planned (`PlateRule`), by name; {} if nothing was."""
        ...

    @property
    def measured(self) -> tuple[str, ...]:
        """Names of the channels whose intensities are in the tables."""
        ...

    @property
    def shape(self) -> Shape:
        """(H, W) of the raw planes."""
        ...

    @property
    def um_per_px(self) -> float | None:
        """Pixel size of the raw planes; None if it is unknown."""
        ...

    @property
    def run(self) -> RunConfig:
        """The run's settings: among others the limits of memory, and whether label images are kept."""
        ...

    @property
    def clock(self) -> Clock:
        """Times the stages."""
        ...

    @property
    def maps(self) -> Maps:
        """The maps of a network that gives a map of the field (preparation by object size)."""
        ...

    def vector(self) -> NDArray[np.float32]:
        """The output (K,) of a network that sees the prepared field as one image."""
        ...

    def vectors(self, windows: NDArray[np.int64], levels: Levels = Levels.FIELD) -> NDArray[np.float32]:
        """The outputs (n, K) of a network that sees windows (n, 4) of the field, y0 y1 x0 x1 in px and half-open, as one image each.

        Where a window reaches beyond the field, the network sees the mirror image of the field.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """What of a field has rows of its own in the objects table, n of them: objects, or tiles.

    `rows` makes the columns of that table and the moments of the measured ones, by name; it is called only where tables are written.
    """

    count: int
    rows: Callable[[], tuple[Mapping[str, ObjectColumn], Mapping[str, Moments]]]


@dataclass(frozen=True, slots=True, eq=False)
class Objects(Parts):
    """The objects of a field, n of them.

    `area_px` is the number of pixels that they cover and `diameter_px` their median diameter. `level` is the median of their mean
    intensities in the first counted channel, in raw units; None without objects, or if they are not measured. `left_out` objects were found
    beside these, and left out by gates.
    """

    area_px: int
    diameter_px: float | None
    level: float | None
    left_out: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What a task found in a field.

    `values` are the values of the task's columns. `objects` is None for a task without objects; `tiles` are what such a task looked at one by one,
    None if it did not. What can be drawn is `labels` (H, W), 0 for background and 1..n for objects, and `boxes` (n, 4) float, y0 x0 y1 x1 half-open in px of the field; None if there is nothing of
    that kind or it was not asked for. `classes` (n,) are the places of the objects' classes in the schema's, by which they are coloured;
    None for objects without classes. `features` are those in which a package describes its training images, and `unlike` how
    unlike those the field is (0..1); None if the package does not say.
    """

    values: Mapping[str, Value]
    objects: Objects | None = None
    labels: NDArray[np.integer] | None = None
    boxes: NDArray[np.float64] | None = None
    classes: NDArray[np.int64] | None = None
    warnings: tuple[str, ...] = ()
    features: tuple[float, ...] | None = None
    unlike: float | None = None
    tiles: Parts | None = None

    @property
    def count(self) -> int:
        """Number of objects; 0 for a task without objects."""
        return 0 if self.objects is None else self.objects.count

    @property
    def parts(self) -> Parts | None:
        """What has rows in the objects table; None for a task without any."""
        return self.tiles if self.objects is None else self.objects


@dataclass(frozen=True, slots=True)
class SizeEstimate:
    """What one image says about the size of its objects.

    `diameter_px` is their median equivalent diameter in px of the image, by number; None if the image shows too little to tell.
    `objects` is the number of objects that it rests on. `certainty` (0..1) says how well the sizes that the network predicts agree with
    those that are found. A tenth of the objects is smaller than `low_px` and a tenth larger than `high_px`. `factors` are the factors
    by which the image was resized to look at it.
    """

    diameter_px: float | None
    objects: int
    certainty: float
    low_px: float | None = None
    high_px: float | None = None
    factors: tuple[float, ...] = ()


NO_ESTIMATE = SizeEstimate(None, 0, 0.0)


class Head(Protocol):
    """Finds things in fields. Made once a worker, and called from several threads at once."""

    def find(self, view: View) -> Found:
        """What is in a field. Raises FieldFault if it cannot be looked at, MemoryError if it does not fit into memory."""
        ...

    def size(self, planes: tuple[Plane, ...], maps: CanvasMaps) -> SizeEstimate:
        """How large the objects of one image are, from its raw planes (H, W), one for each role.

        `NO_ESTIMATE` if the task or the package cannot tell.
        """
        ...


@dataclass(frozen=True, slots=True)
class TaskColumns:
    """The columns that a task adds to the tables.

    `field` come after the columns of the image's channel, `scale` after those of the scale that the field was counted at.
    `objects`, `results`, `object_count` and `classes` are as in `Schema`. `object_name` is what begins the names of measured columns; "" stands
    for the object of the package.
    """

    field: tuple[Column, ...]
    results: tuple[str, ...]
    scale: tuple[Column, ...] = ()
    objects: tuple[Column, ...] = ()
    object_count: str = ""
    classes: tuple[str, ...] = ()
    object_name: str = ""


class TruthKind(StrEnum):
    """In which form somebody says what is true of an image (see `labelled/`)."""

    LABELS = "labels"
    """A label image beside each image."""
    BOXES = "boxes"
    """Boxes around the objects, each with its class."""
    TABLE = "table"
    """A table with one row per image."""
    PATTERNS = "patterns"
    """A table that names the patterns which each image shows."""


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """What is true of one image, in one of the forms of `TruthKind`. It is what `Found` is compared with.

    `labels` (H, W) int32 has 0 as background and 1..n as objects. `boxes` (n, 4) float64 are y0 x0 y1 x1, half-open, in px of the image,
    and `classes` the class of each. `values` is a row of a table. `diameter_px` is the median diameter of the objects, 0.0 without any.
    """

    id: str
    modality: str = ""
    diameter_px: float = 0.0
    labels: NDArray[np.int32] | None = None
    boxes: NDArray[np.float64] | None = None
    classes: tuple[str, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """What came of comparing one image with its truth.

    `values` are the task's own columns of images.csv, by name. `objects` says which objects were found and which were not; None for a
    task without objects. With it the image is part of the figures, groups and pictures that all tasks with objects share. A task may
    return a subclass that holds what its own figures need of an image.
    """

    values: Mapping[str, Value] = field(default_factory=dict)
    objects: ImageScore | None = None


class Scoring(Protocol):
    """Compares what was found in images with what is true of them. One for a package."""

    @property
    def truth(self) -> TruthKind:
        """The form of truth that it compares with."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """What the truth is asked for: the columns that a table must have, beside that of the image; the classes that boxes may have;
        () for label images."""
        ...

    @property
    def headline(self) -> str:
        """The figure by which packages of the task are compared: one of objects, or one of `figures`."""
        ...

    def score(self, truth: Truth, found: Found) -> Compared:
        """Compare one image. Raises ConfigFault if the truth is not one that the package can tell."""
        ...

    def figures(self, scored: Sequence[Compared]) -> dict[str, Value]:
        """What all images amount to, by name, beside the figures of `Compared.objects`; `scored` is what `score` returned."""
        ...


@runtime_checkable
class TellsInWords(Protocol):
    """A scoring that has something to tell which no figure says."""

    def words(self, scored: Sequence[Compared]) -> list[str]:
        """What a reader of the figures should know, a line each; `scored` is as in `Scoring.figures`."""
        ...


class Task(Protocol):
    """A kind of question asked about a field; a package's network answers it."""

    @property
    def name(self) -> str:
        """Its name in manifests."""
        ...

    @property
    def preparation(self) -> Preparation:
        """How a field is prepared before the network sees it."""
        ...

    @property
    def example(self) -> Mapping[str, object]:
        """A section as a manifest may have it: what the reference shows the task's columns by."""
        ...

    def columns(self, package: Package, measured: tuple[str, ...]) -> TaskColumns:
        """The columns that it adds to the tables; `measured` are the channels whose intensities are measured."""
        ...

    def head(self, package: Package) -> Head:
        """The head for a package. Raises ModelFault if the task's section of the manifest is wrong."""
        ...

    def side(self, package: Package) -> int:
        """Side (px) of the images that the network takes, for the preparation FIXED; 0 for the others."""
        ...

    def scoring(self, package: Package) -> Scoring:
        """How what the package finds is compared with what is true. Raises ModelFault if the task's section is wrong."""
        ...

    @property
    def learning(self) -> str | None:
        """Where it says how its networks are trained: `module:class` of a `Learning` (training/learning.py), which is imported when
        something is trained. None if `cellcount train` does not train packages of this task."""
        ...


class PlateRule(Protocol):
    """What a task finds out about a plate while a run is planned, before any field of it is judged: for example a threshold.

    Some fields of each plate are looked at, and what is `seen` in them becomes a few numbers a plate. They stand in run.json, are part
    of the fingerprint, and come back to the task as `View.numbers`. So a field is judged the same whichever worker has it.
    """

    @property
    def groups(self) -> Mapping[str, frozenset[str]]:
        """Groups of fields that are sampled, by name, each with the wells that it is taken from; no wells means all wells."""
        ...

    def seen(self, view: View) -> NDArray[np.float64]:
        """What one field shows: a table (n, k) with a row for each object. Raises FieldFault if the field cannot be looked at."""
        ...

    def found(
        self, plate: str, groups: Mapping[str, NDArray[np.float64]]
    ) -> tuple[Mapping[str, float], Sequence[str]]:
        """The numbers of a plate from what was seen in each group of fields, and warnings in words.

        Raises ConfigFault if the groups contradict each other.
        """
        ...


@runtime_checkable
class JudgesByPlate(Protocol):
    """A task that may need numbers of a whole plate before it can judge a field."""

    def plate_rule(self, package: Package, run: RunConfig) -> PlateRule | None:
        """What is to be found out about each plate of a run; None if nothing is."""
        ...


@runtime_checkable
class TellsOfPackages(Protocol):
    """A task that has something to tell of a package which whoever counts with it should know."""

    def notes(self, package: Package) -> list[str]:
        """What is told, a line each."""
        ...


def notes_of(package: Package) -> tuple[str, ...]:
    """What the package's task tells of it before it counts."""
    task = task_of(package)
    return tuple(task.notes(package)) if isinstance(task, TellsOfPackages) else ()


def plate_rule_of(package: Package, run: RunConfig) -> PlateRule | None:
    """What the package's task must find out about each plate of a run; None if nothing."""
    task = task_of(package)
    return task.plate_rule(package, run) if isinstance(task, JudgesByPlate) else None


class TaskSection(BaseModel):
    """Base of a task's section in package.json. Unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


AnySection = TypeVar("AnySection", bound=TaskSection)


def read_section(model: type[AnySection], package: Package) -> AnySection:
    """A package's section, read by its task's model. Raises ModelFault naming the key that is wrong."""
    try:
        return model.model_validate_json(json.dumps(dict(package.section)))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        at = ".".join(str(part) for part in (package.task, *first["loc"]))
        got = "" if first["type"] == "missing" else f" (got {first['input']!r:.80})"
        raise ModelFault(f"package {package.name!r}: {at}: {first['msg']}{got}") from error


TASKS = {
    "instances": "cellcount_core.tasks.instances.task:Instances",
    "classes": "cellcount_core.tasks.classes.task:Classes",
    "boxes": "cellcount_core.tasks.boxes.task:BoxesTask",
    "viability": "cellcount_core.tasks.viability.task:Viability",
    "patterns": "cellcount_core.tasks.patterns.task:Patterns",
    "object_classes": "cellcount_core.tasks.classes.objects:ObjectClasses",
}
"""The class of every task, by the `task` of a package's manifest. A class is imported when it is first asked for."""


def task_of(package: Package) -> Task:
    """The task of a package. Raises ModelFault naming the nearest known task if there is none of that name."""
    if package.task not in TASKS:
        raise ModelFault(
            f"package {package.name!r} is for the task {package.task!r}, which this version does not know"
            f"{nearest(package.task, TASKS)}"
        )
    return task_named(package.task)


def task_named(name: str) -> Task:
    """The task of a name in `TASKS`."""
    module, _, attribute = TASKS[name].partition(":")
    task: Task = getattr(import_module(module), attribute)()
    return task
