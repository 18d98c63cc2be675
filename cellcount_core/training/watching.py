"""What the network counts while it is being trained: the watched images whole, by the averaged weights.

The weights in training are left exactly as they were, and nothing is drawn from the run's random numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cellcount_core.evaluation.evaluate import Report, score_image
from cellcount_core.images.normalise import estimate
from cellcount_core.images.pixels import resized_shape
from cellcount_core.labelled.image import LabelledImage
from cellcount_core.models.families.unet import stride
from cellcount_core.objects.separators import build_separator
from cellcount_core.pipeline.maps import whole_canvas
from cellcount_core.tasks.instances.task import label_whole, section_of
from cellcount_core.training.batches import Sample, chances, make_batch
from cellcount_core.training.config import TrainConfig
from cellcount_core.training.fit import START
from cellcount_core.training.start import start_package

if TYPE_CHECKING:
    import keras

_MOST_IMAGES = 24
_FACTORS = (0.125, 3.0)
_CALIBRATION_BATCHES = 4


@dataclass(frozen=True, slots=True)
class Whole:
    """A watched image as the network's input (h, w, 1), of which (H, W) = `shape` are the image at the model's scale."""

    image: LabelledImage
    canvas: NDArray[np.float32]
    shape: tuple[int, int]


@dataclass(frozen=True, slots=True)
class WholeScore:
    """Means over the watched images: F1 and AP at IoU 0.5, and (counted - true) / true over all of them."""

    f1: float
    ap: float
    count_bias: float


def whole_images(config: TrainConfig, watched: Sequence[LabelledImage]) -> list[Whole]:
    """At most 24 of the images, evenly spread, each brought to the model's diameter by its labels, where the model has one."""
    count = min(_MOST_IMAGES, len(watched))
    return [_whole(config, watched[index * len(watched) // count]) for index in range(count)]


def _whole(config: TrainConfig, image: LabelledImage) -> Whole:
    wanted, factor = config.input.diameter_px, 1.0
    if wanted is not None and image.diameter_px > 0:
        factor = float(np.clip(wanted / image.diameter_px, *_FACTORS))
    canvas = whole_canvas([image.plane], config.input.spec(), stride(config.network), factor)
    height, width = image.labels.shape
    return Whole(image, canvas, resized_shape((height, width), factor))


def count_whole(
    config: TrainConfig,
    network: keras.Model,
    trainee: keras.Model,
    samples: Sequence[Sample],
    wholes: Sequence[Whole],
) -> WholeScore:
    """Count whole images with the weights as they would be shipped now, with thresholds that are not fitted.

    Averaged weights need batch statistics of their own (see export.py); a few batches of `samples` give them here.
    """
    separator = build_separator(_thresholds(config))
    scores = []
    with _averaged(config, network, trainee, samples), _no_gradients():
        for whole in wholes:
            maps = _maps(network, whole.canvas)[: whole.shape[0], : whole.shape[1]]
            plane = whole.image.plane
            labels = label_whole(
                separator, np.ascontiguousarray(maps), plane, estimate(plane, polarity="auto")
            )
            scores.append(score_image(whole.image, labels))
    report = Report(tuple(scores))
    return WholeScore(report.f1(), report.ap(), report.count_bias())


def _thresholds(config: TrainConfig) -> Mapping[str, object]:
    if config.separator == "components":
        return {"kind": "components", "threshold": 0.5, "min_area": 0.0}
    if config.start_from:
        return section_of(start_package(config)).separator
    return {"kind": "cores", **START}


@contextmanager
def _averaged(
    config: TrainConfig, network: keras.Model, trainee: keras.Model, samples: Sequence[Sample]
) -> Iterator[None]:
    from keras import ops

    if not config.optimiser.ema:
        yield
        return
    before = [np.array(ops.convert_to_numpy(variable)) for variable in network.weights]
    try:
        trainee.optimizer.finalize_variable_values(trainee.trainable_variables)
        _take_statistics(config, network, samples)
        yield
    finally:
        for variable, value in zip(network.weights, before, strict=True):
            variable.assign(value)


def _take_statistics(config: TrainConfig, network: keras.Model, samples: Sequence[Sample]) -> None:
    norms = [layer for layer in network.layers if layer.name.endswith("_norm")]
    if not norms:
        return
    momenta = [layer.momentum for layer in norms]
    weights = chances(samples)
    with _no_gradients():
        for number in range(_CALIBRATION_BATCHES):
            inputs, _ = make_batch(samples, weights, config, (config.seed, 2, number))
            for layer in norms:
                layer.momentum = number / (number + 1)
            network(inputs, training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum


def _maps(network: keras.Model, canvas: NDArray[np.float32]) -> NDArray[np.float32]:
    from keras import ops

    return np.asarray(ops.convert_to_numpy(network(canvas[None], training=False))[0], np.float32)


def _no_gradients() -> AbstractContextManager[None]:
    """PyTorch alone keeps what a gradient would need unless it is told not to."""
    import keras

    if keras.backend.backend() != "torch":
        return nullcontext()
    import torch

    without: AbstractContextManager[None] = torch.no_grad()
    return without
