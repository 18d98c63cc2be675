"""A device without memory for a tile is given smaller ones, and every number stays what it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from cellcount_core.images.normalise import Normalisation
from cellcount_core.models.engines import Engine, load_engine, no_room, resolve_engine
from cellcount_core.models.package import Package, find_package
from cellcount_core.pipeline.device import Device, DeviceFull
from cellcount_core.pipeline.field import FieldResult
from cellcount_core.pipeline.maps import FieldMaps, canvas_maps
from tests.fields import count_array

Tiles = NDArray[np.float32]
WHOLE, BLOCKS = {"whole_limit": 25_000_000}, {"whole_limit": 65_536, "block": 256}


class Same:
    """An engine whose maps are the tiles themselves."""

    name = "same"
    batch = 1

    def run(self, tiles: Tiles) -> Tiles:
        return tiles


class Small:
    """An engine on a device that has no memory for tiles larger than `most` px a side, from the call `since` on."""

    def __init__(self, engine: Engine, most: int, since: int = 1) -> None:
        self._engine = engine
        self.name = engine.name
        self.batch = engine.batch
        self.most = most
        self._since = since
        self.given: list[int] = []

    def run(self, tiles: Tiles) -> Tiles:
        self.given.append(max(tiles.shape[1:3]))
        if self.given[-1] > self.most and len(self.given) >= self._since:
            raise no_room(tiles.shape)
        return self._engine.run(tiles)


def engine_of(package: Package) -> Engine:
    return load_engine(package, resolve_engine(package, "auto", gpus=0), threads=1)


@contextmanager
def device_of(engine: Engine) -> Iterator[Device]:
    device = Device(engine)
    try:
        yield device
    finally:
        device.close()


def cells(height: int, width: int) -> NDArray[np.uint16]:
    """Discs of some 20 px in noise."""
    rng = np.random.default_rng(7)
    image = rng.normal(400.0, 15.0, (height, width))
    yy, xx = np.mgrid[:height, :width]
    for y, x in zip(rng.uniform(0, height, 60), rng.uniform(0, width, 60), strict=True):
        distance = np.hypot(yy - y, xx - x)
        np.maximum(image, 400.0 + 2000.0 * np.clip(rng.uniform(7, 12) - distance, 0, 1), out=image)
    return image.astype(np.uint16)


def same_field(one: FieldResult, other: FieldResult) -> None:
    assert one.row == other.row
    assert one.objects is not None
    assert other.objects is not None
    assert one.objects.columns.keys() == other.objects.columns.keys()
    for name, values in one.objects.columns.items():
        np.testing.assert_array_equal(np.asarray(other.objects.columns[name]), np.asarray(values), name)


@pytest.mark.slow
@pytest.mark.parametrize(("package", "held"), [("threshold", 40), ("nuclei", 300)])
@pytest.mark.parametrize("limits", [WHOLE, BLOCKS], ids=["whole", "window by window"])
def test_a_field_counted_in_smaller_tiles_is_the_field_counted_in_large_ones_bit_for_bit(
    package: str, held: int, limits: dict[str, object]
) -> None:
    image = cells(500, 420)
    engine = engine_of(find_package(package))
    with device_of(engine) as large, device_of(small := Small(engine, held)) as tight:
        expected = count_array(image, package, device=large, tile=1280, **limits)
        found = count_array(image, package, device=tight, tile=1280, **limits)
    assert expected.row.values["count"]
    assert max(small.given) > held >= small.given[-1]
    same_field(expected, found)


@pytest.mark.slow
def test_the_size_of_objects_is_told_from_the_same_maps_where_the_device_holds_less_than_a_view() -> None:
    image = cells(400, 420)
    package = find_package("nuclei")
    engine = engine_of(package)
    with device_of(engine) as large, device_of(small := Small(engine, 300)) as tight:
        expected = count_array(image, "nuclei", device=large, diameter="auto")
        found = count_array(image, "nuclei", device=tight, diameter="auto")
        canvas = np.random.default_rng(0).normal(0.3, 0.3, (320, 272, 1)).astype(np.float32)
        maps = canvas_maps(canvas, package, tight)
    assert expected.row.values["diameter_objects"]
    assert max(small.given) > 300
    same_field(expected, found)
    np.testing.assert_array_equal(maps, engine.run(canvas[None])[0])


def test_a_device_is_asked_for_a_size_that_it_refused_by_the_first_field_only_and_says_so_once() -> None:
    image = cells(200, 200)
    with device_of(small := Small(engine_of(find_package("threshold")), 108)) as tight:
        count_array(image, device=tight)
        assert [side for side in small.given if side > 108] == [200]
        assert tight.take_notes() == (
            "a device has no memory for tiles of 200 px: its worker goes on with tiles of 108 px, which count the same and "
            "take longer",
        )
        small.given.clear()
        count_array(image, device=tight)
        assert max(small.given) <= 108
        assert tight.take_notes() == ()


def test_what_did_not_help_is_not_remembered() -> None:
    image = cells(200, 200)
    with device_of(small := Small(engine_of(find_package("threshold")), 0)) as tight:
        with pytest.raises(DeviceFull, match=r"tile of 17 x 17 px, the smallest .*tried from 1280 px down"):
            count_array(image, device=tight)
        sizes = [side for side, before in pairwise([*small.given, 0]) if side != before]
        assert sizes == sorted({*small.given}, reverse=True)
        assert (sizes[0], sizes[-1]) == (200, 17)
        small.most = 10_000
        small.given.clear()
        assert count_array(image, device=tight).row.values["count"]
        # What the failed field had sent ahead comes first.
        assert small.given[-1] == 200
        assert tight.take_notes() == ()


def test_fields_of_many_threads_share_what_the_device_was_found_to_hold() -> None:
    image = cells(200, 200)
    with device_of(Small(engine_of(find_package("threshold")), 60)) as tight:
        with ThreadPoolExecutor(6) as threads:
            counts = {
                result.row.values["count"]
                for result in threads.map(lambda _: count_array(image, device=tight), range(12))
            }
        assert counts == {count_array(image).row.values["count"]}
        assert tight.largest_tile(1280) <= 60
        assert len(tight.take_notes()) == 1


Field = Callable[[Device], FieldMaps]


@pytest.fixture(scope="module")
def numbered() -> tuple[NDArray[np.float32], Field]:
    """A plane of pixels that are all different, and its maps on a device whose engine gives the tiles themselves."""
    height, width = 210, 170
    plane = (np.arange(height * width, dtype=np.float32) / (height * width)).reshape(height, width)
    package, norm = find_package("threshold"), Normalisation(0.0, 1.0, 0.0)
    return plane, lambda device: FieldMaps([plane], [norm], package, device, 64)


@pytest.mark.parametrize("since", [1, 2, 5, 12, 10_000])
def test_the_pieces_of_a_field_have_each_pixel_once_wherever_the_device_gives_out(
    numbered: tuple[NDArray[np.float32], Field], since: int
) -> None:
    plane, maps_on = numbered
    with device_of(small := Small(Same(), 32, since)) as tight:
        pieces = list(maps_on(tight).cores())
    assert (len(small.given) > len(pieces)) == (since < 10_000)
    found = np.sort(np.concatenate([piece.ravel() for piece in pieces]))
    np.testing.assert_array_equal(found, np.sort(plane.ravel()))


@pytest.mark.parametrize("since", [1, 3, 6, 10, 10_000])
def test_windows_read_one_after_the_other_are_the_field_wherever_the_device_gives_out(
    numbered: tuple[NDArray[np.float32], Field], since: int
) -> None:
    plane, maps_on = numbered
    with device_of(Small(Same(), 32, since)) as tight:
        maps = maps_on(tight)
        for y in range(0, plane.shape[0], 50):
            for x in range(0, plane.shape[1], 50):
                # Each reaches over its neighbours, as the windows of blocks do.
                window = (max(0, y - 20), min(210, y + 70), max(0, x - 20), min(170, x + 70))
                y0, y1, x0, x1 = window
                np.testing.assert_array_equal(maps.window(*window)[..., 0], plane[y0:y1, x0:x1])
