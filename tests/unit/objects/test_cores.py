"""Separation of touching nuclei by cores."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellcount_core.domain.errors import ModelFault
from cellcount_core.objects.cores import CoreParams
from cellcount_core.objects.separators import build_separator
from tests.often import often

from .plain_cores import separate_plainly

Disc = tuple[int, int, int]


def separate(maps: np.ndarray, params: dict[str, object]) -> np.ndarray:
    """The label image that a package with these parameters gives."""
    separator = build_separator({"kind": "cores", **params})
    return separator.separate(maps, separator.fit([]))


def maps_of(shape: tuple[int, int], discs: list[Disc]) -> np.ndarray:
    """Ideal maps of discs: the nearest disc owns a pixel, its distance falls from 1 in the middle to 0 at the rim."""
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    distance = np.zeros(shape, np.float32)
    for y, x, radius in discs:
        height = 1 - np.hypot(yy - y, xx - x) / (radius + 0.5)
        distance = np.maximum(distance, height.astype(np.float32))
    return np.stack([(distance > 0).astype(np.float32), distance], axis=-1)


def count(discs: list[Disc], shape: tuple[int, int] = (96, 96), **params: float) -> int:
    return int(separate(maps_of(shape, discs), params).max())


def test_two_touching_discs_are_two_objects() -> None:
    assert count([(40, 30, 10), (40, 47, 10)]) == 2


def test_a_branch_that_parts_only_high_up_is_split() -> None:
    maps = maps_of((60, 90), [(30, 30, 14), (30, 50, 14)])
    maps[..., 1] = np.maximum(maps[..., 1], np.where(maps[..., 0] > 0, 0.45, 0))
    assert separate(maps, {"core": 0.3}).max() == 2


def test_ripples_lower_than_the_prominence_split_nothing() -> None:
    maps = maps_of((60, 60), [(30, 30, 14)])
    maps[30, 26:35, 1] = [0.95, 0.93, 0.9, 0.88, 0.9, 0.93, 0.95, 0.96, 0.94]
    assert separate(maps, {}).max() == 1


def test_every_foreground_pixel_goes_to_the_nearest_core() -> None:
    discs = [(40, 30, 10), (40, 47, 10)]
    labels = separate(maps_of((96, 96), discs), {})
    assert (labels[:, :38][maps_of((96, 96), discs)[:, :38, 0] > 0] == 1).all()
    assert (labels[:, 40:][maps_of((96, 96), discs)[:, 40:, 0] > 0] == 2).all()


def test_a_dim_object_without_a_core_is_kept_and_one_without_a_peak_is_not() -> None:
    maps = maps_of((40, 80), [(20, 20, 8), (20, 60, 8)])
    maps[:, :40, 1] *= 0.38
    maps[:, 40:, 1] *= 0.2
    labels = separate(maps, {"core": 0.5, "peak": 0.3})
    assert labels.max() == 1
    assert labels[20, 20] == 1


def test_objects_below_the_smallest_area_are_dropped() -> None:
    discs = [(20, 20, 8), (50, 50, 1)]
    assert count(discs, min_area=12) == 1
    assert count(discs, min_area=1, core_area=1) == 2


def test_what_the_network_is_nowhere_sure_of_is_no_object() -> None:
    maps = maps_of((60, 80), [(20, 20, 8), (40, 60, 8)])
    maps[:40, :40, 0] *= 0.95
    top = float(maps[:40, :40, 0].max())
    assert separate(maps, {}).max() == separate(maps, {"certain": top}).max() == 2
    left = separate(maps, {"certain": float(np.nextafter(np.float32(top), np.float32(1)))})
    assert left.max() == 1
    assert left[40, 60] == 1
    assert not separate(maps, {"certain": 1.01}).any()


def test_a_small_part_at_the_edge_is_kept_where_the_network_is_sure_of_it() -> None:
    maps = maps_of((60, 80), [(-5, 20, 8), (59, 60, 2), (30, 82, 4), (30, 30, 2), (30, 60, 9)])
    areas = np.bincount(separate(maps, {"min_area": 0, "core_area": 1}).ravel())[1:].tolist()
    assert areas == [40, 293, 12, 21, 13]
    params = {"min_area": 50, "edge_area": 12, "core_area": 1}
    labels = separate(maps, params)
    assert np.bincount(labels.ravel())[1:].tolist() == [40, 293, 12, 13]
    assert separate(maps, {**params, "edge_area": 20}).max() == 2
    assert separate(maps, {**params, "edge_area": None}).max() == 1
    maps[:4, :40, 0] *= 0.9
    assert separate(maps, params).max() == 3
    assert separate(maps, {**params, "edge_peak": 0.89}).max() == 4


def test_a_core_across_a_gap_takes_no_pixel_of_another_piece() -> None:
    maps = np.zeros((40, 60, 2), np.float32)
    maps[5:35, 10:14] = (1.0, 0.2)
    maps[5:9, 10:14, 1] = 0.9
    maps[18:30, 16:30] = (1.0, 0.9)
    labels = separate(maps, {})
    assert labels.max() == 2
    assert (labels[5:35, 10:14] == labels[6, 12]).all()


def test_numbers_follow_the_raster_order_of_first_pixels() -> None:
    labels = separate(maps_of((96, 96), [(70, 10, 8), (20, 70, 8), (22, 20, 12)]), {})
    firsts = [int(np.flatnonzero(labels == number)[0]) for number in (1, 2, 3)]
    assert firsts == sorted(firsts)


def test_an_empty_map_has_no_objects() -> None:
    assert not separate(np.zeros((30, 40, 2), np.float32), {}).any()
    assert separate(np.zeros((0, 5, 2), np.float32), {}).shape == (0, 5)


def random_maps(seed: int) -> np.ndarray:
    """Maps (H, W, 3) of smooth noise: ragged pieces with holes, many branches, ties where values are rounded."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 110, 2)
    noise = cv2.GaussianBlur(
        rng.normal(size=(height, width, 3)).astype(np.float32), (0, 0), rng.choice([0.6, 1.0, 2.0, 4.0])
    ).reshape(height, width, 3)
    maps = np.clip(0.5 + noise / (noise.std() + 1e-9) * rng.uniform(0.15, 0.4), 0, 1).astype(np.float32)
    if seed % 3 == 0:
        maps = np.round(maps * 8) / np.float32(8)
    if seed % 7 == 0:
        maps[..., 0] = 1
    return maps


@pytest.mark.parametrize("seed", range(60))
def test_the_labels_are_those_of_the_rules_written_down_plainly(seed: int) -> None:
    rng = np.random.default_rng(1000 + seed)
    params = CoreParams(
        foreground=rng.uniform(0.2, 0.7),
        core=rng.uniform(0.05, 0.9),
        prominence=rng.choice([0.0, rng.uniform(0.02, 0.3)], p=[0.2, 0.8]),
        core_area=float(rng.integers(0, 8)),
        peak=rng.uniform(0, 0.7),
        min_area=float(rng.integers(0, 30)),
        edge_area=None if seed % 4 == 0 else float(rng.integers(0, 20)),
        edge_peak=rng.uniform(0.6, 1.0),
    )
    maps = random_maps(seed)
    given = {name: getattr(params, name) for name in CoreParams.__slots__}
    np.testing.assert_array_equal(separate(maps, given), separate_plainly(maps, params))


def test_further_maps_and_the_layout_in_memory_change_nothing() -> None:
    maps = random_maps(4)
    expected = separate(maps, {})
    before = maps.copy()
    assert expected.max() > 5
    for same in (maps[..., :2], np.asfortranarray(maps), np.ascontiguousarray(maps[::-1])[::-1]):
        np.testing.assert_array_equal(separate(same, {}), expected)
    np.testing.assert_array_equal(maps, before, "the maps were written to")


def test_a_distance_that_only_reaches_a_level_is_not_above_it() -> None:
    maps = np.zeros((8, 8, 2), np.float32)
    maps[2:6, 2:6] = 1, 0.5 + 0.12
    assert separate(maps, {"core": 0.5, "prominence": 0}).max() == 1


def test_an_object_that_ends_a_row_and_one_that_begins_the_next_stay_two() -> None:
    maps = np.zeros((8, 12, 2), np.float32)
    maps[1:5, 8:] = maps[2:6, :4] = 1
    labels = separate(maps, {"min_area": 0})
    assert labels[1:5, 8:].min() == labels[1:5, 8:].max() == 1
    assert labels[2:6, :4].min() == labels[2:6, :4].max() == 2


@settings(max_examples=often(40), deadline=None)
@given(
    discs=st.lists(
        st.tuples(st.integers(12, 52), st.integers(12, 52), st.integers(3, 10)), min_size=1, max_size=8
    ),
    shift=st.tuples(st.integers(0, 40), st.integers(0, 40)),
)
def test_moving_the_objects_moves_the_labels_and_changes_nothing(
    discs: list[Disc], shift: tuple[int, int]
) -> None:
    still = separate(maps_of((64, 64), discs), {})
    moved = separate(maps_of((110, 110), [(y + shift[0], x + shift[1], r) for y, x, r in discs]), {})
    np.testing.assert_array_equal(moved[shift[0] : shift[0] + 64, shift[1] : shift[1] + 64], still)


@settings(max_examples=often(25), deadline=None)
@given(
    discs=st.lists(
        st.tuples(st.integers(12, 52), st.integers(12, 52), st.integers(3, 10)), min_size=1, max_size=6
    )
)
def test_what_lies_far_away_does_not_change_an_objects_shape(discs: list[Disc]) -> None:
    alone = separate(maps_of((64, 64), discs), {})
    crowd = [(y, x + 120, r) for y, x, r in discs] + [(20, 90, 6)]
    together = separate(maps_of((64, 200), discs + crowd), {})[:, :64]
    np.testing.assert_array_equal(together > 0, alone > 0)
    pairs = np.unique(alone.ravel().astype(np.int64) << 32 | together.ravel())
    assert pairs.size == len(np.unique(alone))


def test_time_grows_with_the_pixels_and_not_with_the_objects_squared() -> None:
    rng = np.random.default_rng(0)
    tile = maps_of((256, 256), [(int(y), int(x), 7) for y, x in rng.integers(8, 248, (60, 2))])
    large = np.tile(tile, (4, 4, 1))
    separate(tile, {})

    def seconds(maps: np.ndarray) -> float:
        times = []
        for _ in range(3):
            start = time.thread_time()
            separate(maps, {})
            times.append(time.thread_time() - start)
        return min(times)

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        assert seconds(large) < 16 * 4 * seconds(tile)
    finally:
        cv2.setNumThreads(threads)


def test_an_unknown_parameter_is_named_with_the_nearest_known_one() -> None:
    with pytest.raises(ModelFault, match="did you mean 'foreground'"):
        separate(np.zeros((4, 4, 2), np.float32), {"foregrond": 0.5})


@pytest.mark.parametrize("value", ["0.5", True, float("nan"), None])
def test_a_parameter_that_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(ModelFault, match="expected a number"):
        separate(np.zeros((4, 4, 2), np.float32), {"core": value})


def test_maps_without_a_distance_are_refused() -> None:
    with pytest.raises(ModelFault, match="foreground and distance"):
        separate(np.zeros((4, 4, 1), np.float32), {})


def test_without_parameters_the_defaults_stand() -> None:
    maps = maps_of((64, 64), [(30, 20, 9), (30, 35, 9)])
    given_all = {name: getattr(CoreParams(), name) for name in CoreParams.__slots__}
    np.testing.assert_array_equal(separate(maps, {}), separate(maps, given_all))
