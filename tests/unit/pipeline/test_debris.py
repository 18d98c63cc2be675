"""Debris far brighter than the objects changes no count: full scale follows the objects, and debris is no object or is told of."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tests.fields import count_array
from tests.plates import nuclear_field

Image = NDArray[np.uint16]
Soil = Callable[[Image, float], Image]

OBJECTS = 60
SIDE = 440


def soiled(image: Image, where: NDArray[np.bool_], level: float) -> Image:
    """The image at a brightness where its objects are some 600 above the background, with debris at `level`."""
    dim = 300 + (image.astype(np.float64) - 300) * 0.2
    dim[where] = 300 + level
    return np.clip(dim, 0, 65_535).astype(np.uint16)


def fibre(image: Image, level: float) -> Image:
    """A line of 0.6 % of the area, between the objects."""
    where = np.zeros(image.shape, np.bool_)
    where[216:220, 40:340] = True
    return soiled(image, where, level)


def grains(image: Image, level: float) -> Image:
    """Three discs as large as six objects, 3 % of the area, beyond the objects."""
    wide = np.pad(image, ((0, 100), (0, 0)), mode="reflect")
    wide[SIDE:] = np.random.default_rng(0).normal(300, 40, (100, SIDE)).clip(0)
    yy, xx = np.mgrid[: wide.shape[0], : wide.shape[1]]
    where = np.zeros(wide.shape, np.bool_)
    for x in (80, 220, 360):
        where |= (yy - SIDE - 50) ** 2 + (xx - x) ** 2 <= 27**2
    return soiled(wide, where, level)


def hot_pixels(image: Image, level: float) -> Image:
    """One pixel of 200, anywhere."""
    return soiled(image, np.random.default_rng(1).random(image.shape) < 0.005, level)


def bright_edge(image: Image, level: float) -> Image:
    """A strip of 3 % of the area along the left side."""
    wide = np.pad(image, ((0, 0), (40, 0)), mode="edge")
    where = np.zeros(wide.shape, np.bool_)
    where[:, :14] = True
    return soiled(wide, where, level)


SOILS: tuple[Soil, ...] = (fibre, grains, hot_pixels, bright_edge)


def test_debris_changes_no_count_and_is_told_of() -> None:
    image = nuclear_field(20, OBJECTS, seed=3, side=SIDE)
    plain = count_array(soiled(image, np.zeros(image.shape, np.bool_), 0), "nuclei").row
    assert (plain.values["count"], plain.warnings) == (OBJECTS, ())
    for soil in SOILS:
        for level in (5_000.0, 20_000.0, 65_000.0):
            row = count_array(soil(image, level), "nuclei").row
            assert row.values["count"] is not None
            assert abs(row.values["count"] - OBJECTS) <= 0.03 * OBJECTS, (
                soil.__name__,
                level,
                row.values["count"],
            )
            assert "bright_debris" in row.warnings, (soil.__name__, level)


def test_an_edge_that_is_little_brighter_than_the_objects_is_told_of_along_any_side() -> None:
    image = nuclear_field(20, OBJECTS, seed=3, side=SIDE)
    for turns in range(4):
        for level in (1_100.0, 1_500.0):
            row = count_array(np.ascontiguousarray(np.rot90(bright_edge(image, level), turns)), "nuclei").row
            assert "bright_debris" in row.warnings, (turns, level, row.count)
    # Nuclei twice as bright that lie on the border are no edge.
    on_border = image.astype(np.float64)
    on_border[:60] = 300 + (np.roll(image, -30, axis=0)[:60] - 300.0) * 2
    row = count_array(np.clip(on_border, 0, 65_535).astype(np.uint16), "nuclei").row
    assert "bright_debris" not in row.warnings


def test_debris_changes_no_count_in_8_bits_nor_in_a_field_cut_into_blocks() -> None:
    image = nuclear_field(20, OBJECTS, seed=3, side=SIDE)
    for soil in SOILS:
        narrow = np.clip(soil(image, 6_000) / 24, 0, 255).astype(np.uint8)
        row = count_array(narrow, "nuclei").row
        assert row.values["count"] is not None
        assert abs(row.values["count"] - OBJECTS) <= 0.03 * OBJECTS, (soil.__name__, row.values["count"])
    whole = count_array(fibre(image, 60_000), "nuclei").row
    cut = count_array(fibre(image, 60_000), "nuclei", whole_limit=65_536, block=256).row
    assert (cut.values["count"], cut.values["area_fraction"]) == (
        whole.values["count"],
        whole.values["area_fraction"],
    )


def test_a_bright_nucleus_among_dim_ones_is_counted() -> None:
    """One nucleus in division, eight times as bright as the others, is no debris; both are counted, and it is told of."""
    image = nuclear_field(20, OBJECTS, seed=3, side=SIDE).astype(np.float64)
    bright = image.copy()
    bright[:55, :55] = 300 + (bright[:55, :55] - 300) * 8
    row = count_array(np.clip(bright, 0, 65_535).astype(np.uint16), "nuclei").row
    assert row.values["count"] == OBJECTS
