"""One evaluation: a package counts labelled images, and what came out is scored, measured and grouped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.evaluation.data import Data
from cellcount_core.evaluation.evaluate import (
    Diameter,
    ImageScore,
    count_image,
    counting_of,
    in_turn,
    labels_of,
    score_image,
)
from cellcount_core.evaluation.figures import Interval, measure
from cellcount_core.evaluation.groups import grouped, groupings
from cellcount_core.labelled.image import Entry, LabelledImage
from cellcount_core.models.engines import check_golden, load_engine, resolve_engine
from cellcount_core.models.package import Package
from cellcount_core.pipeline.context import prepare_process
from cellcount_core.pipeline.field import PlanesKit, planes_kit
from cellcount_core.tasks.object_size.looks import tells_sizes

WORST = 10

Progress = Callable[[int, int], None]
"""Called with the number of images done and their total."""


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One image: its score, its size in px, and the object diameter (px) it was counted at (None: as it is)."""

    score: ImageScore
    width_px: int
    height_px: int
    counted_at_px: float | None


@dataclass(frozen=True, slots=True)
class Shown:
    """An image to look at: `image` with its true labels, `counted` (H, W) int32, and its score."""

    image: LabelledImage
    counted: NDArray[np.int32]
    score: ImageScore


@dataclass(frozen=True, slots=True)
class Group:
    """Figures of the images of one group."""

    name: str
    images: int
    objects: int
    figures: dict[str, Interval]


@dataclass(frozen=True, slots=True)
class GroupTable:
    """The groups of one grouping that have images, in the order shown."""

    key: str
    title: str
    groups: tuple[Group, ...]


@dataclass(frozen=True, slots=True)
class SizeCheck:
    """How well the object size was told, over the `images` with objects: shares within 1.25 and 1.5 times the true median
    diameter, and how many images gave no estimate and were counted as they are."""

    images: int
    within_1_25: float
    within_1_5: float
    not_told: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All that an evaluation found. `worst` are the images of lowest AP at IoU 0.5, the worst first, none of them perfect."""

    package: Package
    engine: str
    diameter: Diameter
    data: Data
    rows: tuple[ImageRow, ...]
    figures: dict[str, Interval]
    tables: tuple[GroupTable, ...]
    sizes: SizeCheck | None
    worst: tuple[Shown, ...]

    @property
    def objects(self) -> int:
        """True objects of all images."""
        return sum(row.score.true for row in self.rows)

    @property
    def counted(self) -> int:
        """Counted objects of all images."""
        return sum(row.score.counted for row in self.rows)


def assess(
    package: Package, data: Data, *, engine: str, threads: int, diameter: Diameter, progress: Progress
) -> Evaluation:
    """Count every image of `data` and measure what came out.

    `engine` "auto" is the package's own for a CPU. Raises ConfigFault if an image has other channels than the package, or if that
    has no such engine, or has no scale that a diameter in px could lead to; ModelFault where it fails its golden tensors.
    """
    prepare_process()
    name = resolve_engine(package, engine, gpus=0)
    check_package(package, diameter)
    loaded = load_engine(package, name, threads)
    check_golden(package, loaded)
    rows: list[ImageRow] = []
    worst: list[Shown] = []
    with closing(planes_kit(package, loaded, counting_of(diameter))) as kit:
        for done, (row, shown) in enumerate(in_turn(partial(_assessed, kit), data.entries), 1):
            rows.append(row)
            # Of all images only the worst are kept: those of a large set would fill the memory.
            worst = sorted([*worst, shown], key=_badness)[:WORST]
            progress(done, len(data.entries))
    scores = [row.score for row in rows]
    return Evaluation(
        package=package,
        engine=name,
        diameter=diameter,
        data=data,
        rows=tuple(rows),
        figures=measure(scores),
        tables=_tables(scores),
        sizes=check_sizes(rows) if diameter == "auto" and tells_sizes(package) else None,
        worst=tuple(shown for shown in worst if shown.score.matches[0].ap < 1),
    )


def _assessed(kit: PlanesKit, entry: Entry) -> tuple[ImageRow, Shown]:
    image = entry.load(len(kit.counted))
    seen = count_image(kit, image)
    labels = labels_of(seen)
    score = score_image(image, labels)
    height, width = labels.shape
    return ImageRow(score, width, height, seen.scale.diameter_px), Shown(image, labels, score)


def check_package(package: Package, diameter: Diameter) -> None:
    """Raise ConfigFault if the package has no scale that a diameter could lead to."""
    if package.input.diameter_px is None and isinstance(diameter, float | int):
        raise ConfigFault(
            f"--diameter {diameter:g}: package {package.name!r} counts at any scale and has no diameter to bring images to; "
            "expected 'model' or 'auto'"
        )


def _badness(shown: Shown) -> tuple[float, float, int, str]:
    score = shown.score
    return (
        score.matches[0].ap,
        sum(match.ap for match in score.matches),
        -abs(score.counted - score.true),
        score.id,
    )


def _tables(scores: Sequence[ImageScore]) -> tuple[GroupTable, ...]:
    tables = []
    for key, grouping in groupings(scores).items():
        groups = []
        for name, places in grouped(scores, grouping).items():
            members = [scores[at] for at in places]
            groups.append(Group(name, len(members), sum(score.true for score in members), measure(members)))
        tables.append(GroupTable(key, grouping.title, tuple(groups)))
    return tuple(tables)


def check_sizes(rows: Sequence[ImageRow]) -> SizeCheck | None:
    """How well the sizes that images were counted at agree with the truth; None where no image has an object."""
    some = [row for row in rows if row.score.diameter_px > 0]
    if not some:
        return None
    told = [row.counted_at_px / row.score.diameter_px for row in some if row.counted_at_px is not None]
    off = np.abs(np.log(np.array(told, np.float64)))
    return SizeCheck(
        len(some),
        float((off <= np.log(1.25)).sum()) / len(some),
        float((off <= np.log(1.5)).sum()) / len(some),
        len(some) - len(told),
    )
