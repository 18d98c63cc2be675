"""Engines: what runs a package's network. One file each, one line in `ENGINES`.

An engine takes a full batch of equal tiles (B, h, w, C) float32 and gives the maps (B, h, w, K) float32. B is its own
`batch`: small on a CPU, where a batch gains nothing, larger on a GPU. Heavy libraries are imported when an engine is loaded.
An engine's name says which numbers it computes in: it is part of a run's fingerprint, and what it computes in changes counts.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

from cellcount_core.domain.errors import ConfigFault, nearest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cellcount_core.models.package import Package


class Engine(Protocol):
    """A loaded network. Called from one thread only."""

    name: str
    batch: int

    def run(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Maps (B, h, w, K) float32 of tiles (B, h, w, C) float32, normalised.

        Raises MemoryError where the device has no memory for a single tile of that size.
        """
        ...


def _load_onnx(package: Package, threads: int) -> Engine:
    from cellcount_core.models.engines.onnx import OnnxEngine

    return OnnxEngine(package, threads, "onnxruntime")


def _load_onnx_int8(package: Package, threads: int) -> Engine:
    from cellcount_core.models.engines.onnx import OnnxEngine

    return OnnxEngine(package, threads, "onnxruntime-int8")


def _load_keras(package: Package, threads: int) -> Engine:
    from cellcount_core.models.engines.keras import KerasEngine

    return KerasEngine(package, threads, "keras")


def _load_keras_float16(package: Package, threads: int) -> Engine:
    from cellcount_core.models.engines.keras import KerasEngine

    return KerasEngine(package, threads, "keras-float16")


def _load_smooth(package: Package, threads: int) -> Engine:
    from cellcount_core.models.engines.smooth import SmoothEngine

    return SmoothEngine(package)


ENGINES: dict[str, Callable[[Package, int], Engine]] = {
    "onnxruntime": _load_onnx,
    "onnxruntime-int8": _load_onnx_int8,
    "keras": _load_keras,
    "keras-float16": _load_keras_float16,
    "smooth": _load_smooth,
}
"""Name of every engine and what loads it."""

ON_GPU = frozenset({"keras", "keras-float16"})
"""Engines that use a GPU where there is one; for the others a worker holds a core, whatever else the cluster has."""

_CPU_ORDER = ("smooth", "onnxruntime-int8", "onnxruntime", "keras")
_GPU_ORDER = ("smooth", "keras-float16", "keras", "onnxruntime-int8", "onnxruntime")
"""Fastest first. A package names a variant only if it counts as the float32 network does (training/quantise.py)."""


def resolve_engine(package: Package, asked: str, gpus: float) -> str:
    """The engine that `asked` stands for: "auto" is the fastest of the package's own that suits the device.

    Raises ConfigFault where the package has no engine of that name.
    """
    if asked != "auto":
        if asked not in package.engines or asked not in ENGINES:
            known = [name for name in package.engines if name in ENGINES]
            raise ConfigFault(
                f"run.model.engine: package {package.name!r} has no {asked!r} engine{nearest(asked, known)}"
            )
        return asked
    order = _GPU_ORDER if gpus > 0 and _has_keras() else _CPU_ORDER
    for name in order:
        if name in package.engines:
            return name
    raise ConfigFault(
        f"package {package.name!r} names no engine known here (it has {sorted(package.engines)})"
    )


def _has_keras() -> bool:
    """Whether Keras is installed, and the backend that it would run on."""
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    return find_spec("keras") is not None and find_spec(backend) is not None


def load_engine(package: Package, name: str, threads: int) -> Engine:
    """Load the engine `name` of a package with `threads` threads for its arithmetic."""
    return ENGINES[name](package, threads)
