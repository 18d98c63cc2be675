"""A device that runs out of memory: tiles are made smaller, and only a field whose smallest tile does not fit either fails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.faults.drill import judge
from tests.jobs import count
from tests.plates import Plate, discs, write_plate
from tests.s3_jobs import Tables, tables
from tests.small_device import Tiles, use_small_device

pytestmark = pytest.mark.beside

BAD, BAD_PX = ("A02", 1), 220
"""A field of a size of its own, so that the device can tell it from others."""


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


@pytest.mark.parametrize("most_px", [150, 60])
def test_a_device_with_memory_for_small_tiles_only(
    plate: Plate, unbroken: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_px: int
) -> None:
    use_small_device(monkeypatch, "smooth", lambda tiles: max(tiles.shape[1:3]) > most_px)
    count(plate.folder, tmp_path / "out")
    judge("device without memory for a tile", unbroken, tmp_path / "out")


def test_a_device_without_memory_for_any_tile_of_one_field(
    plate: Plate, unbroken: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad: list[Tiles] = []

    def refuses(tiles: Tiles) -> bool:
        if tiles.shape[1] == BAD_PX:
            bad.append(tiles)
        # Smaller tiles of that field as well: they hold no other values than the whole.
        return bool(bad) and bool(np.isin(tiles, bad[0]).all())

    use_small_device(monkeypatch, "smooth", refuses)
    count(plate.folder, tmp_path / "out")
    failed = {BAD: ("failed", "out_of_memory")}
    judge("device without memory for any tile of a field", unbroken, tmp_path / "out", spoilt=failed)
