"""Strips that hold an image of their own, or stand where no pixels can."""

from __future__ import annotations

import struct

import imagecodecs
import numpy as np
import pytest
import tifffile

from cellcount_core.domain.errors import Reason
from tests.hostile.tiffs import patched, tags, with_strip
from tests.unit.images.encoded import noise, opened, reason, refusal, tiff

_PIXELS = noise(48, 64, dtype="uint8")
_PAGE = tiff(_PIXELS, rowsperstrip=48, compression="deflate", metadata=None)


@pytest.mark.parametrize("codec", ["j2k", "jp2"])
def test_jpeg_2000_is_read_bare_and_in_its_boxes(codec: str) -> None:
    body = with_strip(
        patched(_PAGE, "Compression", 34712), imagecodecs.jpeg2k_encode(_PIXELS, codecformat=codec, level=0)
    )
    np.testing.assert_array_equal(opened(body).read("", 0), _PIXELS)


@pytest.mark.parametrize(
    ("code", "encoded"),
    [
        (7, imagecodecs.jpeg8_encode(np.zeros((500, 500), np.uint8))),
        (34712, imagecodecs.jpeg2k_encode(np.zeros((500, 500), np.uint8), level=0)),
        (34712, imagecodecs.jpeg2k_encode(np.zeros((500, 500), np.uint8), level=0, codecformat="jp2")),
    ],
    ids=["jpeg", "jpeg 2000", "jpeg 2000 in boxes"],
)
def test_a_larger_image_in_a_strip_is_not_cut_to_the_page(code: int, encoded: bytes) -> None:
    fault = refusal(with_strip(patched(_PAGE, "Compression", code), encoded))
    assert fault.reason is Reason.UNREADABLE
    assert "500 x 500 px where 64 x 48 are expected" in fault.detail


@pytest.mark.parametrize(
    "boxes", [b"", b"\0\0\0\0jP  ", b"\0\0\0\1jP  \0\0\0\0\0\0\0\0", b"\xff\x4f\xff\x51\0"]
)
def test_boxes_that_lead_nowhere_are_refused(boxes: bytes) -> None:
    assert reason(with_strip(patched(_PAGE, "Compression", 34712), boxes + bytes(9))) is Reason.UNREADABLE


@pytest.mark.parametrize("code", [34933, 50001, 50002, 34887, 34934])
def test_other_images_within_a_tiff_are_not_read(code: int) -> None:
    fault = refusal(patched(_PAGE, "Compression", code))
    assert fault.reason is Reason.UNSUPPORTED
    assert tifffile.COMPRESSION(code).name in fault.detail


def test_a_plane_in_the_header_of_the_file_is_no_plane() -> None:
    assert (
        reason(patched(tiff(_PIXELS, metadata=None), "StripOffsets", 0, kind=4, count=1)) is Reason.UNREADABLE
    )


def fewer(body: bytes, tag: str, count: int) -> bytes:
    """The file with only the first `count` values in one tag of its first page."""
    (place,) = struct.unpack_from("<I", body, tags(body)[tag].offset + 8)
    return patched(body, tag, place, count=count)


@pytest.mark.parametrize("compression", [None, "deflate", "zstd", "lzw"])
def test_tiles_without_a_place_are_not_zeros(compression: str | None) -> None:
    tiles = tiff(_PIXELS, tile=(16, 16), compression=compression, metadata=None)

    assert reason(fewer(tiles, "TileOffsets", 2)) is Reason.TRUNCATED


@pytest.mark.parametrize("count", [1, 2])
def test_raw_strips_without_a_place_are_not_what_stands_elsewhere(count: int) -> None:
    strips = tiff(_PIXELS, rowsperstrip=16, metadata=None)

    fault = refusal(fewer(strips, "StripOffsets", count))

    assert fault.reason is Reason.TRUNCATED
    assert f"has 3 strips or tiles and names the place of {count}" in fault.detail


def test_raw_pixels_of_fewer_bytes_than_the_image_has_are_truncated() -> None:
    body = patched(tiff(_PIXELS, metadata=None), "StripByteCounts", 100, kind=4, count=1)

    fault = refusal(body + bytes(_PIXELS.nbytes))

    assert fault.reason is Reason.TRUNCATED
    assert "hold 100 bytes and its pixels need 3072" in fault.detail


def test_a_chain_of_a_hundred_thousand_pages_is_not_followed_to_its_end() -> None:
    pages = (struct.pack("<HI", 0, 8 + 6 * (page + 1)) for page in range(100_001))

    fault = refusal(b"II*\0" + struct.pack("<I", 8) + b"".join(pages))

    assert "more than 100,000 pages" in fault.detail


def test_a_jpeg_in_a_strip_whose_stream_ends_early_is_not_filled_with_grey() -> None:
    encoded = imagecodecs.jpeg8_encode(_PIXELS)

    body = with_strip(patched(_PAGE, "Compression", 7), encoded[:-200] + b"\xff\xd9")

    assert reason(body) is Reason.UNREADABLE


def test_a_strip_that_is_no_jpeg_is_unreadable() -> None:
    encoded = imagecodecs.jpeg8_encode(_PIXELS)

    assert reason(with_strip(patched(_PAGE, "Compression", 7), b"\0\0" + encoded[2:])) is Reason.UNREADABLE


def test_raw_pixels_that_would_stand_beyond_the_end_are_truncated() -> None:
    body = tiff(_PIXELS, metadata=None)

    assert reason(patched(body, "StripOffsets", len(body) - 100, kind=4, count=1)) is Reason.TRUNCATED
