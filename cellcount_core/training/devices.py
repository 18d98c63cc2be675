"""The library Keras computes with, its threads, and the GPUs of this machine that share a batch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.models.engines import keras as engines

Spread = Literal["one", "jax", "tensorflow"]
"""How a batch is shared: not at all, by `keras.distribution.DataParallel`, by `tf.distribute.MirroredStrategy`."""


def prepare_backend(threads: int) -> None:
    """Give the Keras backend (KERAS_BACKEND, TensorFlow unless set) its number of threads; 0 leaves it the choice."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if threads:
        engines.prepare_backend(threads)


def choose_spread(asked: str, backend: str, gpus: int, batch: int) -> Spread:
    """How to share batches among `gpus` GPUs of this machine; on one device, or with "off", nothing is shared.

    Raises ConfigFault where a batch cannot be cut into equal parts.
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
    """The GPUs that the backend sees on this machine."""
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
    """Into how many parts TensorFlow cuts a batch here, whose losses it adds up; 1 on another backend, which takes their mean."""
    if engines.keras_backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return int(tf.distribute.get_strategy().num_replicas_in_sync)


@contextmanager
def spread_over(spread: Spread) -> Iterator[None]:
    """Where a network is built and trained so that its batches are shared as `spread` says."""
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
