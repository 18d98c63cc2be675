"""TIFF in the forms that instruments write it."""

from __future__ import annotations

import io
import struct
import tracemalloc
from typing import Literal

import numpy as np
import pytest
import tifffile

from cellcount_core.domain.errors import FieldFault, Reason
from cellcount_core.images.decode import open_image
from tests.unit.images.encoded import noise, opened, reason, refusal, tiff


@pytest.mark.parametrize("compression", ["none", "lzw", "deflate", "zstd", "packbits", "lzma"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("layout", [{}, {"rowsperstrip": 7}, {"tile": (16, 32)}])
def test_pixels_are_exact_for_every_compression_type_and_layout(
    compression: str, dtype: str, layout: dict[str, object]
) -> None:
    pixels = noise(50, 70, dtype=dtype)
    for order in ("<", ">"):
        image = opened(tiff(pixels, compression=compression, byteorder=order, **layout))
        found = image.read("", 0)
        assert (image.shape, image.channels, found.dtype, found.dtype.isnative) == (
            (50, 70),
            ("",),
            pixels.dtype,
            True,
        )
        np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("options", [{"predictor": True, "compression": "deflate"}, {"bigtiff": True}])
def test_predictors_and_bigtiff_are_exact(options: dict[str, object]) -> None:
    pixels = noise(50, 70)
    np.testing.assert_array_equal(opened(tiff(pixels, **options)).read("", 0), pixels)


def test_colour_is_read_by_name_interleaved_or_planar() -> None:
    pixels = noise(20, 30, 3, dtype="uint8")
    planar = np.moveaxis(pixels, 2, 0).copy()
    for body in (
        tiff(pixels, photometric="rgb"),
        tiff(pixels, photometric="rgb", compression="lzw", tile=(16, 16)),
        tiff(planar, photometric="rgb", planarconfig="separate"),
        tiff(np.dstack([pixels, pixels[:, :, :1]]), photometric="rgb", extrasamples=["unassalpha"]),
    ):
        image = opened(body)
        assert image.channels == ("red", "green", "blue")
        for number, colour in enumerate(image.channels):
            np.testing.assert_array_equal(image.read(colour, 0), pixels[:, :, number])
        np.testing.assert_allclose(image.read("", 0), pixels @ [0.299, 0.587, 0.114], atol=1)


def test_grey_with_alpha_is_grey() -> None:
    pixels = noise(20, 30, 2, dtype="uint8")
    image = opened(tiff(pixels, extrasamples=["unassalpha"], planarconfig="contig"))
    assert image.channels == ("",)
    np.testing.assert_array_equal(image.read("", 0), pixels[:, :, 0])


def test_a_palette_that_only_tints_gives_the_grey_values() -> None:
    pixels = noise(20, 30, dtype="uint8")
    ramp = np.arange(256, dtype=np.uint16) * 256
    for colours in (np.stack([ramp] * 3), np.stack([ramp * 0, ramp, ramp * 0])):
        image = opened(tiff(pixels, photometric="palette", colormap=colours))
        assert image.channels == ("",)
        np.testing.assert_array_equal(image.read("", 0), pixels)


def test_any_other_palette_gives_its_colours() -> None:
    pixels = noise(20, 30, dtype="uint8")
    colours = np.random.default_rng(1).integers(0, 65536, (3, 256)).astype(np.uint16)
    image = opened(tiff(pixels, photometric="palette", colormap=colours))
    assert (image.channels, image.bit_max) == (("red", "green", "blue"), 255)
    np.testing.assert_array_equal(image.read("green", 0), colours[1][pixels] >> 8)


def test_white_is_zero_is_inverted() -> None:
    pixels = noise(20, 30)
    np.testing.assert_array_equal(opened(tiff(pixels, photometric="miniswhite")).read("", 0), 65535 - pixels)


def test_one_bit_is_zero_and_one() -> None:
    pixels = noise(20, 32, dtype="uint8") % 2
    image = opened(tiff(pixels.astype(bool)))
    assert image.bit_max == 1
    np.testing.assert_array_equal(image.read("", 0), pixels)


def test_twelve_packed_bits_say_so() -> None:
    image = opened(_twelve_bits())
    assert image.bit_max == 4095
    np.testing.assert_array_equal(image.read("", 0)[0, :4], [0x123, 0x456, 0x123, 0x456])


def _twelve_bits() -> bytes:
    data = b"\x12\x34\x56" * 8 * 4
    tags = [
        (256, 16),
        (257, 4),
        (258, 12),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, 4),
        (279, len(data)),
    ]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", t, 4, 1, v) for t, v in tags)
    return b"II*\x00" + struct.pack("<I", 8 + len(data)) + data + directory + bytes(4)


def test_values_with_the_offset_of_a_signed_camera_stay_as_they_are() -> None:
    pixels = noise(20, 30) + np.uint16(32768)
    found = opened(tiff(pixels)).read("", 0)
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("axes", ["ZCYX", "CZYX"])
@pytest.mark.parametrize("compression", ["none", "deflate"])
def test_an_ome_tiff_gives_its_channels_planes_pixel_size_and_bits(axes: str, compression: str) -> None:
    pixels = noise(3, 2, 20, 30) if axes == "ZCYX" else noise(2, 3, 20, 30)
    metadata = {
        "axes": axes, "Channel": {"Name": ["DAPI", "GFP"]}, "PhysicalSizeX": 325.0, "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 0.325, "PhysicalSizeYUnit": "µm", "SignificantBits": 12,
    }  # fmt: skip
    image = opened(tiff(pixels, ome=True, compression=compression, metadata=metadata))
    assert (image.channels, image.planes, image.bit_max) == (("DAPI", "GFP"), 3, 4095)
    assert image.um_per_px == pytest.approx(0.325)
    for z in range(3):
        for c, name in enumerate(image.channels):
            expected = pixels[z, c] if axes == "ZCYX" else pixels[c, z]
            np.testing.assert_array_equal(image.read(name, z), expected)


def ome_sized(x: object, y: object, unit: str = "µm", **tags: object) -> bytes:
    """An OME-TIFF of this pixel size."""
    sizes = {"PhysicalSizeX": x, "PhysicalSizeXUnit": unit, "PhysicalSizeY": y, "PhysicalSizeYUnit": unit}
    said = " ".join(f'{name}="{value}"' for name, value in sizes.items() if value is not None)
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" '
        f'Type="uint16" SizeX="30" SizeY="20" SizeC="1" SizeZ="1" SizeT="1" {said}><TiffData/></Pixels></Image></OME>'
    )
    return tiff(noise(20, 30), description=xml.encode(), metadata=None, **tags)


def test_the_common_spellings_of_a_pixel_size_are_read() -> None:
    for value, unit in ((0.5, "µm"), (0.5, "\u03bcm"), (0.5, "um"), (0.5, "Âµm"), (0.5, "Î¼m"), (0.5, "micron"), (0.5, "Microns"),
                        (0.5, "micrometers"), (0.5, "micrometre"), (500, "nm"), (500, "nanometer"), (0.0005, "mm"),
                        (0.0005, "millimeter"), (0.00005, "cm"), (5e-7, "m"), (0.5 / 25400, "inch"), (0.5 / 25400, "inches"),
                        (5000, "Å"), (5000, "angstrom"), (0.5, "\\u00B5m")):  # fmt: skip
        image = opened(ome_sized(value, value, unit))
        assert (image.um_per_px, image.warnings) == (pytest.approx(0.5), ()), unit
    for unit in ("micron", "um", "\\u00B5m", "nm", "inch", "mm"):
        per_unit = {"nm": 0.002, "inch": 50800.0, "mm": 2000.0}.get(unit, 2.0)
        body = tiff(noise(20, 30), imagej=True, resolution=(per_unit, per_unit), metadata={"unit": unit})
        image = opened(body)
        assert (image.um_per_px, image.warnings) == (pytest.approx(0.5, rel=1e-3), ()), unit


def test_a_pixel_size_that_cannot_be_is_unknown_with_the_code_that_says_why() -> None:
    out, apart = "calibration_out_of_range", "calibration_contradictory"
    incomplete, unknown = "calibration_incomplete", "calibration_unit_unknown"
    for x, y, unit, code in (
        (5e-7, 5e-7, "µm", out), (500000, 500000, "µm", out), (0, 0, "µm", out), (-1, -1, "µm", out), ("nan", "nan", "µm", out),
        (0.3, 0.31, "µm", apart), (0.5, 2.5, "µm", apart), (0.3, None, "µm", incomplete), (None, 0.3, "µm", incomplete),
        (0.3, 0.3, "furlong", unknown), ("0,5", "0,5", "µm", out), ("half", "half", "µm", out),
    ):  # fmt: skip
        image = opened(ome_sized(x, y, unit))
        assert (image.um_per_px, image.warnings) == (None, (code,)), (x, y, unit)
    for x, y, unit in ((1, 1, "pixel"), (1, 1, "reference frame"), (None, None, "µm")):
        assert (opened(ome_sized(x, y, unit)).um_per_px, opened(ome_sized(x, y, unit)).warnings) == (None, ())
    body = tiff(noise(20, 30), imagej=True, resolution=(72, 72), metadata={"unit": "inch"})
    assert (opened(body).um_per_px, opened(body).warnings) == (None, (out,))


def test_a_resolution_tag_that_says_another_size_is_a_contradiction_unless_it_is_for_printing() -> None:
    for per_unit, unit, found in ((20000, "centimeter", 0.5), (10000, "centimeter", None), (50800, "inch", 0.5), (72, "inch", 0.5),
                                  (300, "inch", 0.5), (1, "none", 0.5), (28.3, "centimeter", 0.5)):  # fmt: skip
        image = opened(ome_sized(0.5, 0.5, resolution=(per_unit, per_unit), resolutionunit=unit))
        assert image.um_per_px == found, (per_unit, unit)
        assert image.warnings == (() if found else ("calibration_contradictory",))


@pytest.mark.parametrize("compression", ["none", "deflate"])
def test_an_imagej_hyperstack_gives_its_channels_planes_and_pixel_size(compression: str) -> None:
    pixels = noise(3, 2, 20, 30)
    labels = ["DAPI", "GFP"] * 3
    body = tiff(
        pixels, imagej=True, compression=compression, resolution=(2.0, 2.0),
        metadata={"axes": "ZCYX", "unit": "micron", "Labels": labels},
    )  # fmt: skip
    image = opened(body)
    assert (image.channels, image.planes, image.um_per_px) == (("DAPI", "GFP"), 3, 0.5)
    np.testing.assert_array_equal(image.read("GFP", 2), pixels[2, 1])


def test_a_page_that_leaves_out_what_has_a_default_is_read_as_imagej_writes_it() -> None:
    pixels = noise(40, 50)
    body = tiff(pixels, imagej=True)
    for tag in (259, 277):  # compression, samples a pixel
        np.testing.assert_array_equal(opened(without_tag(body, tag)).read("", 0), pixels)


def without_tag(body: bytes, code: int) -> bytes:
    """A classic TIFF of one page with the entry of tag `code` taken out of its directory."""
    order: Literal["<", ">"] = "<" if body[:2] == b"II" else ">"
    (start,) = struct.unpack_from(f"{order}I", body, 4)
    (entries,) = struct.unpack_from(f"{order}H", body, start)
    rows = [body[start + 2 + 12 * number :][:12] for number in range(entries)]
    kept = [row for row in rows if struct.unpack_from(f"{order}H", row)[0] != code]
    assert len(kept) == entries - 1
    directory = struct.pack(f"{order}H", len(kept)) + b"".join(kept) + bytes(4)
    return body[:start] + directory + bytes(12) + body[start + len(directory) + 12 :]


def test_dots_per_inch_are_no_pixel_size() -> None:
    assert opened(tiff(noise(20, 30), resolution=(72, 72), resolutionunit="inch")).um_per_px is None


def test_metaseries_names_the_channel_and_the_pixel_size() -> None:
    description = (
        '<MetaData><PlaneInfo><prop id="spatial-calibration-state" type="bool" value="on"/>'
        '<prop id="spatial-calibration-x" type="float" value="1.3672"/>'
        '<prop id="spatial-calibration-y" type="float" value="1.3672"/>'
        '<prop id="spatial-calibration-units" type="string" value="um"/>'
        '<prop id="_IllumSetting_" type="string" value="DAPI"/></PlaneInfo></MetaData>'
    )
    image = opened(tiff(noise(20, 30), description=description, software="MetaSeries", metadata=None))
    assert (image.channels, image.um_per_px) == (("DAPI",), 1.3672)
    assert image.read("", 0).shape == (20, 30)


def gen5(width: int = 30, microns: str = "20.85", channel: str = "DAPI 377,447") -> str:
    return (
        '<?xml version="1.0" encoding="UTF-8"?><BTIImageMetaData Version="29"><ImageReference><Well>D6</Well></ImageReference><ImageAcquisition>'
        f"<PixelWidth>{width}</PixelWidth><PixelHeight>20</PixelHeight><ImageWidthMicrons>{microns}</ImageWidthMicrons>"
        f'<ImageHeightMicrons>13.9</ImageHeightMicrons><Channel Color="{channel}"><BrightField>FALSE</BrightField></Channel>'
        "</ImageAcquisition></BTIImageMetaData>"
    )


@pytest.mark.parametrize(
    ("description", "name", "um_per_px", "warnings"),
    [
        (gen5(), "DAPI", 0.695, ()),
        (gen5(channel="Stitched[Texas Red 586,647]"), "Texas Red", 0.695, ()),
        (gen5(channel="Bright Field"), "Bright Field", 0.695, ()),
        (gen5(width=60), "DAPI", None, ("calibration_contradictory",)),
        (gen5(microns="44"), "DAPI", None, ("calibration_contradictory",)),
        (gen5(microns="0"), "DAPI", None, ("calibration_out_of_range",)),
        (gen5(microns="2e400"), "DAPI", None, ("calibration_out_of_range",)),
        (gen5()[:-30], "", None, ()),
    ],
)
def test_gen5_names_the_channel_and_gives_the_size_of_the_image_in_um(
    description: str, name: str, um_per_px: float | None, warnings: tuple[str, ...]
) -> None:
    image = opened(tiff(noise(20, 30), description=description, metadata=None))
    assert (image.channels, image.warnings) == ((name,), warnings)
    assert image.um_per_px == (None if um_per_px is None else pytest.approx(um_per_px))


def stk(name: str, um: tuple[int, int], unit: str, *, on: int = 1) -> bytes:
    """A TIFF of one plane with the UIC tags that MetaMorph writes: tag 33628 holds pairs of an id and a value or its place."""
    unit, name = f"{unit}\0", f"{name}\0"
    side = 16
    head = struct.pack("<2sHI", b"II", 42, 8)
    entries = 10
    at = len(head) + 2 + 12 * entries + 4
    uic1, uic2, texts = at, at + 8 * 5, at + 8 * 5 + 24
    fraction, first, second = texts, texts + 8, texts + 8 + 4 + len(unit)
    pixels = second + 4 + len(name)
    tags = [
        (256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 16), (259, 3, 1, 1), (262, 3, 1, 1),
        (273, 4, 1, pixels), (278, 4, 1, side), (279, 4, 1, 2 * side * side),
        (33628, 4, 5, uic1), (33629, 5, 1, uic2),
    ]  # fmt: skip
    pairs = [(3, on), (4, fraction), (5, fraction), (6, first), (7, second)]
    return b"".join(
        (
            head, struct.pack("<H", entries), *(struct.pack("<HHII", *tag) for tag in tags), struct.pack("<I", 0),
            *(struct.pack("<II", *pair) for pair in pairs), struct.pack("<6I", 0, 1, 2455198, 0, 2455198, 0),
            struct.pack("<II", *um), struct.pack("<I", len(unit)), unit.encode(), struct.pack("<I", len(name)),
            name.encode(), noise(side, side).tobytes(),
        )
    )  # fmt: skip


def test_the_older_stk_tags_name_the_channel_and_the_pixel_size() -> None:
    image = opened(stk("DAPI", (13, 20), "um"))
    assert (image.channels, image.um_per_px, image.shape) == (("DAPI",), 0.65, (16, 16))
    assert opened(stk("DAPI", (13, 20), "um", on=0)).um_per_px is None
    assert opened(stk("DAPI", (1, 1), "pixel")).um_per_px is None


def test_pages_that_nothing_describes_are_channels_to_choose_from() -> None:
    pixels = noise(3, 20, 30)
    image = opened(tiff(pixels, metadata=None))
    assert (image.channels, image.planes) == (("0", "1", "2"), 1)
    np.testing.assert_array_equal(image.read("2", 0), pixels[2])


@pytest.mark.parametrize(
    ("axes", "words"), [("TYX", "3 time points"), ("TZYX", "3 time points"), ("AYX", "axis 'A'")]
)
def test_axes_that_a_count_cannot_choose_from_are_refused_with_what_to_do(axes: str, words: str) -> None:
    fault = refusal(tiff(noise(*[3, 2][: len(axes) - 2], 20, 30), metadata={"axes": axes}))
    assert fault.reason is Reason.WRONG_SHAPE
    assert words in fault.detail
    assert "a file of its own" in fault.detail


def test_a_thumbnail_beside_the_image_is_ignored_and_two_images_are_refused() -> None:
    def two(second: tuple[int, int]) -> bytes:
        buffer = io.BytesIO()
        with tifffile.TiffWriter(buffer) as writer:
            writer.write(noise(60, 60), photometric="minisblack", metadata=None)
            writer.write(noise(*second), photometric="minisblack", metadata=None)
        return buffer.getvalue()

    assert opened(two((15, 15))).shape == (60, 60)
    assert reason(two((61, 60))) is Reason.WRONG_SHAPE


@pytest.mark.parametrize("compression", ["none", "deflate"])
@pytest.mark.parametrize("options", [{}, {"ome": True}, {"imagej": True}, {"metadata": None}])
def test_a_stack_cut_anywhere_is_truncated_and_never_zeros(
    compression: str, options: dict[str, object]
) -> None:
    body = tiff(noise(4, 40, 40) + np.uint16(1), compression=compression, rowsperstrip=8, **options)
    for share in (0.001, 0.05, 0.2, 0.5, 0.8, 0.95):
        cut = body[: max(5, int(len(body) * share))]
        fault = refusal(cut)
        assert fault.reason in (Reason.TRUNCATED, Reason.UNREADABLE), share


def test_a_strip_beyond_the_end_or_never_written_is_truncated() -> None:
    body = tiff(noise(40, 40), compression="deflate", rowsperstrip=8)
    with tifffile.TiffFile(io.BytesIO(body)) as tif:
        counts, offsets = tif.pages.first.tags["StripByteCounts"], tif.pages.first.tags["StripOffsets"]
    for tag, value in ((counts, 0), (counts, 60000), (offsets, 0)):
        damaged = bytearray(body)
        size = tag.valuebytecount // tag.count if tag.count else 4
        damaged[tag.valueoffset + size : tag.valueoffset + 2 * size] = value.to_bytes(size, "little")
        assert reason(bytes(damaged)) is Reason.TRUNCATED


def test_a_header_without_a_page_is_an_unfinished_file() -> None:
    assert "never finished" in refusal(b"II*\x00" + bytes(100)).detail


def test_pages_that_lead_in_a_circle_are_unreadable() -> None:
    body = bytearray(_twelve_bits())
    body[-4:] = body[4:8]
    assert reason(bytes(body)) is Reason.UNREADABLE


def test_complex_pixels_are_refused() -> None:
    assert reason(tiff(noise(8, 8).astype("complex64"))) is Reason.WRONG_DTYPE


def test_cmyk_is_unsupported() -> None:
    body = tiff(noise(8, 8, 4, dtype="uint8"), photometric="separated")
    assert reason(body) is Reason.UNSUPPORTED
    with pytest.raises(FieldFault, match="save it as RGB or grey"):
        open_image(body, "a.tif", max_pixels=1000)


def test_tifffile_says_nothing_on_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    body = tiff(noise(4, 40, 40), imagej=True)
    refusal(body[: len(body) // 2])
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("options", [{}, {"compression": "deflate", "rowsperstrip": 64}])
def test_decoding_needs_little_beside_the_bytes_and_the_pixels(options: dict[str, object]) -> None:
    body = tiff(np.tile(noise(40, 40), (50, 50)), **options)
    tracemalloc.start()
    try:
        found = opened(body).read("", 0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < found.nbytes + 8_000_000
