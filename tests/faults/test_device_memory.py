"""A device that runs out of memory: tiles are made smaller, and only a field whose smallest tile does not fit either fails."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count as count_from
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from cellcount_core.models.engines import ENGINES, Engine
from cellcount_core.models.engines.memory import no_room
from cellcount_core.models.package import Package, shipped_folder
from tests.faults.drill import judge
from tests.jobs import count
from tests.plates import Plate, discs, write_plate
from tests.s3_jobs import Tables, tables

Tiles = NDArray[np.float32]
Refuses = Callable[[Tiles], bool]

BAD, BAD_PX = ("A02", 1), 220
"""A field of a size of its own, so that the device can tell it from others."""


class SmallDevice:
    """The package's engine on a device that has no memory for the tiles that `refuses` says."""

    batch = 1

    def __init__(self, engine: Engine, refuses: Refuses) -> None:
        self.name = engine.name
        self._engine = engine
        self._refuses = refuses

    def run(self, tiles: Tiles) -> Tiles:
        if self._refuses(tiles):
            raise no_room(tiles.shape)
        return self._engine.run(tiles)


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> Plate:
    """3 wells, 2 sites of 160 px; one field is larger."""
    plate = write_plate(tmp_path_factory.mktemp("memory") / "plate", well_count=3, size=160)
    tifffile.imwrite(plate.file(*BAD), discs(11, BAD_PX, seed=1))
    return plate


@pytest.fixture(scope="module")
def unbroken(plate: Plate, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    output = tmp_path_factory.mktemp("memory-peace") / "out"
    count(plate.folder, output)
    return tables(output)


def on_a_device_that(
    refuses: Refuses, patch: pytest.MonkeyPatch, plate: Plate, output: Path, **run: object
) -> Path:
    load = ENGINES["smooth"]

    def small(package: Package, threads: int) -> Engine:
        return SmallDevice(load(package, threads), refuses)

    patch.setitem(ENGINES, "smooth", small)
    count(plate.folder, output, run=run)
    return output


@pytest.mark.parametrize("most_px", [150, 60])
def test_a_device_with_memory_for_small_tiles_only(
    plate: Plate, unbroken: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_px: int
) -> None:
    # The golden tensors come first: they are larger than these tiles.
    with np.load(shipped_folder() / "threshold" / "golden.npz") as stored:
        golden = len(stored["input"])
    calls = count_from(1)
    output = on_a_device_that(
        lambda tiles: next(calls) > golden and max(tiles.shape[1:3]) > most_px,
        monkeypatch,
        plate,
        tmp_path / "out",
    )
    judge("device without memory for a tile", unbroken, output)


def test_a_device_without_memory_for_any_tile_of_one_field(
    plate: Plate, unbroken: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad: list[Tiles] = []

    def refuses(tiles: Tiles) -> bool:
        if tiles.shape[1] == BAD_PX:
            bad.append(tiles)
        # Smaller tiles of that field as well: they hold no other values than the whole.
        return bool(bad) and bool(np.isin(tiles, bad[0]).all())

    output = on_a_device_that(refuses, monkeypatch, plate, tmp_path / "out")
    judge(
        "device without memory for any tile of a field",
        unbroken,
        output,
        spoilt={BAD: ("failed", "out_of_memory")},
    )
