"""Tiling changes nothing: every object of the uncut field is there exactly once, pixel for pixel."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cellcount_core.domain.doubts import Doubt
from cellcount_core.models.package import shipped_folder
from cellcount_core.pipeline.field import FieldResult
from tests.fields import count_array, loaded
from tests.often import often

PACKAGES = [
    path.parent.name
    for path in sorted(shipped_folder().glob("*/package.json"))
    if len(json.loads(path.read_text(encoding="utf-8"))["input"]["channels"]) == 1
]
"""The shipped packages that look at one channel."""


def canvas(height: int, width: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(400.0, 15.0, (height, width))


def add_disc(image: NDArray[np.float64], y: float, x: float, radius: float, level: float = 2000.0) -> None:
    np.maximum(image, 400.0, out=image)
    top, left = (max(0, int(centre - radius) - 2) for centre in (y, x))
    window = image[top : int(y + radius) + 3, left : int(x + radius) + 3]
    yy, xx = np.ogrid[: window.shape[0], : window.shape[1]]
    distance = np.hypot(yy + top - y, xx + left - x)
    np.maximum(window, 400.0 + level * np.clip(radius + 0.5 - distance, 0, 1), out=window)


def finish(image: NDArray[np.float64]) -> NDArray[np.uint16]:
    return np.clip(image, 0, 65535).astype(np.uint16)


def as_seen_by(package: str, field: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """The field with its objects as bright or as dark as the package expects them."""
    dark = loaded(package).package.input.polarity == "dark"
    return (60_000 - field).astype(np.uint16) if dark else field


def same_objects(one: FieldResult, other: FieldResult) -> None:
    assert one.row.values["count"] == other.row.values["count"]
    assert one.objects is not None
    assert other.objects is not None
    for name, values in one.objects.columns.items():
        found = other.objects.columns[name]
        if name == "score":
            np.testing.assert_allclose(np.asarray(found), np.asarray(values), atol=1e-4)
        else:
            np.testing.assert_array_equal(np.asarray(found), np.asarray(values), err_msg=name)


def small_tile(package: str) -> int:
    model = loaded(package).package
    return max(64, 2 * model.radius + 4 * model.stride)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_disc_on_each_seam_and_corner_is_counted_once(package: str) -> None:
    tile = small_tile(package)
    size = max(192, 2 * tile)
    image = canvas(size, size)
    step = tile // 4
    places = [
        (y, x) for y in range(step, size - step // 2, step) for x in range(step, size - step // 2, step)
    ]
    for y, x in places:
        add_disc(image, y, x, min(7, step // 3))
    field = as_seen_by(package, finish(image))
    whole = count_array(field, package, tile=8192)
    assert whole.row.values["count"] == len(places)
    same_objects(whole, count_array(field, package, tile=tile))


@pytest.mark.parametrize("blocked", [False, True])
def test_objects_larger_than_overlap_tile_and_block_stay_whole(blocked: bool) -> None:
    image = canvas(700, 700)
    for y, x, radius in ((300, 300, 150), (620, 90, 40), (90, 600, 45), (620, 620, 12)):
        add_disc(image, y, x, radius)
    field = finish(image)
    limits: dict[str, object] = {"whole_limit": 65_536, "block": 256} if blocked else {}
    whole = count_array(field, tile=8192)
    assert whole.row.values["count"] == 4
    same_objects(whole, count_array(field, tile=64, **limits))


@pytest.mark.slow
@given(
    seed=st.integers(0, 10_000),
    objects=st.integers(0, 60),
    height=st.integers(70, 320),
    width=st.integers(70, 320),
)
@settings(max_examples=often(200), deadline=None)
def test_tiles_and_blocks_give_the_objects_of_the_uncut_field(
    seed: int, objects: int, height: int, width: int
) -> None:
    rng = np.random.default_rng(seed)
    image = canvas(height, width, seed)
    for _ in range(objects):
        add_disc(
            image, rng.uniform(0, height), rng.uniform(0, width), rng.uniform(2, 20), rng.uniform(600, 3000)
        )
    field = finish(image)
    whole = count_array(field, tile=8192)
    same_objects(whole, count_array(field, tile=64))
    same_objects(whole, count_array(field, tile=96, whole_limit=65_536, block=256))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(often(12)))
def test_the_trained_network_gives_the_same_objects_tiled(seed: int) -> None:
    if "nuclei" not in PACKAGES:
        pytest.skip("no trained package is shipped in this checkout")
    rng = np.random.default_rng(seed)
    tile = small_tile("nuclei")
    image = canvas(2 * tile + 37, 2 * tile - 51, seed)
    for _ in range(80):
        add_disc(image, rng.uniform(0, image.shape[0]), rng.uniform(0, image.shape[1]), rng.uniform(5, 16))
    field = finish(image)
    diameter = (20, 13, 33)[seed % 3]
    whole = count_array(field, "nuclei", tile=8192, diameter=diameter)
    assert whole.row.values["count"]
    wider = tile + 2 * loaded("nuclei").package.stride
    same_objects(whole, count_array(field, "nuclei", tile=wider, diameter=diameter))
    blocked = count_array(field, "nuclei", tile=8192, diameter=diameter, whole_limit=65_536, block=256)
    if Doubt.TWO_SIZES in whole.row.warnings:
        # Discs in a heap are one large object: blocks have no second look, and say so.
        assert Doubt.TOO_LARGE in blocked.row.warnings
    else:
        same_objects(whole, blocked)


def test_three_tile_sizes_give_one_count() -> None:
    rng = np.random.default_rng(5)
    image = canvas(500, 640, 5)
    for _ in range(120):
        add_disc(image, rng.uniform(0, 500), rng.uniform(0, 640), rng.uniform(4, 11))
    field = finish(image)
    assert len({count_array(field, tile=tile).row.values["count"] for tile in (64, 160, 1024)}) == 1
