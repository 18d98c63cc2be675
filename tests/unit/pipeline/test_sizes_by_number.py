"""The size a field is scaled by is that of its typical object by number; giants, clumps and long nuclei do not bend it."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from cellcount_core.domain.doubts import Doubt
from cellcount_core.domain.scales import PlateSize, ScaleSource
from cellcount_core.evaluation.evaluate import Diameter, count_plane, counting_of, labels_of
from cellcount_core.models.engines import Engine, load_engine, resolve_engine
from cellcount_core.models.package import Package, find_package
from cellcount_core.pipeline.field import examine, planes_kit, usual_shapes
from cellcount_core.pipeline.pixels import Pixels
from cellcount_core.tasks.task import SizeEstimate
from tests.fields import size_of

Ellipse = tuple[float, float, float, float]
"""Centre (y, x) and half axes (down, across) in px."""


@cache
def nuclei() -> tuple[Package, Engine]:
    package = find_package("nuclei")
    return package, load_engine(package, resolve_engine(package, "auto", gpus=0), 1)


def drawn(side: int, ellipses: Sequence[Ellipse]) -> NDArray[np.uint16]:
    """Bright soft ellipses on a dark background in the noise of a camera: (side, side)."""
    image = np.full((side, side), 300.0)
    for y, x, down, across in ellipses:
        # Farther off than this the ellipse is less than the rounding of its background.
        far = 1 + 0.9 * 40 / min(down, across)
        top, left = max(0, int(y - far * down)), max(0, int(x - far * across))
        window = image[top : int(y + far * down) + 2, left : int(x + far * across) + 2]
        yy, xx = np.ogrid[: window.shape[0], : window.shape[1]]
        away = np.hypot((yy + top - y) / down, (xx + left - x) / across)
        soft = 1 + np.exp(np.minimum(50, (away - 1) * min(down, across) / 0.9))
        np.maximum(window, 300 + 2000 / soft, out=window)
    return np.clip(image + np.random.default_rng(0).normal(0, 12, image.shape), 0, 65535).astype(np.uint16)


def row(number: int, diameter: float, y: float, step: float) -> list[Ellipse]:
    return [(y, step / 2 + step * i, diameter / 2, diameter / 2) for i in range(number)]


def rows(number: int, diameter: float, top: float, step: float, a_row: int) -> list[Ellipse]:
    found: list[Ellipse] = []
    for start in range(0, number, a_row):
        found += row(min(a_row, number - start), diameter, top + step * (start // a_row), step)
    return found


def told(plane: NDArray[np.uint16]) -> SizeEstimate:
    return size_of(plane, *nuclei())


@cache
def mixed() -> dict[str, tuple[float, NDArray[np.uint16]]]:
    """Fields of objects of two sizes, each with the size of most."""
    return {
        "40 of 20 px and 8 of 80": (20, drawn(700, row(8, 80, 60, 86) + rows(40, 20, 180, 86, 8))),
        "40 of 20 px and 8 of 60": (20, drawn(700, row(8, 60, 60, 86) + rows(40, 20, 180, 86, 8))),
        "60 of 20 px and 6 of 120": (20, drawn(900, row(6, 120, 90, 149) + rows(60, 20, 220, 86, 10))),
        "30 of 20 px and a clump of 150": (20, drawn(700, row(1, 150, 100, 700) + rows(30, 20, 250, 86, 8))),
        "70 of 12 px and 8 of 60": (12, drawn(600, row(8, 60, 50, 74) + rows(70, 12, 150, 42, 14))),
        "25 of 30 px and 5 of 150": (30, drawn(900, row(5, 150, 110, 179) + rows(25, 30, 290, 110, 8))),
    }


@pytest.mark.slow
def test_the_size_is_that_of_most_objects_whatever_covers_most_of_the_image() -> None:
    for name, (diameter, plane) in mixed().items():
        found = told(plane).diameter_px
        assert found is not None, name
        assert max(found / diameter, diameter / found) < 1.1, f"{name}: {found}"


def test_objects_of_either_size_are_told_once_where_both_are_many() -> None:
    found = told(drawn(800, row(8, 90, 60, 98) + row(8, 90, 170, 98) + rows(16, 18, 300, 98, 8)))
    assert 30 <= found.objects <= 34
    assert found.low_px is not None and found.high_px is not None
    assert found.low_px < 21 and found.high_px > 75


def test_long_nuclei_are_not_told_by_their_width() -> None:
    for ratio in (3, 5, 8):
        half = 10 * np.sqrt(ratio), 10 / np.sqrt(ratio)
        places = [(60 + 80 * i, 80 + 110 * j) for i in range(8) for j in range(6)]
        found = told(drawn(720, [(y, x, half[1], half[0]) for y, x in places])).diameter_px
        assert found is not None, ratio
        assert 20 / 1.25 <= found <= 20 * 1.25, (ratio, found)


@pytest.mark.slow
def test_small_and_giant_objects_are_each_counted_once_and_the_row_says_so() -> None:
    counts = {"40 of 20 px and 8 of 80": 48, "40 of 20 px and 8 of 60": 48, "60 of 20 px and 6 of 120": 66}
    counts |= {
        "30 of 20 px and a clump of 150": 31,
        "70 of 12 px and 8 of 60": 78,
        "25 of 30 px and 5 of 150": 30,
    }
    package, engine = nuclei()
    with closing(planes_kit(package, engine, counting_of("auto"))) as kit:
        for name, (diameter, plane) in mixed().items():
            seen = count_plane(kit, plane)
            assert seen.found.count == counts[name], name
            assert Doubt.TWO_SIZES in seen.warnings, name
            assert Doubt.SIZE_UNLIKE not in seen.warnings, name
            assert seen.found.values["sizes"] is not None, name
            small, large = (part.split(" of ") for part in seen.found.values["sizes"].split(", "))
            assert int(small[0]) + int(large[0]) == counts[name], seen.found.values["sizes"]
            assert float(small[1].removesuffix(" px")) == pytest.approx(diameter, rel=0.1), seen.found.values[
                "sizes"
            ]
            assert labels_of(seen).max() == counts[name], name


def test_objects_of_one_size_are_looked_at_once() -> None:
    package, engine = nuclei()
    plane = drawn(500, rows(25, 30, 60, 95, 5))
    with closing(planes_kit(package, engine, counting_of("auto"))) as kit:
        seen = count_plane(kit, plane)
    assert (seen.found.count, seen.found.values["sizes"]) == (25, None)
    assert Doubt.TWO_SIZES not in seen.warnings


def test_a_field_counted_by_blocks_says_that_its_giants_may_be_in_pieces() -> None:
    package, engine = nuclei()
    plane = drawn(500, row(3, 120, 90, 160) + rows(18, 20, 220, 80, 6))
    run = counting_of(20.0).model_copy(update={"whole_limit": 65_536, "block": 256})
    with closing(planes_kit(package, engine, run)) as kit:
        seen = count_plane(kit, plane)
    assert Doubt.TOO_LARGE in seen.warnings
    assert seen.found.values["sizes"] is None


def test_a_field_of_another_size_than_its_plate_is_counted_at_its_own_and_says_so() -> None:
    package, engine = nuclei()
    planes = {
        "as large": (20.0, drawn(400, rows(25, 21, 40, 75, 5)), 25, ScaleSource.POOL),
        "larger": (20.0, drawn(500, rows(9, 90, 70, 150, 3)), 9, ScaleSource.IMAGE),
        "smaller": (48.0, drawn(300, rows(36, 12, 25, 48, 6)), 36, ScaleSource.IMAGE),
        "empty": (20.0, drawn(300, []), 0, ScaleSource.POOL),
    }
    for name, (pooled, plane, count, source) in planes.items():
        side = plane.shape[0]
        pool = PlateSize("P", side, side, pooled, 6, 300, pooled, pooled)
        with closing(planes_kit(package, engine, counting_of("auto"))) as kit:
            kit = replace(kit, plate_sizes={("P", side, side): pool})
            seen = examine(kit, Pixels({kit.counted[0].name: plane}, None, 65535, ()), "P")
        assert (seen.found.count, seen.scale.source) == (count, source), name
        assert (Doubt.OWN_SIZE in seen.warnings) == (source is ScaleSource.IMAGE), name


@pytest.mark.parametrize(
    ("kind", "height", "told"),
    [
        ("imagexpress", 200, True),
        ("imagexpress", 300, False),
        ("imagexpress", 400, True),
        ("flat", 200, False),
    ],
)
def test_an_image_of_another_size_than_most_of_its_plate_says_so(kind: str, height: int, told: bool) -> None:
    package, engine = nuclei()
    plane = drawn(400, rows(25, 21, 40, 75, 5))[:height]
    plain = counting_of("auto")
    run = type(plain).model_validate({**plain.model_dump(), "layout": {"kind": kind}})
    sizes = [("P", 300, 400, 6), ("P", 200, 400, 1), ("Q", 200, 400, 9)]
    with closing(planes_kit(package, engine, run)) as kit:
        known = {(p, h, w): PlateSize(p, h, w, 20.0, n, 300, 20.0, 20.0) for p, h, w, n in sizes}
        kit = replace(kit, plate_sizes=known, usual_shapes=usual_shapes(run, known.values()))
        seen = examine(kit, Pixels({kit.counted[0].name: plane}, None, 65535, ()), "P")
    assert (Doubt.IMAGE_SIZE in seen.warnings) == told


class Recording:
    """An engine that keeps what it was given."""

    def __init__(self, engine: Engine) -> None:
        self.name, self.batch, self.seen = engine.name, engine.batch, list[NDArray[np.float32]]()
        self._engine = engine

    def run(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        self.seen.append(tiles.copy())
        return self._engine.run(tiles)


def test_the_look_that_is_counted_is_not_asked_for_anew() -> None:
    package, engine = nuclei()
    recording = Recording(engine)
    with closing(planes_kit(package, recording, counting_of("auto"))) as kit:
        seen = count_plane(kit, drawn(256, rows(16, 20, 30, 60, 4)))
    assert seen.found.count == 16
    assert seen.scale.factor == 1.0
    shapes = [tiles.shape[1:3] for tiles in recording.seen]
    assert shapes == [(256, 256), (128, 128), (64, 64)]


class Counting:
    """An engine that counts how many of the tiles that it was given are still held by somebody."""

    def __init__(self, engine: Engine) -> None:
        self.name, self.batch, self.most, self.given = engine.name, engine.batch, 0, 0
        self._tiles = list[weakref.ref[NDArray[np.float32]]]()
        self._engine = engine

    def run(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        own = tiles.base if isinstance(tiles.base, np.ndarray) else tiles
        self._tiles.append(weakref.ref(own))
        self.given += 1
        self.most = max(self.most, sum(tile() is not None for tile in self._tiles))
        return self._engine.run(tiles)


@pytest.mark.slow
@pytest.mark.parametrize("diameter", ["auto", 20.0])
def test_a_field_of_many_small_tiles_lets_go_of_them(diameter: Diameter) -> None:
    package, engine = nuclei()
    counting = Counting(engine)
    run = counting_of(diameter).model_copy(update={"tile": 256, "whole_limit": 65_536, "block": 256})
    with closing(planes_kit(package, counting, run)) as kit:
        seen = count_plane(kit, drawn(1000, rows(225, 20, 40, 64, 15)))
    assert seen.found.count == 225
    assert counting.given > 100
    assert counting.most < 30
