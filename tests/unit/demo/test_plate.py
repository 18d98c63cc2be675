"""The rendered plate: names, files, faults, truth."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellcount_core.demo.plate import (
    PLATE,
    UM_PER_PX,
    DemoPlate,
    FileFault,
    Treatment,
    read_truth,
    render_plate,
)
from cellcount_core.domain.errors import ConfigFault
from cellcount_core.domain.fields import Parsed
from cellcount_core.images.decode import open_image
from cellcount_core.layouts.imagexpress import ImageXpress

SIZE = (96, 120)
WELLS = 14


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> DemoPlate:
    return render_plate(tmp_path_factory.mktemp("demo"), 11, wells=WELLS, size=SIZE)


def images(plate: DemoPlate) -> dict[str, Path]:
    return {
        path.relative_to(plate.images).as_posix(): path for path in plate.images.rglob("*") if path.is_file()
    }


def digests(plate: DemoPlate) -> dict[str, str]:
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in images(plate).items()}


def test_every_name_gives_its_plate_well_site_and_channel_by_the_imagexpress_convention(
    plate: DemoPlate,
) -> None:
    parsed = [ImageXpress("PX").parse(name) for name in images(plate)]
    assert all(isinstance(each, Parsed) for each in parsed)
    found = {
        (each.field.plate, each.field.well, each.field.site, each.channel)
        for each in parsed
        if isinstance(each, Parsed)
    }
    planned = {(PLATE, each.well, each.site, channel) for each in plate.fields for channel in ("w1", "w2")}
    missing = {(PLATE, f.well, f.site, "w1") for f in plate.fields if f.file_fault is FileFault.MISSING}
    assert len(missing) == 1
    assert found == planned - missing


def test_a_plate_has_two_sites_a_well_and_fields_in_key_order(plate: DemoPlate) -> None:
    keys = [(each.plate, each.well, each.site) for each in plate.fields]
    assert len(keys) == 2 * WELLS
    assert keys == sorted(keys)


def test_images_are_16_bit_compressed_and_tell_their_pixel_size(plate: DemoPlate) -> None:
    path = next(path for name, path in images(plate).items() if name.endswith("A01_s1_w2.TIF"))
    with tifffile.TiffFile(path) as tiff:
        assert tiff.pages[0].compression == tifffile.COMPRESSION.LZW
        assert tiff.is_metaseries
    image = open_image(path.read_bytes(), path.name, max_pixels=1 << 20)
    assert image.shape == SIZE
    assert image.um_per_px == pytest.approx(UM_PER_PX)
    assert image.read(image.channels[0], 0).dtype == np.uint16


def test_one_file_of_the_counted_channel_is_cut_off_and_its_twin_of_the_other_channel_is_whole(
    plate: DemoPlate,
) -> None:
    (cut,) = [each for each in plate.fields if each.file_fault is FileFault.TRUNCATED]
    folder = plate.images / "TimePoint_1"
    damaged = folder / f"{PLATE}_{cut.well}_s{cut.site}_w1.TIF"
    with tifffile.TiffFile(damaged) as tiff:
        page = tiff.pages[0]
        assert page.dataoffsets[-1] + page.databytecounts[-1] > damaged.stat().st_size
    assert tifffile.imread(folder / f"{PLATE}_{cut.well}_s{cut.site}_w2.TIF").shape == SIZE


def test_the_truth_stands_beside_the_images_and_reads_back_as_it_was_written(plate: DemoPlate) -> None:
    assert not plate.truth_csv.is_relative_to(plate.images)
    assert read_truth(plate.truth_csv) == plate.fields


def test_empty_wells_hold_no_nuclei_and_all_others_do(plate: DemoPlate) -> None:
    empty = [each for each in plate.fields if each.treatment is Treatment.EMPTY]
    assert len(empty) == 2
    assert all((each.true_count == 0) == (each.treatment is Treatment.EMPTY) for each in plate.fields)


def test_cells_become_fewer_along_the_doses(plate: DemoPlate) -> None:
    cells = {each.well: each.true_count for each in plate.fields if each.treatment is not Treatment.EMPTY}
    low = [count for well, count in cells.items() if well in {"A01", "A02", "A12"}]
    high = [count for well, count in cells.items() if well in {"A10", "A11"}]
    assert min(low) > 2 * max(high)


def test_nuclei_are_bright_and_empty_images_are_not(plate: DemoPlate) -> None:
    undamaged = [each for each in plate.fields if each.site == 2 and each.file_fault is FileFault.NONE]
    full = next(each.well for each in undamaged if each.treatment is Treatment.DMSO)
    image = tifffile.imread(plate.images / "TimePoint_1" / f"{PLATE}_{full}_s2_w1.TIF")
    empty = next(each.well for each in undamaged if each.treatment is Treatment.EMPTY)
    nothing = tifffile.imread(plate.images / "TimePoint_1" / f"{PLATE}_{empty}_s2_w1.TIF")
    assert image.min() > 250, "the camera's offset"
    assert np.percentile(image, 98) - np.median(image) > 500
    assert np.percentile(nothing, 98) - np.median(nothing) < 150


def test_equal_seeds_give_equal_bytes_and_other_seeds_others(plate: DemoPlate, tmp_path: Path) -> None:
    again = render_plate(tmp_path / "again", 11, wells=WELLS, size=SIZE)
    other = render_plate(tmp_path / "other", 12, wells=WELLS, size=SIZE)
    assert digests(again) == digests(plate)
    assert again.fields == plate.fields
    assert set(digests(other).values()).isdisjoint(digests(plate).values())


def test_rendering_again_touches_no_file_and_removes_those_of_a_larger_plate(tmp_path: Path) -> None:
    first = render_plate(tmp_path, 5, wells=3, sites=1, size=(64, 64))
    stamps = {name: path.stat().st_mtime_ns for name, path in images(first).items()}
    again = render_plate(tmp_path, 5, wells=3, sites=1, size=(64, 64))
    assert {name: path.stat().st_mtime_ns for name, path in images(again).items()} == stamps
    smaller = render_plate(tmp_path, 5, wells=1, sites=1, size=(64, 64))
    assert set(images(smaller)) == {f"TimePoint_1/{PLATE}_A01_s1_w{channel}.TIF" for channel in (1, 2)}


@pytest.mark.parametrize("arguments", [{"wells": 0}, {"wells": 97}, {"sites": 0}, {"size": (32, 500)}])
def test_sizes_out_of_range_are_refused(arguments: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 to 96 wells"):
        render_plate(tmp_path, 1, **arguments)  # type: ignore[arg-type]


def test_a_file_that_holds_no_truth_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "truth.csv"
    path.write_text("plate,well,site,true_count,treatment,file_fault\nP,A01,1,many,dmso,none\n")
    with pytest.raises(ConfigFault, match=r"truth\.csv: line 2 .*many"):
        read_truth(path)
    with pytest.raises(ConfigFault, match=r"nowhere\.csv"):
        read_truth(tmp_path / "nowhere.csv")
