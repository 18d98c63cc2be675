"""Golden tensors: an input with its expected maps, checked whenever an engine is loaded."""

from __future__ import annotations

import numpy as np

from cellcount_core.domain.errors import ModelFault
from cellcount_core.models.engines import Engine
from cellcount_core.models.package import Package


def check_golden(package: Package, engine: Engine) -> float:
    """Run the package's golden input and return the largest absolute difference from its golden maps.

    Raises ModelFault where the difference exceeds the package's tolerance or the shapes differ.
    """
    path = package.file(package.golden)
    try:
        with np.load(path, allow_pickle=False) as stored:
            tiles = stored["input"].astype(np.float32)
            expected = stored["maps"].astype(np.float32)
    except (OSError, ValueError, KeyError) as error:
        raise ModelFault(f"{path}: golden tensors cannot be read: {error}") from error
    found = np.concatenate(
        [engine.run(tiles[start : start + 1].repeat(engine.batch, axis=0))[:1] for start in range(len(tiles))]
    )
    if found.shape != expected.shape:
        raise ModelFault(
            f"{path}: engine {engine.name} gives maps of shape {found.shape}, expected {expected.shape}"
        )
    difference = float(np.abs(found - expected).max(initial=0.0))
    if not difference <= package.golden_atol:
        raise ModelFault(
            f"package {package.name} {package.version}: engine {engine.name} is off its golden tensors by "
            f"{difference:.2g} (allowed {package.golden_atol:g}); this machine would count something else"
        )
    return difference
