"""The GPU engine on whatever device is here: golden tensors, and the same objects as the CPU engine."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from typing import Protocol

import numpy as np
import pytest
from numpy.typing import NDArray

from cellcount_core.models.engines import NoMemory, check_golden, load_engine, resolve_engine
from cellcount_core.models.engines.keras import KerasEngine
from cellcount_core.models.package import Golden, Package, find_package

pytestmark = pytest.mark.skipif(
    find_spec("tensorflow") is None, reason="TensorFlow is not installed (the `train` extra)"
)


@pytest.mark.slow
def test_keras_gives_the_golden_tensors_and_the_maps_of_onnx_runtime() -> None:
    package = find_package("nuclei")
    keras = load_engine(package, "keras", threads=1)
    assert check_golden(package, keras) <= package.golden_atol
    tiles = np.random.default_rng(0).normal(0.2, 0.3, (keras.batch, 64, 96, 1)).astype(np.float32)
    onnx = load_engine(package, "onnxruntime", threads=1)
    one_by_one = np.concatenate([onnx.run(tile[None]) for tile in tiles])
    np.testing.assert_allclose(keras.run(tiles), one_by_one, atol=package.golden_atol)


def test_an_engine_asked_for_is_taken_on_any_device() -> None:
    package = find_package("nuclei")
    assert resolve_engine(package, "keras", gpus=0) == "keras"
    assert resolve_engine(package, "onnxruntime", gpus=1) == "onnxruntime"


@pytest.mark.parametrize(
    ("engines", "on_a_cpu", "on_a_gpu"),
    [
        (("keras", "onnxruntime"), "onnxruntime", "keras"),
        (("keras", "onnxruntime", "onnxruntime-int8"), "onnxruntime-int8", "keras"),
        (("keras", "keras-float16", "onnxruntime"), "onnxruntime", "keras-float16"),
        (("onnxruntime", "onnxruntime-int8"), "onnxruntime-int8", "onnxruntime-int8"),
    ],
)
def test_auto_is_the_fastest_engine_that_the_package_has(
    engines: tuple[str, ...], on_a_cpu: str, on_a_gpu: str
) -> None:
    package = replace(find_package("nuclei"), engines=dict.fromkeys(engines, ""))
    assert resolve_engine(package, "auto", gpus=0) == on_a_cpu
    assert resolve_engine(package, "auto", gpus=1) == on_a_gpu


def test_a_gpu_without_keras_backend_is_left_to_the_cpu_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "a_backend_that_is_not_installed")
    package = replace(find_package("nuclei"), engines={"keras": "", "keras-float16": "", "onnxruntime": ""})
    assert resolve_engine(package, "auto", gpus=1) == "onnxruntime"


def half(package: Package) -> Package:
    """The package with a float16 engine, as a newly trained one has it."""
    allowed = {"keras-float16": Golden("maps", 0.02, 0.002)}
    engines = {**package.engines, "keras-float16": package.engines["keras"]}
    return replace(package, engines=engines, golden_engines=allowed)


@pytest.mark.slow
def test_half_precision_computes_in_float16_and_gives_maps_in_float32_close_to_the_golden_ones() -> None:
    package = half(find_package("nuclei"))
    engine = load_engine(package, "keras-float16", threads=1)
    assert isinstance(engine, KerasEngine)
    assert {layer.compute_dtype for layer in engine._network.layers if layer.weights} == {"float16"}
    assert check_golden(package, engine) <= 0.02
    tiles = np.random.default_rng(0).normal(0.4, 0.4, (engine.batch, 64, 64, 1)).astype(np.float32)
    maps = engine.run(tiles)
    assert maps.dtype == np.float32
    difference = np.abs(maps - load_engine(package, "keras", threads=1).run(tiles)).max()
    assert 0 < difference < 0.02


class Network(Protocol):
    """What the engine asks of a network."""

    def predict_on_batch(self, tiles: NDArray[np.float32]) -> object: ...


class SmallDevice:
    """A network on a device that has no memory for more than `most` tiles at once."""

    def __init__(self, network: Network, most: int) -> None:
        self._network = network
        self.most = most
        self.given: list[int] = []

    def predict_on_batch(self, tiles: NDArray[np.float32]) -> object:
        import tensorflow as tf

        self.given.append(len(tiles))
        if len(tiles) > self.most:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
        return self._network.predict_on_batch(tiles)


@pytest.mark.slow
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
    # Four tiles of 64 px have the pixels of sixteen of 32 px; of larger ones fewer are given.
    small.given.clear()
    small.most = 16
    engine.run(np.zeros((engine.batch, 32, 32, 1), np.float32))
    engine.run(np.zeros((engine.batch, 64, 128, 1), np.float32))
    assert small.given == [16, *[2] * 8]


@pytest.mark.slow
def test_a_device_without_memory_for_one_tile_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = load_engine(find_package("nuclei"), "keras", threads=1)
    assert isinstance(engine, KerasEngine)
    monkeypatch.setattr(engine, "_network", SmallDevice(engine._network, most=0))
    with pytest.raises(MemoryError, match="64 x 64 px"):
        engine.run(np.zeros((engine.batch, 64, 64, 1), np.float32))


@pytest.mark.slow
def test_an_error_of_the_backend_that_is_not_about_memory_is_raised_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class BrokenDevice:
        def predict_on_batch(self, tiles: NDArray[np.float32]) -> object:
            raise RuntimeError("INTERNAL: no kernel image is available")

    engine = load_engine(find_package("nuclei"), "keras", threads=1)
    assert isinstance(engine, KerasEngine)
    monkeypatch.setattr(engine, "_network", BrokenDevice())
    # As JAX tells of everything that goes wrong on a device, memory or not.
    like_jax = NoMemory((MemoryError, RuntimeError), ("RESOURCE_EXHAUSTED",))
    monkeypatch.setattr(engine, "_no_memory", like_jax)
    with pytest.raises(RuntimeError, match="no kernel image"):
        engine.run(np.zeros((engine.batch, 64, 64, 1), np.float32))
    assert engine._at_once(64 * 64) == engine.batch


@pytest.mark.skipif(find_spec("tensorflow") is None, reason="TensorFlow is not installed")
@pytest.mark.slow
def test_tensorflow_is_imported_without_its_own_lines_and_its_errors_are_kept() -> None:
    code = "from cellcount_core.models.engines.keras import import_tensorflow; import_tensorflow(); import sys; print('said', file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "said\n"
    broken = f"import sys; sys.modules['tensorflow.python'] = None; {code}"
    failed = subprocess.run([sys.executable, "-c", broken], capture_output=True, text=True, check=False)
    assert failed.returncode != 0
    assert "ModuleNotFoundError" in failed.stderr
