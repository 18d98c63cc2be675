"""PNG, JPEG, BMP and array files that lie, and files that are no images at all."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.errors import Reason
from tests.hostile.made import (
    SIDE,
    Hostile,
    another,
    either,
    picture,
    picture8,
    raster,
    readable,
    refused,
    tiff,
)

_BOMB = 100 << 20
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG chunk with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    *chunks: tuple[bytes, bytes], width: int = SIDE, height: int = SIDE, bits: int = 8, colour: int = 0, interlace: int = 0
) -> bytes:  # fmt: skip
    """A PNG of any header and chunks."""
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlace)
    return _SIGNATURE + b"".join(chunk(*one) for one in ((b"IHDR", head), *chunks, (b"IEND", b"")))


def rows() -> bytes:
    """The picture's rows as a PNG holds them, each with its filter byte."""
    return b"".join(b"\0" + row.tobytes() for row in picture8())


def pngs() -> Iterator[Hostile]:
    """Every PNG."""
    whole, raw = raster(picture(), ".png"), rows()
    data = zlib.compress(raw)
    yield readable("as_it_should_be", png((b"IDAT", data)))
    yield refused(
        "too_many_pixels", png((b"IDAT", data), width=100_000, height=100_000), Reason.TOO_MANY_PIXELS
    )
    yield refused(
        "2_to_the_31_pixels", png((b"IDAT", data), width=2**31 - 1, height=2**31 - 1), Reason.TOO_MANY_PIXELS
    )
    for width, height in ((0, SIDE), (SIDE, 0)):
        yield refused(
            f"{width}_by_{height}", png((b"IDAT", data), width=width, height=height), Reason.WRONG_SHAPE
        )
    yield refused("no_pixels", png(), Reason.UNREADABLE)
    yield refused("half_the_rows", png((b"IDAT", zlib.compress(raw[: len(raw) // 2]))), Reason.UNREADABLE)
    yield refused("no_row", png((b"IDAT", zlib.compress(b""))), Reason.UNREADABLE)
    yield refused("torn_stream", png((b"IDAT", data[: len(data) // 2])), Reason.UNREADABLE)
    yield refused("garbage_stream", png((b"IDAT", b"\x78\x9cgarbage" * 99)), Reason.UNREADABLE)
    yield another("bomb", png((b"IDAT", zlib.compress(bytes(_BOMB)))))
    yield readable(
        "bomb_in_a_comment", png((b"zTXt", b"c\0\0" + zlib.compress(bytes(_BOMB))), (b"IDAT", data))
    )
    yield readable(
        "bomb_in_a_profile", png((b"iCCP", b"c\0\0" + zlib.compress(bytes(_BOMB))), (b"IDAT", data))
    )
    yield readable("10_000_chunks", png(*[(b"tEXt", b"a\0b")] * 10_000, (b"IDAT", data)))
    yield readable(
        "frames_that_are_not_there", png((b"acTL", struct.pack(">II", 2**31 - 1, 0)), (b"IDAT", data))
    )
    yield either("interlaced_and_not", png((b"IDAT", data), interlace=1))
    for bits, colour in ((3, 0), (8, 7), (16, 0), (8, 2), (8, 6), (1, 0), (8, 3)):
        yield either(f"{bits}_bits_of_type_{colour}", png((b"IDAT", data), bits=bits, colour=colour))
    filters = b"".join(b"\x09" + row.tobytes() for row in picture8())
    yield refused("unknown_filter", png((b"IDAT", zlib.compress(filters))), Reason.UNREADABLE)
    yield refused("wrong_checksum", whole[:60] + b"\x00\x01" + whole[62:], Reason.UNREADABLE)
    yield refused("wrong_checksum_of_the_stream", png((b"IDAT", data[:-4] + b"\1\2\3\4")), Reason.UNREADABLE)
    yield refused(
        "a_chunk_beyond_the_end", whole[:8] + struct.pack(">I", 2**31) + whole[12:], Reason.TRUNCATED
    )
    yield refused("no_header", _SIGNATURE + chunk(b"IDAT", data) + chunk(b"IEND", b""), Reason.UNREADABLE)
    for at in (6, 20, 40, len(whole) // 2, len(whole) - 14, len(whole) - 1):
        yield refused(f"cut_{at}", whole[:at], Reason.TRUNCATED)


def jpegs() -> Iterator[Hostile]:
    """Every JPEG."""
    whole = raster(picture8(), ".jpg")
    scan = whole.rfind(b"\xff\xda")
    frame = whole.find(b"\xff\xc0")
    yield readable("as_it_should_be", whole)
    for at in (3, 30, scan, scan + 30, len(whole) - 2, len(whole) - 1):
        yield refused(f"cut_{at}", whole[:at], Reason.TRUNCATED)
    yield refused("torn_with_an_end", whole[: len(whole) * 2 // 3] + b"\xff\xd9", Reason.UNREADABLE)
    yield refused("nothing_in_the_scan", whole[: scan + 10] + b"\xff\xd9", Reason.UNREADABLE)
    yield refused("garbage_in_the_scan", whole[: scan + 200] + b"\x5a" * 900 + b"\xff\xd9", Reason.UNREADABLE)
    yield refused(
        "zeros_in_the_scan",
        whole[: scan + 10] + bytes(len(whole) - scan - 12) + b"\xff\xd9",
        Reason.UNREADABLE,
    )
    for height, width in ((65500, 65500), (65500, SIDE)):
        yield refused(f"{width}_by_{height}", _resized(whole, frame, height, width), Reason.TOO_MANY_PIXELS)
    for height, width in ((0, SIDE), (SIDE, 0)):
        yield refused(f"{width}_by_{height}", _resized(whole, frame, height, width), Reason.WRONG_SHAPE)
    yield refused("two_times_as_high", _resized(whole, frame, 2 * SIDE, SIDE), Reason.UNREADABLE)
    for name, marker in (
        ("12_bits", b"\xff\xc0\x00\x0b\x0c"),
        ("lossless", b"\xff\xc3\x00\x0b\x08"),
        ("arithmetic", b"\xff\xc9\x00\x0b\x08"),
    ):
        yield either(name, whole[:frame] + marker + whole[frame + 5 :])
    tables = whole.find(b"\xff\xc4")
    length = int.from_bytes(whole[tables + 2 : tables + 4], "big")
    yield either("without_a_table", whole[:tables] + whole[tables + 2 + length :])
    yield refused("two_frames", whole[:frame] + whole[frame : frame + 13] + whole[frame:], Reason.UNREADABLE)
    progressive = raster(picture8(), ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    last = progressive.rfind(b"\xff\xda")
    yield refused(
        "scans_without_end", progressive[:-2] + progressive[last:-2] * 5000 + b"\xff\xd9", Reason.UNREADABLE
    )
    yield refused("no_tables_at_all", whole[:2] + whole[frame:], Reason.UNREADABLE)


def _resized(whole: bytes, frame: int, height: int, width: int) -> bytes:
    return whole[: frame + 5] + struct.pack(">HH", height, width) + whole[frame + 9 :]


def bitmaps() -> Iterator[Hostile]:
    """Every BMP."""
    whole = raster(np.dstack([picture8()] * 3), ".bmp")
    yield readable("as_it_should_be", whole)
    for name, at, form, value in (
        ("negative_width", 18, "<i", -SIDE), ("least_height", 22, "<i", -(2**31)), ("huge", 18, "<i", 2**31 - 1),
        ("no_width", 18, "<i", 0), ("pixels_beyond_the_end", 10, "<I", 2**31), ("pixels_in_the_header", 10, "<I", 2),
        ("7_bits", 28, "<H", 7), ("run_length", 30, "<I", 1), ("unknown_compression", 30, "<I", 77),
        ("as_jpeg", 30, "<I", 4), ("bit_fields", 30, "<I", 3),
    ):  # fmt: skip
        body = bytearray(whole)
        struct.pack_into(form, body, at, value)
        yield either(name, bytes(body))
    yield refused("cut", whole[: len(whole) // 2], Reason.TRUNCATED)


def arrays() -> Iterator[Hostile]:
    """Every NPY: one image each."""
    whole = npy(picture())
    yield readable("as_it_should_be", whole)
    yield refused("objects", npy(np.array([{"a": 1}, None], dtype=object), pickled=True), Reason.WRONG_DTYPE)
    yield refused("a_pickle", pickle.dumps({"X": picture().tolist()[:2]}), Reason.NOT_AN_IMAGE)
    for name, head in (
        ("huge", "{'descr': '<u2', 'fortran_order': False, 'shape': (1000000000, 1000000000), }"),
        ("huge_in_fortran_order", "{'descr': '<u2', 'fortran_order': True, 'shape': (1, 100000, 100000), }"),
        ("negative", "{'descr': '<u2', 'fortran_order': False, 'shape': (-96, -96), }"),
        ("true_as_a_side", "{'descr': '<u2', 'fortran_order': False, 'shape': (True, 96), }"),
        ("code", "__import__('os').system('false')"),
        ("records", "{'descr': [('a', '<u2'), ('b', '<f8')], 'fortran_order': False, 'shape': (96, 96), }"),
        ("text", "{'descr': '<U7', 'fortran_order': False, 'shape': (96, 96), }"),
        ("complex", "{'descr': '<c8', 'fortran_order': False, 'shape': (96, 96), }"),
        ("five_axes", "{'descr': '<u2', 'fortran_order': False, 'shape': (1, 1, 1, 96, 96), }"),
        ("one_axis", "{'descr': '<u2', 'fortran_order': False, 'shape': (9216,), }"),
        ("no_axis", "{'descr': '<u2', 'fortran_order': False, 'shape': (), }"),
        ("no_image", "{'descr': '<u2', 'fortran_order': False, 'shape': (0, 96, 96), }"),
        ("deep", "(" * 9000),
        ("an_unknown_type", "{'descr': '<q77', 'fortran_order': False, 'shape': (96, 96), }"),
    ):
        yield refused(name, _with_header(head))
    nan = picture().astype(np.float32)
    nan[3, 3] = np.nan
    yield refused("nan", npy(nan), Reason.NON_FINITE)
    for at in (7, 9, 60, len(whole) // 2, len(whole) - 1):
        yield refused(f"cut_{at}", whole[:at], Reason.TRUNCATED)
    yield refused("of_another_version", whole[:6] + b"\x09\x00" + whole[8:])
    yield refused("a_header_of_4_gb", whole[:6] + b"\x02\x00" + struct.pack("<I", 2**32 - 1) + whole[12:])


def archives() -> Iterator[Hostile]:
    """Every NPZ: one image each."""
    yield readable("as_it_should_be", npz(("X.npy", npy(picture()[None]))))
    yield refused("bomb", npz(("X.npy", _with_header(
        "{'descr': '<u2', 'fortran_order': False, 'shape': (1, 60000, 60000), }") + bytes(_BOMB))), Reason.TOO_MANY_PIXELS)  # fmt: skip
    yield refused(
        "objects", npz(("X.npy", npy(np.array([None], dtype=object), pickled=True))), Reason.WRONG_DTYPE
    )
    yield refused("no_array", npz(("a.npy.txt", b"text")), Reason.WRONG_SHAPE)
    yield refused("two_arrays", npz(("a.npy", npy(picture())), ("b.npy", npy(picture()))), Reason.WRONG_SHAPE)
    yield refused("an_image_with_another_name", npz(("X.npy", raster(picture(), ".png"))), Reason.UNREADABLE)
    whole = npz(("../../../../X.npy", npy(picture())))
    yield either("a_name_that_climbs", whole)
    for at in (3, 40, len(whole) // 2, len(whole) - 1):
        yield refused(f"cut_{at}", whole[:at])
    locked = bytearray(whole)
    for mark, flag in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        locked[locked.index(mark) + flag] |= 1
    yield refused("encrypted", bytes(locked), Reason.UNREADABLE)
    torn = bytearray(whole)
    torn[len(torn) // 2] ^= 0xFF
    yield either("torn", bytes(torn))


def strangers() -> Iterator[Hostile]:
    """What lies among images: pages, archives, documents, programs, copies that were never finished."""
    page = b"<!DOCTYPE html><html><head><title>503 Service Unavailable</title></head><body>Try again</body></html>"
    errors = b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>'
    for name, body in (
        ("html", page), ("xml", errors), ("json", json.dumps({"error": "quota"}).encode()), ("text", b"see the other folder\r\n"),
        ("utf_16", "see the other folder".encode("utf-16")), ("csv", b"well,count\nA01,5\n"), ("pdf", b"%PDF-1.7\n" + bytes(900)),
        ("program", b"\x7fELF" + bytes(range(256)) * 8), ("gzip", gzip.compress(tiff(picture()))), ("bz2", bz2.compress(tiff(picture()))),
        ("zip", npz(("a.tif", tiff(picture())))), ("zeros", bytes(20_000)), ("ones", b"\xff" * 20_000),
        ("random", np.random.default_rng(5).bytes(20_000)), ("one_byte", b"I"), ("gif", b"GIF89a" + bytes(100)),
        ("webp", b"RIFF\x10\0\0\0WEBPVP8 "), ("hdf5", b"\x89HDF\r\n\x1a\n" + bytes(100)), ("svg", b"<svg><script>alert(1)</script></svg>"),
        ("placeholder", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"), ("jpeg_2000", b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(50)),
    ):  # fmt: skip
        yield refused(name, body, *((Reason.TRUNCATED,) if name == "one_byte" else (Reason.NOT_AN_IMAGE,)))
    yield refused("empty", b"", Reason.EMPTY_FILE)


def misnamed() -> Iterator[tuple[str, Hostile]]:
    """Good images under the extension of another format, which their bytes overrule."""
    yield "tif", readable("a_png", raster(picture(), ".png"))
    yield "png", readable("a_tiff", tiff(picture(), compression="deflate"))
    yield "jpg", readable("a_bmp", raster(np.dstack([picture8()] * 3), ".bmp"))
    yield "bmp", readable("a_jpeg", raster(picture8(), ".jpg"))
    yield "npy", readable("a_tiff", tiff(picture()))
    yield "npz", readable("a_png", raster(picture(), ".png"))
    yield "TIF", readable("an_npy", npy(picture()))


def npy(pixels: NDArray[np.generic], *, pickled: bool = False) -> bytes:
    """An NPY file."""
    buffer = io.BytesIO()
    np.save(buffer, pixels, allow_pickle=pickled)
    return buffer.getvalue()


def _with_header(text: str) -> bytes:
    head = text.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + picture().tobytes()


def npz(*members: tuple[str, bytes]) -> bytes:
    """A ZIP archive with these members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in members:
            archive.writestr(zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), body, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
