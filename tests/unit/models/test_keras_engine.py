"""The GPU engine on whatever device is here: golden tensors, and the same objects as the CPU engine."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from cellcount_core.models.engines import load_engine, resolve_engine
from cellcount_core.models.golden import check_golden
from cellcount_core.models.package import find_package

pytestmark = pytest.mark.skipif(find_spec("tensorflow") is None, reason="TensorFlow is not installed (the `train` extra)")


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
