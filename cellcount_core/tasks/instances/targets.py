"""What a network that finds objects learns: its targets, and the loss that measures how far off it is.

Targets are the foreground, each object's distance to its boundary (0..1), and each object's size. Losses are written in Keras
operations, so any backend can train; Keras is imported when a loss is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cellcount_core.domain.settings import Section
from cellcount_core.tasks.object_size.looks import encode_diameter

if TYPE_CHECKING:
    import keras

Loss = Callable[["keras.KerasTensor", "keras.KerasTensor"], "keras.KerasTensor"]

_REFERENCE_DIAMETER = 20.0
_NEARLY = 5
"""Side (px) of the square in which two objects must lie for its middle pixel to be between them."""


def foreground(labels: NDArray[np.int32]) -> NDArray[np.float32]:
    """1 inside objects, 0 outside: (H, W) float32."""
    return (labels > 0).astype(np.float32)


def normalised_distance(labels: NDArray[np.int32]) -> NDArray[np.float32]:
    """Distance (H, W) float32 to the object's boundary divided by that object's largest one; 0 in the background.

    Touching objects each have their own boundary. The edge of the image is no boundary: an object that it cuts rises towards it. The
    boundary's own pixels have 0.5 / (largest + 0.5), which stays above the background's 0.
    """
    inside = (labels > 0).astype(np.uint8)
    down = labels[1:] != labels[:-1]
    right = labels[:, 1:] != labels[:, :-1]
    inside[1:][down] = 0
    inside[:-1][down] = 0
    inside[:, 1:][right] = 0
    inside[:, :-1][right] = 0
    if inside.all():
        # One object fills the image: no boundary is in sight, and OpenCV would give its largest number.
        return np.ones(labels.shape, np.float32)
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, 5)
    largest = np.zeros(int(labels.max(initial=0)) + 1, np.float32)
    np.maximum.at(largest, labels.ravel(), distance.ravel())
    result = (distance + 0.5) / (largest[labels] + 0.5)
    result[labels == 0] = 0
    return np.asarray(result, dtype=np.float32)


def diameters(labels: NDArray[np.int32]) -> NDArray[np.float32]:
    """Equivalent diameter in px by label number, (n + 1,) float32; 0 for the background and for numbers that do not occur."""
    areas = np.bincount(labels.ravel(), minlength=1).astype(np.float64)
    areas[0] = 0
    return (2 * np.sqrt(areas / np.pi)).astype(np.float32)


def object_weights(labels: NDArray[np.int32], sizes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Weights (H, W) float32 of the pixels: more for small objects and less for large ones, so that each matters.

    The weight of an object's pixels is 20 px over its diameter `sizes[number]`, within 0.6..3; the background's is 1.
    """
    weights = np.clip(_REFERENCE_DIAMETER / np.maximum(sizes, 1), 0.6, 3.0)
    weights[0] = 1.0
    return np.asarray(weights.astype(np.float32)[labels], dtype=np.float32)


def between_objects(labels: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Pixels (H, W) with two or more objects within 2 px: boundaries of touching objects, and narrow gaps."""
    square = np.ones((_NEARLY, _NEARLY), np.uint8)
    # OpenCV filters no int32; float32 holds every label exactly up to 2^24.
    largest = cv2.dilate(labels.astype(np.float32), square)
    smallest = cv2.erode(np.where(labels > 0, labels, np.inf).astype(np.float32), square)
    return np.asarray((largest > 0) & (largest != smallest), np.bool_)


def stack_targets(
    labels: NDArray[np.int32],
    sizes: NDArray[np.float32],
    maps: tuple[str, ...],
    weighting: str,
    touching: float = 0.0,
) -> NDArray[np.float32]:
    """Targets (H, W, len(maps) + 1) float32: the maps in their order, then the pixels' weights.

    `sizes` are diameters (px) by label number: those of whole objects, even if the crop shows only a part. `touching` is the share by
    which the weight is raised between objects that touch or nearly do.
    """
    made = [_map(name, labels, sizes) for name in maps]
    weights = object_weights(labels, sizes) if weighting == "small_up" else np.ones(labels.shape, np.float32)
    if touching:
        weights = weights * (1 + np.float32(touching) * between_objects(labels))
    return np.stack([*made, weights], axis=-1)


def _map(name: str, labels: NDArray[np.int32], sizes: NDArray[np.float32]) -> NDArray[np.float32]:
    if name == "foreground":
        return foreground(labels)
    return normalised_distance(labels) if name == "distance" else encode_diameter(sizes)[labels]


class LossConfig(Section):
    """Weights of the parts of the loss: cross-entropy and Dice on the foreground, and the errors of distance and size.

    `distance_error` "absolute" teaches the likeliest distance: a boundary between two objects that is less likely than not
    leaves no trace. "entropy" (cross-entropy) teaches the expected distance, lower where a boundary may be. `touching` is added to
    the weight (1) of pixels at and between objects that touch or nearly do.
    """

    cross_entropy: float = Field(1.0, ge=0)
    dice: float = Field(0.5, ge=0)
    distance: float = Field(2.0, ge=0)
    distance_error: Literal["absolute", "entropy"] = "absolute"
    size: float = Field(0.5, ge=0)
    object_weights: Literal["none", "small_up"] = "small_up"
    touching: float = Field(0.0, ge=0)


def make_loss(config: LossConfig, maps: tuple[str, ...], parts: int = 1) -> Loss:
    """The loss of targets (B, H, W, maps + 1) against logits (B, H, W, maps): a function that gives a scalar.

    It adds up weighted cross-entropy and Dice (over the batch) on the foreground; the weighted error of the distance (absolute, or
    cross-entropy less its smallest possible value), in which objects count three times as much as background; and the weighted
    absolute error of the size inside objects. The sum is divided by `parts`, for batches whose parts' losses are added up.
    """
    from keras import ops

    def loss(targets: keras.KerasTensor, logits: keras.KerasTensor) -> keras.KerasTensor:
        logits = ops.cast(logits, "float32")
        weights = targets[..., -1]
        total = ops.zeros(())
        for index, name in enumerate(maps):
            target, logit = targets[..., index], logits[..., index]
            if name == "foreground":
                entropy = _cross_entropy(target, logit)
                found = ops.sigmoid(logit)
                overlap = 2.0 * ops.sum(weights * found * target) + 1.0
                dice = 1.0 - overlap / (ops.sum(weights * (found + target)) + 1.0)
                total = total + config.cross_entropy * ops.mean(weights * entropy) + config.dice * dice
            elif name == "size":
                inside = weights * ops.cast(targets[..., 0] > 0, "float32")
                error = ops.abs(ops.sigmoid(logit) - target)
                total = total + config.size * ops.sum(inside * error) / (ops.sum(inside) + 1.0)
            else:
                inside = ops.cast(target > 0, "float32")
                if config.distance_error == "entropy":
                    error = _cross_entropy(target, logit) - _entropy(target)
                else:
                    error = ops.abs(ops.sigmoid(logit) - target)
                total = total + config.distance * ops.mean(weights * (1.0 + 2.0 * inside) * error)
        return total / parts if parts > 1 else total

    return loss


def _cross_entropy(target: keras.KerasTensor, logit: keras.KerasTensor) -> keras.KerasTensor:
    from keras import ops

    # log(1 + e^x) - x t, in the form that cannot overflow.
    return ops.maximum(logit, 0.0) - logit * target + ops.log1p(ops.exp(-ops.abs(logit)))


def _entropy(target: keras.KerasTensor) -> keras.KerasTensor:
    """The least value of the cross-entropy. Subtracting it moves no weight, and gives a loss curve that can reach 0."""
    from keras import ops

    kept = ops.clip(target, 1e-6, 1 - 1e-6)
    return -(kept * ops.log(kept) + (1 - kept) * ops.log(1 - kept))


def pixel_accuracy(targets: keras.KerasTensor, logits: keras.KerasTensor) -> keras.KerasTensor:
    """Share of pixels on the right side of a foreground probability of 0.5."""
    from keras import ops

    return ops.mean(ops.cast((logits[..., 0] > 0) == (targets[..., 0] > 0.5), "float32"))
