"""The images of `viability-brightfield`: their split, how far their labels agree with themselves, and what the package reaches.

    python -m benchmarks.brightfield split DATA
    python -m benchmarks.brightfield ceiling DATA

DATA is the folder `ldc_live_dead` (github.com/maxKudi/Cell-Dataset): images/*.png and annotations/*.xml (Pascal VOC). `split` writes
conf/splits/ldc_live_dead.csv. The data set holds many images twice, most of them turned or mirrored and labelled anew. Copies stay
together in a split, and how far their labels agree is the most that counting can be expected to agree with labels.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from cellcount_core.labelled.boxes import BoxedImage, list_boxes

Corners = NDArray[np.float64]

SPLIT = Path(__file__).resolve().parents[1] / "conf" / "splits" / "ldc_live_dead.csv"
CLASSES = ("Living Cell", "Dead Cell")
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
    listed = list_boxes(data, "voc", classes=CLASSES)
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
        writer.writerow(("image", "group", "split", "fold"))
        for name in sorted(groups):
            place = ("test", "") if held_out[name] else ("train", folds[name])
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


def overlaps(first: Corners, second: Corners) -> NDArray[np.float64]:
    """Intersection over union (n, m) of boxes (n, 4) and (m, 4)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    common = np.maximum(high - low, 0).prod(axis=-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=-1) for boxes in (first, second)]
    return np.asarray(common / np.maximum(areas[0][:, None] + areas[1][None] - common, 1e-9), np.float64)


def pairs(first: Corners, second: Corners) -> list[tuple[int, int, float]]:
    """Which boxes are the same, each in one pair at most, and how much they overlap (at least 0.5)."""
    iou = overlaps(first, second)
    worth = np.where(iou >= _SAME_BOX, 1 + iou, 0)
    chosen = zip(*linear_sum_assignment(-worth), strict=True)
    return [(int(i), int(j), float(iou[i, j])) for i, j in chosen if worth[i, j]]


def ceiling(data: Path) -> None:
    """Print how far the labels of copies agree: what a perfect counter would reach against labels like these."""
    images = {image.id: image for image in load(data)}
    print("copies | pairs | boxes | F1 at IoU 0.5 | median IoU | same class")
    print("---|---|---|---|---|---")
    found = find_copies(list(images.values()))
    exact = [
        copy
        for copy in found
        if copy.orientation == 0
        and np.array_equal(plane_of(images[copy.first]), plane_of(images[copy.second]))
    ]
    for title, copies in (("same pixels", exact), ("all, turned ones too", found)):
        ious, same, boxes = [], 0, 0
        for copy in copies:
            one, other = images[copy.first], images[copy.second]
            there = turned_boxes(other.boxes, copy.orientation, plane_of(other).shape[:2])
            matched = pairs(one.boxes, there)
            ious += [iou for _, _, iou in matched]
            same += sum(one.classes[i] == other.classes[j] for i, j, _ in matched)
            boxes += len(one.boxes) + len(there)
        print(
            f"{title} | {len(copies)} | {boxes} | {2 * len(ious) / boxes:.3f} | {np.median(ious):.2f} | "
            f"{same} of {len(ious)}"
        )


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("what", choices=("split", "ceiling"))
    made.add_argument("data", type=Path)
    arguments = made.parse_args()
    {"split": split, "ceiling": ceiling}[arguments.what](arguments.data)


if __name__ == "__main__":
    main()
