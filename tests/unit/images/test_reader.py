"""Objects read by ranges: the same pixels as from the whole object, from a fraction of its bytes, and never of two versions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from cellcount_core.config import RunConfig
from cellcount_core.domain.errors import FieldFault, Reason, StorageFault
from cellcount_core.domain.fields import FieldKey, PlannedField, Selection, Source
from cellcount_core.images.decode import open_image
from cellcount_core.images.reader import WHOLE_LIMIT, Ranged, coalesced
from cellcount_core.pipeline.files import read_fields
from cellcount_core.pipeline.pixels import load_pixels
from cellcount_core.stores.base import Piece
from cellcount_core.stores.local import LocalStore
from cellcount_core.stores.wrapped import CountingStore

LIMIT = 1 << 26


def noise(*shape: int) -> NDArray[np.uint16]:
    return np.random.default_rng(3).integers(0, 4000, shape).astype(np.uint16)


def store(folder: Path) -> CountingStore:
    return CountingStore(LocalStore(str(folder)))


def ranged(folder: Path, key: str = "image.tif") -> Ranged:
    return Ranged(store(folder), key, (folder / key).stat().st_size)


WRITERS: dict[str, Callable[[Path], None]] = {
    "one page": lambda path: tifffile.imwrite(path, noise(300, 400)),
    "strips": lambda path: tifffile.imwrite(path, noise(300, 400), rowsperstrip=7, compression="zlib"),
    "tiles": lambda path: tifffile.imwrite(path, noise(300, 400), tile=(64, 64), compression="zstd"),
    "JPEG": lambda path: tifffile.imwrite(path, (noise(300, 400) // 16).astype("u1"), compression="jpeg"),
    "BigTIFF": lambda path: tifffile.imwrite(path, noise(300, 400), bigtiff=True, byteorder=">"),
    "ImageJ": lambda path: tifffile.imwrite(path, noise(3, 2, 90, 100), imagej=True, metadata={"axes": "ZCYX"}),
    "OME": lambda path: tifffile.imwrite(
        path, noise(2, 3, 90, 100), ome=True, compression="lzw",
        metadata={"axes": "CZYX", "Channel": {"Name": ["DAPI", "GFP"]}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_tiff_read_by_ranges_has_the_pixels_of_the_whole(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    write(tmp_path / "image.tif")
    whole = open_image((tmp_path / "image.tif").read_bytes(), "image.tif", max_pixels=LIMIT)
    parts = open_image(ranged(tmp_path), "image.tif", max_pixels=LIMIT)
    assert (parts.channels, parts.planes, parts.shape) == (whole.channels, whole.planes, whole.shape)
    for channel in whole.channels:
        for plane in range(whole.planes):
            assert np.array_equal(parts.read(channel, plane), whole.read(channel, plane))


def test_an_array_is_filled_from_a_file_read_by_ranges(tmp_path: Path) -> None:
    image = noise(30, 40)
    image.tofile(tmp_path / "image.tif")
    read = np.zeros((30, 40), np.uint16)
    assert ranged(tmp_path).stream().readinto(read) == image.nbytes
    assert np.array_equal(read, image)


def test_what_is_no_tiff_is_read_whole(tmp_path: Path) -> None:
    np.save(tmp_path / "stack.npy", noise(64, 80))
    image = open_image(ranged(tmp_path, "stack.npy"), "stack.npy", max_pixels=LIMIT)
    assert np.array_equal(image.read("", 0), noise(64, 80))


def test_the_strips_of_a_page_are_asked_for_together(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "image.tif", noise(600, 400), rowsperstrip=1, compression="zlib")
    counting = store(tmp_path)
    reader = Ranged(counting, "image.tif", (tmp_path / "image.tif").stat().st_size)
    image = open_image(reader, "image.tif", max_pixels=LIMIT)
    before = counting.counts.ranges
    image.read("", 0)
    assert counting.counts.ranges - before == 1


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one OME-TIFF of 4 channels and 5 planes, of more bytes than are read whole."""
    folder = tmp_path_factory.mktemp("large")
    tifffile.imwrite(
        folder / "image.tif", noise(4, 5, 1400, 1400), ome=True,
        metadata={"axes": "CZYX", "Channel": {"Name": ["DAPI", "GFP", "RFP", "Cy5"]}},
    )  # fmt: skip
    assert (folder / "image.tif").stat().st_size > WHOLE_LIMIT
    return folder


def planned(folder: Path, size: int | None = None) -> PlannedField:
    there = (folder / "image.tif").stat().st_size
    source = Source("", 0, "image.tif", -1, there if size is None else size, "tag")
    return PlannedField(FieldKey("plate", "A01", 1, 1), (source,))


@pytest.mark.slow
def test_of_a_large_file_only_the_counted_pages_are_read(large: Path) -> None:
    counting = store(large)
    run = RunConfig(channels={"nuclei": "GFP"}, z="first")
    wanted = (Selection("GFP", "GFP"),)
    [(field, files)] = read_fields(counting, [planned(large)], ahead=4, run=run)
    pixels = load_pixels(field, files, wanted, (), run)
    assert np.array_equal(pixels.planes["GFP"], noise(4, 5, 1400, 1400)[1, 0])
    assert counting.counts.gets == 0
    page = 1400 * 1400 * 2
    assert page <= files["image.tif"].bytes_read < page + (1 << 20)
    assert files["image.tif"].size == WHOLE_LIMIT


def test_small_files_come_whole_in_one_request_each(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "image.tif", noise(4, 300, 400), photometric="minisblack")
    counting = store(tmp_path)
    [(_, files)] = read_fields(counting, [planned(tmp_path)], ahead=4, run=RunConfig())
    files["image.tif"].image()
    assert (counting.counts.gets, counting.counts.ranges) == (1, 0)


@pytest.mark.slow
def test_a_large_file_of_another_size_than_planned_is_changed(large: Path) -> None:
    size = (large / "image.tif").stat().st_size
    [(_, files)] = read_fields(store(large), [planned(large, size + 8)], ahead=1, run=RunConfig())
    with pytest.raises(FieldFault) as caught:
        files["image.tif"].image()
    assert caught.value.reason is Reason.CHANGED
    assert f"had {size + 8} bytes when the run was planned and has {size} now" in caught.value.detail


def test_a_file_replaced_between_two_ranges_is_changed_and_never_mixed(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, noise(2, 300, 400))
    image = open_image(ranged(tmp_path), "image.tif", max_pixels=LIMIT)
    tifffile.imwrite(tmp_path / "other.tif", noise(2, 300, 400) + 1)
    (tmp_path / "other.tif").replace(path)
    with pytest.raises(FieldFault) as caught:
        image.read("0", 0)
    assert (caught.value.reason, caught.value.key) == (Reason.CHANGED, "image.tif")
    path.unlink()
    with pytest.raises(FieldFault) as caught:
        open_image(Ranged(store(tmp_path), "image.tif", 1000), "image.tif", max_pixels=LIMIT)
    assert caught.value.reason is Reason.ABSENT


class Failing(LocalStore):
    """A disk that can be read up to its first mebibyte."""

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]], *, ahead: int) -> Iterator[Piece]:
        if any(stop > 1 << 20 for _, stop in ranges):
            raise StorageFault("the disk is gone")
        return super().get_ranges(key, ranges, ahead=ahead)


def test_a_store_that_fails_while_a_page_is_decoded_is_no_damaged_file(large: Path) -> None:
    reader = Ranged(Failing(str(large)), "image.tif", (large / "image.tif").stat().st_size)
    with pytest.raises(StorageFault, match="disk is gone"):
        open_image(reader, "image.tif", max_pixels=LIMIT).read("Cy5", 4)


def test_neighbouring_spans_become_one() -> None:
    assert coalesced([(9, 12), (0, 4), (4, 8)], gap=2) == [(0, 12)]
    assert coalesced([(0, 4), (100, 200)], gap=10) == [(0, 4), (100, 200)]
    assert coalesced([(0, 50), (10, 20)]) == [(0, 50)]
