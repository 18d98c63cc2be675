"""Good files in which Hypothesis changed, took out or repeated bytes; the same ones every time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.hostile.made import Hostile, another, either, picture, picture8, raster, tiff
from tests.hostile.others import npy, npz
from tests.hostile.tiffs import ome_xml

EXAMPLES = 120

_HEADER = 400

_RAW = ("tif plain", "tif ome", "bmp")
"""Without a checksum or a length to compare: with bytes put in before its pixels such a file is another picture to any reader."""


def good_files() -> dict[str, bytes]:
    """One file of each kind, by extension and name."""
    return {
        "tif plain": tiff(picture()),
        "tif deflate": tiff(picture(), compression="deflate", rowsperstrip=16),
        "tif lzw": tiff(picture(), compression="lzw", predictor=True, rowsperstrip=16),
        "tif zstd": tiff(picture(), compression="zstd", tile=(32, 32), bigtiff=True),
        "tif jpeg": tiff(picture8(), compression="jpeg"),
        "tif ome": tiff(picture(), description=ome_xml().encode()),
        "tif float": tiff(picture().astype(np.float32), compression="deflate"),
        "png": raster(picture(), ".png"),
        "jpg": raster(picture8(), ".jpg"),
        "bmp": raster(np.dstack([picture8()] * 3), ".bmp"),
        "npy": npy(picture()),
        "npz": npz(("X.npy", npy(picture()[None]))),
    }


def mutants() -> Iterator[tuple[str, Hostile]]:
    """(extension, file) of each mutant."""
    files = good_files()
    found: dict[bytes, str] = {}

    @settings(
        max_examples=EXAMPLES, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.data())
    def gather(data: st.DataObject) -> None:
        kind = data.draw(st.sampled_from(sorted(files)))
        body = bytearray(files[kind])
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(
                st.one_of(st.integers(0, min(_HEADER, len(body)) - 1), st.integers(0, len(body) - 1))
            )
            length = data.draw(st.sampled_from([1, 1, 1, 2, 4, 64]))
            match data.draw(st.sampled_from(["change", "take", "repeat"])):
                case "change":
                    value = data.draw(st.one_of(st.sampled_from([0, 1, 127, 128, 255]), st.integers(0, 255)))
                    body[at : at + length] = bytes([value]) * min(length, len(body) - at)
                case "take":
                    del body[at : at + length]
                case "repeat":
                    body[at:at] = body[at : at + length]
        found.setdefault(bytes(body), kind)

    gather()
    for body, kind in found.items():
        if body != files[kind]:
            made = another if kind in _RAW else either
            yield kind.split()[0], made(f"mutant_{kind.replace(' ', '_')}", body)
