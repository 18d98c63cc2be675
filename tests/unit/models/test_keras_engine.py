"""The GPU engine on whatever device is here: golden tensors, and the same objects as the CPU engine."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Protocol

import numpy as np
import pytest
from numpy.typing import NDArray

from cellcount_core.models.engines import load_engine, resolve_engine
from cellcount_core.models.engines.keras import KerasEngine
from cellcount_core.models.golden import check_golden
from cellcount_core.models.package import find_package

pytestmark = pytest.mark.skipif(
    find_spec("tensorflow") is None, reason="TensorFlow is not installed (the `train` extra)"
)


def test_keras_gives_the_golden_tensors_and_the_maps_of_onnx_runtime() -> None:
    package = find_package("nuclei")
    keras = load_engine(package, "keras", threads=1)
    assert check_golden(package, keras) <= package.golden_atol
    tiles = np.random.default_rng(0).normal(0.2, 0.3, (keras.batch, 64, 96, 1)).astype(np.float32)
    onnx = load_engine(package, "onnxruntime", threads=1)
    one_by_one = np.concatenate([onnx.run(tile[None]) for tile in tiles])
    np.testing.assert_allclose(keras.run(tiles), one_by_one, atol=package.golden_atol)


def test_a_gpu_gets_keras_and_a_cpu_onnx_runtime() -> None:
    package = find_package("nuclei")
    assert resolve_engine(package, "auto", gpus=1) == "keras"
    assert resolve_engine(package, "auto", gpus=0) == "onnxruntime"
    assert resolve_engine(package, "onnxruntime", gpus=1) == "onnxruntime"


class Network(Protocol):
    """What the engine asks of a network."""

    def predict_on_batch(self, tiles: NDArray[np.float32]) -> object: ...


class SmallDevice:
    """A network on a device that has no memory for more than `most` tiles at once."""

    def __init__(self, network: Network, most: int) -> None:
        self._network = network
        self._most = most
        self.given: list[int] = []

    def predict_on_batch(self, tiles: NDArray[np.float32]) -> object:
        import tensorflow as tf

        self.given.append(len(tiles))
        if len(tiles) > self._most:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
        return self._network.predict_on_batch(tiles)


def test_a_device_without_memory_for_a_batch_is_given_halves_from_then_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    package = find_package("nuclei")
    engine = load_engine(package, "keras", threads=1)
    assert isinstance(engine, KerasEngine)
    tiles = np.random.default_rng(0).normal(0.2, 0.3, (engine.batch, 64, 64, 1)).astype(np.float32)
    whole = engine.run(tiles)
    small = SmallDevice(engine._network, most=5)
    monkeypatch.setattr(engine, "_network", small)
    np.testing.assert_allclose(engine.run(tiles), whole, atol=package.golden_atol)
    assert small.given == [16, 8, 4, 4, 4, 4]
    engine.run(tiles)
    assert small.given[6:] == [4, 4, 4, 4]


def test_a_device_without_memory_for_one_tile_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = load_engine(find_package("nuclei"), "keras", threads=1)
    assert isinstance(engine, KerasEngine)
    monkeypatch.setattr(engine, "_network", SmallDevice(engine._network, most=0))
    with pytest.raises(MemoryError, match="64, 64"):
        engine.run(np.zeros((engine.batch, 64, 64, 1), np.float32))
