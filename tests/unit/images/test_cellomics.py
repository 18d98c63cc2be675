"""C01 and DIB files of Cellomics: whole ones are read, and no other bytes become pixels or take more memory than the header allows."""

from __future__ import annotations

import random
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray

from cellcount_core.domain.errors import FieldFault, Reason
from cellcount_core.images.decode import open_image
from tests.unit.images.encoded import refusal

PIXELS = np.arange(16 * 6, dtype=np.uint16).reshape(16, 6) * 600


def dib(
    pixels: NDArray[np.generic] = PIXELS, *, width: int = 0, height: int = 0, planes: int = 1, bits: int = 0, compression: int = 0,
    per_metre: tuple[int, int] = (0, 0), fill: int = 0,
) -> bytes:  # fmt: skip
    """A DIB as a C01 holds it; each row is followed by `fill` bytes."""
    rows, columns = pixels.shape
    head = struct.pack(
        "<IiiHHIIiiII", 40, width or columns, height or rows, planes, bits or pixels.itemsize * 8, compression, 0, *per_metre, 0, 0
    )  # fmt: skip
    return head + bytes(12) + b"".join(row.tobytes() + bytes(fill) for row in pixels)


def c01(body: bytes) -> bytes:
    return b"\x00\x00\x00\x10" + zlib.compress(body)


@pytest.mark.parametrize("packed", [True, False], ids=["c01", "dib"])
@pytest.mark.parametrize(("dtype", "most"), [(np.uint8, 255), (np.uint16, 65_535)])
def test_the_pixels_are_those_that_are_stored(packed: bool, dtype: type[np.generic], most: int) -> None:
    pixels = (PIXELS // 300).astype(dtype)
    image = open_image(c01(dib(pixels)) if packed else dib(pixels), "x.C01", max_pixels=1_000)
    assert (image.shape, image.planes, image.images, image.um_per_px) == ((16, 6), 1, 1, None)
    assert image.bit_max == most
    np.testing.assert_array_equal(image.read("", 0), pixels)


def test_rows_that_are_filled_up_to_four_bytes_are_cut_to_their_pixels() -> None:
    pixels = PIXELS[:, :5]
    for fill in (0, 2):
        image = open_image(c01(dib(pixels, fill=fill)), "x.C01", max_pixels=1_000)
        np.testing.assert_array_equal(image.read("", 0), pixels)


@pytest.mark.parametrize(
    ("per_metre", "size", "warnings"),
    [
        ((1_000_000, 1_000_000), 1.0, ()),
        ((1_000_000, 0), None, ()),
        ((1_000_000, 500_000), None, ("calibration_contradictory",)),
        ((2835, 2835), None, ("calibration_out_of_range",)),
        ((-1_000_000, -1_000_000), None, ("calibration_out_of_range",)),
    ],
    ids=["stated", "along one side", "oblong", "72 dpi", "negative"],
)
def test_a_pixel_size_is_taken_if_a_microscope_can_have_it(
    per_metre: tuple[int, int], size: float | None, warnings: tuple[str, ...]
) -> None:
    image = open_image(c01(dib(per_metre=per_metre)), "x.C01", max_pixels=1_000)
    assert (image.um_per_px, image.warnings) == (size, warnings)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (c01(dib()[:30]), Reason.TRUNCATED),
        (c01(dib())[:-5], Reason.TRUNCATED),
        (c01(dib()[:-2]), Reason.TRUNCATED),
        (dib()[:-2], Reason.TRUNCATED),
        (c01(dib() + b"more"), Reason.UNREADABLE),
        (dib() + b"more", Reason.UNREADABLE),
        (c01(dib())[:-1] + b"\0", Reason.UNREADABLE),
        (c01(dib(width=60_000, height=60_000)), Reason.TOO_MANY_PIXELS),
        (c01(dib(height=-16)), Reason.WRONG_SHAPE),
        (c01(dib(planes=3)), Reason.UNSUPPORTED),
        (c01(dib(compression=1)), Reason.UNSUPPORTED),
        (c01(dib(bits=24)), Reason.UNSUPPORTED),
        (b"\x00\x00\x00\x10", Reason.NOT_AN_IMAGE),
    ],
    ids=[
        "a cut header", "a cut stream", "missing pixels", "missing pixels of a dib", "more than pixels", "more than a dib", "a wrong checksum",
        "too large", "upside down", "planes", "compressed", "colours", "four bytes",
    ],
)  # fmt: skip
def test_what_is_no_whole_image_is_refused_with_its_reason(body: bytes, reason: Reason) -> None:
    try:
        open_image(body, "x.C01", max_pixels=1_000_000).read("", 0)
    except FieldFault as fault:
        assert fault.reason is reason, fault.detail
    else:
        pytest.fail("it was read")


@pytest.mark.slow
def test_a_bomb_is_refused_before_it_unpacks() -> None:
    body = c01(dib() + bytes(200 << 20))
    tracemalloc.start()
    assert refusal_of_pixels(body).reason is Reason.UNREADABLE
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2 << 20


def refusal_of_pixels(body: bytes) -> FieldFault:
    with pytest.raises(FieldFault) as caught:
        open_image(body, "x.C01", max_pixels=1_000).read("", 0)
    return caught.value


@pytest.mark.parametrize("seed", range(100))
def test_a_changed_file_is_refused_or_shows_the_same_pixels(seed: int) -> None:
    dice = random.Random(seed)
    body = bytearray(c01(dib()))
    at = dice.randrange(len(body))
    match dice.choice(["change", "take", "repeat"]):
        case "change":
            body[at] ^= dice.randrange(1, 256)
        case "take":
            del body[at : at + dice.randrange(1, 9)]
        case "repeat":
            body[at:at] = body[at : at + 4]
    try:
        pixels = open_image(bytes(body), "x.C01", max_pixels=1_000).read("", 0)
    except FieldFault:
        return
    np.testing.assert_array_equal(pixels, PIXELS)


def test_other_files_that_begin_alike_are_named_as_what_they_are() -> None:
    assert refusal(b"\x00\x00\x00\x10 not zlib").reason is Reason.NOT_AN_IMAGE
    assert refusal(b"\x28\xb5\x2f\xfd" + bytes(60)).detail.startswith(
        "the file looks like a Zstandard archive"
    )
