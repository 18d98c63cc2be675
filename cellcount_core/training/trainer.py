"""The trainer: seeded, resumable, with progress lines and curves; it ends by writing a package."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cellcount_core.models.engines.keras import keras_backend
from cellcount_core.models.families.unet import LOGITS, build_unet
from cellcount_core.tasks.instances.learn import make_loss, pixel_accuracy
from cellcount_core.training.batches import Batch, Sample, prepare, training_batches, validation_batches
from cellcount_core.training.checkpoint import load_checkpoint, save_checkpoint
from cellcount_core.training.config import TrainConfig
from cellcount_core.training.curves import Point, read_curve, write_curve
from cellcount_core.training.devices import (
    choose_spread,
    count_gpus,
    parts_of_a_batch,
    prepare_backend,
    spread_over,
)
from cellcount_core.training.images import Images, load_images
from cellcount_core.training.schedule import trapezoid
from cellcount_core.training.start import hold_start, load_start, start_package, started
from cellcount_core.training.watching import Whole, WholeScore, count_whole, whole_images

if TYPE_CHECKING:
    import keras

__all__ = [
    "Images",
    "compiled",
    "config_digest",
    "load_images",
    "prepare_backend",
    "total_steps",
    "train",
    "train_network",
]

_VALIDATION_BATCHES = 3


@dataclass(frozen=True, slots=True)
class _Held:
    """What is looked at and never trained on: batches of crops, and whole images (none where those are not counted)."""

    batches: list[Batch]
    wholes: list[Whole]


def train(config: TrainConfig, *, report: Callable[[str], None] = print) -> Path:
    """Train a network, or go on with one, and write its package; returns the package's folder.

    Everything drawn depends on `config.seed` and the step alone, so an interrupted run continues as if it had not been.
    Raises ConfigFault for data or a work_dir that do not fit the configuration.
    """
    from cellcount_core.training.export import check_replaceable, export_package

    config = started(hold_start(config))
    # Said now, not after hours of training.
    check_replaceable(Path(config.package_dir).expanduser().absolute())
    prepare_backend(config.threads)
    images = load_images(config, report=report)
    train_network(config, images, report=report)
    return export_package(config, images, report=report)


def train_network(config: TrainConfig, images: Images, *, report: Callable[[str], None] = print) -> None:
    """Bring the checkpoint in `config.work_dir` to the last step, from the newest one there or from the beginning."""
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


def config_digest(config: TrainConfig) -> str:
    """SHA-256 of what decides the weights so far; where files lie and how often they are written does not.

    Of a package that the run starts from, its content counts, not its name.
    """
    config = started(config)
    left_out: dict[str, bool | set[str]] = dict.fromkeys(
        (
            "work_dir", "package_dir", "checkpoint_every", "validate_every", "threads", "data_parallel", "int8",
            "version", "description", "start_from",
        ),
        True,
    )  # fmt: skip
    left_out["data"] = {"partial"}
    if config.optimiser.schedule != "cosine":
        # Up to where the rate begins to fall, a longer run and a shorter one are the same.
        left_out["steps"] = True
    kept = config.model_dump_json(exclude=left_out, exclude_defaults=True)
    if config.start_from:
        kept += start_package(config).digest
    return hashlib.sha256(kept.encode()).hexdigest()


def total_steps(config: TrainConfig, images: int) -> int:
    """Steps of the whole run, from `steps` or from `epochs` over `images` images."""
    return config.steps or config.epochs * math.ceil(images / config.batch)


def compiled(config: TrainConfig, steps: int) -> tuple[keras.Model, keras.Model]:
    """The network with its first weights, and the same one up to its logits, ready to train; they share their variables."""
    import keras

    config = started(config)
    keras.utils.set_random_seed(config.seed)
    network = build_unet(config.network, dtype=config.dtype)
    load_start(config, network)
    trainee = keras.Model(network.input, network.get_layer(LOGITS).output)
    trainee.compile(
        _optimiser(config, steps),
        loss=make_loss(config.loss, config.maps, parts_of_a_batch()),
        metrics=[pixel_accuracy],
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
    if chosen.schedule == "trapezoid":
        rate = trapezoid(chosen.learning_rate, chosen.warmup_steps, steps, chosen.decay_share)
    averaging = {"use_ema": True, "ema_momentum": chosen.ema} if chosen.ema else {}
    if chosen.kind == "rmsprop":
        return keras.optimizers.RMSprop(rate, **averaging)
    return keras.optimizers.AdamW(rate, weight_decay=chosen.weight_decay, clipnorm=2.0, **averaging)


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
    whole: WholeScore | None = None
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


def _with_whole(point: Point, whole: WholeScore | None) -> Point:
    if whole is None:
        return point
    return replace(
        point, whole_f1=round(whole.f1, 4), whole_ap=round(whole.ap, 4), whole_bias=round(whole.count_bias, 4)
    )


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
    whole = ""
    if point.whole_f1 is not None:
        whole = f"whole images F1 {point.whole_f1:.3f} AP {point.whole_ap:.3f} bias {point.whole_bias:+.1%}  "
    return (
        f"step {point.step}/{steps}  loss {point.loss:.4f}  accuracy {point.accuracy:.4f}  "
        f"validation {point.validation_loss:.4f} {point.validation_accuracy:.4f}  {whole}{seconds_a_step:.2f} s/step  {left:.0f} min left"
    )
