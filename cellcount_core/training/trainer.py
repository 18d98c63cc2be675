"""The trainer: seeded, resumable, with progress lines and curves; it ends by writing a package."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cellcount_core.evaluation.dataset import LabelledImage, load_folder, load_npz
from cellcount_core.models.families.unet import LOGITS, build_unet
from cellcount_core.training.batches import (
    Batch,
    Sample,
    prepare,
    split_groups,
    training_batches,
    validation_batches,
)
from cellcount_core.training.checkpoint import load_checkpoint, save_checkpoint
from cellcount_core.training.config import TrainConfig
from cellcount_core.training.curves import Point, read_curve, write_curve
from cellcount_core.training.losses import make_loss, pixel_accuracy

if TYPE_CHECKING:
    import keras

_VALIDATION_BATCHES = 3


@dataclass(frozen=True, slots=True)
class Images:
    """The images of a run.

    `fit`: thresholds are fitted on them (the training images where none are set aside). `watched`: none of them trains, and
    the validation curve is theirs. `validation`: the accuracy in the package is theirs.
    """

    train: list[LabelledImage]
    fit: list[LabelledImage]
    watched: list[LabelledImage]
    validation: list[LabelledImage]


def load_images(config: TrainConfig) -> Images:
    """Read the images a configuration names and split them. Raises ConfigFault naming what is wrong with them."""
    data = config.data
    path = data.resolved()
    if data.kind == "folder":
        rest = load_folder(path, split=data.split, modality=data.modality)
        validation = load_folder(path, split=data.validation_split, modality=data.modality)
    else:
        rest, validation = split_groups(load_npz(path), data.validation_share)
    train, fit = split_groups(rest, data.fit_share)
    return Images(train, fit or train, fit or validation, validation)


def train(config: TrainConfig, *, report: Callable[[str], None] = print) -> Path:
    """Train a network, or go on with one, and write its package; returns the package's folder.

    Everything drawn depends on `config.seed` and the step alone, so an interrupted run continues as if it had not been.
    Raises ConfigFault for data or a work_dir that do not fit the configuration.
    """
    from cellcount_core.training.export import check_replaceable, export_package

    # Said now, not after hours of training.
    check_replaceable(Path(config.package_dir).expanduser().absolute())
    prepare_backend(config.threads)
    images = load_images(config)
    train_network(config, images, report=report)
    return export_package(config, images, report=report)


def train_network(config: TrainConfig, images: Images, *, report: Callable[[str], None] = print) -> None:
    """Bring the checkpoint in `config.work_dir` to the last step, from the newest one there or from the beginning."""
    samples = prepare(images.train, config.input.percentile, config.input.floor_sigmas)
    watched = prepare(images.watched, config.input.percentile, config.input.floor_sigmas)
    work_dir = Path(config.work_dir).expanduser()
    work_dir.mkdir(parents=True, exist_ok=True)
    steps = total_steps(config, len(samples))
    report(
        f"{len(samples)} images to train on, {len(watched)} to watch, {len(images.validation)} to measure; {steps} steps"
    )
    network, trainee = compiled(config, steps)
    start = load_checkpoint(work_dir, network, trainee.optimizer, config_digest(config))
    if start:
        report(f"going on from step {start}")
    _run_steps(
        config,
        network,
        trainee,
        samples,
        validation_batches(watched, config, _VALIDATION_BATCHES),
        (start, steps),
        report,
    )


def config_digest(config: TrainConfig) -> str:
    """SHA-256 of what decides the weights; where files lie and how often they are written does not."""
    kept = config.model_dump_json(
        exclude={"work_dir", "package_dir", "checkpoint_every", "threads", "version", "description"}
    )
    return hashlib.sha256(kept.encode()).hexdigest()


def total_steps(config: TrainConfig, images: int) -> int:
    """Steps of the whole run, from `steps` or from `epochs` over `images` images."""
    return config.steps or config.epochs * math.ceil(images / config.batch)


def prepare_backend(threads: int) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if threads and os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
        import tensorflow as tf

        try:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(1)
        except RuntimeError:
            # TensorFlow already ran in this process: its threads stay as they were set first.
            return


def compiled(config: TrainConfig, steps: int) -> tuple[keras.Model, keras.Model]:
    import keras

    keras.utils.set_random_seed(config.seed)
    network = build_unet(config.network, dtype=config.dtype)
    trainee = keras.Model(network.input, network.get_layer(LOGITS).output)
    trainee.compile(
        _optimiser(config, steps), loss=make_loss(config.loss, config.maps), metrics=[pixel_accuracy]
    )
    trainee.optimizer.build(trainee.trainable_variables)
    return network, trainee


def _optimiser(config: TrainConfig, steps: int) -> keras.optimizers.Optimizer:
    import keras

    chosen = config.optimiser
    rate: float | keras.optimizers.schedules.LearningRateSchedule = chosen.learning_rate
    if chosen.schedule == "cosine":
        warmup = min(chosen.warmup_steps, steps // 10)
        rate = keras.optimizers.schedules.CosineDecay(
            chosen.learning_rate / 20,
            max(1, steps - warmup),
            alpha=0.02,
            warmup_target=chosen.learning_rate,
            warmup_steps=warmup,
        )
    averaging = {"use_ema": True, "ema_momentum": chosen.ema} if chosen.ema else {}
    if chosen.kind == "rmsprop":
        return keras.optimizers.RMSprop(rate, **averaging)
    return keras.optimizers.AdamW(rate, weight_decay=chosen.weight_decay, clipnorm=2.0, **averaging)


def _run_steps(
    config: TrainConfig,
    network: keras.Model,
    trainee: keras.Model,
    samples: list[Sample],
    held_out: list[Batch],
    span: tuple[int, int],
    report: Callable[[str], None],
) -> None:
    work_dir = Path(config.work_dir).expanduser()
    start, steps = span
    points = [point for point in read_curve(work_dir) if point.step <= start]
    before = points[-1].seconds if points else 0.0
    since, seen = time.monotonic(), []
    for step, (inputs, targets) in training_batches(samples, config, start, steps):
        trainee.reset_metrics()
        seen.append([float(value) for value in trainee.train_on_batch(inputs, targets)])
        done = step + 1
        if done % config.checkpoint_every == 0 or done == steps:
            points.append(_point(trainee, held_out, done, before + time.monotonic() - since, seen))
            save_checkpoint(work_dir, done, network, trainee.optimizer, config_digest(config))
            write_curve(work_dir, points)
            report(_line(points[-1], steps, (time.monotonic() - since) / (done - start)))
            seen = []


def _point(
    trainee: keras.Model, held_out: list[Batch], step: int, seconds: float, seen: list[list[float]]
) -> Point:
    measured = []
    for inputs, targets in held_out:
        trainee.reset_metrics()
        measured.append([float(value) for value in trainee.test_on_batch(inputs, targets)])
    loss, accuracy = np.mean(seen, axis=0)
    validation_loss, validation_accuracy = np.mean(measured, axis=0)
    rate = float(trainee.optimizer.learning_rate)
    return Point(
        step,
        round(seconds, 1),
        rate,
        *(round(float(v), 5) for v in (loss, accuracy, validation_loss, validation_accuracy)),
    )


def _line(point: Point, steps: int, seconds_a_step: float) -> str:
    left = (steps - point.step) * seconds_a_step / 60
    return (
        f"step {point.step}/{steps}  loss {point.loss:.4f}  accuracy {point.accuracy:.4f}  "
        f"validation {point.validation_loss:.4f} {point.validation_accuracy:.4f}  {seconds_a_step:.2f} s/step  {left:.0f} min left"
    )
