"""The GPU engine: Keras 3 on the backend at hand (TensorFlow unless KERAS_BACKEND says otherwise).

The network is built from the package's configuration and given its weights; no code is read from the package.
"""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.errors import ConfigFault, ModelFault
from cellcount_core.models.package import Package

_BATCH = 16


class KerasEngine:
    """A network of the `unet` family in Keras, compiled for each tile shape it meets."""

    name = "keras"
    batch = _BATCH

    def __init__(self, package: Package, threads: int) -> None:
        try:
            self._no_memory = _prepare_backend(threads)
            from cellcount_core.models.families.unet import build_unet
        except ImportError as error:
            raise ConfigFault(
                f"engine 'keras' needs Keras and a backend ({error}); install cellcount[gpu] or cellcount[train], "
                "or use run.model.engine=onnxruntime"
            ) from error
        self._at_once = _BATCH
        path = package.file(package.engines[self.name])
        try:
            self._network = build_unet(package.network)
            self._network.load_weights(str(path))
        except (OSError, ValueError, KeyError) as error:
            raise ModelFault(
                f"{path}: not the weights of the network the package describes: {error}"
            ) from error

    def run(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Maps (B, h, w, K) of tiles (B, h, w, C).

        A device without memory for a whole batch is given half of it, now and from then on. Raises MemoryError where it has
        none for a single tile.
        """
        while True:
            parts = range(0, len(tiles), self._at_once)
            try:
                return np.concatenate([self._maps(tiles[start : start + self._at_once]) for start in parts])
            except self._no_memory as error:
                if self._at_once == 1:
                    raise MemoryError(
                        f"the device has no memory for a tile of {tiles.shape[1:3]} px"
                    ) from error
                self._at_once //= 2

    def _maps(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        maps = self._network.predict_on_batch(tiles)
        parts = list(maps.values()) if isinstance(maps, dict) else maps if isinstance(maps, list) else [maps]
        return np.concatenate([np.asarray(part, dtype=np.float32) for part in parts], axis=-1)


def _prepare_backend(threads: int) -> tuple[type[Exception], ...]:
    """Set the backend up, and return what it raises where the device has no memory left (known for TensorFlow alone)."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
        return (MemoryError,)
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
    return (MemoryError, tf.errors.ResourceExhaustedError)
