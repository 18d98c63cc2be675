"""The images of a run, what each is used for, and the batches that are cut from them.

Which image is cut, and at which scale, depends only on the run's seed and the step. Batches are made ahead in a
thread.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.domain.scales import Polarity
from cellcount_core.images.normalise import Normalisation, compress, estimate
from cellcount_core.labelled.dataset import choose, list_labelled
from cellcount_core.labelled.image import LabelledImage
from cellcount_core.tasks.instances.learn import diameters, stack_targets
from cellcount_core.training.augment import Crop, draw_crop, draw_empty
from cellcount_core.training.config import TrainConfig


@dataclass(frozen=True, slots=True)
class Images:
    """The images of a run.

    `train` are the images the network learns from. Thresholds are fitted on `fit` (the training images if none are
    set aside). The validation curve is drawn from `watched`, which never train. The accuracy that the package states
    is measured on `validation`.
    """

    train: list[LabelledImage]
    fit: list[LabelledImage]
    watched: list[LabelledImage]
    validation: list[LabelledImage]


def load_images(config: TrainConfig, *, report: Callable[[str], None] | None = None) -> Images:
    """Read the images a configuration names, and split them.

    Raises ConfigFault if a file is missing or wrong, or if too few images or groups are left for one of the parts.
    """
    data = config.data
    listing = list_labelled(data.resolved(), data.kind)
    splits = listing.has_splits
    rest = [entry.load() for entry in choose(listing, data.split if splits else "", data.modality)]
    if splits and data.validation_split:
        held_back = choose(listing, data.validation_split, data.modality)
        validation = [entry.load() for entry in held_back]
        how = f"split {data.split!r} trains, {data.validation_split!r} is measured"
    else:
        rest, validation = split_groups(rest, data.validation_share)
        how = f"{data.validation_share:.0%} of the groups are measured"
    train, fit = split_groups(rest, data.fit_share)
    if not train or not validation:
        raise ConfigFault(
            f"{listing.path}: {len(rest) + len(validation)} images leave none to {'measure' if train else 'train on'}; a group "
            "(file, unless the data names groups) is never cut in two: more images or groups, or a smaller share, expected"
        )
    if report is not None:
        report(f"data: {listing.path}: layout {listing.kind!r}, {len(rest) + len(validation)} images; {how}")
    whole = [image for image in fit if image.id not in data.partial]
    return Images(train, whole or train, fit or validation, validation)


Batch = tuple[NDArray[np.float32], NDArray[np.float32]]

_AHEAD = 6
_SCALES = (0.06, 8.0)
_NEAR_SIGMA = 0.25
_TYPICAL_PIXELS = 256 * 256


@dataclass(frozen=True, slots=True)
class Sample:
    """An image ready to be cut. `linear` (H, W) float32 is normalised (0 the background, 1 full scale) but not yet
    compressed.

    `sizes` are the diameters of the objects in px, indexed by label number.
    """

    id: str
    group: str
    linear: NDArray[np.float32]
    labels: NDArray[np.int32]
    diameter_px: float
    sizes: NDArray[np.float32]


def prepare(
    images: Sequence[LabelledImage], percentile: float, floor_sigmas: float, polarity: Polarity = "auto"
) -> list[Sample]:
    """Normalise labelled images for training, each by its own levels, exactly as a field is normalised when it is
    counted."""
    return [
        Sample(
            image.id,
            image.group,
            _linear(
                image.plane,
                estimate(image.plane, percentile=percentile, floor_sigmas=floor_sigmas, polarity=polarity),
            ),
            image.labels,
            image.diameter_px,
            diameters(image.labels),
        )
        for image in images
    ]


def _linear(plane: NDArray[np.generic], norm: Normalisation) -> NDArray[np.float32]:
    return ((plane.astype(np.float64) - norm.background) / norm.range).astype(np.float32)


def split_groups(
    images: Sequence[LabelledImage], share: float
) -> tuple[list[LabelledImage], list[LabelledImage]]:
    """Split the images into the rest and about `share` of them, without cutting a group in two. Groups are taken in
    the order of their SHA-1."""
    sizes = Counter(image.group for image in images)
    ordered = sorted(sizes, key=lambda group: hashlib.sha1(group.encode(), usedforsecurity=False).hexdigest())
    chosen: set[str] = set()
    for group in ordered:
        if sum(sizes[name] for name in chosen) >= share * len(images):
            break
        chosen.add(group)
    return [i for i in images if i.group not in chosen], [i for i in images if i.group in chosen]


def chances(samples: Sequence[Sample]) -> NDArray[np.float64]:
    """The chance of each sample to be drawn, (n,) float64, summing to 1.

    It falls with the square root of the size of the sample's group and grows with the square root of the image's
    area, so that neither a large group nor a large image crowds out the others.
    """
    sizes = Counter(sample.group for sample in samples)
    weights = np.array(
        [sizes[s.group] ** -0.5 * np.sqrt(max(1.0, s.linear.size / _TYPICAL_PIXELS)) for s in samples],
        np.float64,
    )
    return np.asarray(weights / weights.sum(), np.float64)


def draw_scale(rng: np.random.Generator, diameter: float, config: TrainConfig) -> float:
    """Draw the factor to cut an image at: near 1, or one that brings its objects to one of the diameters the
    configuration names."""
    augment = config.augment
    chance = rng.random()
    if chance < augment.natural_share or diameter <= 0:
        return 1.0 if chance < augment.natural_share / 2 else float(np.exp(rng.uniform(-0.29, 0.29)))
    chance -= augment.natural_share
    if chance < augment.near_share and config.input.diameter_px is not None:
        wanted = config.input.diameter_px * np.exp(rng.normal(0, _NEAR_SIGMA))
    else:
        extreme = chance < augment.near_share + augment.extreme_share
        low, high = augment.extreme_px if extreme else augment.diameters_px
        wanted = np.exp(rng.uniform(np.log(low), np.log(high)))
    return float(np.clip(wanted / diameter, *_SCALES))


def make_batch(
    samples: Sequence[Sample], weights: NDArray[np.float64], config: TrainConfig, key: Sequence[int]
) -> Batch:
    """Make a batch: inputs (B, S, S, 1) and targets (B, S, S, maps + 1), both float32. The same `key` always gives
    the same batch."""
    rng = np.random.default_rng(list(key))
    crops = [_one(rng, samples[index], config) for index in rng.choice(len(samples), config.batch, p=weights)]
    return _stack(crops, config)


def _stack(crops: Sequence[Crop], config: TrainConfig) -> Batch:
    return np.stack([crop.pixels[..., None] for crop in crops]), np.stack(
        [_targets(crop, config) for crop in crops]
    )


def _targets(crop: Crop, config: TrainConfig) -> NDArray[np.float32]:
    loss = config.loss
    targets = stack_targets(crop.labels, crop.sizes, config.maps, loss.object_weights, loss.touching)
    if crop.blank:
        targets[..., :-1] *= crop.valid[..., None]
    else:
        # Half an object and its mirror image look like two that touch: nothing is learnt from mirrored pixels.
        targets[..., -1] *= crop.valid
    return targets


def _one(rng: np.random.Generator, sample: Sample, config: TrainConfig) -> Crop:
    if config.augment.kind == "none":
        return plain_crop(rng, sample, config.crop_px)
    if rng.random() < config.augment.empty_share:
        return draw_empty(rng, config.crop_px)
    scale = draw_scale(rng, sample.diameter_px, config)
    crowded = config.augment.crowded_share
    return draw_crop(rng, sample.linear, sample.labels, sample.sizes, scale, config.crop_px, crowded=crowded)


def plain_crop(rng: np.random.Generator, sample: Sample, size: int) -> Crop:
    """Cut a crop (size, size) from anywhere in the image, unchanged. If the image is smaller, the rest of the crop is
    background."""
    height, width = sample.labels.shape
    top, left = int(rng.integers(max(1, height - size + 1))), int(rng.integers(max(1, width - size + 1)))
    pixels = np.zeros((size, size), np.float32)
    labels = np.zeros((size, size), np.int32)
    part = sample.labels[top : top + size, left : left + size]
    inside = np.s_[: part.shape[0], : part.shape[1]]
    pixels[inside] = sample.linear[top : top + size, left : left + size]
    labels[inside] = part
    return Crop(compress(pixels), labels, sample.sizes, np.ones((size, size), np.float32), blank=True)


def training_batches(
    samples: Sequence[Sample], config: TrainConfig, start: int, stop: int
) -> Iterator[tuple[int, Batch]]:
    """Yield the number and the batch of each step from `start` up to, but not including, `stop`.

    A few batches are made ahead while the network trains.
    """
    weights = chances(samples) if config.augment.kind != "none" else np.full(len(samples), 1 / len(samples))
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
        waiting: list[Future[Batch]] = []
        try:
            for step in range(start, stop):
                while len(waiting) < _AHEAD and step + len(waiting) < stop:
                    waiting.append(
                        pool.submit(make_batch, samples, weights, config, (config.seed, step + len(waiting)))
                    )
                yield step, waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()


def validation_batches(samples: Sequence[Sample], config: TrainConfig, count: int) -> list[Batch]:
    """Make `count` batches of unchanged crops, the same ones every time."""
    batches = []
    for number in range(count):
        rng = np.random.default_rng([config.seed, 1, number])
        chosen = rng.choice(len(samples), config.batch)
        batches.append(_stack([plain_crop(rng, samples[index], config.crop_px) for index in chosen], config))
    return batches
