"""The validation images at other magnifications: what is found, and how well the size of the objects is told.

    python benchmarks/scale.py DATA [--package nuclei] [--factors 0.5 1 2] [--limit N] [--record]

Images are resized (pixel areas down, cubic up) and counted one at a time with `diameter: auto`. Labels are compared at the
images' original size. Images so large that they would pass 4,200 px at the largest factor are cut to their middle first, at
every factor. Bars: F1@0.5 within 0.02 of factor 1 (0.08 at 0.5), count within 5 %; the size within 1.25x of the true median
for 97 % of single images and for every pool of 12 images or more.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.predict import Counter, how_many, parser, passed, told, validation_images
from benchmarks.record import record
from cellcount_core.config import JobConfig
from cellcount_core.evaluation.evaluate import labels_of, score_image
from cellcount_core.images.imagefile import Plane
from cellcount_core.labelled.image import LabelledImage, median_diameter
from cellcount_core.objects.scale import labels_to_original
from cellcount_core.pipeline.process import prepare_process
from cellcount_core.pipeline.sizing import SizeEstimate, tells_sizes
from cellcount_core.plan.scales import ImageSize, pool_sizes
from cellcount_core.runners.job import plan_job

FACTORS = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
LARGEST_SIDE = 4200
POOL = 12
RANDOM_POOLS = 20
"""Random pools of `POOL` images for each size of image."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One image at one factor: F1@0.5, both counts, the size told and the true median diameter in px of the resized image."""

    f1: float
    true: int
    counted: int
    estimate: SizeEstimate
    diameter_px: float

    @property
    def ratio(self) -> float:
        """Told over true; 0 where nothing was told."""
        told = self.estimate.diameter_px
        return 0.0 if told is None or self.diameter_px <= 0 else told / self.diameter_px


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--factors", nargs="+", type=float, default=list(FACTORS))
    arguments = made.parse_args()
    prepare_process()
    factors = sorted({1.0, *arguments.factors})
    counter = Counter(arguments.package, arguments.engine, arguments.diameter)
    whole = validation_images(arguments.data, arguments.limit)
    images = [cut_to(image, int(LARGEST_SIDE / max(factors))) for image in whole]
    smaller = sum(a.plane.shape != b.plane.shape for a, b in zip(whole, images, strict=True))
    outcomes: dict[float, list[Outcome]] = {}
    for factor in factors:
        outcomes[factor] = [outcome(counter, image, factor) for image in images]
        print(f"factor {factor:g}: F1@0.5 {fmean(o.f1 for o in outcomes[factor]):.3f}", flush=True)
    table = [
        f"{how_many(arguments.limit, images)} ({smaller} cut to their middle), `{counter.package.name}` on "
        f"{counter.engine_name}, diameter {arguments.diameter}.",
        "",
        *_scores(outcomes),
        "",
        *_sizes(outcomes, pools(images)),
        "",
        *_mixed(images, counter),
    ]
    print("\n".join(table))
    record("scale", table)


def outcome(counter: Counter, image: LabelledImage, factor: float) -> Outcome:
    """Count one image resized by `factor`."""
    resized = resize_image(image.plane, factor)
    seen = counter.count(resized)
    height, width = image.labels.shape
    score = score_image(image, labels_to_original(labels_of(seen), (height, width)))
    return Outcome(
        score.matches[0].f1, score.true, seen.found.count, told(counter, seen), image.diameter_px * factor
    )


def resize_image(plane: Plane, factor: float) -> Plane:
    """A plane (H, W) as another magnification would show it, same type."""
    if factor == 1:
        return plane
    height, width = (max(1, round(side * factor)) for side in plane.shape)
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(np.asarray(plane, plane.dtype), (width, height), interpolation=method))


def cut_to(image: LabelledImage, side: int) -> LabelledImage:
    """The middle of an image, no side of it longer than `side` px."""
    if max(image.plane.shape) <= side:
        return image
    shape = tuple(min(length, side) for length in image.plane.shape)
    labels = np.asarray(cut_plane(image.labels, shape), np.int32)
    return replace(
        image, plane=cut_plane(image.plane, shape), labels=labels, diameter_px=median_diameter(labels)
    )


def pools(images: Sequence[LabelledImage]) -> dict[str, list[list[int]]]:
    """Pools of `POOL` images or more, as positions: what a folder would hold, by how they were put together."""
    by_size: dict[tuple[int, ...], list[int]] = defaultdict(list)
    by_experiment: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for position, image in enumerate(images):
        by_size[image.plane.shape].append(position)
        by_experiment[image.group, image.plane.shape].append(position)
    rng = np.random.default_rng(0)
    drawn = [
        sorted(rng.choice(members, POOL, replace=False).tolist())
        for members in by_size.values()
        if len(members) >= POOL
        for _ in range(RANDOM_POOLS)
    ]
    return {
        "images of one experiment": [members for members in by_experiment.values() if len(members) >= POOL],
        "images of one size": [members for members in by_size.values() if len(members) >= POOL],
        f"{POOL} random images of one size": drawn,
    }


def weighted_median(values: Sequence[float], weights: Sequence[float]) -> float:
    """The smallest value at which half of the weight is reached; 0.0 where there is no weight."""
    pairs = sorted((value, weight) for value, weight in zip(values, weights, strict=True) if weight > 0)
    half, reached = sum(weight for _, weight in pairs) / 2, 0.0
    for value, weight in pairs:
        reached += weight
        if reached >= half:
            return value
    return 0.0


def pool_ratio(outcomes: Sequence[Outcome]) -> float:
    """The median of what the images of a pool say, each weighed by its objects, over the true one; 0.0 for nothing said."""
    told = [(o.estimate.diameter_px, o.estimate.objects) for o in outcomes]
    pooled = weighted_median(
        [size or 0.0 for size, _ in told], [max(1, n) if size else 0 for size, n in told]
    )
    true = weighted_median([o.diameter_px for o in outcomes], [o.true for o in outcomes])
    return pooled / true if true else 0.0


def _disagrees(outcomes: Sequence[Outcome]) -> bool:
    """Whether planning would take each image of the pool by itself."""
    # What the objects measure is asked alone: whether it is absurd in an image of some size is not.
    sizes = [ImageSize("", 1 << 15, 1 << 15, o.estimate.diameter_px, o.estimate.objects) for o in outcomes]
    if all(size.diameter_px is None for size in sizes):
        return True
    return pool_sizes(sizes)[0].diameter_px is None


def _scores(outcomes: dict[float, list[Outcome]]) -> Iterator[str]:
    yield "| factor | F1@0.5 | of factor 1 | bar | counted | of factor 1 | bar | met |"
    yield "|---|---|---|---|---|---|---|---|"
    f1 = fmean(o.f1 for o in outcomes[1.0])
    counted = sum(o.counted for o in outcomes[1.0])
    for factor, found in outcomes.items():
        change = fmean(o.f1 for o in found) - f1
        drift = sum(o.counted for o in found) / max(1, counted) - 1
        allowed = 0.08 if factor < 0.75 else 0.02
        met = passed(abs(change) <= allowed, abs(drift) <= 0.05)
        yield (
            f"| {factor:g} | {f1 + change:.3f} | {change:+.3f} | ± {allowed} | {sum(o.counted for o in found)} | "
            f"{drift:+.1%} | ± 5 % | {met} |"
        )


def _sizes(outcomes: dict[float, list[Outcome]], members: dict[str, list[list[int]]]) -> Iterator[str]:
    yield "| size told against true median | cases | within 1.25x | within 1.5x | worst | bar within 1.25x | met |"
    yield "|---|---|---|---|---|---|---|"
    everything = [o.ratio for found in outcomes.values() for o in found]
    yield _size_row("single images, factor 1", [o.ratio for o in outcomes[1.0]], 0.95)
    yield _size_row("single images, all factors", everything, 0.95)
    for factor, found in outcomes.items():
        yield _size_row(f"single images, factor {factor:g}", [o.ratio for o in found], None)
    for name, lists in members.items():
        cases = [[found[at] for at in positions] for found in outcomes.values() for positions in lists]
        if cases:
            apart = sum(map(_disagrees, cases))
            yield _size_row(
                f"pools: {name}, all factors ({apart} taken image by image)",
                list(map(pool_ratio, cases)),
                1.0,
            )


def _size_row(name: str, ratios: Sequence[float], bar: float | None) -> str:
    near, close = (fmean(1 / limit <= ratio <= limit for ratio in ratios) for limit in (1.25, 1.5))
    worst = min(ratios, key=lambda ratio: min(ratio, 1 / ratio) if ratio else 0.0)
    shown, met = ("", "") if bar is None else (f"≥ {bar:.0%}", passed(near >= bar))
    return f"| {name} | {len(ratios)} | {near:.1%} | {close:.1%} | {worst:.2f}x | {shown} | {met} |"


def _mixed(images: Sequence[LabelledImage], counter: Counter) -> Iterator[str]:
    """Planning a folder of one magnification, and one that mixes two in images of one size."""
    alike = [image for image in images if min(image.plane.shape) >= 500 and 23 <= image.diameter_px <= 31]
    if counter.diameter != "auto" or not tells_sizes(counter.package) or len(alike) < POOL:
        return
    shape = tuple(side // 2 for side in min(image.plane.shape for image in alike))
    ones = [cut_plane(image.plane, shape) for image in alike]
    halves = [cut_plane(resize_image(image.plane, 0.5), shape) for image in alike]
    yield "| folder | images | what planning says of the size of objects | met |"
    yield "|---|---|---|---|"
    for name, planes in (("one magnification", ones), ("two magnifications, 2x apart", ones + halves)):
        said = _said(planes, str(counter.package.folder))
        yield f"| {name} | {len(planes)} | {'; '.join(said) or 'nothing'} | {passed(bool(said) == (planes is not ones))} |"


def cut_plane(plane: Plane, shape: tuple[int, ...]) -> Plane:
    """The middle (h, w) of a plane."""
    window = tuple(
        slice((length - side) // 2, (length - side) // 2 + side)
        for length, side in zip(plane.shape, shape, strict=True)
    )
    return np.ascontiguousarray(plane[window])


def _said(planes: Sequence[Plane], package: str) -> list[str]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "in"
        folder.mkdir()
        for number, plane in enumerate(planes):
            cv2.imwrite(str(folder / f"image{number:03d}.png"), cast("NDArray[np.uint8]", plane))
        job = JobConfig.model_validate(
            {
                "input": str(folder),
                "output": str(Path(scratch) / "out"),
                "run": {"diameter": "auto", "model": {"package": package}},
                "execution": {"runner": "serial", "threads": 1},
            }
        )
        return [warning for warning in plan_job(job).warnings if "object size" in warning]


if __name__ == "__main__":
    main()
