"""Engines: what runs a package's network.

A new engine is a file here and a line in `ENGINES`. Heavy libraries are imported only when an engine is loaded. The name of an
engine says which numbers it computes in; it is part of a run's fingerprint, because what it computes in changes counts.
`check_golden` compares a loaded engine with the golden tensors of its package: an input with the maps expected of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

from cellcount_core.domain.errors import ConfigFault, ModelFault, nearest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cellcount_core.models.package import Package


class Engine(Protocol):
    """A loaded network. Called from one thread only.

    It takes a full batch of `batch` tiles of one shape: 1 on a CPU, where a larger batch gains nothing, more on a GPU.
    """

    name: str
    batch: int

    def run(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Maps (B, h, w, K) float32 of normalised tiles (B, h, w, C) float32.

        Raises MemoryError if the device has no memory for a single tile of that size.
        """
        ...


@dataclass(frozen=True, slots=True)
class NoMemory:
    """How a library says that its device has no memory left: an exception of `kinds` with one of `words` in it (no words: any)."""

    kinds: tuple[type[Exception], ...]
    words: tuple[str, ...] = ()

    def said_by(self, error: Exception) -> bool:
        """Whether this exception, one of `kinds`, says so."""
        if isinstance(error, MemoryError) or not self.words:
            return True
        text = str(error)
        return any(word in text for word in self.words)


def no_room(shape: Sequence[int]) -> MemoryError:
    """What an engine raises if the device has no memory for a single one of the tiles (B, h, w, C)."""
    height, width = shape[1:3]
    return MemoryError(f"the device has no memory for a tile of {height} x {width} px")


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
"""The name of every engine, and what loads it."""

ON_GPU = frozenset({"keras", "keras-float16"})
"""Engines that use a GPU if there is one. For all others a worker holds a core, whatever else the cluster has."""

_CPU_ORDER = ("smooth", "onnxruntime-int8", "onnxruntime", "keras")
_GPU_ORDER = ("smooth", "keras-float16", "keras", "onnxruntime-int8", "onnxruntime")
"""Fastest first. A package names a variant only if it counts as the float32 network does (training/variants.py)."""


def resolve_engine(package: Package, asked: str, gpus: float) -> str:
    """The engine that `asked` stands for: "auto" is the fastest of the package's own that suits the device.

    Raises ConfigFault if the package has no engine of that name.
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
    """Whether Keras and the backend that it would run on are installed."""
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    return find_spec("keras") is not None and find_spec(backend) is not None


def load_engine(package: Package, name: str, threads: int) -> Engine:
    """Load the engine `name` of a package, with `threads` threads for its arithmetic."""
    return ENGINES[name](package, threads)


def check_golden(package: Package, engine: Engine) -> float:
    """Run the package's golden input; returns the largest absolute difference from the golden maps of that engine.

    Raises ModelFault if that or the mean difference exceeds the package's tolerance, if shapes differ, or if the device has no memory
    for the input.
    """
    import numpy as np

    path = package.file(package.golden)
    allowed = package.golden_of(engine.name)
    try:
        with np.load(path, allow_pickle=False) as stored:
            tiles = stored["input"].astype(np.float32)
            expected = stored[allowed.maps].astype(np.float32)
    except (OSError, ValueError, KeyError) as error:
        raise ModelFault(f"{path}: golden tensors cannot be read: {error}") from error
    try:
        found = maps_of(engine, tiles)
    except MemoryError as error:
        raise ModelFault(
            f"package {package.name} {package.version}: the device has no memory for its golden tensors on {engine.name}"
            f" ({error}); other programs may hold it"
        ) from error
    if found.shape != expected.shape:
        raise ModelFault(
            f"{path}: engine {engine.name} gives maps of shape {found.shape}, expected {expected.shape}"
        )
    differences = np.abs(found - expected)
    largest, mean = (
        float(differences.max(initial=0.0)),
        float(differences.mean()) if differences.size else 0.0,
    )
    for difference, limit, word in ((largest, allowed.atol, ""), (mean, allowed.mean_atol, " on average")):
        # Written so that a difference that is no number is off too.
        if not difference <= limit:
            raise ModelFault(
                f"package {package.name} {package.version}: engine {engine.name} is off its golden tensors by "
                f"{difference:.2g}{word} (allowed {limit:g}); this machine would count something else"
            )
    return largest


def maps_of(engine: Engine, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
    """Maps (N, h, w, K) of any number of tiles (N, h, w, C); each tile fills a whole batch of the engine."""
    import numpy as np

    return np.concatenate(
        [engine.run(tiles[start : start + 1].repeat(engine.batch, axis=0))[:1] for start in range(len(tiles))]
    )
