"""What is fitted to labelled images after a network that finds objects is trained: the separator's thresholds, the numbers that
estimate object sizes, and with what interval and in what domain its counts hold.

Thresholds and sizing numbers are found by coordinate descent over small grids. The sizing numbers differ from those that count best:
objects that cling together make an estimate too large, while numbers that find objects only where they are certain make them too
small.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial

import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.errors import FieldFault
from cellcount_core.evaluation.evaluate import at_true_size, count_image, counting_of, in_turn, pixels_of
from cellcount_core.images.normalise import estimate
from cellcount_core.labelled.image import LabelledImage
from cellcount_core.models.engines import Engine
from cellcount_core.models.package import Package
from cellcount_core.objects.separators import Separator, build_separator
from cellcount_core.pipeline.field import planes_kit
from cellcount_core.pipeline.field import prepare as prepare_field
from cellcount_core.tasks.instances.domain_features import FEATURES
from cellcount_core.tasks.instances.score import score_labels, without_ignored
from cellcount_core.tasks.instances.task import label_whole, section_of
from cellcount_core.tasks.matching import ImageScore, Report
from cellcount_core.tasks.object_size.estimate import estimate_with
from cellcount_core.tasks.object_size.looks import tells_sizes
from cellcount_core.tasks.task import CanvasMaps
from cellcount_core.training.fit import fit_domain, fit_interval

SEPARATOR_GRIDS: Mapping[str, Sequence[float]] = {
    "foreground": (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85),
    "core": (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6),
    "prominence": (0.02, 0.05, 0.08, 0.12, 0.16, 0.22, 0.3, 0.38, 0.46),
    "core_area": (1.0, 3.0, 6.0, 10.0),
    "peak": (0.0, 0.2, 0.3, 0.4, 0.5, 0.6),
    "min_area": (6.0, 12.0, 16.0, 20.0, 26.0, 34.0, 44.0, 58.0),
    "certain": (0.0, 0.9, 0.95, 0.97, 0.98, 0.99),
    "edge_area": (8.0, 12.0, 16.0, 20.0, 26.0, 34.0, 44.0),
    "edge_peak": (0.9, 0.95, 0.97, 0.98, 0.99),
    "outline": (0.35, 0.4, 0.45, 0.5, 0.55, 0.6),
}
"""The values tried for each threshold. Two grids end earlier than the images of this collection alone would suggest,
for the sake of other images. `certain` ends at 0.99: one nucleus in a hundred never gets above 0.997, and dim ones
do not either. `foreground` ends at 0.85: in a blurred image, pixels above that lie further inside the outline than
objects are drawn beyond it."""

SEPARATOR_START: Mapping[str, float] = {
    "foreground": 0.5,
    "core": 0.4,
    "prominence": 0.08,
    "core_area": 3.0,
    "peak": 0.3,
    "min_area": 12.0,
    "certain": 0.0,
    "edge_area": 12.0,
    "edge_peak": 0.98,
    "outline": 0.5,
}
_REACHES = (12, 1)
"""How many grid steps around the best value so far each round looks at: first the whole grid, then the neighbours."""


_MEAN_SHARE = 0.1
"""Of two fits that are as good for the worst source, the better one for all of them is taken."""

_LARGEST_COUNT_ERROR = 0.3
"""Errors of a count are cut at this value. Beyond it an image usually has labels for only a part of its objects, and
must not steer the fit."""


def objective(report: Report) -> float:
    """The value that is maximised.

    It is the mean F1 at IoU 0.5, plus half the mean AP over IoU 0.5-0.9, minus half the mean count error, minus a
    fifth of the absolute count bias. The bias is a mean over images, weighted by the square root of their number of
    objects.
    """
    true = np.array([score.true for score in report.images if score.true], np.float64)
    counted = np.array([score.counted for score in report.images if score.true], np.float64)
    if not true.size:
        return report.f1() + 0.5 * report.mean_ap()
    errors = np.clip((counted - true) / true, -_LARGEST_COUNT_ERROR, _LARGEST_COUNT_ERROR)
    bias = float(np.average(errors, weights=np.sqrt(true)))
    return report.f1() + 0.5 * report.mean_ap() - 0.5 * float(np.abs(errors).mean()) - 0.2 * abs(bias)


def fit_cores(
    images: Sequence[LabelledImage],
    maps: Sequence[NDArray[np.float32]],
    report: Callable[[str], None],
    *,
    start: Mapping[str, float] = SEPARATOR_START,
    names: Sequence[str] = tuple(SEPARATOR_GRIDS),
    groups: Sequence[str] = (),
) -> dict[str, float]:
    """Find the parameters of `objects/cores.py` that count `images` best, given their maps (h, w, K) at the model's
    scale.

    As in a run, labels are brought back to the image's own scale and compared there. Only the parameters in `names`
    are fitted; the others stay as in `start`, whose values must lie on the grids. `groups` names the source of each image (() is one
    source). With several, none pays for another: what counts is the source that is furthest from what it reaches with parameters of its
    own.
    """
    parts = [[at for at, group in enumerate(groups) if group == name] for name in dict.fromkeys(groups)] or [
        list(range(len(images)))
    ]
    pictures = [[images[at] for at in part] for part in parts]
    found = [[maps[at] for at in part] for part in parts]
    reached = [0.0] * len(parts)
    if len(parts) > 1:
        for at, name in enumerate(dict.fromkeys(groups)):
            alone = partial(_alone, pictures[at], found[at])
            own = _descend(alone, start, names)
            reached[at] = alone(own)
            report(f"separator for {name or 'its source'} alone ({len(parts[at])} images): {own}")

    def value_of(tried: Mapping[str, float]) -> float:
        behind = [
            objective(score(*pair, tried)) - best
            for pair, best in zip(zip(pictures, found, strict=True), reached, strict=True)
        ]
        return min(behind) + _MEAN_SHARE * float(np.mean(behind)) if len(behind) > 1 else behind[0]

    best = _descend(value_of, start, names)
    final = score(images, maps, best)
    report(f"separator fitted on {len(images)} images: {best}; F1 {final.f1():.4f}, AP {final.ap():.4f}")
    return best


def _alone(
    images: Sequence[LabelledImage], maps: Sequence[NDArray[np.float32]], tried: Mapping[str, float]
) -> float:
    return objective(score(images, maps, tried))


def _descend(
    value_of: Callable[[Mapping[str, float]], float], start: Mapping[str, float], names: Sequence[str]
) -> dict[str, float]:
    """The parameters with the largest value that coordinate descent over the grids finds from `start`."""
    best = dict(start)
    best_value = value_of(best)
    for reach in _REACHES:
        for name in names:
            grid = SEPARATOR_GRIDS[name]
            at = grid.index(best[name])
            for value in grid[max(0, at - reach) : at + reach + 1]:
                tried = {**best, name: value}
                found = value_of(tried)
                if found > best_value:
                    best, best_value = tried, found
    return best


def score(
    images: Sequence[LabelledImage], maps: Sequence[NDArray[np.float32]], params: Mapping[str, float]
) -> Report:
    """Separate images with `params`, given their maps (h, w, K) at the model's scale, and score them."""
    separator = build_separator({"kind": "cores", **params})
    return Report(tuple(_score_one(image, m, separator) for image, m in zip(images, maps, strict=True)))


def _score_one(image: LabelledImage, maps: NDArray[np.float32], separator: Separator) -> ImageScore:
    labels = label_whole(separator, maps, image.plane, estimate(image.plane, polarity="auto"))
    return score_labels(
        image.truth, labels if image.ignored is None else without_ignored(labels, image.ignored)
    )


SIZE_GRIDS: Mapping[str, Sequence[float]] = {
    "foreground": (0.45, 0.6),
    "prominence": (0.12, 0.22, 0.3),
    "min_area": (26.0, 44.0),
}
SIZE_START: Mapping[str, float] = {
    "foreground": 0.6,
    "core": 0.2,
    "prominence": 0.22,
    "min_area": 44.0,
    "certain": 0.0,
}
_LARGEST_OCTAVES = 1.0
"""Errors are cut at this many octaves, and an image without an estimate counts as this. In an image of fragments and
whole objects the median describes neither."""


def fit_sizing(
    package: Package, images: Sequence[LabelledImage], maps: CanvasMaps, report: Callable[[str], None]
) -> dict[str, float]:
    """Find the numbers of `SIZE_START` that estimate the images' median diameters best. Empty if the network cannot
    estimate sizes.

    `maps` gives the maps (h, w, K) of a normalised canvas (h, w, C). The grids of `SIZE_GRIDS` are tried one after
    the other.
    """
    if not tells_sizes(package):
        return {}
    best = dict(SIZE_START)
    least = size_error(package, images, maps, best)
    for name, grid in SIZE_GRIDS.items():
        for value in grid:
            tried = {**best, name: value}
            if tried == best:
                continue
            error = size_error(package, images, maps, tried)
            if error < least:
                best, least = tried, error
    report(
        f"sizes fitted on {len(images)} images: {best}; {least:.3f} octaves from the true ones in the mean"
    )
    return best


def size_error(
    package: Package, images: Sequence[LabelledImage], maps: CanvasMaps, sizing: Mapping[str, float]
) -> float:
    """Mean distance, in octaves, between estimated and true median diameters, over the images that hold objects."""
    section = section_of(package).model_copy(update={"sizing": dict(sizing)})
    errors = []
    for image in images:
        if image.diameter_px <= 0:
            continue
        told = estimate_with(tuple(image.planes.values()), package, section, maps).diameter_px
        error = _LARGEST_OCTAVES if told is None else abs(float(np.log2(told / image.diameter_px)))
        errors.append(min(error, _LARGEST_OCTAVES))
    return float(np.mean(errors)) if errors else 0.0


def as_counted(
    package: Package, engine: Engine, images: Sequence[LabelledImage], report: Callable[[str], None]
) -> tuple[list[LabelledImage], list[NDArray[np.float32]]]:
    """The images and their maps (h, w, K) float32 as a run makes them: each at its own estimated size if the network can estimate sizes.

    An image that cannot be counted is left out, and a line of report says so.
    """
    kept: list[LabelledImage] = []
    maps: list[NDArray[np.float32]] = []
    with closing(planes_kit(package, engine, counting_of("auto"))) as kit:
        for image in images:
            try:
                found = prepare_field(kit, pixels_of(kit, image)).maps.whole()
            except FieldFault as fault:
                report(f"{image.id} is left out of the fit: {fault}")
                continue
            kept.append(image)
            maps.append(found)
    return kept, maps


_TRAINING_IMAGES = 150
"""The domain is taken from at most this many training images, evenly spread."""


def uncertainty(
    package: Package,
    engine: Engine,
    train: Sequence[LabelledImage],
    held_out: Sequence[LabelledImage],
    varied: Callable[[Sequence[LabelledImage]], list[tuple[float, ...] | None]],
) -> dict[str, object]:
    """Fit the manifest's sections `interval` and `domain`, as far as they can be fitted. Empty if the package cannot
    estimate sizes.

    Held-out images are counted as in a run, each at its own estimated size. Training images give features only, at about their true
    size: once as they are, and once as augmentation varies them (`varied`), because images of other microscopes are not strange merely
    for being noisier or less sharp.
    """
    if not tells_sizes(package):
        return {}
    step = max(1, len(train) // _TRAINING_IMAGES)
    chosen = train[::step]
    with closing(planes_kit(package, engine, counting_of("auto"))) as kit:
        seen = list(
            in_turn(lambda image: count_image(at_true_size(kit, image), image).found.features, chosen)
        )
        own = list(in_turn(lambda image: count_image(kit, image).found, held_out))
    seen += varied(chosen)
    true = [int(np.unique(image.labels[image.labels > 0]).size) for image in held_out]
    interval = fit_interval(true, [found.count for found in own])
    domain = fit_domain(
        FEATURES, [f for f in seen if f is not None], [f.features for f in own if f.features is not None]
    )
    sections: dict[str, object] = {}
    if interval is not None:
        sections["interval"] = asdict(interval)
    if domain is not None:
        sections["domain"] = asdict(domain)
    return sections
