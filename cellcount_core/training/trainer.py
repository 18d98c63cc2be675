"""The trainer. A run is seeded, can be resumed, reports its progress, draws curves, and ends by writing a package."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cellcount_core.models.engines.keras import keras_backend
from cellcount_core.training.batches import Batch, training_batches, validation_batches
from cellcount_core.training.config import TrainConfig
from cellcount_core.training.export import check_replaceable, export_package
from cellcount_core.training.learning import Lesson, Say, data_digest
from cellcount_core.training.network import (
    choose_spread,
    compiled,
    config_digest,
    count_gpus,
    prepare_backend,
    spread_over,
    total_steps,
)
from cellcount_core.training.start import (
    CHECKPOINT,
    hold_start,
    load_checkpoint,
    load_lesson,
    save_checkpoint,
    start_package,
    started,
)
from cellcount_core.training.watching import CurvePoint, progress_line, read_curve, watch_whole, write_curve

if TYPE_CHECKING:
    import keras


_VALIDATION_BATCHES = 3
_SILENT_S = 30.0
"""A line of progress is told at least so often, however long it is to the next checkpoint."""

BEST = "lowest.npz"
"""Copy of the checkpoint at which the validation loss was lowest, for runs that stop when it rises."""


def train(config: TrainConfig, *, report: Say = print) -> Path:
    """Train a network, or continue with one, and write its package. Returns the package's folder.

    Every random draw depends only on `config.seed` and the step, so an interrupted run ends as an uninterrupted one
    would. Raises ConfigFault if the data or the work_dir does not fit the configuration.
    """
    config = started(hold_start(config))
    # Said now, not after hours of training.
    check_replaceable(Path(config.package_dir).expanduser().absolute())
    prepare_backend(config.threads)
    lesson = load_lesson(config, report=report)
    train_network(config, lesson, report=report)
    return export_package(config, lesson, report=report)


def train_network(config: TrainConfig, lesson: Lesson, *, report: Say = print) -> None:
    """Bring the checkpoint in `config.work_dir` to the last step, starting from the newest one there or from the
    beginning."""
    config = started(config)
    work_dir = Path(config.work_dir).expanduser()
    work_dir.mkdir(parents=True, exist_ok=True)
    steps = total_steps(config, len(lesson.train))
    report(
        f"{len(lesson.train)} images to train on, {len(lesson.watched)} to watch, {len(lesson.validation)} to measure; {steps} steps"
    )
    held_out = validation_batches(lesson, config, _VALIDATION_BATCHES)
    backend = keras_backend()
    gpus = 1 if config.data_parallel == "off" else count_gpus(backend)
    spread = choose_spread(config.data_parallel, backend, gpus, config.batch)
    if gpus > 1:
        report(
            f"{gpus} GPUs: "
            + ("one of them is used" if spread == "one" else "each takes a part of every batch")
        )
    with spread_over(spread):
        network, trainee = compiled(config, steps)
        data = data_digest(lesson, config.partial())
        start = load_checkpoint(work_dir, network, trainee.optimizer, config_digest(config), data)
        if start and _stopped(config, start):
            report(f"ended at step {start}: the validation loss has not fallen since")
            return
        if start:
            report(f"going on from step {start}")
        elif config.start_from:
            report(f"starting from package {start_package(config).name!r}")
        _run_steps(config, network, trainee, lesson, held_out, (start, steps), data, report)


def _run_steps(
    config: TrainConfig,
    network: keras.Model,
    trainee: keras.Model,
    lesson: Lesson,
    held_out: list[Batch],
    span: tuple[int, int],
    data: str,
    report: Say,
) -> None:
    work_dir = Path(config.work_dir).expanduser()
    digest = config_digest(config)
    start, steps = span
    points = [point for point in read_curve(work_dir) if point.step <= start]
    before = points[-1].seconds if points else 0.0
    since, seen = time.monotonic(), []
    whole: dict[str, float] = {}
    spoken = time.monotonic()
    report("first step: the network is compiled, which takes up to a minute")
    for step, (inputs, targets) in training_batches(lesson, config, start, steps):
        trainee.reset_metrics()
        seen.append([float(value) for value in trainee.train_on_batch(inputs, targets)])
        done = step + 1
        if config.validate_every and (done % config.validate_every == 0 or done == steps):
            whole = watch_whole(config, network, trainee, lesson)
        if done % config.checkpoint_every == 0 or done == steps:
            point = _point(trainee, held_out, done, before + time.monotonic() - since, seen)
            points.append(replace(point, whole={name: round(value, 4) for name, value in whole.items()}))
            save_checkpoint(work_dir, done, network, trainee.optimizer, digest, data)
            write_curve(work_dir, points)
            report(progress_line(points[-1], steps, (time.monotonic() - since) / (done - start)))
            seen, whole = [], {}
            spoken = time.monotonic()
            if config.stop_after and _has_risen(config, points):
                report(
                    f"stopped at step {done}: the validation loss has been above that of step {_lowest(points)} since"
                )
                return
        elif done - start == 1 or time.monotonic() - spoken > _SILENT_S:
            spoken = time.monotonic()
            pace = (time.monotonic() - since) / (done - start)
            left = f", about {math.ceil(pace * (steps - done) / 60)} min left" if done - start > 1 else ""
            report(f"step {done} of {steps}: loss {seen[-1][0]:.3f}, {pace:.2f} s a step{left}")


def _lowest(points: Sequence[CurvePoint]) -> int:
    """The step at which the validation loss was lowest."""
    return min(points, key=lambda point: point.validation_loss).step


def _stopped(config: TrainConfig, step: int) -> bool:
    """Whether the run in the work folder ended with the checkpoint of `step` because the validation loss had risen since."""
    points = read_curve(Path(config.work_dir).expanduser())
    since = sum(point.step > step for point in points)
    return 0 < config.stop_after <= since and _lowest(points) == step


def _has_risen(config: TrainConfig, points: Sequence[CurvePoint]) -> bool:
    """Keep the checkpoint at which the validation loss was lowest; bring it back, and say so, if it has not fallen for long enough."""
    work_dir = Path(config.work_dir).expanduser()
    lowest = _lowest(points)
    if lowest == points[-1].step:
        shutil.copyfile(work_dir / CHECKPOINT, work_dir / BEST)
        return False
    if sum(point.step > lowest for point in points) < config.stop_after or not (work_dir / BEST).is_file():
        return False
    (work_dir / BEST).replace(work_dir / CHECKPOINT)
    return True


def _point(
    trainee: keras.Model, held_out: list[Batch], step: int, seconds: float, seen: list[list[float]]
) -> CurvePoint:
    measured = []
    for inputs, targets in held_out:
        trainee.reset_metrics()
        measured.append([float(value) for value in trainee.test_on_batch(inputs, targets)])
    loss, accuracy = np.mean(seen, axis=0)
    validation_loss, validation_accuracy = np.mean(measured, axis=0)
    return CurvePoint(
        step=step,
        seconds=round(seconds, 1),
        learning_rate=float(trainee.optimizer.learning_rate),
        loss=round(float(loss), 5),
        accuracy=round(float(accuracy), 5),
        validation_loss=round(float(validation_loss), 5),
        validation_accuracy=round(float(validation_accuracy), 5),
    )
