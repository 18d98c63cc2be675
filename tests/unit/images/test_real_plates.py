"""The TIFFs of real instruments open with the size, type and calibration that the data set's README states."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellcount_core.images.decode import open_image
from tests.data_dir import data_dir, needs_data

# Folder, glob, (height, width), type, um per px, channel names: from the README of the folder.
STATED = [
    ("bbbc013_sbs", "*.tif", (640, 640), "uint8", None),
    ("imagexpress_projection_mix", "**/*[A-F0-9].tif", None, "uint16", 1.3668),
    ("imagexpress_htd_export", "**/*.TIF", (256, 256), "uint16", 1.3672),
    ("harmony_operetta_v5", "**/*.tiff", (1080, 1080), "uint16", None),
    ("phenix_jump_BR00117006", "**/*.tiff", (1080, 1080), "uint16", None),
    ("leica_matrix_screener", "**/*.ome.tif", (1024, 1024), "uint8", 0.2405),
    ("cellomics_arrayscan", "**/*.[tT][iI][fF]", (512, 512), "uint8", None),
    ("olympus_scanr", "*.tif", (1024, 1344), "uint16", None),
    ("cytation_nf1", "**/*DAPI_001.tif", (904, 1224), "uint16", None),
    ("cellvoyager_cv8000", "**/*C01.tif", (2000, 2000), "uint16", None),
    ("metadata_only", "tiff_oddities/*.tif", (640, 640), "uint8", None),
]


def files(folder: str, glob: str) -> list[Path]:
    root = data_dir()
    return sorted((root / "plates" / folder).glob(glob)) if root else []


@pytest.mark.slow
@needs_data("plates")
@pytest.mark.parametrize(
    ("folder", "glob", "shape", "dtype", "um_per_px"), STATED, ids=[row[0] for row in STATED]
)
def test_every_tiff_of_a_plate_is_grey_and_exact(
    folder: str, glob: str, shape: tuple[int, int] | None, dtype: str, um_per_px: float | None
) -> None:
    found = [path for path in files(folder, glob) if "thumb" not in path.name][:40]
    assert found
    for path in found:
        image = open_image(path.read_bytes(), path.name, max_pixels=10_000_000)
        pixels = image.read("", 0)
        assert (len(image.channels), image.planes, image.images) == (1, 1, 1)
        assert pixels.dtype.name == dtype
        assert image.shape == pixels.shape == (shape or (512, 512))
        assert image.um_per_px == (None if um_per_px is None else pytest.approx(um_per_px, rel=1e-4))
        stored = tifffile.imread(path, key=0)
        np.testing.assert_array_equal(pixels, stored & 0xFFF if folder == "olympus_scanr" else stored)


@needs_data("plates/imagexpress_htd_export")
def test_metaxpress_files_name_their_stain() -> None:
    names = {
        open_image(path.read_bytes(), path.name, max_pixels=10_000_000).channels[0]
        for path in files("imagexpress_htd_export", "**/*.TIF")
    }
    assert names == {"DAPI", "FITC", "Texas Red"}


@needs_data("plates/imagexpress_projection_mix")
def test_a_thumbnail_with_oblong_pixels_has_no_pixel_size() -> None:
    thumbs = files("imagexpress_projection_mix", "**/*thumb*.tif")
    assert thumbs
    for path in thumbs:
        image = open_image(path.read_bytes(), path.name, max_pixels=10_000_000)
        assert (image.shape, image.um_per_px) == ((64, 80), None)


@needs_data("plates/olympus_scanr")
def test_twelve_bits_of_scanr_are_given_without_the_offset_of_its_frame_grabber() -> None:
    (path,) = files("olympus_scanr", "*.tif")
    image = open_image(path.read_bytes(), path.name, max_pixels=10_000_000)
    pixels = image.read("", 0)
    assert (int(pixels.min()), int(pixels.max()), image.bit_max) == (32993 - 32768, 36863 - 32768, 4095)


@pytest.mark.parametrize(
    ("software", "stored", "read"),
    [
        ("National Instruments IMAQ", 0x8123, 0x0123),
        ("National Instruments IMAQ", 0x9123, 0x9123),
        ("National Instruments IMAQ", 0x0123, 0x0123),
        ("scanR 3.3.0", 0x8123, 0x8123),
    ],
    ids=["with an offset", "16 bits", "without an offset", "of other software"],
)
def test_only_twelve_bits_with_an_offset_of_that_software_are_changed(
    tmp_path: Path, software: str, stored: int, read: int
) -> None:
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, np.full((16, 16), stored, np.uint16), software=software, photometric="minisblack")
    pixels = open_image(path.read_bytes(), path.name, max_pixels=1_000).read("", 0)
    assert pixels.dtype == np.uint16
    assert set(np.unique(pixels)) == {read}


@needs_data("plates/cellomics_arrayscan/c01")
def test_a_cellomics_c01_is_unpacked_with_its_pixel_size() -> None:
    (path,) = files("cellomics_arrayscan", "c01/*.c01")
    image = open_image(path.read_bytes(), path.name, max_pixels=512 * 512)
    pixels = image.read("", 0)
    stored = np.frombuffer(zlib.decompress(path.read_bytes()[4:]), "<u2", 512 * 512, 52)
    assert (image.shape, image.channels, image.bit_max) == ((512, 512), ("",), 65535)
    assert image.um_per_px == pytest.approx(1.29, rel=1e-4)
    np.testing.assert_array_equal(pixels, stored.reshape(512, 512))
    assert (int(pixels.min()), int(pixels.max())) == (526, 1788)


@needs_data("plates/phenix_jump_BR00117006")
def test_the_outline_png_of_a_plate_is_grey_black_and_white() -> None:
    (path,) = files("phenix_jump_BR00117006", "**/*.png")
    image = open_image(path.read_bytes(), path.name, max_pixels=10_000_000)
    pixels = image.read("", 0)
    assert image.shape == (1080, 1080)
    assert set(np.unique(pixels)) == {0, 255}
