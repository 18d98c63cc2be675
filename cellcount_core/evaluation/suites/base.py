"""What all suites share: the package that counts, the images it counts, and the tables they return.

A table holds values, each with the text that shows it. What is required of a figure (its bar) stands in columns of
its own, so that a table can be shown without it: the bars are meant for the packages that are shipped with cellcount.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Literal, TypeVar

import numpy as np

from cellcount_core.evaluation.assess import Data, ProgressCallback, check_package
from cellcount_core.evaluation.evaluate import (
    Diameter,
    count_image,
    counting_of,
    in_turn,
    objects_of,
    score_found,
)
from cellcount_core.images.imagefile import Plane
from cellcount_core.images.pixels import bit_max_of
from cellcount_core.labelled.image import ImageEntry, LabelledImage, Pictured
from cellcount_core.models.engines import ENGINES, check_golden, load_engine, resolve_engine
from cellcount_core.models.package import Package
from cellcount_core.pipeline.field import PlanesKit, planes_kit
from cellcount_core.pipeline.rows import Examined
from cellcount_core.tasks.matching import ImageScore
from cellcount_core.tasks.task import TruthKind, task_of

CellValue = str | int | float | None
Verdict = Literal["", "goal", "floor", "met", "missed"]
_Item = TypeVar("_Item")
_Done = TypeVar("_Done")


@dataclass(frozen=True, slots=True)
class SuiteCell:
    """One value of a table, the text that shows it, and whether it reaches its bar ("" if it has none)."""

    value: CellValue
    text: str
    verdict: Verdict = ""

    @property
    def judged(self) -> str:
        """The text with its verdict: `0.860 (floor)`, or bold if the bar is missed."""
        if self.verdict == "missed":
            return f"**{self.text}**"
        return f"{self.text} ({self.verdict})" if self.verdict in ("goal", "floor") else self.text


def cell(value: CellValue, form: str = "", verdict: Verdict = "") -> SuiteCell:
    """A cell that shows a value in the format `form`. None, infinities and NaN give an empty cell."""
    if value is None or (isinstance(value, float) and not isfinite(value)):
        return SuiteCell(None, "")
    return SuiteCell(value, format(value, form), verdict)


def met(*held: bool) -> SuiteCell:
    """A cell that says whether all the bars of a row are met."""
    return SuiteCell("yes", "yes", "met") if all(held) else SuiteCell("no", "no", "missed")


@dataclass(frozen=True, slots=True)
class SuiteColumn:
    """A column: its name in JSON, its heading, and whether it holds figures or bars."""

    name: str
    title: str
    holds: Literal["figures", "bars"] = "figures"


@dataclass(frozen=True, slots=True)
class SuiteTable:
    """A table of a suite; `name` is its name in JSON."""

    name: str
    columns: tuple[SuiteColumn, ...]
    rows: tuple[tuple[SuiteCell, ...], ...]

    def without_bars(self) -> SuiteTable:
        """The table with its figures only."""
        kept = [at for at, column in enumerate(self.columns) if column.holds == "figures"]
        return SuiteTable(
            self.name,
            tuple(self.columns[at] for at in kept),
            tuple(tuple(replace(row[at], verdict="") for at in kept) for row in self.rows),
        )


@dataclass(frozen=True, slots=True)
class SuiteResult:
    """What a suite found: its tables, and notes on what they leave out and why."""

    caption: str
    tables: tuple[SuiteTable, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Counter:
    """A package on one of its engines. It counts labelled images as a run counts fields, each image by itself."""

    package: Package
    engine: str
    diameter: Diameter
    kit: PlanesKit

    @property
    def title(self) -> str:
        """The package's name and its engine."""
        return f"{self.package.name}, {self.engine}"

    def count(self, image: Pictured) -> Examined:
        """Count one image. Raises ConfigFault naming the image if it cannot be counted."""
        return count_image(self.kit, image)

    def score(self, image: Pictured, seen: Examined) -> ImageScore:
        """Compare the objects found in an image with its true ones, as the package's task does."""
        return objects_of(score_found(self.kit, image, seen))

    def close(self) -> None:
        """End the engine's thread."""
        self.kit.close()


@dataclass(frozen=True, slots=True)
class Asked:
    """What a suite is asked to measure.

    `counters` holds the package on its engines, followed by the packages it is compared with; only the suite
    `accuracy` uses more than the first. `data` is None for suites that draw their own images. `unlike` are patterns
    of files that the package is not made for. `limit` is the most images of each set (None: all).
    """

    counters: tuple[Counter, ...]
    data: Data | None
    unlike: tuple[str, ...]
    limit: int | None
    progress: ProgressCallback

    @property
    def counter(self) -> Counter:
        """The package that is measured."""
        return self.counters[0]

    @property
    def entries(self) -> tuple[ImageEntry[Pictured], ...]:
        """The labelled images, not yet read."""
        assert self.data is not None
        return self.data.entries

    def caption(self, images: str) -> str:
        """A sentence that says which images were counted by what."""
        counter = self.counter
        return f"{images}, `{counter.package.name}` on {counter.engine}, diameter {shown_diameter(counter.diameter)}."

    def in_turn(
        self, work: Callable[[_Item], _Done], items: Iterable[_Item], total: int, done: int = 0
    ) -> Iterator[_Done]:
        """Yield the result of `work` for each item while a few further items are worked on, and report progress.

        `done` of `total` items are already done before the first one.
        """
        for number, each in enumerate(in_turn(work, items), done + 1):
            yield each
            self.progress(number, total)


@dataclass(frozen=True, slots=True)
class Suite:
    """A set of measurements: what it shows, whether it needs labelled images, and the function that makes it.

    It can judge packages whose task is compared with one of the forms of `truths`, and that look at one channel or at several.
    """

    name: str
    tells: str
    needs: Literal["data", "nothing"]
    run: Callable[[Asked], SuiteResult]
    truths: tuple[TruthKind, ...] = (TruthKind.LABELS,)
    channels: Literal["one", "several"] = "one"

    def why_not(self, package: Package) -> str:
        """Why this suite cannot judge a package, in words; "" if it can."""
        truth, channels = task_of(package).scoring(package).truth, package.input.channels
        named = f"package {package.name!r}"
        if truth not in self.truths:
            return (
                f"{named} is for the task {package.task!r}, which is compared with {_IN_WORDS[truth]}; it measures packages that are "
                f"compared with {' or '.join(_IN_WORDS[each] for each in self.truths)}"
            )
        if self.channels == "one" and len(channels) != 1:
            return f"{named} looks at {len(channels)} channels ({', '.join(channels)}); it measures packages of one channel"
        return ""


_IN_WORDS = {
    TruthKind.LABELS: "label images",
    TruthKind.BOXES: "boxes",
    TruthKind.TABLE: "a table",
    TruthKind.PATTERNS: "a table of patterns",
}


def labelled(entry: ImageEntry[Pictured]) -> LabelledImage:
    """Read an image of one channel with its label image. Raises TypeError if its truth has another form (see `Suite.truths`)."""
    image = entry.load()
    if not isinstance(image, LabelledImage):
        raise TypeError(f"a labelled image expected (got {type(image).__name__})")
    return image


def open_counters(
    packages: Sequence[Package], *, engine: str, threads: int, diameter: Diameter
) -> tuple[Counter, ...]:
    """Open each package on an engine. `engine` "auto" is the package's own for a CPU; of several names
    ("auto,onnxruntime") those are used that the package has.

    Raises ConfigFault if a package has no such engine, and ModelFault if it fails its golden tensors.
    """
    counters = []
    for package in packages:
        check_package(package, diameter)
        names = [name.strip() for name in engine.split(",")]
        # A name that cellcount does not know is refused by `resolve_engine`; of those it knows a package may lack some.
        lacking = {name for name in names if name in ENGINES and name not in package.engines}
        names = [name for name in names if name not in lacking] or names
        for asked in names:
            name = resolve_engine(package, asked, gpus=0)
            loaded = load_engine(package, name, threads)
            check_golden(package, loaded)
            counters.append(
                Counter(package, name, diameter, planes_kit(package, loaded, counting_of(diameter)))
            )
    return tuple(counters)


def with_plane(image: LabelledImage, plane: Plane) -> LabelledImage:
    """The image with other pixels of the same shape. Their full scale is that of their type."""
    return replace(image, plane=plane, bit_max=bit_max_of(plane.dtype))


def image_without_objects(name: str, plane: Plane) -> LabelledImage:
    """A labelled image of a plane (H, W) uint8, uint16 or float32 in which there is nothing to count."""
    labels = np.zeros(plane.shape, np.int32)
    return LabelledImage(name, plane, labels, name, "", 0.0, None, bit_max_of(plane.dtype))


def shown_diameter(diameter: Diameter) -> str:
    """The diameter as it is written on the command line."""
    return diameter if isinstance(diameter, str) else f"{diameter:g}"
