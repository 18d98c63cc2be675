"""Strips that hold an image of their own, or stand where no pixels can."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest
import tifffile

from cellcount_core.domain.errors import Reason
from tests.hostile.tiffs import patched, with_strip
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
