"""The library that Keras runs on: its threads, its share of a GPU's memory, and what it raises where that is used up."""

from __future__ import annotations

import os

from cellcount_core.models.engines.memory import NoMemory


def keras_backend() -> str:
    """The backend that Keras uses, or will use: "tensorflow", "jax" or "torch"."""
    return os.environ.get("KERAS_BACKEND", "tensorflow")


def prepare_backend(threads: int) -> NoMemory:
    """Give the backend its number of threads and a part of the GPU, before it first computes.

    Raises ImportError where it is not installed.
    """
    known = {"tensorflow": _prepare_tensorflow, "jax": _prepare_jax, "torch": _prepare_torch}
    prepare = known.get(keras_backend())
    return NoMemory((MemoryError,)) if prepare is None else prepare(threads)


def _prepare_tensorflow(threads: int) -> NoMemory:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        # Actors may share a GPU: TensorFlow would otherwise take all of its memory at the first operation.
        for device in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(device, True)
    except RuntimeError:
        # TensorFlow already ran in this process; its threads and memory are as the first engine set them.
        pass
    return NoMemory((MemoryError, tf.errors.ResourceExhaustedError))


def _prepare_jax(threads: int) -> NoMemory:
    del threads  # XLA takes the cores that the process may use.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    from jax.errors import JaxRuntimeError

    # One class for whatever goes wrong on the device.
    return NoMemory((MemoryError, JaxRuntimeError), ("RESOURCE_EXHAUSTED",))


def _prepare_torch(threads: int) -> NoMemory:
    import torch

    torch.set_num_threads(threads)
    return NoMemory((MemoryError, torch.OutOfMemoryError))
