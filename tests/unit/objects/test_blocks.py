"""A field separated in blocks holds the objects of the whole field, one by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from cellcount_core.objects.blocks import OBJECT_CUT_BY_BLOCK, block_grid, separate_blocks
from cellcount_core.objects.labels import paste, renumber
from cellcount_core.objects.measure import join_tables, measure
from cellcount_core.objects.separators import FieldParams, Separator, build_separator
from tests.often import often

from .scenes import draw, maps_of, random_discs


@dataclass(frozen=True)
class Joined:
    """A field joined from its blocks, and the share of windows that showed less than the whole field."""

    labels: NDArray[np.integer]
    count: int
    warnings: set[str]
    cut_share: float


def _blocked(
    maps: NDArray[np.float32], separator: Separator, params: FieldParams, block: int, halo: int
) -> Joined:
    cut: list[bool] = []

    def window(y0: int, y1: int, x0: int, x1: int) -> NDArray[np.float32]:
        cut.append((y1 - y0) * (x1 - x0) < shape[0] * shape[1])
        return maps[y0:y1, x0:x1]

    shape = maps.shape[:2]
    canvas = np.zeros(shape, np.uint32)
    tables = [measure(np.zeros((0, 0), np.int32), {})]
    warnings: set[str] = set()
    before = 0
    for found in separate_blocks(shape, window, separator, params, block=block, halo=halo):
        tables.append(measure(found.labels, {}, origin=found.origin, field_shape=shape))
        paste(canvas, found.labels, found.origin, before)
        before += found.count
        warnings |= set(found.warnings)
    _, lookup = join_tables(tables)
    return Joined(renumber(canvas, lookup), before, warnings, float(np.mean(cut)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "fields", "sizes", "block", "halo"),
    [
        ({"kind": "components"}, 200, (130, 220), 64, 24),
        ({"kind": "watershed", "max_radius": 8}, 200, (90, 130), 45, 20),
        ({"kind": "cores"}, 4, (500, 600), 128, 70),
    ],
    ids=["components", "watershed", "cores"],
)
def test_blocks_and_the_whole_field_give_the_same_label_image(
    spec: Mapping[str, object], fields: int, sizes: tuple[int, int], block: int, halo: int
) -> None:
    separator = build_separator(spec)
    cut_shares = []
    for seed in range(often(fields)):
        rng = np.random.default_rng(seed)
        shape = (int(rng.integers(*sizes)), int(rng.integers(*sizes)))
        maps = maps_of(draw(shape, random_discs(rng, shape, block)), rng)
        params = separator.fit([maps])
        whole = separator.separate(maps, params)
        joined = _blocked(maps, separator, params, block, halo)
        assert np.array_equal(joined.labels, whole), f"seed {seed}"
        assert not joined.warnings
        cut_shares.append(joined.cut_share)
    assert np.mean(cut_shares) > 0.7, "most windows showed the whole field: nothing was tested"


def test_a_disc_on_each_seam_and_corner_is_counted_once() -> None:
    discs = [(y, x, 6) for y in range(32, 256, 32) for x in range(32, 256, 32)]
    maps = maps_of(draw((256, 256), discs), np.random.default_rng(0))
    separator = build_separator({"kind": "components"})
    joined = _blocked(maps, separator, separator.fit([maps]), 64, 16)
    assert joined.count == len(discs) == 49


def test_a_disc_larger_than_the_halo_widens_the_window_and_is_counted_once() -> None:
    maps = maps_of(draw((300, 300), [(140, 150, 80)]), np.random.default_rng(0))
    separator = build_separator({"kind": "components"})
    joined = _blocked(maps, separator, separator.fit([maps]), 64, 8 * 4)
    assert joined.count == 1
    assert joined.warnings == set()


def test_an_object_larger_than_every_window_carries_a_warning() -> None:
    maps = maps_of(draw((900, 900), [(450, 450, 430)]), np.random.default_rng(0))
    separator = build_separator({"kind": "components"})
    joined = _blocked(maps, separator, separator.fit([maps]), 64, 4)
    assert joined.warnings == {OBJECT_CUT_BY_BLOCK}


def test_an_empty_field_has_blocks_without_objects() -> None:
    maps = np.zeros((100, 130, 1), np.float32)
    separator = build_separator({"kind": "watershed"})
    joined = _blocked(maps, separator, separator.fit([maps]), 64, 16)
    assert joined.count == 0
    assert not joined.labels.any()


@pytest.mark.parametrize("shape", [(1, 1), (64, 64), (65, 64), (100, 300)])
def test_blocks_cover_every_pixel_once(shape: tuple[int, int]) -> None:
    seen = np.zeros(shape, int)
    for window in block_grid(shape, 64):
        seen[window.y0 : window.y1, window.x0 : window.x1] += 1
    assert (seen == 1).all()
