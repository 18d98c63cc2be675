"""What is compared: a name for each system, and how a process makes it ready to count."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.manifest import Plane

Count = Callable[[Plane], NDArray[np.int32]]
"""Counts one image (H, W) in its own units: a label image of its size, 0 as background."""


def _watershed(variant: str, cache: Path) -> Count:
    from benchmarks.peers import watershed

    return watershed.count


def _stardist(variant: str, cache: Path) -> Count:
    from benchmarks.peers import star

    return star.load(cache / "stardist")


def _cellprofiler(variant: str, cache: Path) -> Count:
    from benchmarks.peers import cellprofiler

    return cellprofiler.load()


def _package(variant: str, cache: Path) -> Count:
    from benchmarks.peers import package

    return package.load(variant)


SYSTEMS: Mapping[str, Callable[[str, Path], Count]] = {
    "watershed": _watershed,
    "stardist": _stardist,
    "cellprofiler": _cellprofiler,
    "package": _package,
}
"""Every system by its name: given a variant ("" for most) and the cache folder, it is loaded with its heavy libraries."""


def load(system: str, cache: Path) -> Count:
    """The counter of a system as it is named on a command line: `NAME` or `NAME:VARIANT`. Raises ValueError for others."""
    name, _, variant = system.partition(":")
    if name not in SYSTEMS:
        raise ValueError(f"system {system!r}: one of {', '.join(SYSTEMS)} expected")
    return SYSTEMS[name](variant, cache)
