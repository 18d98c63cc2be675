"""What the separators make of maps: objects where there is signal, none where there is not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from cellcount_core.domain.errors import ModelFault
from cellcount_core.images.normalise import apply, estimate
from cellcount_core.objects.separators import KINDS, FieldParams, WatershedSeparator, build_separator
from cellcount_core.objects.watershed import outline_distance, part_at_necks

from .scenes import draw, maps_of, random_discs


def _map_of(image: NDArray[np.float64]) -> NDArray[np.float32]:
    """Map (H, W, 1) of a raw image, as the `threshold` family makes it."""
    plane = np.clip(np.round(image), 0, 65535).astype(np.uint16)
    return cv2.GaussianBlur(apply(plane, estimate(plane)), (17, 17), 1.5)[..., None]


def _count(maps: NDArray[np.float32]) -> int:
    separator = build_separator({"kind": "watershed"})
    return int(separator.separate(maps, separator.fit([maps])).max())


def _background(seed: int = 0, shape: tuple[int, int] = (512, 512)) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(400, 12, shape)


@pytest.mark.parametrize("seed", range(5))
def test_noise_alone_holds_no_object(seed: int) -> None:
    assert _count(_map_of(_background(seed))) == 0


def test_a_constant_image_holds_no_object() -> None:
    assert _count(_map_of(np.full((256, 300), 700.0))) == 0


@pytest.mark.parametrize("rise", [300, 3000, 30000])
def test_a_gradient_holds_no_object(rise: int) -> None:
    ramp = np.linspace(0, rise, 512)[None, :]
    assert _count(_map_of(_background() + ramp)) == 0


@pytest.mark.parametrize("rise", [300, 3000])
def test_uneven_illumination_alone_holds_no_object(rise: int) -> None:
    yy, xx = np.mgrid[-1:1:512j, -1:1:512j]
    assert _count(_map_of(_background() + rise * (1 - (yy**2 + xx**2) / 2))) == 0


@pytest.mark.parametrize("brightness", [150, 1000, 20000])
def test_three_nuclei_in_a_large_field_are_found(brightness: int) -> None:
    image = _background(1, (1500, 1500))
    image += float(brightness) * draw(image.shape, [(300, 200, 9), (700, 1200, 8), (1200, 500, 10)])
    assert _count(_map_of(image)) == 3


def test_three_nuclei_on_a_gradient_are_found() -> None:
    image = _background(1) + np.linspace(0, 400, 512)[None, :]
    image += 3000.0 * draw(image.shape, [(100, 100, 9), (250, 300, 10), (400, 420, 8)])
    assert _count(_map_of(image)) == 3


def test_dim_nuclei_beside_a_very_bright_one_are_found() -> None:
    discs = [(y, x, 9) for y in range(60, 500, 60) for x in range(60, 500, 60)]
    image = _background(2) + 500.0 * draw((512, 512), discs) + 40000.0 * draw((512, 512), [(30, 30, 7)])
    assert _count(_map_of(image)) == len(discs) + 1


def test_the_threshold_does_not_depend_on_the_cut_into_tiles() -> None:
    rng = np.random.default_rng(0)
    maps = maps_of(draw((300, 400), random_discs(rng, (300, 400), 64)), rng)
    separator = WatershedSeparator()
    expected = separator.fit([maps])
    assert expected.threshold is not None
    for size in (1, 37, 128, 300):
        tiles = [maps[y : y + size, x : x + 64] for y in range(0, 300, size) for x in range(0, 400, 64)]
        assert separator.fit(reversed(tiles)) == expected


@pytest.mark.parametrize(("distance", "objects"), [(6, 1), (17, 2), (26, 2)])
def test_two_discs_are_parted_when_a_neck_shows(distance: int, objects: int) -> None:
    foreground = draw((60, 90), [(30, 25, 12), (30, 25 + distance, 12)])
    assert part_at_necks(foreground, 0.05, 64).max() == objects


def test_a_clump_of_a_hundred_touching_discs_is_parted_into_a_hundred() -> None:
    discs = [(15 + 18 * row, 15 + 18 * column, 10) for row in range(10) for column in range(10)]
    labels = part_at_necks(draw((200, 200), discs), 0.05, 64)
    owners = [int(labels[y, x]) for y, x, _ in discs]
    assert len(set(owners)) == 100
    assert 0 not in owners


def test_an_elongated_object_stays_one() -> None:
    for angle in range(0, 180, 7):
        image = np.zeros((120, 120), np.uint8)
        cv2.ellipse(image, (60, 60), (45, 12), angle, 0, 360, 1, -1)
        assert part_at_necks(image, 0.05, 64).max() == 1, angle


def test_a_neck_wider_than_the_largest_radius_is_not_parted() -> None:
    foreground = draw((200, 300), [(100, 90, 80), (100, 210, 80)])
    assert part_at_necks(foreground, 0.05, 80).max() == 2
    assert part_at_necks(foreground, 0.05, 30).max() == 1


def test_an_object_is_parted_in_the_same_way_whatever_lies_beside_it() -> None:
    clump = draw((80, 80), [(30, 30, 10), (30, 46, 9), (46, 36, 11)])
    alone = part_at_necks(clump, 0.05, 64)
    rng = np.random.default_rng(3)
    for _ in range(20):
        field = np.zeros((300, 300), np.uint8)
        y, x = (int(value) for value in rng.integers(0, 220, 2))
        field |= draw((300, 300), random_discs(rng, (300, 300), 64))
        field[max(0, y - 4) : y + 84, max(0, x - 4) : x + 84] = 0
        field[y : y + 80, x : x + 80] = clump
        there = part_at_necks(field, 0.05, 64)[y : y + 80, x : x + 80]
        pairs = {(int(a), int(b)) for a, b in zip(alone.ravel(), there.ravel(), strict=True)}
        assert len(pairs) == alone.max() + 1


def test_distance_is_exact_far_from_the_origin() -> None:
    piece = draw((60, 60), [(30, 30, 20)])
    wide = np.zeros((60, 20_000), np.uint8)
    wide[:, 19_000:19_060] = wide[:, :60] = piece
    distance = outline_distance(wide, 64)
    assert np.array_equal(distance[:, 19_000:19_060], distance[:, :60])


def test_components_above_the_threshold_are_counted_and_background_is_not() -> None:
    maps = np.zeros((20, 20, 1), np.float32)
    maps[2:5, 2:5], maps[5, 5], maps[10:12, 10:12] = 0.9, 0.9, 0.51
    separator = build_separator({"kind": "components"})
    labels = separator.separate(maps, separator.fit([maps]))
    assert labels.max() == 2, "diagonal neighbours belong together"
    assert labels[2, 2] == labels[5, 5] == 1
    assert labels.dtype == np.int32
    larger = build_separator({"kind": "components", "threshold": 0.5, "min_area": 5})
    assert larger.separate(maps, larger.fit([])).max() == 1


def test_small_objects_are_dropped_and_the_rest_numbered_without_gaps() -> None:
    foreground = draw((60, 60), [(10, 10, 1), (30, 20, 8), (40, 45, 8)])
    separator = build_separator({"kind": "watershed", "min_area": 20})
    maps = foreground.astype(np.float32)[..., None]
    labels = separator.separate(maps, FieldParams(0.5))
    assert np.unique(labels).tolist() == [0, 1, 2]
    assert labels[10, 10] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_built_by_name_and_takes_an_empty_field(kind: str) -> None:
    separator = build_separator({"kind": kind})
    maps = np.zeros((33, 47, 2), np.float32)
    labels = separator.separate(maps, separator.fit([maps]))
    assert labels.shape == (33, 47)
    assert labels.dtype == np.int32
    assert not labels.any()
    assert separator.reach >= 1


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "watersheds"}, "did you mean 'watershed'"),
        ({}, "no separator is called None"),
        ({"kind": "watershed", "depht": 0.1}, "did you mean 'depth'"),
        ({"kind": "components", "threshold": "0.5"}, "expected a number"),
        ({"kind": "components", "threshold": True}, "expected a number"),
        ({"kind": "components", "threshold": 1.5}, "from 0 to 1"),
        ({"kind": "components", "min_area": -1}, "0 px or more"),
        ({"kind": "watershed", "max_radius": 0}, "max_radius: expected 1 to 500"),
        ({"kind": "watershed", "floor": float("nan")}, "expected a number"),
        ({"kind": "cores", "cores": 0.5}, "did you mean 'core'"),
    ],
)
def test_a_fault_in_the_package_is_named(spec: dict[str, object], message: str) -> None:
    with pytest.raises(ModelFault, match=message):
        build_separator(spec)
