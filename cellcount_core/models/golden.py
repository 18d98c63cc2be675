"""Golden tensors: an input with its expected maps, checked whenever an engine is loaded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.errors import ModelFault
from cellcount_core.models.engines import Engine
from cellcount_core.models.package import Package


def check_golden(package: Package, engine: Engine) -> float:
    """Run the package's golden input and return the largest absolute difference from the engine's golden maps.

    Raises ModelFault where it, or the mean difference, exceeds the package's tolerance for that engine, shapes differ, or the
    device has no memory for the input.
    """
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
    """Maps (N, h, w, K) of any number of tiles (N, h, w, C): each tile fills a whole batch of the engine."""
    return np.concatenate(
        [engine.run(tiles[start : start + 1].repeat(engine.batch, axis=0))[:1] for start in range(len(tiles))]
    )
