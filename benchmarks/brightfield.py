"""The images of `viability-brightfield`: their split, how far their labels agree with themselves, and what the package reaches.

    python -m benchmarks.brightfield split DATA
    python -m benchmarks.brightfield ceiling DATA
    python -m benchmarks.brightfield bars DATA [--package viability-brightfield] [--record]

DATA is the folder `ldc_live_dead` (github.com/maxKudi/Cell-Dataset): images/*.png and annotations/*.xml (Pascal VOC). `split` writes
conf/splits/ldc_live_dead.csv. The data set holds many images twice, most of them turned or mirrored and labelled anew. Copies stay
together in a split, and how far their labels agree tells how far counts can be expected to agree with labels. `bars` counts the images
that are held out, and prints what was asked of the package beside what it reaches, and beside how far the labels agree with themselves.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.record import record
from cellcount_core.domain.columns import Value
from cellcount_core.evaluation.evaluate import Diameter, count_plane, counting_of, package_scorer
from cellcount_core.labelled.boxes import BoxedImage, BoxReading, list_boxes
from cellcount_core.models.engines import Engine, load_engine, resolve_engine
from cellcount_core.models.package import Package, find_package
from cellcount_core.pipeline.context import prepare_process
from cellcount_core.pipeline.field import planes_kit
from cellcount_core.tasks.boxes.score import box_iou
from cellcount_core.tasks.matching import matched_pairs
from cellcount_core.tasks.task import task_of

Corners = NDArray[np.float64]

SPLIT = Path(__file__).resolve().parents[1] / "conf" / "splits" / "ldc_live_dead.csv"
CLASSES = ("Living Cell", "Dead Cell")
VIABILITY = Path(__file__).resolve().parents[1] / "docs" / "explanation" / "viability.md"
MODALITY = "brightfield"
MEGAPIXEL, ROUNDS = 1024, 5
SPEED_BAR = 0.5
HELD_OUT = 0.2
FOLDS = 5
ORIENTATIONS = 8

_SIDE = 110
"""Images are compared at this size: cells of 20 px stay visible, noise does not."""

_SMOOTH_PX = 10.0
_ALIKE = 0.9
"""Least correlation of copies. Copies have 0.99 and more; views of one chamber's grid, the next most alike, at most 0.78."""

_SAME_BOX = 0.5


def load(data: Path) -> list[BoxedImage]:
    """All images of the data set, in the order of their names."""
    listed = list_boxes(data, BoxReading("voc", classes=CLASSES))
    return [entry.load() for entry in listed.entries]


def plane_of(image: BoxedImage) -> NDArray[np.generic]:
    """The only plane (H, W) of an image."""
    return next(iter(image.planes.values()))


@dataclass(frozen=True, slots=True)
class Copy:
    """Two images that show the same: `second`, turned by `orientation` (0..7), is `first`."""

    first: str
    second: str
    orientation: int


def turned(plane: NDArray[np.generic], orientation: int) -> NDArray[np.generic]:
    """The plane (H, W) after `orientation` % 4 quarter turns anticlockwise and, from 4 on, mirrored left to right."""
    rotated = np.rot90(plane, orientation % 4)
    return rotated[:, ::-1] if orientation >= 4 else rotated


def turned_boxes(boxes: Corners, orientation: int, shape: tuple[int, int]) -> Corners:
    """Boxes (n, 4) of an image of `shape` (H, W), as they lie in the turned image."""
    height, width = shape
    for _ in range(orientation % 4):
        boxes = np.stack([width - boxes[:, 3], boxes[:, 0], width - boxes[:, 1], boxes[:, 2]], axis=1)
        height, width = width, height
    if orientation >= 4:
        boxes = np.stack([boxes[:, 0], width - boxes[:, 3], boxes[:, 2], width - boxes[:, 1]], axis=1)
    return boxes


def find_copies(images: Sequence[BoxedImage]) -> list[Copy]:
    """All pairs of images of which one shows the other, in any of the eight orientations. Other brightness or contrast does not matter."""
    flat = [_flattened(plane_of(image)) for image in images]
    first = np.stack([_unit(plane) for plane in flat])
    found: dict[tuple[int, int], int] = {}
    for orientation in range(ORIENTATIONS):
        second = np.stack([_unit(turned(plane, orientation)) for plane in flat])
        for i, j in zip(*np.nonzero(np.triu(first @ second.T, 1) > _ALIKE), strict=True):
            found.setdefault((int(i), int(j)), orientation)
    return [Copy(images[i].id, images[j].id, turn) for (i, j), turn in sorted(found.items())]


def _flattened(plane: NDArray[np.generic]) -> NDArray[np.float32]:
    """Without slow changes of the background; grid lines and cells weigh by the logarithm of their contrast."""
    pixels = plane.astype(np.float32)
    pixels = pixels - cv2.GaussianBlur(pixels, (0, 0), _SMOOTH_PX)
    pixels = pixels / (1.5 * np.median(np.abs(pixels)) + 1e-6)
    return np.asarray(np.sign(pixels) * np.log1p(np.abs(pixels)), np.float32)


def _unit(plane: NDArray[np.generic]) -> NDArray[np.float32]:
    small = cv2.resize(np.ascontiguousarray(plane), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).ravel()
    small = small - small.mean()
    return np.asarray(small / np.linalg.norm(small), np.float32)


def given_groups(data: Path) -> list[list[str]]:
    """The groups of near-equal views that the data set's own list joins."""
    groups: dict[str, list[str]] = defaultdict(list)
    with (data / "near_duplicate_groups.csv").open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            groups[row["group"]].append(Path(row["image"]).stem)
    return list(groups.values())


def join(names: Iterable[str], together: Iterable[Sequence[str]]) -> dict[str, list[str]]:
    """Groups by the name of their first member: whatever is chained by `together` is one group."""
    parent = {name: name for name in names}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for first, *others in together:
        for other in others:
            low, high = sorted((root(first), root(other)))
            parent[high] = low
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted(parent):
        groups[root(name)].append(name)
    return dict(groups)


def deal(
    groups: Mapping[str, Sequence[str]], strata: Mapping[str, str], shares: Sequence[float], salt: str
) -> dict[str, int]:
    """The part that each group goes to. Groups of a stratum are dealt in the order of their salted SHA-1, each to the part that lacks most."""
    chosen: dict[str, int] = {}
    wanted, total = np.array(shares), np.zeros(len(shares))
    by_stratum: dict[str, list[str]] = defaultdict(list)
    for name in groups:
        by_stratum[strata[name]].append(name)
    for stratum in sorted(by_stratum):
        own = np.zeros(len(shares))
        for name in sorted(by_stratum[stratum], key=lambda group: _hash(salt + group)):
            size = len(groups[name])
            lack = wanted * (own.sum() + size) - own + 1e-3 * (wanted * total.sum() - total)
            part = int(np.argmax(lack))
            chosen[name] = part
            own[part] += size
            total[part] += size
    return chosen


def _hash(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def split(data: Path, path: Path = SPLIT) -> None:
    """Write the split: a fifth of the images is held out, the rest is in five folds. Groups are never cut in two.

    Strata are the families that names tell (image, ncell, …), with a dead cell and without.
    """
    images = {image.id: image for image in load(data)}
    copies = find_copies(list(images.values()))
    groups = join(images, [*given_groups(data), *((copy.first, copy.second) for copy in copies)])
    strata = {
        name: f"{_family(name)} {any(CLASSES[1] in images[member].classes for member in members)}"
        for name, members in groups.items()
    }
    held_out = deal(groups, strata, (1 - HELD_OUT, HELD_OUT), "split ")
    rest = {name: members for name, members in groups.items() if not held_out[name]}
    folds = deal(rest, strata, (1 / FOLDS,) * FOLDS, "fold ")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("image", "group", "split", "fold", "modality"))
        for name in sorted(groups):
            place = ("test", "", MODALITY) if held_out[name] else ("train", folds[name], MODALITY)
            writer.writerows((f"{member}.png", name, *place) for member in groups[name])
    images_in, boxes_in, dead_in = Counter[str](), Counter[str](), Counter[str]()
    for name, members in groups.items():
        part = "test" if held_out[name] else f"train, fold {folds[name]}"
        for member in members:
            images_in[part] += 1
            boxes_in[part] += len(images[member].boxes)
            dead_in[part] += images[member].classes.count(CLASSES[1])
    print(f"{len(images)} images, {len(copies)} pairs of copies, {len(groups)} groups; {path}")
    for part in sorted(images_in):
        print(f"{part}: {images_in[part]} images, {boxes_in[part]} cells, {dead_in[part]} of them dead")


def _family(name: str) -> str:
    found = re.match(r"[a-z]+", name)
    return found.group() if found else ""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far the labels of copies agree: number of pairs and of boxes, F1 and median IoU of matched boxes, and how many of those agree in class."""

    pairs: int
    boxes: int
    matched: int
    median_iou: float
    same: int

    @property
    def f1(self) -> float:
        """F1 of the boxes of one copy against those of the other, at IoU 0.5."""
        return 2 * self.matched / self.boxes

    @property
    def same_class(self) -> float:
        """The share of matched boxes that have the same class in both."""
        return self.same / self.matched


def agreement(images: Sequence[BoxedImage], copies: Sequence[Copy] | None = None) -> Agreement:
    """How far the labels of these pairs of copies agree (None: of all that there are among the images)."""
    known = {image.id: image for image in images}
    ious: list[float] = []
    same = boxes = 0
    chosen = find_copies(images) if copies is None else copies
    for copy in chosen:
        one, other = known[copy.first], known[copy.second]
        height, width = plane_of(other).shape
        there = turned_boxes(other.boxes, copy.orientation, (height, width))
        iou = box_iou(one.boxes, there)
        rows, columns, _ = matched_pairs(iou, _SAME_BOX)
        ious += iou[rows, columns].tolist()
        same += sum(one.classes[i] == other.classes[j] for i, j in zip(rows, columns, strict=True))
        boxes += len(one.boxes) + len(there)
    return Agreement(len(chosen), boxes, len(ious), float(np.median(ious)), same)


def ceiling(data: Path) -> None:
    """Print how far the labels of copies agree."""
    images = load(data)
    pixels = {image.id: plane_of(image) for image in images}
    found = find_copies(images)
    exact = [c for c in found if c.orientation == 0 and np.array_equal(pixels[c.first], pixels[c.second])]
    print("copies | pairs | boxes | F1 at IoU 0.5 | median IoU | same class")
    print("---|---|---|---|---|---")
    for title, copies in (("same pixels", exact), ("all, turned ones too", found)):
        told = agreement(images, copies)
        print(
            f"{title} | {told.pairs} | {told.boxes} | {told.f1:.3f} | {told.median_iou:.2f} | {told.same} of {told.matched}"
        )


def bars(data: Path, name: str) -> None:
    """Print what the package reaches on the images held out, as they are and each at its own estimated size, and how fast it is."""
    prepare_process()
    package = find_package(name)
    engine = load_engine(package, resolve_engine(package, "auto", gpus=0), 1)
    engine.batch = 1
    listed = list_boxes(data, BoxReading("voc", classes=CLASSES, table=SPLIT))
    images = [entry.load(package.input.channels) for entry in listed.chosen("test")]
    scoring = task_of(package).scoring(package)
    reached: dict[Diameter, Mapping[str, Value]] = {}
    diameters: tuple[Diameter, ...] = ("model", "auto")
    for diameter in diameters:
        with package_scorer(package, engine, diameter) as score:
            reached[diameter] = scoring.figures([score(image) for image in images])
    labels = agreement(load(data))
    cells = sum(len(image.boxes) for image in images)
    dead = sum(image.classes.count(CLASSES[1]) for image in images)
    lines = [
        f"`{package.name}` {package.version} on {len(images)} images held out: {cells} cells, {dead} of them dead; the labels against themselves: "
        f"{labels.pairs} pairs of copies",
        "",
        "| | asked | as they are | own size each | labels |",
        "|---|---|---|---|---|",
    ]
    for title, asked, holds, told, ceiling in _bars(labels):
        cells_of = [
            f"{told(figures)}{'' if holds(figures) else ' **not met**'}" for figures in reached.values()
        ]
        lines.append(f"| {title} | {asked} | {' | '.join(cells_of)} | {ceiling} |")
    seconds = _seconds_a_megapixel(package, engine, images)
    lines.append(
        f"| 1 megapixel on one thread | at most {SPEED_BAR:g} s | {seconds:.2f} s{'' if seconds <= SPEED_BAR else ' **not met**'} | | |"
    )
    print("\n".join(lines))
    record("brightfield", lines, VIABILITY)


Figures = Mapping[str, Value]


def _bars(
    labels: Agreement,
) -> list[tuple[str, str, Callable[[Figures], bool], Callable[[Figures], str], str]]:
    """For each bar its title, what is asked, whether figures hold it, how they are told, and what the labels reach against themselves."""

    def at_least(name: str, least: float) -> Callable[[Figures], bool]:
        return lambda figures: _number(figures, name) >= least

    def told(name: str) -> Callable[[Figures], str]:
        return lambda figures: f"{_number(figures, name):.3f}"

    return [
        ("F1 of cells at IoU 0.5", "0.90 (goal 0.95)", at_least("f1_pooled", 0.9), told("f1_pooled"), f"{labels.f1:.3f}"),
        (
            "balanced accuracy of the class", "0.90", at_least("balanced_accuracy", 0.9), told("balanced_accuracy"),
            f"{labels.same_class:.3f}",
        ),
        (
            "error of the pooled viability", "2 points", lambda figures: abs(_number(figures, "viability_error")) <= 2,
            lambda figures: f"{_number(figures, 'viability_error'):+.1f} points", "",
        ),
        (
            "95 % interval holds the true viability", "90-98 % of images",
            lambda figures: 0.9 <= round(_number(figures, "intervals_that_hold"), 3) <= 0.98,
            lambda figures: f"{_number(figures, 'intervals_that_hold'):.1%}", "",
        ),
    ]  # fmt: skip


def _number(figures: Figures, name: str) -> float:
    value = figures[name]
    assert isinstance(value, float)
    return value


def _seconds_a_megapixel(package: Package, engine: Engine, images: Sequence[BoxedImage]) -> float:
    """CPU seconds in which one thread counts 1024 x 1024 px made of images side by side: the least of some rounds."""
    side = min(200, *(min(plane_of(image).shape) for image in images))
    bytes_only = [plane_of(image)[:side, :side] for image in images if plane_of(image).dtype == np.uint8]
    across = -(-MEGAPIXEL // side)
    rows = [
        np.hstack([bytes_only[(across * row + k) % len(bytes_only)] for k in range(across)])
        for row in range(across)
    ]
    plane = np.ascontiguousarray(np.vstack(rows)[:MEGAPIXEL, :MEGAPIXEL])
    taken = []
    with closing(planes_kit(package, engine, counting_of("model"))) as kit:
        for _ in range(ROUNDS):
            start = time.process_time()
            count_plane(kit, plane)
            taken.append(time.process_time() - start)
    return min(taken)


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("what", choices=("split", "ceiling", "bars"))
    made.add_argument("data", type=Path)
    made.add_argument("--package", default="viability-brightfield")
    made.add_argument(
        "--record", action="store_true", help="write the table to docs/explanation/viability.md"
    )
    arguments = made.parse_args()
    if arguments.what == "bars":
        bars(arguments.data, arguments.package)
    else:
        {"split": split, "ceiling": ceiling}[arguments.what](arguments.data)


if __name__ == "__main__":
    main()
