"""Arrays of OME-Zarr: the pixels that the zarr library wrote, for each way of writing them that is read."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, GzipCodec, ShardingCodec, TransposeCodec, ZstdCodec

from cellcount_core.domain.doubts import Doubt
from cellcount_core.domain.errors import FieldFault, Reason
from cellcount_core.images.reader import Reader, Whole
from cellcount_core.images.zarr import ArrayImage, open_array
from tests.zarrs import multiscales, parts_of, write_array, write_group, write_image

LIMIT = 1 << 24
NAMES = ("DAPI", "GFP")


def noise(shape: tuple[int, ...] = (2, 3, 70, 90), dtype: str = "u2") -> NDArray[np.generic]:
    return np.random.default_rng(1).integers(1, 200, shape).astype(dtype)


def opened(root: Path, key: str = "image/0") -> ArrayImage:
    return open_array(parts_of(root, key), key, LIMIT)


def fault(parts: dict[str, Reader], key: str = "image/0", limit: int = LIMIT) -> FieldFault:
    with pytest.raises(FieldFault) as caught:
        open_array(parts, key, limit).read("DAPI", 0)
    return caught.value


V2_COMPRESSORS = {
    "none": None,
    **{
        f"blosc-{cname}": {"id": "blosc", "cname": cname, "clevel": 5, "shuffle": 1, "blocksize": 0}
        for cname in ("lz4", "lz4hc", "blosclz", "zstd", "zlib")
    },
    "blosc-bit": {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 2, "blocksize": 0},
    "zstd": {"id": "zstd", "level": 3},
    "gzip": {"id": "gzip", "level": 5},
    "zlib": {"id": "zlib", "level": 5},
    "lz4": {"id": "lz4", "acceleration": 1},
    "bz2": {"id": "bz2", "level": 5},
}


@pytest.mark.parametrize("compressor", V2_COMPRESSORS.values(), ids=V2_COMPRESSORS)
def test_zarr_2_is_read_with_each_of_its_usual_compressors(tmp_path: Path, compressor: object) -> None:
    import numcodecs

    codec = None if compressor is None else numcodecs.get_codec(compressor)
    pixels = noise()
    write_image(tmp_path / "image", pixels, channels=NAMES, chunks=(1, 2, 32, 40), compressors=codec)
    image = opened(tmp_path)
    assert (image.channels, image.planes, image.images, image.shape) == (NAMES, 3, 1, (70, 90))
    assert (image.um_per_px, image.bit_max, image.warnings) == (0.5, 65535, ())
    for number, name in enumerate(NAMES):
        for plane in range(3):
            assert np.array_equal(image.read(name, plane), pixels[number, plane])


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["|u1", "<u2", ">u2", "<u4", "<i2", "<f4", ">f4", "<f8", "|b1"])
def test_zarr_2_is_read_in_each_type_byte_order_and_order_of_axes(
    tmp_path: Path, dtype: str, order: str
) -> None:
    pixels = (noise() % 2).astype(dtype) if dtype == "|b1" else noise(dtype=dtype)
    write_image(tmp_path / "image", pixels, channels=NAMES, chunks=(1, 1, 40, 40), order=order)
    read = opened(tmp_path).read("GFP", 1)
    assert read.dtype.name in ("uint8", "uint16", "float32")
    assert read.dtype.isnative
    assert np.array_equal(read, pixels[1, 1])


V3_CODECS: dict[str, dict[str, object]] = {
    "none": {"compressors": None},
    "zstd": {"compressors": ZstdCodec(checksum=True)},
    "gzip": {"compressors": GzipCodec()},
    "blosc": {"compressors": BloscCodec(cname="zstd", shuffle="bitshuffle")},
    "blosc and checksum": {"compressors": [BloscCodec(), zarr.codecs.Crc32cCodec()]},
    "transposed": {"filters": TransposeCodec(order=(1, 0, 3, 2))},
    "big-endian": {"serializer": zarr.codecs.BytesCodec(endian="big")},
    "dotted names": {"chunk_key_encoding": {"name": "default", "separator": "."}},
    "names as before": {"chunk_key_encoding": {"name": "v2", "separator": "."}},
    "shards": {"shards": (1, 2, 64, 64)},
    "shards of several channels": {"shards": (2, 4, 64, 96)},
}


@pytest.mark.parametrize("settings", V3_CODECS.values(), ids=V3_CODECS)
def test_zarr_3_is_read_with_each_of_its_codecs(tmp_path: Path, settings: dict[str, object]) -> None:
    pixels = noise()
    image = {"channels": NAMES, "chunks": (1, 1, 32, 32), "version": "0.5"} | settings
    write_image(tmp_path / "image", pixels, **image)  # type: ignore[arg-type]
    opened_once = opened(tmp_path)
    for number, name in enumerate(NAMES):
        for plane in range(3):
            assert np.array_equal(opened_once.read(name, plane), pixels[number, plane])


def test_the_index_of_a_shard_may_stand_before_its_chunks(tmp_path: Path) -> None:
    pixels = noise()
    sharding = ShardingCodec(
        chunk_shape=(1, 1, 35, 45), index_location="start", codecs=[zarr.codecs.BytesCodec()]
    )
    write_image(
        tmp_path / "image", pixels, version="0.5", channels=NAMES, chunks=(1, 3, 70, 90), serializer=sharding,
        compressors=None,
    )  # fmt: skip
    assert np.array_equal(opened(tmp_path).read("DAPI", 2), pixels[0, 2])


@pytest.mark.parametrize(
    "axes", [("y", "x"), ("z", "y", "x"), ("t", "c", "z", "y", "x"), ("c", "x", "y"), ("y", "x", "c")]
)
def test_axes_are_taken_by_their_names(tmp_path: Path, axes: tuple[str, ...]) -> None:
    sizes = {"t": 2, "c": 2, "z": 3, "y": 20, "x": 30}
    pixels = noise(tuple(sizes[name] for name in axes))
    write_group(tmp_path / "image", multiscales(axes), "0.4")
    write_array(tmp_path / "image" / "0", pixels, "0.4", chunks=tuple(min(size, 16) for size in pixels.shape))
    image = opened(tmp_path)
    assert image.shape == (20, 30)
    assert image.images == (2 if "t" in axes else 1)
    assert image.planes == (3 if "z" in axes else 1)
    last = {"t": image.images - 1, "c": len(image.channels) - 1, "z": image.planes - 1}
    expected = pixels[tuple(last[name] if name in last else slice(None) for name in axes)]
    if axes.index("x") < axes.index("y"):
        expected = expected.T
    assert np.array_equal(image.read(image.channels[-1], last["z"], last["t"]), expected)


def test_a_chunk_that_was_never_written_has_the_fill_value_and_is_told(tmp_path: Path) -> None:
    pixels = noise((1, 1, 64, 64))
    write_image(tmp_path / "image", pixels, chunks=(1, 1, 32, 32), fill_value=7)
    (tmp_path / "image/0/0/0/1/0").unlink()
    image = opened(tmp_path)
    assert image.warnings == ()
    read = image.read("", 0)
    assert (read[32:, :32] == 7).all()
    assert np.array_equal(read[:32], pixels[0, 0, :32])
    assert image.warnings == (f"{Doubt.CHUNKS_MISSING}:1 of 4",)


def test_a_chunk_of_a_shard_that_was_never_written_is_told_too(tmp_path: Path) -> None:
    pixels = noise((1, 1, 64, 64))
    pixels[..., :32, :32] = 0
    write_image(
        tmp_path / "image", pixels, version="0.5", chunks=(1, 1, 32, 32), shards=(1, 1, 64, 64), fill_value=0
    )
    image = opened(tmp_path)
    assert np.array_equal(image.read("", 0), pixels[0, 0])
    assert image.warnings == (f"{Doubt.CHUNKS_MISSING}:1 of 4",)


def test_chunks_of_a_shard_beyond_the_end_of_the_array_are_not_missing(tmp_path: Path) -> None:
    pixels = noise((1, 1, 40, 70))
    write_image(
        tmp_path / "image", pixels, version="0.5", chunks=(1, 1, 32, 32), shards=(1, 1, 64, 64), fill_value=0
    )
    image = opened(tmp_path)
    assert np.array_equal(image.read("", 0), pixels[0, 0])
    assert image.warnings == ()


@pytest.mark.parametrize("shards", [{}, {"shards": (1, 1, 64, 64)}])
def test_an_image_most_of_whose_chunks_were_never_written_says_how_many(
    tmp_path: Path, shards: dict[str, object]
) -> None:
    pixels = noise((1, 5, 64, 64))
    write_image(
        tmp_path / "image", pixels, version="0.5", chunks=(1, 1, 32, 32), fill_value=0, um=0.5, **shards
    )  # type: ignore[arg-type]
    for path in sorted((tmp_path / "image/0/c/0").glob("[1-4]/*/*")):
        path.unlink()
    image = opened(tmp_path)
    for plane in range(5):
        image.read("", plane)
    assert image.warnings == (f"{Doubt.CHUNKS_MOSTLY_MISSING}:16 of 20",)


def test_only_the_chunks_of_a_shard_that_are_needed_are_decoded(tmp_path: Path) -> None:
    pixels = noise((2, 3, 64, 64))
    write_image(
        tmp_path / "image", pixels, version="0.5", channels=NAMES, chunks=(1, 1, 64, 64),
        shards=(2, 3, 64, 64), compressors=None,
    )  # fmt: skip
    parts = parts_of(tmp_path, "image/0")
    shard = bytearray(parts["image/0/c/0/0/0/0"].whole())
    at = bytes(shard).index(pixels[0, 1].tobytes())
    shard[at : at + 10] = b"\xff" * 10
    parts["image/0/c/0/0/0/0"] = Whole(bytes(shard))
    image = open_array(parts, "image/0", LIMIT)
    assert np.array_equal(image.read("GFP", 1), pixels[1, 1])
    assert not np.array_equal(image.read("DAPI", 1), pixels[0, 1])


def written(tmp_path: Path, version: str = "0.4", **settings: object) -> dict[str, Reader]:
    write_image(tmp_path / "image", noise((2, 1, 40, 40)), version=version, channels=NAMES, **settings)  # type: ignore[arg-type]
    return parts_of(tmp_path, "image/0")


def changed(parts: dict[str, Reader], key: str, **values: object) -> dict[str, Reader]:
    node = json.loads(parts[key].whole()) | values
    return {**parts, key: Whole(json.dumps(node).encode())}


@pytest.mark.parametrize(
    ("values", "reason", "said"),
    [
        ({"compressor": {"id": "snappy"}}, Reason.UNSUPPORTED, "'snappy'"),
        ({"filters": [{"id": "delta", "dtype": "<u2"}]}, Reason.UNSUPPORTED, "'delta'"),
        ({"dtype": "<U4"}, Reason.WRONG_DTYPE, "str"),
        ({"dtype": "nonsense"}, Reason.WRONG_DTYPE, "nonsense"),
        ({"dtype": [["a", "<u2"]]}, Reason.UNREADABLE, "dtype"),
        ({"shape": [2, 1, 40]}, Reason.UNREADABLE, "3 axes"),
        ({"shape": [2, 1, 40, -4]}, Reason.UNREADABLE, "whole numbers"),
        ({"shape": [2, 1, 40, 0]}, Reason.WRONG_SHAPE, "no pixels"),
        ({"shape": [2, 1, 40, 400_000_000]}, Reason.UNREADABLE, "chunks"),
        ({"chunks": [1, 1, 40, 0]}, Reason.UNREADABLE, "whole numbers"),
        ({"chunks": [1, 1, 1 << 20, 1 << 20]}, Reason.TOO_MANY_PIXELS, "must be decoded at once"),
        ({"chunks": [1, 1, 41, 40]}, Reason.TRUNCATED, "needs 3,280 bytes and has 3,200"),
        ({"chunks": [1, 1, 39, 40]}, Reason.UNREADABLE, "cannot be decompressed"),
        ({"zarr_format": 3}, Reason.UNREADABLE, "zarr_format"),
        ({"dimension_separator": "-"}, Reason.UNREADABLE, "dimension_separator"),
    ],
)
def test_metadata_that_cannot_be_is_one_clear_fault(
    tmp_path: Path, values: dict[str, object], reason: Reason, said: str
) -> None:
    found = fault(changed(written(tmp_path), "image/0/.zarray", **values))
    assert found.reason is reason, found
    assert said in found.detail
    assert found.key.startswith("image/0")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"[" * 100_000, b"\xff\xfe"])
@pytest.mark.parametrize("key", ["image/0/.zarray", "image/.zattrs"])
def test_metadata_that_is_no_json_object_is_unreadable(tmp_path: Path, key: str, body: bytes) -> None:
    assert fault({**written(tmp_path), key: Whole(body)}).reason is Reason.UNREADABLE


def test_a_level_that_its_image_does_not_name_is_no_level(tmp_path: Path) -> None:
    parts = written(tmp_path)
    assert (
        "names this array"
        in fault(changed(parts, "image/.zattrs", multiscales=multiscales("cyx", ["1"])["multiscales"])).detail
    )
    assert (
        "neither .zarray" in fault({key: body for key, body in parts.items() if "zarray" not in key}).detail
    )


def test_a_chunk_cut_short_or_damaged_is_a_fault_and_never_pixels(tmp_path: Path) -> None:
    for version, settings in (("0.4", {}), ("0.5", {"chunks": (1, 1, 20, 20), "shards": (1, 1, 40, 40)})):
        parts = written(tmp_path / version, version, **settings)
        key = next(key for key in parts if key.endswith("/0/0/0/0"))
        body = parts[key].whole()
        for end in (0, 1, 3, 15, 16, len(body) // 2, len(body) - 1):
            assert fault({**parts, key: Whole(body[:end])}).reason in (Reason.UNREADABLE, Reason.TRUNCATED)


def test_a_wrong_checksum_is_a_fault(tmp_path: Path) -> None:
    parts = written(tmp_path, "0.5", compressors=[zarr.codecs.Crc32cCodec()])
    key = next(key for key in parts if key.endswith("/0/0/0/0"))
    body = bytearray(parts[key].whole())
    body[100] ^= 1
    found = fault({**parts, key: Whole(bytes(body))})
    assert found.reason is Reason.UNREADABLE
    assert "checksum" in found.detail


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_mutants_of_all_objects_are_read_or_are_faults(tmp_path: Path, version: str) -> None:
    settings: dict[str, object] = (
        {} if version == "0.4" else {"chunks": (1, 1, 20, 20), "shards": (1, 1, 40, 40)}
    )
    parts = written(tmp_path, version, **settings)
    dice = random.Random(7)
    faults = 0
    for _ in range(400):
        key = dice.choice(sorted(parts))
        body = bytearray(parts[key].whole())
        for _ in range(dice.choice((1, 1, 4))):
            body[dice.randrange(len(body))] = dice.randrange(256)
        try:
            image = open_array({**parts, key: Whole(bytes(body))}, "image/0", LIMIT)
            assert image.read(image.channels[0], 0).shape == image.shape
        except FieldFault:
            faults += 1
    assert faults > 50
