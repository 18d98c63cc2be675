"""JPEG: the pixels that OpenCV gives, and a refusal where libjpeg would make some up."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from cellcount_core.domain.errors import Reason
from tests.unit.images.encoded import noise, opened, reason, refusal, tiff

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
