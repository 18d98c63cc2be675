"""The crops that a network learns from to find objects: cut from labelled images, augmented, with their targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cellcount_core.domain.settings import Section
from cellcount_core.images.normalise import compress
from cellcount_core.labelled.image import LabelledImage
from cellcount_core.models.package import InputSpec
from cellcount_core.pipeline.maps import levels
from cellcount_core.tasks.instances.targets import LossConfig, diameters, stack_targets
from cellcount_core.training.augment import Crop, draw_crop, draw_empty


class AugmentConfig(Section):
    """What is done to a crop; `kind` "none" takes images as they are.

    `natural_share` of the crops keep about their own scale. `near_share` bring the image's median object to about the model's diameter
    (log-normal, sigma 0.25), `extreme_share` to a diameter within `extreme_px`, and the others to one within `diameters_px` (both
    log-uniform, in px). `empty_share` of the crops are noise, gradients and debris without any object. In `crowded_share` of the crops
    with objects, copies of some objects are put beside others, touching or overlapping a little. In `small_share` of them, copies of a
    fifth to half the diameter are put where there is room: micronuclei and fragments beside whole nuclei.
    """

    kind: Literal["microscopy", "none"] = "microscopy"
    natural_share: float = Field(0.5, ge=0, le=1)
    near_share: float = Field(0.0, ge=0, le=1)
    extreme_share: float = Field(0.0, ge=0, le=1)
    diameters_px: tuple[float, float] = (8.0, 50.0)
    extreme_px: tuple[float, float] = (3.0, 130.0)
    empty_share: float = Field(0.06, ge=0, lt=1)
    crowded_share: float = Field(0.0, ge=0, le=1)
    small_share: float = Field(0.0, ge=0, le=1)


_SCALES = (0.06, 8.0)
_NEAR_SIGMA = 0.25


@dataclass(frozen=True, slots=True)
class Sample:
    """An image ready to be cut. `linear` (H, W, C) float32 is normalised (0 the background, 1 full scale) but not yet compressed.

    `sizes` are the diameters of the objects in px, indexed by label number. `labels` are -1 where nothing is taught.
    """

    linear: NDArray[np.float32]
    labels: NDArray[np.int32]
    diameter_px: float
    sizes: NDArray[np.float32]


def sample_of(image: LabelledImage, spec: InputSpec) -> Sample:
    """Normalise a labelled image, each channel by its own levels, exactly as a field is normalised when it is counted."""
    planes = list(image.planes.values())
    linear = [
        ((plane.astype(np.float64) - norm.background) / norm.range).astype(np.float32)
        for plane, norm in zip(planes, levels(planes, spec), strict=True)
    ]
    labels = image.labels
    if image.ignored is not None:
        labels = np.where(image.ignored & (labels == 0), -1, labels).astype(np.int32)
    return Sample(np.stack(linear, axis=-1), labels, image.diameter_px, diameters(image.labels))


def draw_scale(
    rng: np.random.Generator, diameter: float, augment: AugmentConfig, model_diameter: float | None
) -> float:
    """Draw the factor to cut an image at, whose median object has `diameter` px: near 1, or one that brings its objects to one of the
    diameters that `augment` names. `model_diameter` is that at the model's scale."""
    chance = rng.random()
    if chance < augment.natural_share or diameter <= 0:
        return 1.0 if chance < augment.natural_share / 2 else float(np.exp(rng.uniform(-0.29, 0.29)))
    chance -= augment.natural_share
    if chance < augment.near_share and model_diameter is not None:
        wanted = model_diameter * np.exp(rng.normal(0, _NEAR_SIGMA))
    else:
        extreme = chance < augment.near_share + augment.extreme_share
        low, high = augment.extreme_px if extreme else augment.diameters_px
        wanted = np.exp(rng.uniform(np.log(low), np.log(high)))
    return float(np.clip(wanted / diameter, *_SCALES))


def augmented_crop(
    rng: np.random.Generator, sample: Sample, augment: AugmentConfig, size: int, model_diameter: float | None
) -> Crop:
    """Draw one crop (size, size) of an image, or by chance an empty one, as `augment` says."""
    if augment.kind == "none":
        return plain_crop(rng, sample, size)
    if rng.random() < augment.empty_share:
        return draw_empty(rng, size, sample.linear.shape[-1])
    scale = draw_scale(rng, sample.diameter_px, augment, model_diameter)
    return draw_crop(
        rng,
        sample.linear,
        sample.labels,
        sample.sizes,
        scale,
        size,
        crowded=augment.crowded_share,
        small=augment.small_share,
    )


def plain_crop(rng: np.random.Generator, sample: Sample, size: int) -> Crop:
    """Cut a crop (size, size) from anywhere in the image, unchanged. If the image is smaller, the rest of the crop is background."""
    height, width = sample.labels.shape
    top, left = int(rng.integers(max(1, height - size + 1))), int(rng.integers(max(1, width - size + 1)))
    pixels = np.zeros((size, size, sample.linear.shape[-1]), np.float32)
    labels = np.zeros((size, size), np.int32)
    part = sample.labels[top : top + size, left : left + size]
    inside = np.s_[: part.shape[0], : part.shape[1]]
    pixels[inside] = sample.linear[top : top + size, left : left + size]
    labels[inside] = part
    valid, taught = np.ones((size, size), np.float32), (labels >= 0).astype(np.float32)
    return Crop(compress(pixels), np.maximum(labels, 0), sample.sizes, valid, taught, blank=True)


def targets_of(crop: Crop, maps: tuple[str, ...], loss: LossConfig) -> NDArray[np.float32]:
    """The targets (S, S, maps + 1) of a crop: the maps in their order, then the weights of the pixels."""
    targets = stack_targets(crop.labels, crop.sizes, maps, loss.object_weights, loss.touching)
    if crop.blank:
        # Beyond the edge is background, whatever the mirrored labels there weigh.
        targets[..., :-1] *= crop.valid[..., None]
        targets[..., -1][crop.valid == 0] = 1.0
    else:
        # Half an object and its mirror image look like two that touch: nothing is learnt from mirrored pixels.
        targets[..., -1] *= crop.valid
    targets[..., -1] *= crop.taught
    return targets
