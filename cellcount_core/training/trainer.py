"""The trainer. A run is seeded, can be resumed, reports its progress, draws curves, and ends by writing a package."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cellcount_core.models.engines.keras import keras_backend
from cellcount_core.training.batches import (
    Batch,
    Images,
    Sample,
    load_images,
    prepare,
    training_batches,
    validation_batches,
)
from cellcount_core.training.config import TrainConfig
from cellcount_core.training.export import check_replaceable, export_package
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
    hold_start,
    load_checkpoint,
    save_checkpoint,
    start_package,
    started,
)
from cellcount_core.training.watching import (
    CurvePoint,
    WatchedImage,
    WatchedScore,
    count_whole,
    read_curve,
    whole_images,
    write_curve,
)

if TYPE_CHECKING:
    import keras


_VALIDATION_BATCHES = 3


@dataclass(frozen=True, slots=True)
class _Held:
    """What is looked at but never trained on: batches of crops, and whole images (empty if these are not counted)."""

    batches: list[Batch]
    wholes: list[WatchedImage]


def train(config: TrainConfig, *, report: Callable[[str], None] = print) -> Path:
    """Train a network, or continue with one, and write its package. Returns the package's folder.

    Every random draw depends only on `config.seed` and the step, so an interrupted run ends as an uninterrupted one
    would. Raises ConfigFault if the data or the work_dir does not fit the configuration.
    """
    config = started(hold_start(config))
    # Said now, not after hours of training.
    check_replaceable(Path(config.package_dir).expanduser().absolute())
    prepare_backend(config.threads)
    images = load_images(config, report=report)
    train_network(config, images, report=report)
    return export_package(config, images, report=report)


def train_network(config: TrainConfig, images: Images, *, report: Callable[[str], None] = print) -> None:
    """Bring the checkpoint in `config.work_dir` to the last step, starting from the newest one there or from the
    beginning."""
    config = started(config)
    samples, watched = (
        prepare(part, config.input.percentile, config.input.floor_sigmas, config.input.polarity)
        for part in (images.train, images.watched)
    )
    work_dir = Path(config.work_dir).expanduser()
    work_dir.mkdir(parents=True, exist_ok=True)
    steps = total_steps(config, len(samples))
    report(
        f"{len(samples)} images to train on, {len(watched)} to watch, {len(images.validation)} to measure; {steps} steps"
    )
    held = _Held(
        validation_batches(watched, config, _VALIDATION_BATCHES),
        whole_images(config, images.watched) if config.validate_every else [],
    )
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
        start = load_checkpoint(work_dir, network, trainee.optimizer, config_digest(config))
        if start:
            report(f"going on from step {start}")
        elif config.start_from:
            report(f"starting from package {start_package(config).name!r}")
        _run_steps(config, network, trainee, samples, held, (start, steps), report)


def _run_steps(
    config: TrainConfig,
    network: keras.Model,
    trainee: keras.Model,
    samples: list[Sample],
    held: _Held,
    span: tuple[int, int],
    report: Callable[[str], None],
) -> None:
    work_dir = Path(config.work_dir).expanduser()
    digest = config_digest(config)
    start, steps = span
    points = [point for point in read_curve(work_dir) if point.step <= start]
    before = points[-1].seconds if points else 0.0
    since, seen = time.monotonic(), []
    whole: WatchedScore | None = None
    for step, (inputs, targets) in training_batches(samples, config, start, steps):
        trainee.reset_metrics()
        seen.append([float(value) for value in trainee.train_on_batch(inputs, targets)])
        done = step + 1
        if held.wholes and (done % config.validate_every == 0 or done == steps):
            whole = count_whole(config, network, trainee, samples, held.wholes)
        if done % config.checkpoint_every == 0 or done == steps:
            point = _point(trainee, held.batches, done, before + time.monotonic() - since, seen)
            points.append(_with_whole(point, whole))
            save_checkpoint(work_dir, done, network, trainee.optimizer, digest)
            write_curve(work_dir, points)
            report(_line(points[-1], steps, (time.monotonic() - since) / (done - start)))
            seen, whole = [], None


def _with_whole(point: CurvePoint, whole: WatchedScore | None) -> CurvePoint:
    if whole is None:
        return point
    return replace(
        point, whole_f1=round(whole.f1, 4), whole_ap=round(whole.ap, 4), whole_bias=round(whole.count_bias, 4)
    )


def _point(
    trainee: keras.Model, held_out: list[Batch], step: int, seconds: float, seen: list[list[float]]
) -> CurvePoint:
    measured = []
    for inputs, targets in held_out:
        trainee.reset_metrics()
        measured.append([float(value) for value in trainee.test_on_batch(inputs, targets)])
    loss, accuracy = np.mean(seen, axis=0)
    validation_loss, validation_accuracy = np.mean(measured, axis=0)
    rate = float(trainee.optimizer.learning_rate)
    return CurvePoint(
        step,
        round(seconds, 1),
        rate,
        *(round(float(v), 5) for v in (loss, accuracy, validation_loss, validation_accuracy)),
    )


def _line(point: CurvePoint, steps: int, seconds_a_step: float) -> str:
    left = (steps - point.step) * seconds_a_step / 60
    whole = ""
    if point.whole_f1 is not None:
        whole = f"whole images F1 {point.whole_f1:.3f} AP {point.whole_ap:.3f} bias {point.whole_bias:+.1%}  "
    return (
        f"step {point.step}/{steps}  loss {point.loss:.4f}  accuracy {point.accuracy:.4f}  "
        f"validation {point.validation_loss:.4f} {point.validation_accuracy:.4f}  {whole}{seconds_a_step:.2f} s/step  {left:.0f} min left"
    )
