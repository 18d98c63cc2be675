"""A device that has no memory for some tiles, under whatever counts on it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import numpy as np
import pytest
from numpy.typing import NDArray

from cellcount_core.models.engines import ENGINES, Engine, no_room
from cellcount_core.models.package import Package

Tiles = NDArray[np.float32]
Refuses = Callable[[Tiles], bool]


class SmallDevice:
    """A package's own engine on such a device; the golden tensors fit."""

    batch = 1

    def __init__(self, package: Package, engine: Engine, refuses: Refuses) -> None:
        self.name = engine.name
        self._engine = engine
        self._refuses = refuses
        self._calls = count(1)
        with np.load(package.file(package.golden)) as stored:
            self._golden = len(stored["input"])

    def run(self, tiles: Tiles) -> Tiles:
        if next(self._calls) > self._golden and self._refuses(tiles):
            raise no_room(tiles.shape)
        return self._engine.run(tiles)


def use_small_device(patch: pytest.MonkeyPatch, engine: str, refuses: Refuses) -> None:
    """From now on the engine of that name runs on a device that has no memory for the tiles that `refuses` says."""
    load = ENGINES[engine]

    def small(package: Package, threads: int) -> Engine:
        return SmallDevice(package, load(package, threads), refuses)

    patch.setitem(ENGINES, engine, small)
