"""TIFF files that lie: tags, directories, strips and tiles, compressed streams, and what their descriptions promise."""

from __future__ import annotations

import io
import json
import lzma
import struct
import zlib
from collections.abc import Iterator

import imagecodecs
import numpy as np
import tifffile

from cellcount_core.domain.errors import Reason
from tests.hostile.made import SIDE, Hostile, another, either, picture, picture8, readable, refused, tiff

_BOMB = 200 << 20
"""Bytes that a decompression bomb unpacks to."""

_MOST = 0xFFFFFFFF


def tags(body: bytes) -> dict[str, tifffile.TiffTag]:
    """Tags of the first page by name."""
    with tifffile.TiffFile(io.BytesIO(body)) as tif:
        return {tag.name: tag for tag in tif.pages.first.tags.values()}


def patched(body: bytes, tag: str, value: int, *, kind: int | None = None, count: int | None = None) -> bytes:
    """The file with another value in the entry of one tag of its first page, and another type or count."""
    found = tags(body)[tag]
    changed = bytearray(body)
    code, old_kind, old_count = struct.unpack_from("<HHI", changed, found.offset)
    kind = old_kind if kind is None else kind
    struct.pack_into("<HHI", changed, found.offset, code, kind, old_count if count is None else count)
    short = kind == 3 and (old_count if count is None else count) == 1
    struct.pack_into(
        "<HH" if short else "<I", changed, found.offset + 8, *((value & 0xFFFF, 0) if short else (value,))
    )
    return bytes(changed)


def with_strip(body: bytes, strip: bytes) -> bytes:
    """The file with its only strip replaced."""
    moved = patched(body + strip, "StripOffsets", len(body), kind=4, count=1)
    return patched(moved, "StripByteCounts", len(strip), kind=4, count=1)


def next_page(body: bytes, offset: int) -> bytes:
    """The file with another offset of the page behind the first."""
    (at,) = struct.unpack_from("<I", body, 4)
    (entries,) = struct.unpack_from("<H", body, at)
    changed = bytearray(body)
    struct.pack_into("<I", changed, at + 2 + 12 * entries, offset)
    return bytes(changed)


def all_tiffs() -> Iterator[Hostile]:
    """Every TIFF of this module."""
    yield from _absurd_tags()
    yield from _directories()
    yield from _cut()
    yield from _streams()
    yield from _image_streams()
    yield from _pixels()
    yield from _descriptions()


def _absurd_tags() -> Iterator[Hostile]:
    strips = tiff(picture(), rowsperstrip=16, compression="deflate")
    tiles = tiff(picture(), tile=(32, 32), compression="deflate")
    plain = tiff(picture())
    for name, body in (("strips", strips), ("plain", plain)):
        for tag in ("ImageWidth", "ImageLength", "RowsPerStrip", "BitsPerSample", "SamplesPerPixel", "Compression",
                    "PhotometricInterpretation", "StripOffsets", "StripByteCounts"):  # fmt: skip
            for value in (0, 7, 65535, _MOST):
                kind = another if value == 7 else either
                yield kind(f"{name}_{tag}_{value}", patched(body, tag, value, kind=4, count=1))
    for tag in ("StripOffsets", "StripByteCounts"):
        for count in (0, 1, 5, 7, _MOST):
            offset = struct.unpack_from("<I", strips, tags(strips)[tag].offset + 8)[0]
            yield either(f"strips_{tag}_x{count}", patched(strips, tag, offset, count=count))
    for tag in ("TileWidth", "TileLength", "TileOffsets", "TileByteCounts", "ImageWidth"):
        for value in (0, 1, 48, 1 << 31):
            kind = another if tag == "ImageWidth" else either
            yield kind(f"tiles_{tag}_{value}", patched(tiles, tag, value, kind=4, count=1))
    yield refused("too_many_pixels", patched(patched(plain, "ImageWidth", 60000, kind=4), "ImageLength", 60000, kind=4),
                  Reason.TOO_MANY_PIXELS)  # fmt: skip


def _directories() -> Iterator[Hostile]:
    body = tiff(picture())
    (at,) = struct.unpack_from("<I", body, 4)
    yield refused("page_leads_to_itself", next_page(body, at), Reason.UNREADABLE)
    yield refused("next_page_beyond_the_end", next_page(body, len(body) + 100), Reason.TRUNCATED)
    yield either("next_page_in_the_pixels", next_page(body, len(body) - 4000))
    yield refused(
        "first_page_beyond_the_end", body[:4] + struct.pack("<I", _MOST) + body[8:], Reason.TRUNCATED
    )
    yield refused("no_page", body[:4] + bytes(4) + body[8:], Reason.TRUNCATED)
    yield either("page_is_the_header", body[:4] + struct.pack("<I", 1) + body[8:])
    entries = bytearray(body)
    struct.pack_into("<H", entries, at, 65535)
    yield either("65535_entries", bytes(entries))
    two = tiff(np.stack([picture(), picture()]))
    yield refused("two_pages_in_a_loop", _looped(two), Reason.UNREADABLE)
    for pages in (100, 60_000):
        yield either(f"chain_of_{pages}_empty_pages", _chain(pages))
    yield either("chain_of_many_small_pages", tiff(np.zeros((2000, 4, 4), np.uint8)))
    yield either("bigtiff_with_a_huge_entry_count", _big_entries())


def _looped(two: bytes) -> bytes:
    (first,) = struct.unpack_from("<I", two, 4)
    (entries,) = struct.unpack_from("<H", two, first)
    (second,) = struct.unpack_from("<I", two, first + 2 + 12 * entries)
    (more,) = struct.unpack_from("<H", two, second)
    changed = bytearray(two)
    struct.pack_into("<I", changed, second + 2 + 12 * more, first)
    return bytes(changed)


def _chain(pages: int) -> bytes:
    body = bytearray(b"II*\0" + struct.pack("<I", 8))
    for page in range(pages):
        following = 0 if page == pages - 1 else len(body) + 2 + 12 * 2 + 4
        body += struct.pack("<HHHIIHHIII", 2, 256, 4, 1, 8, 257, 4, 1, 8, following)
    return bytes(body)


def _big_entries() -> bytes:
    body = bytearray(tiff(picture(), bigtiff=True))
    (at,) = struct.unpack_from("<Q", body, 8)
    struct.pack_into("<Q", body, at, 1 << 62)
    return bytes(body)


def _cut() -> Iterator[Hostile]:
    kinds = {
        "plain": tiff(picture()),
        "tiles": tiff(picture(), tile=(32, 32), compression="zstd"),
        "strips": tiff(picture(), rowsperstrip=16, compression="lzw", predictor=True),
        "stack": tiff(np.stack([picture()] * 3), compression="deflate"),
    }
    for name, body in kinds.items():
        for at in (5, 12, 100, len(body) // 4, len(body) // 2, len(body) - 60, len(body) - 1):
            yield either(f"cut_{name}_{at}", body[:at], Reason.TRUNCATED, Reason.CHANNEL_UNKNOWN)


def _streams() -> Iterator[Hostile]:
    """Strips whose compressed stream is short, long, torn or a bomb."""
    raw = picture().astype("<u2").tobytes()
    half = raw[: len(raw) // 2]
    pack = {
        "deflate": lambda data: zlib.compress(data, 1),
        "lzw": imagecodecs.lzw_encode,
        "zstd": imagecodecs.zstd_encode,
        "packbits": imagecodecs.packbits_encode,
        "lzma": lambda data: lzma.compress(data, preset=0),
    }
    for name, encode in pack.items():
        whole = tiff(picture(), compression=name, rowsperstrip=SIDE)
        packed = bytes(encode(raw))
        yield refused(
            f"{name}_half_the_rows",
            with_strip(whole, bytes(encode(half))),
            Reason.UNREADABLE,
            Reason.TRUNCATED,
        )
        yield refused(f"{name}_stops_half_way", with_strip(whole, packed[: len(packed) // 2]),
                      Reason.UNREADABLE, Reason.TRUNCATED)  # fmt: skip
        yield refused(
            f"{name}_garbage", with_strip(whole, b"\xf5garbage" * 400), Reason.UNREADABLE, Reason.TRUNCATED
        )
        yield refused(f"{name}_one_byte", with_strip(whole, b"\0"), Reason.UNREADABLE, Reason.TRUNCATED)
        bomb = b"\x81\0" * (_BOMB // 128) if name == "packbits" else bytes(encode(bytes(_BOMB)))
        yield another(f"{name}_bomb", with_strip(whole, bomb))
    torn = bytearray(pack["deflate"](raw))
    torn[len(torn) // 2] ^= 0x55
    yield either(
        "deflate_torn", with_strip(tiff(picture(), compression="deflate", rowsperstrip=SIDE), bytes(torn))
    )
    frame = bytearray(imagecodecs.zstd_encode(raw))
    frame[4:13] = b"\xe0" + struct.pack("<Q", 1 << 60)
    yield refused("zstd_that_declares_an_exabyte",
                  with_strip(tiff(picture(), compression="zstd", rowsperstrip=SIDE), bytes(frame)),
                  Reason.UNREADABLE)  # fmt: skip


def _image_streams() -> Iterator[Hostile]:
    """Strips that hold a whole image of their own, far larger than the page or not the page's at all."""
    large, small = np.zeros((12_000, 12_000), np.uint8), np.zeros((8, 8), np.uint8)
    codecs = {
        "jpeg": (7, imagecodecs.jpeg8_encode),
        "jpeg2000": (34712, lambda image: imagecodecs.jpeg2k_encode(image, level=0)),
    }
    page = tiff(picture8(), rowsperstrip=SIDE, compression="deflate")
    for name, (code, encode) in codecs.items():
        as_code = patched(page, "Compression", code)
        yield refused(f"{name}_bomb", with_strip(as_code, bytes(encode(large))))
        yield refused(f"{name}_smaller_than_its_page", with_strip(as_code, bytes(encode(small))))
        body = bytes(encode(picture8()))
        yield refused(f"{name}_half", with_strip(as_code, body[: len(body) // 2]))
        yield refused(f"{name}_garbage", with_strip(as_code, body[: len(body) // 8] + b"\x5a" * 3000))
    for name, code in (
        ("png", 34933),
        ("webp", 50001),
        ("jpegxl", 50002),
        ("lerc", 34887),
        ("jpegxr", 34934),
        ("eer", 65000),
    ):
        yield refused(
            f"in_{name}", with_strip(patched(page, "Compression", code), bytes(500)), Reason.UNSUPPORTED
        )


def _pixels() -> Iterator[Hostile]:
    real = picture().astype(np.float32)
    for name, value in (("nan", np.nan), ("inf", np.inf), ("minus_inf", -np.inf)):
        one = real.copy()
        one[40, 50] = value
        yield refused(f"one_{name}", tiff(one), Reason.NON_FINITE)
        yield refused(
            f"all_{name}", tiff(np.full_like(real, value), compression="deflate"), Reason.NON_FINITE
        )
        yield refused(f"half_precision_{name}", tiff(one.astype(np.float16)), Reason.NON_FINITE)
        yield refused(f"double_precision_{name}", tiff(one.astype(np.float64)), Reason.NON_FINITE)
    yield refused("beyond_32_bits", tiff(real.astype(np.float64) * 1e300), Reason.WRONG_DTYPE)
    yield refused("complex", tiff(real.astype(np.complex64)), Reason.WRONG_DTYPE)
    yield refused("huge_floats", tiff(real * np.float32(1e34)), Reason.WRONG_DTYPE)
    yield readable("large_floats", tiff(real * np.float32(4e14)))
    yield refused("huge_integers", tiff(picture().astype(np.uint64) << np.uint64(50)), Reason.WRONG_DTYPE)
    yield readable("tiny_floats", tiff(real * np.float32(1e-36)))
    yield readable("negative_floats", tiff(real - np.float32(1e5)))
    yield readable("64_bit_integers", tiff(picture().astype(np.uint64) << np.uint64(40)))
    both = real * np.float32(1e31)
    both[:2], both[-2:] = np.finfo(np.float32).max, np.finfo(np.float32).min
    yield refused("from_the_least_to_the_largest_float", tiff(both), Reason.WRONG_DTYPE)
    yield another("one_pixel", tiff(np.full((1, 1), 7, np.uint16)))
    yield another("one_row", tiff(picture()[:1]))
    yield another("one_column", tiff(np.ascontiguousarray(picture()[:, :1])))
    yield readable("all_zero", tiff(np.zeros_like(picture())), 0)
    yield readable("all_at_the_largest", tiff(np.full_like(picture(), 65535)), 0)
    yield refused(
        "seven_samples",
        tiff(np.stack([picture()] * 7, axis=2), planarconfig="contig"),
        Reason.CHANNEL_UNKNOWN,
    )


def _descriptions() -> Iterator[Hostile]:
    for name, text in _texts():
        yield either(name, tiff(picture(), description=text.encode()))
    stack = np.stack([picture()] * 2)
    imagej = io.BytesIO()
    tifffile.imwrite(imagej, stack, imagej=True, metadata={"axes": "ZYX", "Labels": ["a", "b"]})
    body = imagej.getvalue()
    for lie in (b"images=9\nslices=9\n", b"images=999999999\n"):
        yield either(
            f"imagej_{lie[:12].decode()}".replace("=", "_").replace("\n", "_"),
            body.replace(b"images=2\nslices=2\n", lie.ljust(18)),
        )
    for tag in ("IJMetadataByteCounts", "IJMetadata"):
        yield either(f"imagej_{tag}", patched(body, tag, 5, count=_MOST))


def _texts() -> Iterator[tuple[str, str]]:
    yield "shaped_too_many", json.dumps({"shape": [1_000_000, SIDE, SIDE]})
    yield "shaped_negative", json.dumps({"shape": [-1, SIDE, SIDE]})
    yield "shaped_deep", '{"shape": ' + "[" * 100_000 + "]" * 100_000 + "}"
    yield "shaped_not_numbers", json.dumps({"shape": ["x", None, 1e400]})
    yield "shaped_another", json.dumps({"shape": [SIDE * 2, SIDE // 2]})
    yield "ome_entities", _entities(12) + ome_xml(name="&e12;")
    yield "ome_reads_a_file", '<!DOCTYPE OME [<!ENTITY e SYSTEM "file:///etc/passwd">]>' + ome_xml(name="&e;")
    yield "ome_many_planes", ome_xml(z="4000000000")
    yield "ome_planes_in_other_digits", ome_xml(z="４００００００００")
    yield "ome_planes_with_underscores", ome_xml(z="4_000_000_00")
    yield "ome_negative_planes", ome_xml(z="-5")
    yield "ome_second_image", ome_xml(more=_image(z="300000000"))
    yield "ome_plane_count", ome_xml(data='<TiffData IFD="0" PlaneCount="300000000"/>')
    yield (
        "ome_first_plane",
        ome_xml(z="300000000", data='<TiffData FirstZ="299999999" IFD="0" PlaneCount="1"/>'),
    )
    yield "ome_negative_page", ome_xml(data='<TiffData IFD="-9" PlaneCount="1"/>')
    yield "ome_samples", ome_xml(samples="0")
    yield "ome_range_along_an_axis", ome_xml(annotations=_MODULO)
    yield "ome_deep", ome_xml(more="<Image>" * 20_000 + "</Image>" * 20_000)
    yield "ome_torn", ome_xml()[:-40]
    yield "ome_another_size", ome_xml(x="4096")
    yield (
        "ome_without_images",
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"/>',
    )
    yield (
        "metaseries_entities",
        _entities(12) + "<MetaData><prop id='Description' type='string' value='&e12;'/></MetaData>",
    )
    yield "scanimage", "SI.VERSION_MAJOR = 5\nSI.hStackManager.framesPerSlice = 999999999\n"
    yield "aperio", "Aperio Image Library\n999999999x99999999 [0,0 1x1] (1x1)"


_MODULO = (
    '<StructuredAnnotations><XMLAnnotation ID="Annotation:0" Namespace="openmicroscopy.org/omero/dimension/modulo"><Value><Modulo>'
    '<ModuloAlongT Type="lifetime" Start="0" End="600000000" Step="1"/></Modulo></Value></XMLAnnotation></StructuredAnnotations>'
)


def _entities(levels: int) -> str:
    lines = ['<!ENTITY e0 "xxxxxxxxxx">']
    lines += [f'<!ENTITY e{level} "{f"&e{level - 1};" * 10}">' for level in range(1, levels + 1)]
    return f'<?xml version="1.0"?><!DOCTYPE OME [{"".join(lines)}]>'


def _image(*, z: str = "1", x: str = str(SIDE), data: str = '<TiffData IFD="0" PlaneCount="1"/>', name: str = "w1",
           samples: str = "1") -> str:  # fmt: skip
    return (
        f'<Image ID="Image:0"><Pixels DimensionOrder="XYZCT" Type="uint16" SizeX="{x}" SizeY="{SIDE}" SizeZ="{z}" SizeC="1" '
        f'SizeT="1"><Channel ID="Channel:0:0" Name="{name}" SamplesPerPixel="{samples}"/>{data}</Pixels></Image>'
    )


def ome_xml(*, more: str = "", annotations: str = "", **image: str) -> str:
    """An OME-XML of the picture, or of whatever is said instead."""
    return f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">{annotations}{_image(**image)}{more}</OME>'
