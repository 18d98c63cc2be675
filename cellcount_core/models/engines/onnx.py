"""The CPU engine: ONNX Runtime.

A batch is one tile: a larger one gains nothing on a CPU, and this way a tile's maps cannot depend on its neighbours.
"""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.errors import ModelFault
from cellcount_core.models.engines import NoMemory, no_room
from cellcount_core.models.package import Package

_NO_MEMORY_WORDS = (
    "Failed to allocate memory",
    "smaller than requested bytes",
    "bad_alloc",
    "bad allocation",
    "out of memory",
    "ALLOC_FAILED",
)
"""In this order: the arena, an arena with a limit, a kernel's own allocation (GCC, MSVC), CUDA, cuBLAS and cuDNN."""


def keep_onnxruntime_silent() -> None:
    """Keep ONNX Runtime from reporting a run to anybody. Called in every process before its first import.

    From 1.29 on, the import itself writes an identifier of this machine to the user's cache folder and looks up the server for
    events. `disable_telemetry_events` can only be called after that.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"


class OnnxEngine:
    """A network in ONNX form, run on the CPU with a fixed number of threads.

    `name` chooses the package's file: the network in float32, or in 8-bit integers. Raises ModelFault if the file cannot be loaded.
    """

    batch = 1

    def __init__(self, package: Package, threads: int, name: str) -> None:
        keep_onnxruntime_silent()
        import onnxruntime as ort
        from onnxruntime.capi import onnxruntime_pybind11_state as states

        self.name = name
        # Its exceptions have no base class of their own, and are no RuntimeErrors.
        self._no_memory = NoMemory(
            (MemoryError, RuntimeError, states.Fail, states.RuntimeException, states.EPFail), _NO_MEMORY_WORDS
        )
        # For builds that report through the operating system, and know nothing of the variable.
        ort.disable_telemetry_events()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Tiles of a field share a shape but fields need not: a memory plan kept for every shape seen would only grow.
        options.enable_mem_pattern = False
        path = package.file(package.engines[self.name])
        unfit: tuple[type[Exception], ...] = (
            *(RuntimeError, ValueError, states.Fail, states.RuntimeException, states.NotImplemented),
            *(states.InvalidProtobuf, states.InvalidGraph, states.InvalidArgument, states.NoSuchFile),
        )
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except unfit as error:
            raise ModelFault(f"{path}: ONNX Runtime cannot load it: {error}") from error
        self._input = self._session.get_inputs()[0].name

    def run(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Maps (B, h, w, K) of tiles (B, h, w, C). Raises MemoryError if there is no memory for them."""
        try:
            maps = self._session.run(None, {self._input: np.ascontiguousarray(tiles)})
        except self._no_memory.kinds as error:
            if not self._no_memory.said_by(error):
                raise
            raise no_room(tiles.shape) from error
        return np.concatenate(maps, axis=-1) if len(maps) > 1 else np.asarray(maps[0])
