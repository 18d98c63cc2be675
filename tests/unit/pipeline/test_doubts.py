"""A field unlike what the model is made for is counted and says so; an ordinary one says nothing."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

import cellcount_core as cc
from tests.fields import count_array
from tests.plates import crowded, discs, nuclear_field

PACKAGES = ("threshold", "nuclei")


@pytest.mark.parametrize("package", PACKAGES)
def test_dark_objects_on_a_bright_background_are_warned_of(package: str) -> None:
    inverted = (40_000 - discs(8, 128, seed=1)).astype(np.uint16)
    assert "bright_background" in count_array(inverted, package).row.warnings


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("count", [0, 1, 12])
def test_ordinary_and_empty_fields_have_no_warning(package: str, count: int) -> None:
    field = (
        nuclear_field(20, count, seed=count, side=200)
        if package == "nuclei"
        else discs(count, 128, seed=count)
    )
    row = count_array(field, package).row
    assert (row.values["count"], row.warnings) == (count, ())


def test_a_field_unlike_the_training_images_is_told_and_has_no_interval() -> None:
    ordinary = count_array(nuclear_field(20, 12, seed=5, side=200), "nuclei").row
    assert ordinary.values["out_of_domain"] is not None
    assert ordinary.values["count_low"] is not None
    assert ordinary.values["count_high"] is not None
    assert ordinary.values["count_low"] < 12 < ordinary.values["count_high"]
    rng = np.random.default_rng(6)
    wild = rng.integers(0, 2, (25, 25)).repeat(8, 0).repeat(8, 1) * 3000 + rng.normal(300, 900, (200, 200))
    row = count_array(np.clip(wild, 0, 65535).astype(np.uint16), "nuclei").row
    assert row.values["out_of_domain"] is not None
    assert row.values["out_of_domain"] > ordinary.values["out_of_domain"]
    assert "out_of_domain" in row.warnings
    assert (row.values["count_low"], row.values["count_high"]) == (None, None)


def test_a_field_that_shows_things_of_which_none_is_found_says_so() -> None:
    # Long and thin, looked for at a size at which the network sees none; one alone may be a fibre in an empty field.
    y, x = np.mgrid[:360, :360]
    across = [np.hypot((y - 30 - 45 * number) / 5, (x - 180) / 80) for number in range(7)]
    shown = [2000 / (1 + np.exp((apart - 1) * 5)) for apart in across]
    noise = np.random.default_rng(0).normal(300, 12, y.shape)
    for number, told in ((7, True), (1, False)):
        field = (noise + np.max(shown[:number], axis=0)).astype(np.uint16)
        row = count_array(field, "nuclei", diameter=40.0).row
        assert (row.values["count"], "nothing_found" in row.warnings) == (0, told), number


def test_a_full_field_that_passes_for_noise_says_that_nothing_was_found() -> None:
    for seed in range(3):
        row = count_array(crowded(seed), "threshold").row
        assert (row.values["count"], "nothing_found" in row.warnings) == (0, True), seed


def test_a_field_of_many_things_of_which_hardly_any_is_found_says_so() -> None:
    # Small nuclei, and a large one, looked for at the large one's size, at which the network sees no small ones.
    small = nuclear_field(9, 40, seed=3, side=400).astype(np.float64)
    y, x = np.mgrid[:400, :400]
    field = np.maximum(small, 300 + 2000 / (1 + np.exp((np.hypot(y - 200, x - 200) - 45) / 3))).astype(
        np.uint16
    )
    row = count_array(field, "nuclei", diameter=90.0).row
    assert row.values["count"] == 1
    assert "few_found" in row.warnings
    found = count_array(small.astype(np.uint16), "nuclei", diameter=9.0).row
    assert (found.values["count"], "few_found" in found.warnings) == (40, False)


def test_noise_a_slope_and_blurred_noise_do_not_show_things() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 40, (300, 300))
    blurred = cv2.GaussianBlur(noise, (0, 0), 1.5) * 3
    slope = np.linspace(0, 900, 300)[None]
    for name, image in {"noise": noise, "blurred": blurred, "slope": noise + slope}.items():
        row = count_array((image + 400).clip(0).astype(np.uint16), "threshold").row
        assert "nothing_found" not in row.warnings, name


def test_an_empty_field_has_an_interval_from_zero_and_no_score() -> None:
    row = count_array(np.full((128, 128), 100, np.uint16), "nuclei").row
    assert (row.values["count"], row.values["count_low"], row.values["out_of_domain"]) == (0, 0.0, None)


def uneven(image: NDArray[np.uint16], rise: float) -> NDArray[np.uint16]:
    """The image with a background that rises by `rise` from its left side to its right, and a little from top to bottom."""
    tall, wide = image.shape
    ramp = rise * (np.linspace(0, 1, wide)[None] + 0.2 * np.linspace(0, 1, tall)[:, None])
    return (image + ramp).astype(np.uint16)


def padded(image: NDArray[np.uint16], value: int) -> NDArray[np.uint16]:
    """The image in a frame of one value, at the right and below."""
    return np.pad(image, ((0, 40), (0, 60)), constant_values=value)


def rotated(image: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """The image as rotating leaves it: black corners."""
    side = image.shape[0]
    y, x = np.mgrid[:side, :side] / (side - 1) * 2 - 1
    return np.where(np.abs(x) + np.abs(y) > 1.3, 0, image).astype(np.uint16)


def saturated(image: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """The image as a camera of 12 bits writes it that was exposed for too long."""
    return np.minimum((image.astype(np.uint32) - 200) * 8, 4095).astype(np.uint16)


@pytest.mark.parametrize("package", PACKAGES)
def test_what_is_odd_about_an_image_is_told_whatever_the_package(package: str) -> None:
    field = discs(24, 256, seed=3, radius=9)
    odd = {
        "uneven_light": uneven(field, 1500.0),
        "padded": padded(field, 0),
        "half_saturated": saturated(field),
    }
    odd_too = {"padded": rotated(discs(60, 256, seed=3, radius=6))}
    for told in (odd, odd_too):
        for code, image in told.items():
            assert code in count_array(image, package, diameter="auto").row.warnings, code
    # What is like it and well: a weak slope, a narrow margin, a background clipped to black, specks at full scale.
    clipped = np.maximum(field.astype(np.int32) - 360, 0).astype(np.uint16)
    specks = field.copy()
    specks[::40, ::40] = 65535
    # JPEG smooths a calm background to one value.
    eight = (field // 80).astype(np.uint8)
    smooth = cv2.imdecode(
        cv2.imencode(".jpg", eight, [cv2.IMWRITE_JPEG_QUALITY, 50])[1], cv2.IMREAD_UNCHANGED
    )
    for image in (uneven(field, 200.0), np.pad(field, 3), clipped, specks, smooth):
        said = count_array(image, package, diameter="auto").row.warnings
        assert not set(said) & {"uneven_light", "padded", "half_saturated"}


def test_objects_of_another_size_than_the_package_is_for_are_told() -> None:
    field = nuclear_field(20, 12, seed=5, side=200)
    assert count_array(field, "nuclei", diameter=20).row.warnings == ()
    assert "size_unlike" in count_array(field, "nuclei", diameter=45).row.warnings
    assert "size_absurd" in count_array(field, "nuclei", diameter=90).row.warnings
    assert "size_absurd" in count_array(field, "nuclei", diameter=3).row.warnings
    specks = discs(30, 160, seed=2, radius=2)
    assert "size_unlike" in count_array(specks, "threshold").row.warnings


def test_a_dark_background_under_a_package_for_stains_is_told_and_a_bright_one_is_not() -> None:
    field = nuclear_field(20, 12, seed=5, side=200)
    assert "dark_background" in count_array(field, "histology").row.warnings
    assert "dark_background" not in count_array(4000 - np.minimum(field, 3900), "histology").row.warnings


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_blank_photo_has_no_background_darker_than_objects(value: int) -> None:
    """With or without a speck of dust on it."""
    blank = np.full((160, 160), value, np.uint8)
    specks = blank.copy()
    specks[40, 50] = min(255, value + 9)
    for image in (blank, specks):
        assert "dark_background" not in count_array(image, "histology").row.warnings


def test_cells_with_a_bright_middle_and_a_dark_rim_have_no_dark_background() -> None:
    cells = (discs(9, 160, seed=4, radius=9) > 1000).astype(np.uint8)
    middles = cv2.erode(cells, np.ones((9, 9), np.uint8))
    noise = np.random.default_rng(4).normal(0, 50, cells.shape)
    field = (20_000 - 6_000.0 * cells + 40_000.0 * middles + noise).astype(np.uint16)
    assert "dark_background" not in count_array(field, "histology").row.warnings


def test_a_file_that_ends_in_zeros_is_told_of() -> None:
    field = nuclear_field(20, 12, seed=5, side=200)
    field[120:] = 0
    assert "zero_tail" in count_array(field, "nuclei").row.warnings
    assert "zero_tail" not in count_array(np.where(field > 400, field, 0), "nuclei").row.warnings


def test_masks_and_label_images_are_told_of_and_images_of_few_values_are_not() -> None:
    field = nuclear_field(20, 12, seed=5, side=200)
    _, labels = cv2.connectedComponents((field > 1500).astype(np.uint8))
    masks = (labels.astype(np.uint16), (labels > 0).astype(np.uint8) * 255, (labels + 7).astype(np.uint8))
    for package in PACKAGES:
        for mask in masks:
            assert "looks_like_mask" in count_array(mask, package).row.warnings
        # Dim images of 8 bits: grains of noise of one value on a background of another, and objects of few.
        dim = (field // 400).astype(np.uint8)
        grains = (np.random.default_rng(0).random(field.shape) < 0.1).astype(np.uint8)
        for image in (field, dim, grains, dim + grains, saturated(field)):
            assert "looks_like_mask" not in count_array(image, package).row.warnings


def test_a_grey_image_saved_in_colours_is_told_where_colours_are_looked_at() -> None:
    grey = discs(12, 160, seed=4).astype(np.uint8)
    colours = np.dstack([grey, grey, grey])
    tinted = np.dstack([grey, grey, np.roll(grey, 1, axis=1)])
    blank = np.full_like(colours, 255)
    for image, told in ((colours, True), (tinted, False), (blank, False)):
        assert ("grey_as_colours" in cc.count(image, model="blood").warnings) is told
    of_grey = cc.count(colours, model="threshold", channel="luminance")
    assert "grey_as_colours" not in of_grey.warnings


@pytest.mark.parametrize("kind", ["jpg", "png", "tif"])
@pytest.mark.parametrize("turn", [1, 3, 6])
def test_a_photo_that_viewers_turn_is_counted_as_it_is_stored_and_that_is_told(
    tmp_path: Path, turn: int, kind: str
) -> None:
    image = (discs(12, 160, seed=4)[:120] // 40).astype(np.uint8)
    path = tmp_path / f"photo.{kind}"
    path.write_bytes(turned_photo(image, turn, kind))
    result = cc.count(path, model="threshold", channel="luminance")
    assert result.labels is not None
    assert result.labels.shape == result.image.shape == image.shape
    assert ("turned_for_viewing" in result.warnings) is (turn != 1)
    assert any("Exif orientation" in note for note in result.notes) is (turn != 1)


def turned_photo(image: NDArray[np.uint8], turn: int, kind: str) -> bytes:
    """A grey photo whose file asks viewers to turn it."""
    if kind == "tif":
        body = io.BytesIO()
        tifffile.imwrite(body, image, extratags=[(274, "H", 1, turn, True)])
        return body.getvalue()
    plain = cv2.imencode(f".{kind}", image)[1].tobytes()
    exif = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, turn, 0, 0)
    if kind == "png":
        chunk = b"eXIf" + exif
        header = len(b"\x89PNG\r\n\x1a\n") + 12 + 13
        return (
            plain[:header]
            + struct.pack(">I", len(exif)) + chunk + struct.pack(">I", zlib.crc32(chunk))
            + plain[header:]
        )  # fmt: skip
    exif = b"Exif\0\0" + exif
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]
