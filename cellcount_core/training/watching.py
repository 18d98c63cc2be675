"""How a run is watched: the curves of its losses, and what the network finds in whole images while it trains.

Whole images are looked at with the averaged weights. The weights in training are left exactly as they were, and the run's random
numbers are not touched.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cellcount_core.training.batches import statistics_batches
from cellcount_core.training.config import TrainConfig
from cellcount_core.training.learning import Lesson
from cellcount_core.training.start import random_states

if TYPE_CHECKING:
    import keras
    from matplotlib.axes import Axes


CSV_FILE = "curves.csv"
PNG_FILE = "curves.png"

_PREFIX = "whole_"


@dataclass(frozen=True, slots=True)
class _WholeFigure:
    """How a figure of whole images is shown: in the picture, in a line of the progress, and in which format."""

    label: str
    word: str
    form: str = ".3f"
    line: str = "o-"


_WHOLE = {
    "f1": _WholeFigure("F1 at IoU 0.5", "F1"),
    "ap": _WholeFigure("AP at IoU 0.5", "AP"),
    "bias": _WholeFigure("count bias", "bias", "+.1%", "o--"),
}


def _told(name: str) -> _WholeFigure:
    """How the figure of that name is shown; one that is not known here is shown under its own name."""
    return _WHOLE.get(name) or _WholeFigure(name.replace("_", " "), name.replace("_", " "))


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One point of the curves. Losses and accuracies (0..1) are means since the point before; `seconds` is the training time since the
    start.

    `whole` are the figures of whole images by name, as the task gives them (`Lesson.watch`): columns `whole_<name>` of the CSV. It is
    empty, as are their cells, if no whole image was looked at at this step.
    """

    step: int
    seconds: float
    learning_rate: float
    loss: float
    accuracy: float
    validation_loss: float
    validation_accuracy: float
    whole: Mapping[str, float] = field(default_factory=dict)


def read_curve(work_dir: Path) -> list[CurvePoint]:
    """Read the points written so far; empty if there are none."""
    path = work_dir / CSV_FILE
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return [_point(row) for row in csv.DictReader(stream)]


def _point(row: dict[str, str]) -> CurvePoint:
    whole = {
        name.removeprefix(_PREFIX): float(value)
        for name, value in row.items()
        if name.startswith(_PREFIX) and value
    }
    seconds, rate, *measured = (float(row[name]) for name in _PLAIN[1:])
    loss, accuracy, validation_loss, validation_accuracy = measured
    return CurvePoint(
        int(row["step"]), seconds, rate, loss, accuracy, validation_loss, validation_accuracy, whole
    )


_PLAIN = [each.name for each in fields(CurvePoint) if each.name != "whole"]


def write_curve(work_dir: Path, points: list[CurvePoint]) -> None:
    """Write curves.csv and curves.png: losses, accuracies and, below them, the figures of whole images if there are any."""
    names = list(dict.fromkeys(name for point in points for name in point.whole))
    with (
        written_whole(work_dir / CSV_FILE) as path,
        path.open("w", newline="", encoding="utf-8") as stream,
    ):
        writer = csv.writer(stream)
        writer.writerow([*_PLAIN, *(f"{_PREFIX}{name}" for name in names)])
        writer.writerows(
            [*(getattr(point, name) for name in _PLAIN), *(point.whole.get(name) for name in names)]
            for point in points
        )
    with written_whole(work_dir / PNG_FILE) as path:
        _draw(path, points, names)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Where to write what shall lie at `path`. It comes there once all of it is written: a reader, or a run that is killed, sees the old file or
    the new one, never a part."""
    temporary = path.with_name(f"{path.stem}.tmp{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def progress_line(point: CurvePoint, steps: int, seconds_a_step: float) -> str:
    """What a run says at a point of its curves."""
    left = (steps - point.step) * seconds_a_step / 60
    shown = " ".join(
        f"{_told(name).word} {format(value, _told(name).form)}" for name, value in point.whole.items()
    )
    whole = f"whole images {shown}  " if shown else ""
    return (
        f"step {point.step}/{steps}  loss {point.loss:.4f}  accuracy {point.accuracy:.4f}  "
        f"validation {point.validation_loss:.4f} {point.validation_accuracy:.4f}  {whole}{seconds_a_step:.2f} s/step  {left:.0f} min left"
    )


_FEW_POINTS = 12


def _draw(path: Path, points: list[CurvePoint], names: list[str]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    counted = [point for point in points if point.whole]
    panels = 3 if counted else 2
    figure = Figure(figsize=(7, 3 * panels), layout="constrained")
    FigureCanvasAgg(figure)
    axes: list[Axes] = list(figure.subplots(panels, 1, sharex=True))
    steps = [point.step for point in points]
    # A line of one point is not seen.
    mark = "o" if len(points) < _FEW_POINTS else None
    for panel, name in zip(axes, ("loss", "accuracy"), strict=False):
        for own, label in ((name, "training"), (f"validation_{name}", "validation")):
            panel.plot(steps, [getattr(point, own) for point in points], marker=mark, label=label)
        panel.set_ylabel(name)
    if counted:
        for name in names:
            some = [(point.step, point.whole[name]) for point in counted if name in point.whole]
            axes[2].plot(*zip(*some, strict=True), _told(name).line, label=_told(name).label)
        least = min(point.whole[name] for point in counted for name in point.whole)
        axes[2].set_ylim(-0.5 if least < 0 else -0.02, 1.02)
        axes[2].set_ylabel("whole images")
    for panel in axes:
        panel.grid(alpha=0.3)
        panel.legend()
    axes[-1].set_xlabel("step")
    figure.savefig(path, dpi=120)


_CALIBRATION_BATCHES = 4


def watch_whole(
    config: TrainConfig, network: keras.Model, trainee: keras.Model, lesson: Lesson
) -> dict[str, float]:
    """The figures of whole images, by name, with the weights as they would be shipped now.

    Averaged weights need batch statistics of their own (see export.py); here a few batches of training crops give them.
    """
    with _averaged(config, network, trainee, lesson), _no_gradients():
        return dict(lesson.watch(lambda canvas: _maps(network, canvas)))


@contextmanager
def _averaged(
    config: TrainConfig, network: keras.Model, trainee: keras.Model, lesson: Lesson
) -> Iterator[None]:
    from keras import ops

    if not config.optimiser.ema:
        yield
        return
    kept = [*network.weights, *random_states(network)]
    before = [np.array(ops.convert_to_numpy(variable)) for variable in kept]
    try:
        trainee.optimizer.finalize_variable_values(trainee.trainable_variables)
        _take_statistics(config, network, lesson)
        yield
    finally:
        for variable, value in zip(kept, before, strict=True):
            variable.assign(value)


def _take_statistics(config: TrainConfig, network: keras.Model, lesson: Lesson) -> None:
    norms = [layer for layer in network.layers if layer.name.endswith("_norm")]
    if not norms:
        return
    momenta = [layer.momentum for layer in norms]
    batches = statistics_batches(lesson, lesson.statistics_chances(), config, _CALIBRATION_BATCHES)
    with _no_gradients():
        for number, inputs in enumerate(batches):
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
