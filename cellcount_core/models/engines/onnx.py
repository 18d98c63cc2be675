"""The CPU engine: ONNX Runtime.

A batch is one tile: on a CPU a larger one gains nothing, and a tile's maps then cannot depend on its neighbours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.errors import ModelFault
from cellcount_core.models.package import Package


class OnnxEngine:
    """A network in ONNX form, run on the CPU with a fixed number of threads.

    `name` chooses the package's file: the network in float32, or in 8-bit integers.
    """

    batch = 1

    def __init__(self, package: Package, threads: int, name: str) -> None:
        import onnxruntime as ort

        self.name = name
        # Nothing about a run leaves the machine: some builds of ONNX Runtime send usage events unless told not to.
        ort.disable_telemetry_events()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Tiles of a field share a shape but fields need not: a memory plan kept for every shape seen would only grow.
        options.enable_mem_pattern = False
        path = package.file(package.engines[self.name])
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except (RuntimeError, ValueError) as error:
            raise ModelFault(f"{path}: ONNX Runtime cannot load it: {error}") from error
        self._input = self._session.get_inputs()[0].name

    def run(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Maps (B, h, w, K) of tiles (B, h, w, C)."""
        maps = self._session.run(None, {self._input: np.ascontiguousarray(tiles)})
        return np.concatenate(maps, axis=-1) if len(maps) > 1 else np.asarray(maps[0])
