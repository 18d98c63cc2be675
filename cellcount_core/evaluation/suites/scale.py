"""Scale: the labelled images at other magnifications. What is found there, and how well object sizes are estimated.

Images are resized (pixel areas when shrinking, cubic when enlarging) and counted one at a time; labels are compared
at the image's original size. An image that would exceed `LARGEST_SIDE` at the largest factor is first cut to its
middle, at every factor.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean

import cv2
import numpy as np
import tifffile

from cellcount_core.config import JobConfig
from cellcount_core.domain.scales import ScaleSource
from cellcount_core.evaluation.evaluate import labels_of
from cellcount_core.evaluation.suites.base import (
    Asked,
    Counter,
    SuiteCell,
    SuiteColumn,
    SuiteResult,
    SuiteTable,
    cell,
    labelled,
    met,
    with_plane,
)
from cellcount_core.images.imagefile import Plane
from cellcount_core.labelled.image import ImageEntry, LabelledImage, Pictured
from cellcount_core.labelled.label_files import median_diameter
from cellcount_core.objects.outline import labels_to_original
from cellcount_core.pipeline.rows import Examined
from cellcount_core.plan.sizes import ImageSize, pool_sizes
from cellcount_core.runners.job import plan_job
from cellcount_core.tasks.instances.score import score_labels
from cellcount_core.tasks.object_size.looks import tells_sizes
from cellcount_core.tasks.task import SizeEstimate

FACTORS = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
LARGEST_SIDE = 4200
POOL = 12
"""The least number of images in a pool."""

RANDOM_POOLS = 20
"""The number of random pools of `POOL` images drawn for each size of image."""

LARGEST_CHANGE = 0.02
"""How much F1@0.5 may differ from that of factor 1. `LARGEST_CHANGE_SHRUNK` holds for images that lost three quarters
of their pixels."""

LARGEST_CHANGE_SHRUNK = 0.08
LARGEST_DRIFT = 0.05
"""How much the number of counted objects may differ from that of factor 1, as a fraction."""

_PLANNED_SIDE = 500
_PLANNED_RANGE = 31 / 23
"""Largest over smallest median diameter of the images in the folder that is planned: as far as is known, images of
one magnification."""


@dataclass(frozen=True, slots=True)
class ScaledScore:
    """One image at one factor: F1@0.5, both counts, the estimated size, and the true median diameter in px of the
    resized image.

    `group` and `shape` (H, W) are those of the image before it was resized. `cut` says whether only its middle was
    counted.
    """

    f1: float
    true: int
    counted: int
    estimate: SizeEstimate
    diameter_px: float
    group: str = ""
    shape: tuple[int, ...] = ()
    cut: bool = False

    @property
    def ratio(self) -> float:
        """Estimated over true diameter; 0 if there is no estimate."""
        told = self.estimate.diameter_px
        return 0.0 if told is None or self.diameter_px <= 0 else told / self.diameter_px


def scale(asked: Asked, factors: Sequence[float] = FACTORS) -> SuiteResult:
    """Count every image at every factor (1 must be among them)."""
    counter, entries = asked.counter, asked.entries
    side = int(LARGEST_SIDE / max(factors))
    outcomes: dict[float, list[ScaledScore]] = {}
    for number, factor in enumerate(factors):
        work = partial(_outcome_of, counter, side, factor)
        outcomes[factor] = list(
            asked.in_turn(work, entries, len(entries) * len(factors), number * len(entries))
        )
    cut = sum(one.cut for one in outcomes[1.0])
    tables = [_scores(outcomes), _sizes(outcomes, pools(outcomes[1.0]))]
    planned, why = _planned(entries, side, counter)
    caption = asked.caption(f"{len(entries)} images ({cut} cut to their middle)")
    return SuiteResult(caption, (*tables, *planned), why)


def _outcome_of(counter: Counter, side: int, factor: float, entry: ImageEntry[Pictured]) -> ScaledScore:
    whole = labelled(entry)
    image = cut_to(whole, side)
    return replace(outcome(counter, image, factor), cut=image is not whole)


def outcome(counter: Counter, image: LabelledImage, factor: float) -> ScaledScore:
    """Count one image resized by `factor`."""
    resized = with_plane(image, resize_image(image.plane, factor))
    if image.um_per_px is not None:
        resized = replace(resized, um_per_px=image.um_per_px / factor)
    seen = counter.count(resized)
    height, width = image.labels.shape
    score = score_labels(image.truth, labels_to_original(labels_of(seen), (height, width)))
    return ScaledScore(
        score.matches[0].f1, score.true, seen.found.count, told(counter, seen), image.diameter_px * factor, image.group,
        image.plane.shape,
    )  # fmt: skip


def told(counter: Counter, seen: Examined) -> SizeEstimate:
    """The object size an image was counted at, and how many objects it rests on: all counted ones if the size was
    given."""
    scale = seen.scale
    diameter = counter.package.input.diameter_px if scale.source is ScaleSource.MODEL else scale.diameter_px
    return SizeEstimate(diameter, seen.found.count if scale.objects is None else scale.objects, 1.0)


def resize_image(plane: Plane, factor: float) -> Plane:
    """A plane (H, W) as another magnification would show it, of the same type."""
    if factor == 1:
        return plane
    height, width = (max(1, round(side * factor)) for side in plane.shape)
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(np.asarray(plane, plane.dtype), (width, height), interpolation=method))


def cut_to(image: LabelledImage, side: int) -> LabelledImage:
    """The middle of an image, with no side longer than `side` px."""
    if max(image.plane.shape) <= side:
        return image
    shape = tuple(min(length, side) for length in image.plane.shape)
    labels = np.asarray(cut_plane(image.labels, shape), np.int32)
    return replace(
        image, plane=cut_plane(image.plane, shape), labels=labels, diameter_px=median_diameter(labels)
    )


def cut_plane(plane: Plane, shape: tuple[int, ...]) -> Plane:
    """The middle (h, w) of a plane."""
    window = tuple(
        slice((length - side) // 2, (length - side) // 2 + side)
        for length, side in zip(plane.shape, shape, strict=True)
    )
    return np.ascontiguousarray(plane[window])


def pools(images: Sequence[ScaledScore]) -> dict[str, list[list[int]]]:
    """Pools of at least `POOL` images, as positions, by how they were put together. A pool stands for a folder."""
    by_size: dict[tuple[int, ...], list[int]] = defaultdict(list)
    by_group: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for position, image in enumerate(images):
        by_size[image.shape].append(position)
        by_group[image.group, image.shape].append(position)
    rng = np.random.default_rng(0)
    drawn = [
        sorted(rng.choice(members, POOL, replace=False).tolist())
        for members in by_size.values()
        if len(members) >= POOL
        for _ in range(RANDOM_POOLS)
    ]
    return {
        "images of one experiment": [members for members in by_group.values() if len(members) >= POOL],
        "images of one size": [members for members in by_size.values() if len(members) >= POOL],
        f"{POOL} random images of one size": drawn,
    }


def weighted_median(values: Sequence[float], weights: Sequence[float]) -> float:
    """The smallest value at which half of the total weight is reached; 0.0 if there is no weight."""
    pairs = sorted((value, weight) for value, weight in zip(values, weights, strict=True) if weight > 0)
    half, reached = sum(weight for _, weight in pairs) / 2, 0.0
    for value, weight in pairs:
        reached += weight
        if reached >= half:
            return value
    return 0.0


def pool_ratio(outcomes: Sequence[ScaledScore]) -> float:
    """Median of the sizes estimated by the images of a pool, weighted by their objects, over the true one; 0.0
    without any estimate."""
    said = [(o.estimate.diameter_px, o.estimate.objects) for o in outcomes]
    pooled = weighted_median(
        [size or 0.0 for size, _ in said], [max(1, n) if size else 0 for size, n in said]
    )
    true = weighted_median([o.diameter_px for o in outcomes], [o.true for o in outcomes])
    return pooled / true if true else 0.0


def _disagrees(outcomes: Sequence[ScaledScore]) -> bool:
    """Whether planning would give each image of the pool a size of its own."""
    # What the objects measure is asked alone: whether it is absurd in an image of some size is not.
    sizes = [ImageSize("", 1 << 15, 1 << 15, o.estimate.diameter_px, o.estimate.objects) for o in outcomes]
    if all(size.diameter_px is None for size in sizes):
        return True
    return pool_sizes(sizes)[0].diameter_px is None


def _scores(outcomes: Mapping[float, Sequence[ScaledScore]]) -> SuiteTable:
    f1 = fmean(o.f1 for o in outcomes[1.0])
    counted = sum(o.counted for o in outcomes[1.0])
    rows = []
    for factor, found in outcomes.items():
        change = fmean(o.f1 for o in found) - f1
        drift = sum(o.counted for o in found) / max(1, counted) - 1
        allowed = LARGEST_CHANGE_SHRUNK if factor < 0.75 else LARGEST_CHANGE
        rows.append(
            (
                cell(factor, "g"), cell(f1 + change, ".3f"), cell(change, "+.3f"), SuiteCell(allowed, f"± {allowed}"),
                cell(sum(o.counted for o in found)), cell(drift, "+.1%"), SuiteCell(LARGEST_DRIFT, f"± {LARGEST_DRIFT:.0%}"),
                met(abs(change) <= allowed, abs(drift) <= LARGEST_DRIFT),
            )
        )  # fmt: skip
    columns = (
        SuiteColumn("factor", "factor"), SuiteColumn("f1_50", "F1@0.5"), SuiteColumn("f1_change", "of factor 1"), SuiteColumn("f1_bar", "bar", "bars"),
        SuiteColumn("counted", "counted"), SuiteColumn("count_drift", "of factor 1"), SuiteColumn("count_bar", "bar", "bars"),
        SuiteColumn("met", "met", "bars"),
    )  # fmt: skip
    return SuiteTable("factors", columns, tuple(rows))


def _sizes(
    outcomes: Mapping[float, Sequence[ScaledScore]], members: Mapping[str, Sequence[Sequence[int]]]
) -> SuiteTable:
    everything = [o.ratio for found in outcomes.values() for o in found]
    rows = [
        _size_row("single images, factor 1", [o.ratio for o in outcomes[1.0]], 0.95),
        _size_row("single images, all factors", everything, 0.95),
    ]
    rows += [
        _size_row(f"single images, factor {factor:g}", [o.ratio for o in found], None)
        for factor, found in outcomes.items()
    ]
    for name, lists in members.items():
        cases = [[found[at] for at in positions] for found in outcomes.values() for positions in lists]
        if cases:
            apart = sum(map(_disagrees, cases))
            title = f"pools: {name}, all factors ({apart} taken image by image)"
            rows.append(_size_row(title, [pool_ratio(case) for case in cases], 1.0))
    columns = (
        SuiteColumn("images", "size told against true median"), SuiteColumn("cases", "cases"), SuiteColumn("within_1_25", "within 1.25x"),
        SuiteColumn("within_1_5", "within 1.5x"), SuiteColumn("worst", "worst"), SuiteColumn("bar", "bar within 1.25x", "bars"),
        SuiteColumn("met", "met", "bars"),
    )  # fmt: skip
    return SuiteTable("sizes", columns, tuple(rows))


def _size_row(name: str, ratios: Sequence[float], bar: float | None) -> tuple[SuiteCell, ...]:
    near, close = (fmean(1 / limit <= ratio <= limit for ratio in ratios) for limit in (1.25, 1.5))
    worst = min(ratios, key=lambda ratio: min(ratio, 1 / ratio) if ratio else 0.0)
    return (
        cell(name), cell(len(ratios)), cell(near, ".1%"), cell(close, ".1%"), SuiteCell(worst, f"{worst:.2f}x"),
        cell(None) if bar is None else SuiteCell(bar, f"≥ {bar:.0%}"),
        cell(None) if bar is None else met(near >= bar),
    )  # fmt: skip


def _planned(
    entries: Sequence[ImageEntry[Pictured]], side: int, counter: Counter
) -> tuple[tuple[SuiteTable, ...], tuple[str, ...]]:
    """What planning says of a folder of one magnification, and of a folder that mixes two magnifications in images of
    one size."""
    if counter.diameter != "auto" or not tells_sizes(counter.package):
        return (), ("No folder was planned: no object size is told.",)
    alike = images_alike([cut_to(labelled(entry), side) for entry in entries])
    if len(alike) < POOL:
        return (), (
            f"No folder was planned: {POOL} images of {_PLANNED_SIDE} px and more are needed whose objects differ by no more than "
            f"{_PLANNED_RANGE:.2f}x in size; {len(alike)} are there.",
        )
    shape = tuple(side // 2 for side in min(image.plane.shape for image in alike))
    ones = [cut_plane(image.plane, shape) for image in alike]
    halves = [cut_plane(resize_image(image.plane, 0.5), shape) for image in alike]
    rows = []
    for name, planes, doubted in (
        ("one magnification", ones, False),
        ("two magnifications, 2x apart", ones + halves, True),
    ):
        said = _said(planes, str(counter.package.folder))
        rows.append(
            (cell(name), cell(len(planes)), cell("; ".join(said) or "nothing"), met(bool(said) == doubted))
        )
    columns = (
        SuiteColumn("folder", "folder"), SuiteColumn("images", "images"), SuiteColumn("said", "what planning says of the size of objects"),
        SuiteColumn("met", "met", "bars"),
    )  # fmt: skip
    return (SuiteTable("planned", columns, tuple(rows)),), ()


def images_alike(images: Sequence[LabelledImage]) -> list[LabelledImage]:
    """Of the images of at least `_PLANNED_SIDE` px, the largest set whose median diameters lie within
    `_PLANNED_RANGE`."""
    large = [image for image in images if min(image.plane.shape) >= _PLANNED_SIDE and image.diameter_px > 0]
    sets = [
        [
            image
            for image in large
            if least.diameter_px <= image.diameter_px <= least.diameter_px * _PLANNED_RANGE
        ]
        for least in large
    ]
    return max(sets, key=len, default=[])


def _said(planes: Sequence[Plane], package: str) -> list[str]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "in"
        folder.mkdir()
        for number, plane in enumerate(planes):
            tifffile.imwrite(folder / f"image{number:03d}.tif", plane)
        job = JobConfig.model_validate(
            {
                "input": str(folder),
                "output": str(Path(scratch) / "out"),
                "run": {"diameter": "auto", "model": {"package": package}},
                "execution": {"runner": "serial", "threads": 1},
            }
        )
        return [warning for warning in plan_job(job).warnings if "object size" in warning]
