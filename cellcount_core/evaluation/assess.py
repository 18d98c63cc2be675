"""One evaluation: the images it is made on, a package that looks at them, and the results compared with the truth, measured and grouped.

The package's task says what is compared: label images, boxes, or a row of a table (`Task.scoring`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from cellcount_core.domain.columns import Value
from cellcount_core.domain.errors import ConfigFault
from cellcount_core.evaluation.evaluate import Diameter, count_image, counting_of, in_turn, score_found
from cellcount_core.evaluation.figures import Interval, grouped, groupings, measure, plain_figure
from cellcount_core.images.imagefile import Plane
from cellcount_core.labelled.box_faults import BoxFault
from cellcount_core.labelled.boxes import AS_USUAL, BoxReading
from cellcount_core.labelled.dataset import Listing, choose, list_images
from cellcount_core.labelled.image import ImageEntry, Pictured
from cellcount_core.labelled.whole import WholeEntry, in_words, unreadable
from cellcount_core.models.engines import check_golden, load_engine, resolve_engine
from cellcount_core.models.package import Package
from cellcount_core.pipeline.context import prepare_process
from cellcount_core.pipeline.field import PlanesKit, planes_kit
from cellcount_core.tasks.matching import ImageScore
from cellcount_core.tasks.object_size.looks import tells_sizes
from cellcount_core.tasks.task import Compared, Found, TellsInWords, Truth, task_of

ALL = "all"
HELD_OUT = "val"
"""The split that is taken if none is named and the data has it: images that trained a model must not measure it."""


@dataclass(frozen=True, slots=True)
class Data:
    """Labelled images, not yet read, and where they come from.

    `path` is as it was given, `kind` is its layout, `split` is "" if all splits were taken, and `modality` is () if
    all modalities were. `left_out` says in words what was left out because it is faulty.
    """

    path: str
    kind: str
    split: str
    modality: tuple[str, ...]
    entries: tuple[ImageEntry[Pictured], ...]
    left_out: tuple[str, ...] = ()


def list_data(
    package: Package,
    path: Path,
    *,
    split: str | None,
    modality: Sequence[str],
    limit: int | None,
    reading: BoxReading = AS_USUAL,
) -> Data:
    """List the images of a folder or file with the truths that the package's task is compared with.

    `split` None takes "val" if the data has it and otherwise everything; "all" takes everything. `modality` () takes
    every modality. `limit` keeps so many images, evenly spread. `reading` says how boxes are read. Raises ConfigFault naming path and value, what was
    expected, and what is there.

    >>> from cellcount_core.models.package import find_package
    >>> where = made_up_labelled("labelled.npz", images=4)
    >>> data = list_data(find_package("nuclei"), where, split=None, modality=(), limit=2)
    >>> data.kind, len(data.entries)
    ('npz', 2)
    """
    scoring = task_of(package).scoring(package)
    listing = list_images(path, scoring.truth, package.input.channels, scoring.names, reading)
    chosen = _default_split(listing) if split is None else "" if split == ALL else split
    entries = choose(listing, chosen, modality)
    if limit is not None and limit < len(entries):
        entries = [entries[at * len(entries) // limit] for at in range(limit)]
    entries, broken = _without_unreadable(entries, path, package.input.channels, reading)
    return Data(
        str(path), listing.kind, chosen, tuple(modality), tuple(entries), (*listing.left_out, *broken)
    )


def _without_unreadable(
    entries: list[ImageEntry[Pictured]], path: Path, roles: Sequence[str], reading: BoxReading
) -> tuple[list[ImageEntry[Pictured]], tuple[str, ...]]:
    """The images that can be decoded, as far as they are read one by one when they are looked at, and in words which were left out.

    Raises ConfigFault naming all that cannot be, unless `reading` leaves out what is faulty.
    """
    faults = unreadable([entry for entry in entries if isinstance(entry, WholeEntry)], roles)
    if not faults:
        return entries, ()
    told = in_words(faults.values())
    if reading.policy[BoxFault.NO_IMAGE] != "skip":
        raise ConfigFault(f"{path}: {told}. Remove or mend them, or leave them out (--skip-faulty)")
    left = [entry for entry in entries if not (isinstance(entry, WholeEntry) and entry.id in faults)]
    if not left:
        raise ConfigFault(f"{path}: no image is left: {told}")
    return left, (f"left out: {told}",)


def _default_split(listing: Listing[Pictured]) -> str:
    return HELD_OUT if any(entry.split == HELD_OUT for entry in listing.entries) else ""


WORST = 10

ProgressCallback = Callable[[int, int], None]
"""Called with the number of images done and their total."""


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One image: its score (None if the task has no objects), its size in px, and the object diameter (px) it was counted at (None: as it
    is). `values` are the task's own columns.
    """

    id: str
    modality: str
    score: ImageScore | None
    width_px: int
    height_px: int
    counted_at_px: float | None
    values: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Shown:
    """An image to look at: its first plane (H, W), what is true of it, what was found in it, and its score."""

    plane: Plane
    truth: Truth
    found: Found
    score: ImageScore


@dataclass(frozen=True, slots=True)
class GroupFigures:
    """The figures of the images of one group."""

    name: str
    images: int
    objects: int
    figures: dict[str, Interval]


@dataclass(frozen=True, slots=True)
class GroupTable:
    """The groups of one grouping that have images, in the order shown."""

    key: str
    title: str
    groups: tuple[GroupFigures, ...]


@dataclass(frozen=True, slots=True)
class SizeCheck:
    """How well object sizes were estimated, over the `images` with objects.

    The shares of estimates within 1.25 and 1.5 times the true median diameter, and `not_told`, the number of images
    that gave no estimate and were counted as they are.
    """

    images: int
    within_1_25: float
    within_1_5: float
    not_told: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything an evaluation found.

    `figures` are those of objects, each with its bootstrap interval, and those of the task itself, without one. `worst` are the images
    with the lowest AP at IoU 0.5, the worst first; images with AP 1 are left out. A task without objects has no `tables` and no `worst`.
    `words` is what the task tells beside its figures, a line each.
    """

    package: Package
    engine: str
    diameter: Diameter
    data: Data
    rows: tuple[ImageRow, ...]
    figures: dict[str, Interval]
    tables: tuple[GroupTable, ...]
    sizes: SizeCheck | None
    worst: tuple[Shown, ...]
    words: tuple[str, ...] = ()

    @property
    def scores(self) -> tuple[ImageScore, ...]:
        """The scores of all images, in their order; () if the task has no objects."""
        return tuple(row.score for row in self.rows if row.score is not None)

    @property
    def objects(self) -> int:
        """True objects of all images."""
        return sum(score.true for score in self.scores)

    @property
    def counted(self) -> int:
        """Counted objects of all images."""
        return sum(score.counted for score in self.scores)


def assess(
    package: Package, data: Data, *, engine: str, threads: int, diameter: Diameter, progress: ProgressCallback
) -> Evaluation:
    """Count every image of `data`, and measure the result.

    `engine` "auto" takes the package's own engine for a CPU. Raises ConfigFault if an image has other channels than
    the package, if the package lacks the engine, or if it has no scale that a diameter in px could lead to. Raises
    ModelFault if the package fails its golden tensors.
    """
    prepare_process()
    name = resolve_engine(package, engine, gpus=0)
    check_package(package, diameter)
    loaded = load_engine(package, name, threads)
    check_golden(package, loaded)
    rows: list[ImageRow] = []
    scored: list[Compared] = []
    worst: list[Shown] = []
    with closing(planes_kit(package, loaded, counting_of(diameter))) as kit:
        for done, (row, compared, shown) in enumerate(in_turn(partial(_assessed, kit), data.entries), 1):
            rows.append(row)
            scored.append(compared)
            # Of all images only the worst are kept: those of a large set would fill the memory.
            worst = sorted([*worst, *shown], key=_badness)[:WORST]
            progress(done, len(data.entries))
    scores = [row.score for row in rows if row.score is not None]
    scoring = task_of(package).scoring(package)
    own = scoring.figures(scored)
    return Evaluation(
        package=package,
        engine=name,
        diameter=diameter,
        data=data,
        rows=tuple(rows),
        figures=(measure(scores) if scores else {})
        | {key: plain_figure(value) for key, value in own.items()},
        tables=_tables(scores) if scores else (),
        sizes=check_sizes(rows) if diameter == "auto" and tells_sizes(package) else None,
        worst=tuple(shown for shown in worst if shown.score.matches[0].ap < 1),
        words=tuple(scoring.words(scored)) if isinstance(scoring, TellsInWords) else (),
    )


def _assessed(kit: PlanesKit, entry: ImageEntry[Pictured]) -> tuple[ImageRow, Compared, tuple[Shown, ...]]:
    image = entry.load([selection.name for selection in kit.counted])
    seen = count_image(kit, image)
    scored = score_found(kit, image, seen)
    height, width = seen.shape
    row = ImageRow(
        image.id, image.truth.modality, scored.objects, width, height, seen.scale.diameter_px, scored.values
    )
    plane = next(iter(image.planes.values()))
    shown = (
        () if scored.objects is None else (Shown(plane, image.truth, _drawable(seen.found), scored.objects),)
    )
    return row, scored, shown


def _drawable(found: Found) -> Found:
    """What is drawn of it alone: the rest may hold the maps of an image."""
    return Found({}, labels=found.labels, boxes=found.boxes, classes=found.classes)


def check_package(package: Package, diameter: Diameter) -> None:
    """Raise ConfigFault if a diameter in px is given and the package has no scale that it could lead to."""
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
            groups.append(
                GroupFigures(name, len(members), sum(score.true for score in members), measure(members))
            )
        tables.append(GroupTable(key, grouping.title, tuple(groups)))
    return tuple(tables)


def check_sizes(rows: Sequence[ImageRow]) -> SizeCheck | None:
    """How well the sizes that images were counted at agree with the true ones. None if no image has an object."""
    some = [
        (row.counted_at_px, row.score.diameter_px) for row in rows if row.score and row.score.diameter_px > 0
    ]
    if not some:
        return None
    told = [at / true for at, true in some if at is not None]
    off = np.abs(np.log(np.array(told, np.float64)))
    return SizeCheck(
        len(some),
        float((off <= np.log(1.25)).sum()) / len(some),
        float((off <= np.log(1.5)).sum()) / len(some),
        len(some) - len(told),
    )
