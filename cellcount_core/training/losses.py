"""Losses and the accuracy curve, in Keras operations, so that any backend trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cellcount_core.training.config import LossConfig

if TYPE_CHECKING:
    import keras

Loss = Callable[["keras.KerasTensor", "keras.KerasTensor"], "keras.KerasTensor"]


def make_loss(config: LossConfig, maps: tuple[str, ...], parts: int = 1) -> Loss:
    """Loss of targets (B, H, W, maps + 1) against logits (B, H, W, maps): a scalar.

    Weighted cross-entropy and Dice (over the batch) on the foreground, the weighted error of the distance (absolute, or
    cross-entropy less its smallest possible value), where objects count three times what the background does, and the weighted
    absolute error of the size inside objects. Divided by `parts`, where the losses of that many parts of a batch are added up.
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
    """What the cross-entropy cannot fall below: it moves no weight, and a curve of the loss that ends at 0 can be read."""
    from keras import ops

    kept = ops.clip(target, 1e-6, 1 - 1e-6)
    return -(kept * ops.log(kept) + (1 - kept) * ops.log(1 - kept))


def pixel_accuracy(targets: keras.KerasTensor, logits: keras.KerasTensor) -> keras.KerasTensor:
    """Share of pixels on the right side of a foreground probability of 0.5."""
    from keras import ops

    return ops.mean(ops.cast((logits[..., 0] > 0) == (targets[..., 0] > 0.5), "float32"))
