"""What a package says of its own doubts, fitted on images that did not train: intervals of counts, and its domain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.statistics import CountInterval, TrainingDomain, spread
from cellcount_core.evaluation.evaluate import at_true_size, count_image, counting_of, in_turn
from cellcount_core.labelled.image import LabelledImage
from cellcount_core.models.engines import Engine
from cellcount_core.models.package import Package
from cellcount_core.objects.separators import build_separator, of_whole_objects
from cellcount_core.pipeline.field import planes_kit
from cellcount_core.tasks.instances.domain_features import FEATURES, likeness_features
from cellcount_core.tasks.instances.task import section_of, separate_whole
from cellcount_core.tasks.object_size.looks import tells_sizes
from cellcount_core.training.augment import draw_crop
from cellcount_core.training.batches import prepare

LEVEL = 0.9
_TRAINING_IMAGES = 150
"""Training images that the domain is taken from, at most, evenly spread over them."""

_CROP_PX = 256
_SCALE_SIGMA = 0.15

_FEWEST = 20
"""Images below which no interval is stated: its ends would be the extremes."""

_RELATIVE = (0.0, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3)
_SHRINKAGE = 0.1
_TYPICAL = 0.975


def fit_interval(true: Sequence[int], counted: Sequence[int], level: float = LEVEL) -> CountInterval | None:
    """The interval of counts, from held-out images; None from fewer than 20.

    The growing part of the spread is the one that makes the residuals most alike (Gaussian likelihood); the ends are the
    conformal quantiles of rank floor((n + 1) a / 2) and ceil((n + 1) (1 - a / 2)) for a = 1 - level.
    """
    if len(true) < _FEWEST:
        return None
    errors = np.asarray(true, np.float64) - np.asarray(counted, np.float64)
    relative = min(_RELATIVE, key=lambda share: _disorder(errors, counted, share))
    residuals = np.sort(errors / _spreads(counted, relative))
    n, tail = len(residuals), (1 - level) / 2
    low = max(1, math.floor((n + 1) * tail))
    high = min(n, math.ceil((n + 1) * (1 - tail)))
    return CountInterval(
        level, relative, round(float(residuals[low - 1]), 4), round(float(residuals[high - 1]), 4), n
    )


def _spreads(counted: Sequence[int], relative: float) -> NDArray[np.float64]:
    return np.array([spread(count, relative) for count in counted])


def _disorder(errors: NDArray[np.float64], counted: Sequence[int], relative: float) -> float:
    spreads = _spreads(counted, relative)
    variance = float(np.mean((errors / spreads) ** 2)) + 1e-9
    return float(np.log(spreads).mean() + 0.5 * np.log(variance))


def fit_domain(
    training: Sequence[tuple[float, ...]], held_out: Sequence[tuple[float, ...]]
) -> TrainingDomain | None:
    """The domain of the images whose features are given; None from fewer than 20.

    Mean and covariance are those of all of them, each feature's variance raised by a tenth; what is typical is judged on the
    held-out ones alone.
    """
    values = np.array([*training, *held_out], np.float64)
    if len(values) < _FEWEST:
        return None
    covariance = np.cov(values, rowvar=False)
    precision = np.linalg.inv(
        covariance + _SHRINKAGE * np.diag(np.diag(covariance)) + 1e-9 * np.eye(len(FEATURES))
    )
    mean = values.mean(axis=0)
    apart = np.array(held_out or training, np.float64) - mean
    distances = np.einsum("ij,jk,ik->i", apart, precision, apart)
    return TrainingDomain(
        FEATURES,
        tuple(round(float(value), 6) for value in mean),
        tuple(tuple(round(float(value), 6) for value in row) for row in precision),
        round(float(np.quantile(distances, _TYPICAL)), 4),
    )


def uncertainty(
    package: Package, engine: Engine, train: Sequence[LabelledImage], held_out: Sequence[LabelledImage]
) -> dict[str, object]:
    """The manifest's sections `interval` and `domain` (those that can be fitted), of a package that tells sizes.

    Held-out images are counted as the product counts them, each at its own estimated size; training images give features
    only, at about their true size: as they are, and as augmentation varies them, since other microscopes' images are no
    strangers for being noisier or less sharp than these.
    """
    if not tells_sizes(package):
        return {}
    step = max(1, len(train) // _TRAINING_IMAGES)
    chosen = train[::step]
    with closing(planes_kit(package, engine, counting_of("auto"))) as kit:
        seen = list(
            in_turn(lambda image: count_image(at_true_size(kit, image), image).found.likeness, chosen)
        )
        own = list(in_turn(lambda image: count_image(kit, image).found, held_out))
    seen += _varied(chosen, package, engine)
    true = [int(np.unique(image.labels[image.labels > 0]).size) for image in held_out]
    interval = fit_interval(true, [found.count for found in own])
    domain = fit_domain(
        [f for f in seen if f is not None], [f.likeness for f in own if f.likeness is not None]
    )
    sections: dict[str, object] = {}
    if interval is not None:
        sections["interval"] = asdict(interval)
    if domain is not None:
        sections["domain"] = asdict(domain)
    return sections


def _varied(
    images: Sequence[LabelledImage], package: Package, engine: Engine
) -> list[tuple[float, ...] | None]:
    """Features of an augmented crop of each image, at about the model's scale."""
    # In a crop that holds little else, a small part at its edge would pass for an object of a strange shape and size, and widen
    # the domain: by such ones the ROC of histology fell from 0.88 to 0.79.
    spec, separator = package.input, build_separator(of_whole_objects(section_of(package).separator))
    rng = np.random.default_rng(0)
    found = []
    for sample in prepare(images, spec.percentile, spec.floor_sigmas, spec.polarity):
        if not sample.diameter_px or spec.diameter_px is None:
            continue
        scale = spec.diameter_px / sample.diameter_px * float(np.exp(rng.normal(0, _SCALE_SIGMA)))
        crop = draw_crop(rng, sample.linear, sample.labels, sample.sizes, scale, _CROP_PX)
        maps = _maps(engine, crop.pixels[..., None])
        found.append(likeness_features(crop.pixels, maps, separate_whole(separator, maps)))
    return found


def _maps(engine: Engine, canvas: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.ascontiguousarray(engine.run(canvas[None].repeat(engine.batch, axis=0))[0])
