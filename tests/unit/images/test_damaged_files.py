"""Whatever the bytes are: an image or a field fault, soon and in little memory."""

from __future__ import annotations

import io
import struct
import time
import tracemalloc
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cellcount_core.domain.errors import FieldFault, Reason
from tests.often import often
from tests.unit.images.encoded import noise, npy, npz, opened, raster, reason, tiff

_GREY = noise(24, 20, dtype="uint8")
_COLOUR = noise(24, 20, 3, dtype="uint8")
_RAMP = np.random.default_rng(3).integers(0, 65536, (3, 256)).astype(np.uint16)
_OME = {"axes": "ZCYX", "Channel": {"Name": ["a", "b"]}, "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}

FILES = {
    "png": raster(_COLOUR, ".png"),
    "jpeg": raster(_COLOUR, ".jpg"),
    "bmp": raster(_COLOUR, ".bmp"),
    "tiff": tiff(noise(24, 20), metadata=None),
    "tiff tiled": tiff(noise(40, 40), compression="deflate", tile=(16, 16), metadata=None),
    "tiff lzw": tiff(noise(24, 20), compression="lzw", rowsperstrip=5, predictor=True, metadata=None),
    "tiff palette": tiff(_GREY, photometric="palette", colormap=_RAMP),
    "tiff colour": tiff(_COLOUR, photometric="rgb", planarconfig="contig"),
    "bigtiff": tiff(noise(24, 20), bigtiff=True, compression="zstd"),
    "imagej": tiff(noise(2, 2, 24, 20), imagej=True, metadata={"axes": "ZCYX"}),
    "ome": tiff(noise(2, 2, 24, 20), ome=True, metadata=_OME),
    "npy": npy(noise(3, 24, 20)),
    "npz": npz(X=noise(3, 24, 20)),
}


def read_all(body: bytes) -> list[NDArray[np.generic]]:
    """Every plane that the file says it has, some of them where it says many."""
    image = opened(body, max_pixels=1_000_000)
    found = []
    for channel in image.channels[:4]:
        for plane in range(min(image.planes, 4)):
            pixels = image.read(channel, plane, image.images - 1)
            assert pixels.shape == image.shape
            assert pixels.dtype.name in {"uint8", "uint16", "float32"}
            found.append(pixels)
    return found


@pytest.mark.parametrize("kind", FILES)
@given(data=st.data())
@settings(max_examples=often(80), deadline=None, suppress_health_check=list(HealthCheck), database=None)
def test_a_file_with_changed_bytes_is_read_or_refused(kind: str, data: st.DataObject) -> None:
    body = bytearray(FILES[kind])
    header = min(len(body), 700)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.one_of(st.integers(0, header - 1), st.integers(0, len(body) - 1)))
        body[at] = data.draw(st.one_of(st.integers(0, 255), st.sampled_from([0, 1, 127, 128, 255])))
    started = time.monotonic()
    try:
        read_all(bytes(body))
    except FieldFault as fault:
        assert fault.key == "plate/a.bin"
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("kind", FILES)
@given(share=st.floats(0, 0.999))
@example(share=0.5)
@settings(max_examples=often(30), deadline=None, database=None)
def test_a_file_that_ends_early_is_truncated_unless_all_its_pixels_are_there(kind: str, share: float) -> None:
    body = FILES[kind][: int(len(FILES[kind]) * share)]
    try:
        found = read_all(body)
    except FieldFault as fault:
        begun = (
            {Reason.TRUNCATED}
            if len(body) > 34
            else {Reason.TRUNCATED, Reason.EMPTY_FILE, Reason.NOT_AN_IMAGE}
        )
        assert fault.reason in begun
        return
    for cut, whole in zip(found, read_all(FILES[kind]), strict=True):
        np.testing.assert_array_equal(cut, whole)


@given(st.binary(max_size=200))
@settings(max_examples=often(300), deadline=None)
def test_random_bytes_are_refused(body: bytes) -> None:
    with pytest.raises(FieldFault):
        read_all(body)


def test_a_strip_that_unpacks_to_far_more_than_its_image_takes_no_memory() -> None:
    bomb = _with_strip(tiff(noise(8, 8), compression="deflate"), zlib.compress(bytes(300_000_000), 1))
    tracemalloc.start()
    try:
        try:
            read_all(bomb)
        except FieldFault as fault:
            assert fault.reason is Reason.UNREADABLE
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20_000_000


def _with_strip(body: bytes, strip: bytes) -> bytes:
    """The same TIFF with its only strip replaced."""
    with tifffile.TiffFile(io.BytesIO(body)) as tif:
        tags = tif.pages.first.tags
        entries = [(tags["StripOffsets"], len(body)), (tags["StripByteCounts"], len(strip))]
    changed = bytearray(body + strip)
    for tag, value in entries:
        struct.pack_into("<HHII", changed, tag.offset, tag.code, 4, 1, value)
    return bytes(changed)


def test_an_array_that_declares_more_than_the_limit_is_refused_from_its_header() -> None:
    huge = npy(noise(1, 80, 80)).replace(b"(1, 80, 80), }  ", b"(1, 80, 80000)} ")
    assert reason(huge, max_pixels=1_000_000) is Reason.TOO_MANY_PIXELS
