"""Objects drawn to where a map crosses a level, at the original pixels, in blocks as in the whole field."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from cellcount_core.objects.blocks import separate_blocks
from cellcount_core.objects.labels import ObjectPixels, number_in_raster_order, paste, renumber
from cellcount_core.objects.measure import join_tables, measure
from cellcount_core.objects.outline import (
    MARGIN,
    GrownSeparator,
    Outline,
    bounded_by_light,
    grown,
    labels_to_original,
    objects_to_original,
    window_to_original,
)
from cellcount_core.objects.separators import build_separator

from .scenes import draw, maps_of, random_discs

SCALES = [(1.0, 1.0), (2.37, 2.4), (0.71, 0.69), (1.31, 0.9)]


def original_shape(shape: tuple[int, ...], scale: tuple[float, float]) -> tuple[int, int]:
    return round(shape[0] * scale[0]), round(shape[1] * scale[1])


@pytest.mark.parametrize("offset", [0, 70_000])
def test_objects_grow_into_the_background_and_not_into_each_other(offset: int) -> None:
    rng = np.random.default_rng(offset)
    labels = number_in_raster_order(
        ndimage.label(draw((80, 90), random_discs(rng, (80, 90), 30)))[0].astype(np.int32)
    )
    labels[labels > 0] += offset
    ring = ndimage.grey_dilation(labels, size=2 * MARGIN + 1, mode="constant")
    expected = np.where(labels > 0, labels, ring)
    found = grown(labels)
    np.testing.assert_array_equal(found, expected)
    assert (found > 0).sum() > (labels > 0).sum() > 0


def inside(
    outline: Outline, start: tuple[int, int], size: tuple[int, int], shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """Every pixel of a window."""
    return outline.inside(np.arange(size[0] * size[1]), size[1], start, shape).reshape(size)


@pytest.mark.parametrize("scale", SCALES)
def test_a_map_is_read_linearly_between_its_pixels(scale: tuple[float, float]) -> None:
    values = np.random.default_rng(3).uniform(0, 1, (41, 57)).astype(np.float32)
    shape = original_shape(values.shape, scale)
    places = [(np.arange(full) + 0.5) * n / full - 0.5 for n, full in zip(values.shape, shape, strict=True)]
    read = ndimage.map_coordinates(values, np.meshgrid(*places, indexing="ij"), order=1, mode="nearest")
    found = inside(Outline(values, (0, 0), (41, 57), 0.5), (0, 0), shape, shape)
    clear = np.abs(read - 0.5) > 1e-5
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(found[clear], (read > 0.5)[clear])


@pytest.mark.parametrize("scale", SCALES)
def test_a_window_of_the_map_is_read_as_it_is_in_the_whole(scale: tuple[float, float]) -> None:
    rng = np.random.default_rng(4)
    values = rng.uniform(0, 1, (60, 70)).astype(np.float32)
    shape = original_shape(values.shape, scale)
    whole = inside(Outline(values, (0, 0), (60, 70), 0.5), (0, 0), shape, shape)
    for _ in range(20):
        y, x = int(rng.integers(2, 30)), int(rng.integers(2, 40))
        part = Outline(np.ascontiguousarray(values[y : y + 25, x : x + 22]), (y, x), (60, 70), 0.5)
        # The original pixels that the window shows, less those that are read beside it.
        top, left = int(np.ceil((y + 1) * scale[0])), int(np.ceil((x + 1) * scale[1]))
        size = (int((y + 23) * scale[0]) - top, int((x + 20) * scale[1]) - left)
        found = inside(part, (top, left), size, shape)
        np.testing.assert_array_equal(found, whole[top : top + size[0], left : left + size[1]])


def test_a_disc_seen_small_is_drawn_nearer_to_its_true_outline() -> None:
    side, radius = 200, 47.3
    yy, xx = np.mgrid[:side, :side]
    true = np.hypot(yy - 98.7, xx - 103.1) < radius
    small = cv2.resize(true.astype(np.float32), (side * 2 // 5, side * 2 // 5), interpolation=cv2.INTER_AREA)
    # Found where the network is certain of it, as objects are.
    labels = (small > 0.7).astype(np.int32)

    def iou(found: NDArray[np.int32]) -> float:
        return float((true & (found > 0)).sum() / (true | (found > 0)).sum())

    drawn = objects_to_original(labels, small, 0.5, (side, side)).painted()
    assert iou(drawn) > 0.985
    assert iou(drawn) > iou(labels_to_original(labels, (side, side))) + 0.02


@pytest.mark.parametrize("shape", [(30, 30), (75, 75), (8, 8)])
def test_an_object_that_lies_nowhere_inside_is_not_lost(shape: tuple[int, int]) -> None:
    labels = np.zeros((30, 30), np.int32)
    labels[4:10, 4:10], labels[20:24, 18:25] = 1, 2
    faint = np.where(labels == 1, 0.9, 0.2).astype(np.float32)
    drawn = objects_to_original(labels, faint, 0.5, shape).painted()
    assert np.unique(drawn).tolist() == [0, 1, 2]
    assert drawn[round(22 * shape[0] / 30), round(21 * shape[1] / 30)] == 2


@pytest.mark.parametrize("scale", SCALES)
def test_objects_are_drawn_in_blocks_as_in_the_whole_field(scale: tuple[float, float]) -> None:
    separator = build_separator(
        {"kind": "cores", "foreground": 0.6, "outline": 0.3, "min_area": 30, "edge_area": 6}
    )
    objects = 0
    for seed in range(2):
        rng = np.random.default_rng(seed)
        shape = (int(rng.integers(420, 520)), int(rng.integers(420, 520)))
        maps = maps_of(draw(shape, random_discs(rng, shape, 128)), rng)
        maps[..., 0] = cv2.GaussianBlur(maps[..., 0], (0, 0), 1.5)
        params = separator.fit([maps])
        original = original_shape(shape, scale)
        whole = objects_to_original(separator.separate(maps, params), maps[..., 0], 0.3, original).painted()
        np.testing.assert_array_equal(_drawn_in_blocks(maps, original), whole, err_msg=f"seed {seed}")
        objects += int(whole.max())
    assert objects > 130


def _drawn_in_blocks(maps: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.integer]:
    separator = GrownSeparator(
        build_separator({"kind": "cores", "foreground": 0.6, "outline": 0.3, "min_area": 30, "edge_area": 6})
    )
    model_shape = (maps.shape[0], maps.shape[1])
    canvas = np.zeros(shape, np.uint32)
    tables = [measure(np.zeros((0, 0), np.int32), {})]
    before, windows = 0, 0
    blocks = separate_blocks(
        model_shape, lambda y0, y1, x0, x1: maps[y0:y1, x0:x1], separator, separator.fit([maps]), block=128, halo=70
    )  # fmt: skip
    for found in blocks:
        if not found.count:
            continue
        around = MARGIN + 1
        y0, x0 = (max(0, place - around) for place in found.origin)
        y1, x1 = (found.origin[axis] + found.labels.shape[axis] + around for axis in (0, 1))
        outline = Outline(np.ascontiguousarray(maps[y0:y1, x0:x1, 0]), (y0, x0), model_shape, 0.3)
        objects, origin = window_to_original(found.labels, found.origin, model_shape, shape, outline)
        labels = objects.painted()
        tables.append(measure(labels, {}, origin=origin, field_shape=shape))
        paste(canvas, labels, origin, before)
        before += found.count
        windows += 1
    assert windows > 8
    return renumber(canvas, join_tables(tables)[1])


@pytest.mark.parametrize("sign", [1, -1])
def test_an_object_ends_where_it_has_two_fifths_of_its_light(sign: int) -> None:
    yy, xx = np.mgrid[:60, :80]
    # One has a hot pixel, one is brighter, and one has a dark middle.
    centres, heights = [(20, 20), (30, 60), (40, 33)], (800, 2_000, 800)
    discs = [1 / (1 + np.exp((np.hypot(yy - y, xx - x) - 6) / 0.9)) for y, x in centres]
    light = np.max([height * disc for height, disc in zip(heights, discs, strict=True)], axis=0)
    plane = (5_000 + sign * light).astype(np.uint16)
    plane[20, 20] = 65_535 if sign > 0 else 0
    plane[39:41, 32:34] = 5_000
    drawn = np.zeros((60, 80), np.int32)
    for number, disc in enumerate(discs, 1):
        drawn[disc > 0.08] = number
    found = bounded_by_light(ObjectPixels.of(drawn), plane, 5_000, sign * 800.0).painted()
    for number, disc in enumerate(discs, 1):
        expected = (disc > 0.4).sum()
        assert abs((found == number).sum() - expected) <= 0.08 * expected
        assert ndimage.label(found == number)[1] == 1
    assert found[40, 33] == 3
    nothing = ObjectPixels.of(np.zeros((4, 5), np.int32))
    assert not bounded_by_light(nothing, plane[:4, :5], 5_000, 800).painted().any()
    one = np.zeros((3, 3), np.int32)
    one[1, 1] = 1
    unlit = bounded_by_light(ObjectPixels.of(one), np.zeros((3, 3), np.uint8), 10, 50)
    np.testing.assert_array_equal(unlit.painted(), one)
