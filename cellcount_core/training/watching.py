"""How a run is watched: the curves of its losses, and what the network counts on whole images while it trains.

Whole images are counted with the averaged weights. The weights in training are left exactly as they were, and the
run's random numbers are not touched.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import astuple, dataclass, fields
from pathlib import Path
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
from cellcount_core.training.fit import SEPARATOR_START
from cellcount_core.training.start import start_package

if TYPE_CHECKING:
    import keras
    from matplotlib.axes import Axes


CSV_FILE = "curves.csv"
PNG_FILE = "curves.png"

_WHOLE = (
    ("whole_f1", "o-", "F1 at IoU 0.5"),
    ("whole_ap", "o-", "AP at IoU 0.5"),
    ("whole_bias", "o--", "count bias"),
)


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One point of the curves. Losses and pixel accuracies (0..1) are means since the point before; `seconds` is the
    training time since the start.

    `whole_f1` and `whole_ap` (at IoU 0.5) and `whole_bias` (of the count) come from whole images. They are None, an
    empty cell in the CSV, if no whole image was counted at this step.
    """

    step: int
    seconds: float
    learning_rate: float
    loss: float
    accuracy: float
    validation_loss: float
    validation_accuracy: float
    whole_f1: float | None = None
    whole_ap: float | None = None
    whole_bias: float | None = None


def read_curve(work_dir: Path) -> list[CurvePoint]:
    """Read the points written so far; empty if there are none."""
    path = work_dir / CSV_FILE
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return [_point(row) for row in csv.DictReader(stream)]


def _point(row: dict[str, str]) -> CurvePoint:
    names = [field.name for field in fields(CurvePoint)]
    whole = [float(row[name]) if row.get(name) else None for name in names[7:]]
    return CurvePoint(int(row["step"]), *(float(row[name]) for name in names[1:7]), *whole)


def write_curve(work_dir: Path, points: list[CurvePoint]) -> None:
    """Write curves.csv and curves.png: losses, accuracies and, below them, the results on whole images if any were
    counted."""
    with (work_dir / CSV_FILE).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow([f.name for f in fields(CurvePoint)])
        writer.writerows(astuple(point) for point in points)
    _draw(work_dir / PNG_FILE, points)


def _draw(path: Path, points: list[CurvePoint]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    counted = [point for point in points if point.whole_f1 is not None]
    panels = 3 if counted else 2
    figure = Figure(figsize=(7, 3 * panels), layout="constrained")
    FigureCanvasAgg(figure)
    axes: list[Axes] = list(figure.subplots(panels, 1, sharex=True))
    steps = [point.step for point in points]
    for panel, name in zip(axes, ("loss", "accuracy"), strict=False):
        panel.plot(steps, [getattr(point, name) for point in points], label="training")
        panel.plot(steps, [getattr(point, f"validation_{name}") for point in points], label="validation")
        panel.set_ylabel("loss" if name == "loss" else "pixel accuracy")
    if counted:
        steps = [point.step for point in counted]
        for name, style, label in _WHOLE:
            axes[2].plot(steps, [float(getattr(point, name)) for point in counted], style, label=label)
        axes[2].set_ylim(-0.5, 1.02)
        axes[2].set_ylabel("whole images")
    for panel in axes:
        panel.grid(alpha=0.3)
        panel.legend()
    axes[-1].set_xlabel("step")
    figure.savefig(path, dpi=120)


_MOST_IMAGES = 24
_FACTORS = (0.125, 3.0)
_CALIBRATION_BATCHES = 4


@dataclass(frozen=True, slots=True)
class WatchedImage:
    """A watched image as the network's input: `canvas` (h, w, 1). The image at the model's scale fills its upper left
    (H, W) = `shape`."""

    image: LabelledImage
    canvas: NDArray[np.float32]
    shape: tuple[int, int]


@dataclass(frozen=True, slots=True)
class WatchedScore:
    """Results on the watched images: mean F1 and AP at IoU 0.5, and the bias (counted - true) / true over all of
    them."""

    f1: float
    ap: float
    count_bias: float


def whole_images(config: TrainConfig, watched: Sequence[LabelledImage]) -> list[WatchedImage]:
    """Prepare at most 24 of the images, evenly spread. If the model has a diameter, their labels tell the factor that
    brings them to it."""
    count = min(_MOST_IMAGES, len(watched))
    return [_whole(config, watched[index * len(watched) // count]) for index in range(count)]


def _whole(config: TrainConfig, image: LabelledImage) -> WatchedImage:
    wanted, factor = config.input.diameter_px, 1.0
    if wanted is not None and image.diameter_px > 0:
        factor = float(np.clip(wanted / image.diameter_px, *_FACTORS))
    canvas = whole_canvas([image.plane], config.input.spec(), stride(config.network), factor)
    height, width = image.labels.shape
    return WatchedImage(image, canvas, resized_shape((height, width), factor))


def count_whole(
    config: TrainConfig,
    network: keras.Model,
    trainee: keras.Model,
    samples: Sequence[Sample],
    wholes: Sequence[WatchedImage],
) -> WatchedScore:
    """Count whole images with the weights as they would be shipped now, using thresholds that are not fitted.

    Averaged weights need batch statistics of their own (see export.py); here a few batches of `samples` give them.
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
    return WatchedScore(report.f1(), report.ap(), report.count_bias())


def _thresholds(config: TrainConfig) -> Mapping[str, object]:
    if config.separator == "components":
        return {"kind": "components", "threshold": 0.5, "min_area": 0.0}
    if config.start_from:
        return section_of(start_package(config)).separator
    return {"kind": "cores", **SEPARATOR_START}


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
    """Only PyTorch keeps what gradients need unless it is told not to."""
    import keras

    if keras.backend.backend() != "torch":
        return nullcontext()
    import torch

    without: AbstractContextManager[None] = torch.no_grad()
    return without
