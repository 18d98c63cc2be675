"""The network in training: built with its loss and optimiser, on the threads and GPUs of this machine."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from pydantic_core import to_json

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.models.engines import keras as engines
from cellcount_core.models.families import LOGITS, family_named
from cellcount_core.training.config import TrainConfig
from cellcount_core.training.learning import learning_of
from cellcount_core.training.start import load_start, start_package, started

if TYPE_CHECKING:
    import keras


def trapezoid(
    peak: float, warmup: int, steps: int, decay_share: float
) -> keras.optimizers.schedules.LearningRateSchedule:
    """A learning rate that rises over `warmup` steps, holds `peak`, and falls linearly to a hundredth over the last
    `decay_share` of `steps`.

    Because it holds its peak, a run can be made longer until the rate begins to fall. After the constant-then-decay
    schedules of Zhai et al. (CVPR 2022) and Haegele et al. (2024).
    """
    import keras
    from keras import ops

    class Trapezoid(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
        def __call__(self, step: keras.KerasTensor) -> keras.KerasTensor:
            at = ops.cast(step, "float32")
            rising = (at + 1.0) / float(max(1, warmup))
            falling = (steps - at) / float(max(1.0, decay_share * steps))
            return peak * ops.clip(ops.minimum(rising, falling), 0.01, 1.0)

        def get_config(self) -> dict[str, float]:
            return {"peak": peak, "warmup": warmup, "steps": steps, "decay_share": decay_share}

    return Trapezoid()


Spread = Literal["one", "jax", "tensorflow"]
"""How a batch is shared among GPUs: "one" does not share it, "jax" uses `keras.distribution.DataParallel`,
"tensorflow" uses `tf.distribute.MirroredStrategy`."""


def prepare_backend(threads: int) -> None:
    """Set the number of threads of the Keras backend (KERAS_BACKEND; TensorFlow unless set). 0 leaves the number to
    the backend."""
    if engines.keras_backend() == "tensorflow":
        engines.import_tensorflow()
    if threads:
        engines.prepare_backend(threads)


def choose_spread(asked: str, backend: str, gpus: int, batch: int) -> Spread:
    """Choose how batches are shared among `gpus` GPUs of this machine. With fewer than two, or `asked` "off", they
    are not.

    Raises ConfigFault if a batch cannot be cut into equal parts.
    """
    if asked == "off" or gpus < 2 or backend not in ("jax", "tensorflow"):
        return "one"
    if batch % gpus:
        near = max(gpus, batch - batch % gpus)
        raise ConfigFault(
            f"batch: {batch} cannot be shared equally among {gpus} GPUs; {near} or {near + gpus} can, or set data_parallel: off"
        )
    return "jax" if backend == "jax" else "tensorflow"


def count_gpus(backend: str) -> int:
    """The number of GPUs that the backend sees on this machine."""
    if backend == "jax":
        import jax

        return sum(device.platform == "gpu" for device in jax.local_devices())
    if backend == "tensorflow":
        import tensorflow as tf

        return len(tf.config.list_physical_devices("GPU"))
    if backend == "torch":
        import torch

        return int(torch.cuda.device_count())
    return 0


def parts_of_a_batch() -> int:
    """The number of parts into which TensorFlow cuts a batch here. It adds up their losses; other backends take the
    mean, so they give 1."""
    if engines.keras_backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return int(tf.distribute.get_strategy().num_replicas_in_sync)


@contextmanager
def spread_over(spread: Spread) -> Iterator[None]:
    """Build and train a network inside this context to share its batches as `spread` says."""
    if spread == "jax":
        import keras

        before = keras.distribution.distribution()
        keras.distribution.set_distribution(keras.distribution.DataParallel())
        try:
            yield
        finally:
            keras.distribution.set_distribution(before)
    elif spread == "tensorflow":
        import tensorflow as tf

        with tf.distribute.MirroredStrategy().scope():
            yield
    else:
        yield


def config_digest(config: TrainConfig) -> str:
    """SHA-256 of everything in the configuration that decides the weights so far.

    Where files lie and how often they are written is left out. A starting package counts by its content, not by its
    name.
    """
    config = started(config)
    left_out: dict[str, bool | set[str]] = dict.fromkeys(
        (
            "work_dir", "package_dir", "checkpoint_every", "validate_every", "stop_after", "threads", "data_parallel", "int8",
            "version", "description", "start_from",
        ),
        True,
    )  # fmt: skip
    if config.task == TrainConfig.model_fields["task"].default:
        left_out["task"] = True
    left_out["data"] = {"partial", "allow_leaks"}
    if config.optimiser.schedule != "cosine":
        # Up to where the rate begins to fall, a longer run and a shorter one are the same.
        left_out["steps"] = True
    kept = config.model_dump(mode="json", exclude=left_out, exclude_defaults=True)
    if len(config.input.channels) == 1 and "channels" in kept.get("input", {}):
        kept["input"] = {"channel": config.input.channels[0], **_without(kept["input"], "channels")}
    # In the order of the first version, whose digests are in checkpoints that may still be gone on from.
    ordered = {name: kept[name] for name in _FIRST if name in kept} | kept
    text = to_json(ordered).decode()
    if config.start_from:
        text += start_package(config).digest
    return hashlib.sha256(text.encode()).hexdigest()


_FIRST = (
    "name", "object", "data", "input", "network", "maps", "separator", "optimiser", "loss", "augment", "steps", "epochs", "batch",
    "crop_px", "seed", "dtype",
)  # fmt: skip


def _without(section: Mapping[str, object], key: str) -> dict[str, object]:
    return {name: value for name, value in section.items() if name != key}


def total_steps(config: TrainConfig, images: int) -> int:
    """The number of steps of the whole run, from `steps`, or from `epochs` over `images` images."""
    return config.steps or config.epochs * math.ceil(images / config.batch)


def compiled(config: TrainConfig, steps: int) -> tuple[keras.Model, keras.Model]:
    """Build the network and, on top of the same variables, the model that trains: it ends at the logits and is
    compiled.

    Returns both. The weights are drawn from the run's seed, or are those of the starting package.
    """
    import keras

    config = started(config)
    keras.utils.set_random_seed(config.seed)
    network = family_named(config.family).build(config.network, config.dtype)
    learning = learning_of(config.task)
    _begin_with(network, learning.first_chance(config))
    config.begin(network)
    load_start(config, network)
    trainee = keras.Model(network.input, network.get_layer(LOGITS).output)
    trainee.compile(
        _optimiser(config, steps), loss=learning.loss(config, parts_of_a_batch()), metrics=[learning.metric()]
    )
    trainee.optimizer.build(trainee.trainable_variables)
    return network, trainee


def _begin_with(network: keras.Model, chances: Mapping[int, float]) -> None:
    """Set the biases of the last layer so that maps show these values while the rest of the layer gives 0."""
    last = network.get_layer(LOGITS)
    *others, biases = last.get_weights()
    for number, chance in chances.items():
        biases[number] = math.log(chance / (1 - chance))
    last.set_weights([*others, biases])


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
