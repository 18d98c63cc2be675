"""PNG, JPEG and BMP: exact pixels, colours by name, no half image, and no pixels that libjpeg would make up."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest

from cellcount_core.domain.errors import FieldFault, Reason
from cellcount_core.images.decode import open_image
from tests.unit.images.encoded import noise, opened, png, raster, reason, refusal, tiff


@pytest.mark.parametrize(("dtype", "bit_max"), [("uint8", 255), ("uint16", 65535)])
def test_a_grey_png_is_exact(dtype: str, bit_max: int) -> None:
    pixels = noise(20, 31, dtype=dtype)
    image = opened(raster(pixels, ".png"))
    assert (image.channels, image.planes, image.images) == (("",), 1, 1)
    assert (image.shape, image.bit_max, image.um_per_px) == ((20, 31), bit_max, None)
    np.testing.assert_array_equal(image.read("", 0), pixels)


@pytest.mark.parametrize(("extension", "dtype"), [(".png", "uint8"), (".png", "uint16"), (".bmp", "uint8")])
def test_colours_are_read_by_name_and_luminance_without(extension: str, dtype: str) -> None:
    pixels = noise(20, 31, 3, dtype=dtype)
    image = opened(raster(pixels, extension))
    assert image.channels == ("red", "green", "blue")
    for number, colour in enumerate(image.channels):
        np.testing.assert_array_equal(image.read(colour, 0), pixels[:, :, number])
    luminance = pixels @ np.array([0.299, 0.587, 0.114])
    for name in ("", "grey", "gray", "luminance"):
        grey = image.read(name, 0)
        assert grey.dtype == pixels.dtype
        np.testing.assert_allclose(grey, luminance, atol=1)


def test_a_jpeg_is_close_to_what_was_saved() -> None:
    smooth = cv2.GaussianBlur(noise(64, 64, dtype="uint8") * 2, (0, 0), 4)
    grey = opened(raster(np.asarray(smooth), ".jpg"))
    assert grey.channels == ("",)
    np.testing.assert_allclose(grey.read("", 0), smooth, atol=6)
    assert opened(raster(np.dstack([smooth] * 3), ".jpg")).channels == ("red", "green", "blue")


def test_alpha_is_dropped() -> None:
    rows = b"".join(b"\0" + bytes([value, 128] * 8) for value in range(8))
    image = opened(png(8, 8, 8, 4, rows))
    assert image.channels == ("",)
    np.testing.assert_array_equal(image.read("", 0)[:, 0], range(8))
    rgba = np.dstack([noise(8, 8, 3, dtype="uint8"), np.full((8, 8), 9, np.uint8)])
    done, body = cv2.imencode(".png", rgba)
    assert done
    assert opened(bytes(body)).channels == ("red", "green", "blue")


def test_a_palette_gives_its_colours_and_a_grey_palette_gives_grey() -> None:
    rows = b"".join(b"\0" + bytes([0, 1] * 4) for _ in range(8))
    coloured = opened(png(8, 8, 8, 3, rows, (b"PLTE", bytes([250, 0, 0, 0, 7, 0]))))
    assert coloured.channels == ("red", "green", "blue")
    assert coloured.read("red", 0)[0, :2].tolist() == [250, 0]
    assert coloured.read("green", 0)[0, :2].tolist() == [0, 7]
    grey = opened(png(8, 8, 8, 3, rows, (b"PLTE", bytes([5, 5, 5, 90, 90, 90]))))
    assert grey.channels == ("",)
    assert grey.read("", 0)[0, :2].tolist() == [5, 90]


def test_one_bit_is_spread_over_the_range_that_is_declared() -> None:
    image = opened(png(8, 8, 1, 0, b"\0\xaa" * 8))
    assert (image.bit_max, image.read("", 0)[0, :2].tolist()) == (255, [255, 0])


@pytest.mark.parametrize("extension", [".png", ".jpg", ".bmp"])
def test_a_file_cut_anywhere_is_truncated_and_never_half_an_image(extension: str) -> None:
    bodies = [raster(noise(40, 40, dtype="uint8"), extension)]
    if extension == ".bmp":
        bodies.append(raster(noise(40, 40, 3, dtype="uint8"), extension))
    for body in bodies:
        for length in (20, 60, len(body) // 2, len(body) - 2, len(body) - 1):
            assert reason(body[:length]) is Reason.TRUNCATED, length


def test_a_png_with_a_flipped_bit_is_unreadable() -> None:
    body = bytearray(raster(noise(40, 40), ".png"))
    body[len(body) // 2] ^= 1
    assert reason(bytes(body)) is Reason.UNREADABLE


def test_a_png_whose_pixels_end_early_is_unreadable() -> None:
    assert reason(png(8, 8, 8, 0, (b"\0" + bytes(8)) * 5)) is Reason.UNREADABLE


def test_a_jpeg_of_four_components_is_unsupported() -> None:
    body = bytearray(raster(noise(16, 16, 3, dtype="uint8"), ".jpg"))
    frame = body.index(b"\xff\xc0")
    body[frame + 9] = 4
    assert reason(bytes(body)) is Reason.UNSUPPORTED
    with pytest.raises(FieldFault, match="save it as RGB or grey"):
        open_image(bytes(body), "a.jpg", max_pixels=1000)


def bmp(
    numbers: np.ndarray, bits: int, colours: np.ndarray, *, upwards: bool = True, used: int | None = None
) -> bytes:
    """A BMP of palette indices; colours (n, 3) red, green, blue."""
    height, width = numbers.shape
    row = (width * bits + 31) // 32 * 4
    packed = np.zeros((height, row * 8), np.uint8)
    spread = np.unpackbits(numbers.astype(np.uint8)[:, :, None], axis=2)[:, :, 8 - bits :]
    packed[:, : width * bits] = spread.reshape(height, -1)
    rows = np.packbits(packed, axis=1)
    palette = np.zeros((len(colours), 4), np.uint8)
    palette[:, :3] = colours[:, ::-1]
    start = 54 + palette.size
    count = len(colours) if used is None else used
    head = struct.pack(
        "<2sIHHIIiiHHIIiiII", b"BM", start + rows.size, 0, 0, start, 40, width, height if upwards else -height, 1, bits, 0, 0, 0, 0,
        count, 0,
    )  # fmt: skip
    return head + palette.tobytes() + (rows[::-1] if upwards else rows).tobytes()


def test_a_bmp_with_a_palette_gives_its_greys_colours_or_numbers() -> None:
    for bits in (1, 4, 8):
        numbers = (noise(9, 13) % (1 << bits)).astype(np.uint8)
        grey = np.stack([np.linspace(250, 3, 1 << bits).astype(np.uint8)] * 3, axis=1)
        coloured = np.random.default_rng(1).integers(0, 256, (1 << bits, 3)).astype(np.uint8)
        green = np.zeros((1 << bits, 3), np.uint8)
        green[:, 1] = np.linspace(0, 255, 1 << bits)
        for upwards in (True, False):
            image = opened(bmp(numbers, bits, grey, upwards=upwards))
            assert (image.channels, image.shape) == (("",), (9, 13))
            np.testing.assert_array_equal(image.read("", 0), grey[:, 0][numbers])
            image = opened(bmp(numbers, bits, coloured, upwards=upwards))
            assert image.channels == ("red", "green", "blue")
            np.testing.assert_array_equal(image.read("green", 0), coloured[:, 1][numbers])
            image = opened(bmp(numbers, bits, green, upwards=upwards))
            assert image.channels == ("",)
            np.testing.assert_array_equal(image.read("", 0), numbers)
    grey = noise(40, 41, dtype="uint8")
    np.testing.assert_array_equal(opened(raster(grey, ".bmp")).read("", 0), grey)


def test_a_bmp_whose_palette_is_too_short_is_unreadable() -> None:
    numbers = np.array([[0, 9]], np.uint8)
    short = np.zeros((4, 3), np.uint8)
    assert reason(bmp(numbers, 8, short)) is Reason.UNREADABLE
    assert reason(bmp(numbers, 8, short, used=200)) is Reason.UNREADABLE


@pytest.mark.parametrize(
    ("bits", "colour"),
    [(3, 0), (16, 3), (1, 2), (8, 5), (8, 3)],
    ids=["3 bits", "16 in a palette", "1 of colour", "no type", "no palette"],
)
def test_a_png_whose_header_cannot_be_is_unreadable_and_no_library_tells_of_it(
    bits: int, colour: int, capfd: pytest.CaptureFixture[str]
) -> None:
    assert reason(png(4, 4, bits, colour, bytes(9 * 16))) is Reason.UNREADABLE
    assert capfd.readouterr().err == ""


def test_a_png_without_pixels_is_unreadable_and_no_library_tells_of_it(
    capfd: pytest.CaptureFixture[str],
) -> None:
    whole = png(4, 4, 8, 0, bytes(5 * 4))
    start, end = whole.index(b"IDAT") - 4, whole.index(b"IEND") - 4

    assert reason(whole[:start] + whole[end:]) is Reason.UNREADABLE
    assert capfd.readouterr().err == ""


def test_a_png_that_does_not_begin_with_its_header_is_unreadable() -> None:
    whole = png(4, 4, 8, 0, bytes(5 * 4))
    head, comment = whole[8:33], png(4, 4, 8, 0, b"", (b"tEXt", b"a\0b"))
    start = comment.index(b"tEXt") - 4

    assert reason(whole[:8] + comment[start : start + 15] + head + whole[33:]) is Reason.UNREADABLE


def test_an_image_of_more_pixels_than_opencv_takes_says_so() -> None:
    fault = refusal(png(40_000, 40_000, 8, 0, b""), max_pixels=10_000_000_000)

    assert fault.reason is Reason.UNSUPPORTED
    assert "OpenCV refuses" in fault.detail


@pytest.mark.parametrize(("bits", "compression"), [(8, 1), (4, 2), (24, 4), (2, 0)])
def test_a_bmp_of_another_kind_is_unsupported(bits: int, compression: int) -> None:
    body = bytearray(raster(noise(20, 24, dtype="uint8"), ".bmp"))
    struct.pack_into("<HI", body, 28, bits, compression)

    fault = refusal(bytes(body))

    assert fault.reason is Reason.UNSUPPORTED
    assert f"a BMP of {bits} bits and compression {compression}" in fault.detail


def test_a_bmp_whose_pixels_would_stand_in_its_header_is_unreadable() -> None:
    body = bytearray(raster(noise(20, 24, 3, dtype="uint8"), ".bmp"))
    struct.pack_into("<I", body, 10, 20)

    assert reason(bytes(body)) is Reason.UNREADABLE


_SMOOTH = np.asarray(cv2.GaussianBlur(noise(64, 80, 3, dtype="uint8") * 2, (0, 0), 3))
_SAMPLINGS = {"4:1:1": 0x411111, "4:2:0": 0x221111, "4:2:2": 0x211111, "4:4:0": 0x121111, "4:4:4": 0x111111}


def jpeg(pixels: np.ndarray, *options: int) -> bytes:
    done, body = cv2.imencode(".jpg", pixels, list(options))
    assert done
    return bytes(body)


@pytest.mark.parametrize("progressive", [0, 1])
@pytest.mark.parametrize("sampling", _SAMPLINGS)
def test_pixels_are_those_of_opencv(sampling: str, progressive: int) -> None:
    body = jpeg(
        _SMOOTH,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        _SAMPLINGS[sampling],
        cv2.IMWRITE_JPEG_PROGRESSIVE,
        progressive,
    )
    expected = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_UNCHANGED)
    image = opened(body)
    for number, colour in enumerate(("blue", "green", "red")):
        np.testing.assert_array_equal(image.read(colour, 0), expected[:, :, number])


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_stream_that_stops_before_its_image_does_is_refused_although_it_has_an_end(share: float) -> None:
    body = jpeg(_SMOOTH[:, :, 0])
    fault = refusal(body[: int(len(body) * share)] + b"\xff\xd9")
    assert fault.reason is Reason.UNREADABLE
    assert "Corrupt JPEG data" in fault.detail


def test_bytes_between_stream_and_end_are_refused() -> None:
    body = jpeg(_SMOOTH[:, :, 0])
    assert reason(body[:-2] + b"more than there is" + body[-2:]) is Reason.UNREADABLE


def test_scans_without_end_are_refused() -> None:
    body = jpeg(_SMOOTH[:, :, 0], cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    last = body.rfind(b"\xff\xda")
    assert opened(body).shape == (64, 80)
    fault = refusal(body[:-2] + body[last:-2] * 200 + body[-2:])
    assert fault.reason is Reason.UNREADABLE
    assert "scans" in fault.detail


def test_an_odd_header_before_whole_pixels_is_no_damage() -> None:
    body = jpeg(_SMOOTH[:, :, 0])
    revision = body.index(b"JFIF\0") + 5
    odd = body[:revision] + b"\x07" + body[revision + 1 :]
    np.testing.assert_array_equal(opened(odd).read("", 0), opened(body).read("", 0))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_jpeg_within_a_tiff_is_held_to_the_same(channels: int) -> None:
    pixels = _SMOOTH[:, :, 0] if channels == 1 else _SMOOTH
    photometric = "minisblack" if channels == 1 else "rgb"
    whole = tiff(pixels, compression="jpeg", photometric=photometric, rowsperstrip=64, metadata=None)
    assert opened(whole).shape == (64, 80)
    assert opened(whole).read("", 0).shape == (64, 80)
    at = whole.rfind(b"\xff\xda")
    torn = whole[: at + 60] + bytes(len(whole) - at - 62) + b"\xff\xd9"
    assert reason(torn) is Reason.UNREADABLE
