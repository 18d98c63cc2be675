"""The GPU engine: Keras 3 on TensorFlow, or on the backend that KERAS_BACKEND names.

The network is built from the package's configuration and given its weights; no code is read from the package. Before that, the
backend is told its number of threads and its share of the GPU's memory.
"""

from __future__ import annotations

import os
import sys
import tempfile

import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.errors import ConfigFault, ModelFault
from cellcount_core.models.engines import NoMemory, no_room
from cellcount_core.models.families import family_named
from cellcount_core.models.package import Package


def keras_backend() -> str:
    """The backend that Keras uses, or will use: "tensorflow", "jax" or "torch"."""
    return os.environ.get("KERAS_BACKEND", "tensorflow")


def prepare_backend(threads: int) -> NoMemory:
    """Give the backend its number of threads and a part of the GPU's memory, before it first computes.

    Returns how it says that memory is used up. Raises ImportError if it is not installed.
    """
    known = {"tensorflow": _prepare_tensorflow, "jax": _prepare_jax, "torch": _prepare_torch}
    prepare = known.get(keras_backend())
    return NoMemory((MemoryError,)) if prepare is None else prepare(threads)


def import_tensorflow() -> None:
    """Import TensorFlow without the lines that it writes to the error output while it loads, before its log level holds.

    Raises ImportError, after what was written, if it is not there or cannot be loaded.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "tensorflow" in sys.modules:
        return
    # They come from compiled code, so it is the file descriptor that is led elsewhere.
    kept = os.dup(2)
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            import tensorflow
        except BaseException:
            written.seek(0)
            os.write(kept, written.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
    assert tensorflow


def _prepare_tensorflow(threads: int) -> NoMemory:
    import_tensorflow()
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


_BATCH = 16

POLICIES = {"keras": "float32", "keras-float16": "mixed_float16"}
"""What each engine computes in. Float16 has three more bits of mantissa than bfloat16 and, from compute capability 7.0 on, an
equally fast multiplier (5.3 to 6.2 have it at another speed). The sigmoid and the maps are float32 in both.
"""


class KerasEngine:
    """A network of one of the families in Keras, compiled for each shape of tile that it meets.

    Raises ConfigFault if Keras or its backend is not installed, ModelFault if the weights are not those of the network.
    """

    def __init__(self, package: Package, threads: int, name: str, batch: int = _BATCH) -> None:
        self.name = name
        self.batch = batch
        try:
            self._no_memory: NoMemory = prepare_backend(threads)
            import keras  # noqa: F401
        except ImportError as error:
            raise ConfigFault(
                f"engine {name!r} needs Keras and a backend ({error}); install cellcount[gpu] or cellcount[train], "
                "or use run.model.engine=onnxruntime"
            ) from error
        self._most_px: int | None = None
        path = package.file(package.engines[name])
        try:
            self._network = family_named(package.family).build(package.network, POLICIES[name])
            self._network.load_weights(str(path))
        except (OSError, ValueError, KeyError) as error:
            raise ModelFault(
                f"{path}: not the weights of the network the package describes: {error}"
            ) from error
        if keras_backend() != "jax":
            # JAX compiles by XLA alone. TensorFlow's graph without it was the faster one where it was measured, on a CPU, and
            # PyTorch would compile anew for every tile shape.
            self._network.jit_compile = False

    def compile_by_xla(self) -> None:
        """Let TensorFlow compile the network by XLA, to compare on the device at hand (`benchmarks/engines.py gpu --jit`)."""
        self._network.jit_compile = True

    def run(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Maps (B, h, w, K) of tiles (B, h, w, C).

        If the device has no memory for a whole batch, it is given half of it from then on, and no more pixels than that if tiles
        have another size. Raises MemoryError if it has none for a single tile.
        """
        tile_px = tiles.shape[1] * tiles.shape[2]
        at_once = self._at_once(tile_px)
        while True:
            parts = range(0, len(tiles), at_once)
            try:
                return np.concatenate([self._maps(tiles[start : start + at_once]) for start in parts])
            except self._no_memory.kinds as error:
                if not self._no_memory.said_by(error):
                    raise
                if at_once == 1:
                    raise no_room(tiles.shape) from error
                at_once //= 2
                self._most_px = at_once * tile_px

    def _at_once(self, tile_px: int) -> int:
        """How many tiles of so many pixels are given to the device together: a batch, or a half, a quarter, ... of one."""
        at_once = self.batch
        while self._most_px is not None and at_once > 1 and at_once * tile_px > self._most_px:
            at_once //= 2
        return at_once

    def _maps(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        maps = self._network.predict_on_batch(tiles)
        parts = list(maps.values()) if isinstance(maps, dict) else maps if isinstance(maps, list) else [maps]
        return np.concatenate([np.asarray(part, dtype=np.float32) for part in parts], axis=-1)
