"""ONNX Runtime without memory for a tile, and files that it cannot load: each is told as what it is."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cellcount_core.domain.errors import ModelFault
from cellcount_core.models.engines import check_golden, load_engine
from cellcount_core.models.engines.onnx import OnnxEngine, keep_onnxruntime_silent
from cellcount_core.models.package import find_package

ENGINES = ["onnxruntime", "onnxruntime-int8"]

_LIMITED = """
import resource, sys
import numpy as np
from cellcount_core.models.engines import load_engine
from cellcount_core.models.package import find_package

engine = load_engine(find_package("nuclei"), sys.argv[1], threads=1)
small, large = (np.zeros((1, side, side, 1), np.float32) for side in (512, 2048))
expected = engine.run(small)
used = next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), resource.getrlimit(resource.RLIMIT_AS)[1]))
try:
    engine.run(large)
except MemoryError as error:
    print(error)
    print(type(error.__cause__).__module__.split(".")[0])
print((engine.run(small) == expected).all())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits a process as Linux does")
@pytest.mark.parametrize("engine", ENGINES)
def test_a_tile_that_a_limited_process_has_no_memory_for_is_a_memory_error_and_smaller_ones_go_on(
    engine: str,
) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _LIMITED, engine], capture_output=True, text=True, timeout=600, check=False
    )
    assert ran.stdout.splitlines() == [
        "the device has no memory for a tile of 2048 x 2048 px",
        "onnxruntime",
        "True",
    ], ran.stderr


class Refusing:
    """A session that fails each time, with ONNX Runtime's exception `kind` and a message."""

    def __init__(self, kind: str, text: str) -> None:
        keep_onnxruntime_silent()
        from onnxruntime.capi import onnxruntime_pybind11_state

        self._error = getattr(onnxruntime_pybind11_state, kind)(text)

    def run(self, names: object, inputs: object) -> object:
        raise self._error


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("RuntimeException", "[ONNXRuntimeError] : 6 : … running Conv node. Status Message: std::bad_alloc"),
        (
            "Fail",
            "[ONNXRuntimeError] : 1 : … Failed to allocate memory for requested buffer of size 134217728",
        ),
        ("Fail", "Available memory of 19968 is smaller than requested bytes of 1572864"),
        ("Fail", "CUDA failure 2: out of memory ; GPU=0 ; hostname=node"),
        ("EPFail", "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0"),
    ],
)
def test_each_way_of_saying_that_there_is_no_memory_is_understood(
    monkeypatch: pytest.MonkeyPatch, kind: str, text: str
) -> None:
    engine = load_engine(find_package("nuclei"), "onnxruntime", threads=1)
    monkeypatch.setattr(engine, "_session", Refusing(kind, text))
    with pytest.raises(MemoryError, match="no memory for a tile of 64 x 32 px"):
        engine.run(np.zeros((1, 64, 32, 1), np.float32))


def test_an_error_that_is_not_about_memory_is_raised_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = load_engine(find_package("nuclei"), "onnxruntime", threads=1)
    monkeypatch.setattr(engine, "_session", Refusing("Fail", "Got invalid dimensions for input: image"))
    with pytest.raises(Exception, match="invalid dimensions") as raised:
        engine.run(np.zeros((1, 64, 32, 1), np.float32))
    assert not isinstance(raised.value, MemoryError)


def test_a_device_without_memory_for_the_golden_tensors_cannot_take_the_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    package = find_package("nuclei")
    engine = load_engine(package, "onnxruntime", threads=1)
    monkeypatch.setattr(engine, "_session", Refusing("RuntimeException", "std::bad_alloc"))
    with pytest.raises(ModelFault, match=r"nuclei .*no memory for its golden tensors on onnxruntime"):
        check_golden(package, engine)


def test_a_file_that_onnx_runtime_cannot_load_is_a_fault_of_the_model(tmp_path: Path) -> None:
    package = replace(find_package("nuclei"), folder=tmp_path)
    file = tmp_path / package.engines["onnxruntime"]
    with pytest.raises(ModelFault, match=r"ONNX Runtime cannot load it.*NO_SUCHFILE"):
        OnnxEngine(package, 1, "onnxruntime")
    file.write_bytes(b"no network")
    with pytest.raises(ModelFault, match=r"ONNX Runtime cannot load it.*INVALID_PROTOBUF"):
        OnnxEngine(package, 1, "onnxruntime")
