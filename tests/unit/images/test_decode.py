"""Opening files: the format is told by the bytes, and what is no image is named."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from cellcount_core.domain.errors import FieldFault, Reason
from cellcount_core.images.decode import open_image, stack_length
from tests.unit.images.encoded import noise, npy, npz, opened, raster, reason, refusal, tiff


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"<!DOCTYPE html><html>sign in</html>", "an HTML page"),
        (b'<?xml version="1.0"?><Error><Code>SlowDown</Code></Error>', "an XML document"),
        (b'{"message": "forbidden"}', "JSON text"),
        (b"well,count\nA01,3\n", "text"),
        (b"PK\x03\x04" + b"word/document.xml" * 3, "a ZIP archive"),
        (gzip.compress(b"abc", mtime=0), "a gzip archive"),
        (b"%PDF-1.7", "a PDF document"),
        (bytes(4096), "all zero"),
        (b"\x91\x92\x93\x94\x95", "91 92 93 94 95"),
    ],
)
def test_what_is_no_image_is_named(body: bytes, named: str) -> None:
    fault = refusal(body)
    assert fault.reason is Reason.NOT_AN_IMAGE
    assert named in fault.detail


def test_a_file_without_bytes_is_an_empty_file() -> None:
    assert reason(b"") is Reason.EMPTY_FILE


@pytest.mark.parametrize("body", [b"\x89PN", b"\xff\xd8", b"II*", b"P", b"\x93NUM"])
def test_a_file_cut_inside_its_signature_is_truncated(body: bytes) -> None:
    assert reason(body) is Reason.TRUNCATED


def test_the_extension_does_not_matter() -> None:
    pixels = noise(8, 9, dtype="uint8")
    for body in (tiff(pixels), raster(pixels, ".png"), npy(pixels)):
        image = open_image(body, "a.txt", max_pixels=1000)
        np.testing.assert_array_equal(image.read("", 0), pixels)


@pytest.mark.parametrize(
    "make", [tiff, npy, lambda p: raster(p, ".png"), lambda p: raster(p, ".jpg"), lambda p: npz(X=p)]
)
def test_the_pixel_limit_is_checked_before_decoding_and_named(make: object) -> None:
    body = make(noise(30, 40, dtype="uint8"))  # type: ignore[operator]
    assert opened(body, max_pixels=1200).shape == (30, 40)
    fault = refusal(body, max_pixels=1199)
    assert fault.reason is Reason.TOO_MANY_PIXELS
    assert "40 x 30" in fault.detail
    assert "1,199" in fault.detail


def test_a_channel_that_is_not_there_is_refused_with_those_that_are() -> None:
    rgb = opened(tiff(noise(8, 8, 3, dtype="uint8"), photometric="rgb"))
    with pytest.raises(FieldFault, match=r"'red', 'green', 'blue'; did you mean 'green'") as fault:
        rgb.read("gren", 0)
    assert fault.value.reason is Reason.CHANNEL_UNKNOWN
    with pytest.raises(FieldFault, match="one channel without a name"):
        opened(tiff(noise(8, 8))).read("DAPI", 0)


def test_a_file_of_several_channels_is_never_counted_without_saying_which() -> None:
    stack = opened(tiff(noise(3, 8, 8), metadata={"axes": "CYX"}))
    assert stack.channels == ("0", "1", "2")
    with pytest.raises(FieldFault, match="say which one to count") as fault:
        stack.read("", 0)
    assert fault.value.reason is Reason.CHANNEL_UNKNOWN


def test_a_plane_or_image_that_is_not_there_is_refused() -> None:
    for image, plane, index in ((opened(tiff(noise(8, 8))), 1, 0), (opened(npy(noise(2, 8, 8))), 0, 2)):
        with pytest.raises(FieldFault) as fault:
            image.read("", plane, index)
        assert fault.value.reason is Reason.WRONG_SHAPE


def test_stack_length_is_the_number_of_images_of_an_array_file_and_one_otherwise() -> None:
    assert stack_length(npz(X=noise(7, 8, 8), y=noise(7, 8, 8)), "a.npz", 1000) == 7
    assert stack_length(npy(noise(4, 8, 8)), "a.npy", 1000) == 4
    assert stack_length(npy(noise(8, 8)), "a.npy", 1000) == 1
    assert stack_length(tiff(noise(5, 8, 8)), "a.tif", 1000) == 1
