"""OME-TIFF plates: real metadata of others' tests, and sets of files that are written here and counted."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile

from cellcount_core.cli.main import main
from cellcount_core.config import RunConfig
from cellcount_core.domain.errors import ConfigFault, ExitCode
from cellcount_core.domain.fields import PlannedField
from cellcount_core.domain.plates import PlateFacts
from cellcount_core.layouts.auto import proposed
from cellcount_core.layouts.base import Entry
from cellcount_core.layouts.metadata import Unreadable
from cellcount_core.layouts.ome_tiff import OmeTiff, OmeTiffSettings
from cellcount_core.layouts.ome_xml import read_ome_xml
from cellcount_core.stores.base import StorageOptions
from tests.contract.layouts.layout_contract import companion
from tests.unit.layouts.test_real_names import plates
from tests.unit.plan.listings import MemoryStore, plan_of

OME = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


def body_of(name: str) -> bytes:
    return (plates() / "omexml_spw_meta" / name).read_bytes()


def wells_of(name: str) -> list[dict[str, int]]:
    """The wells of each plate of a real XML, with the number of samples of each."""
    xml = read_ome_xml(name, body_of(name))
    return [{well: len(samples) for well, samples in plate.wells.items()} for plate in xml.plates]


@pytest.mark.parametrize(
    ("name", "wells"),
    [
        ("hcs.ome.xml", [{"A01": 1}]),
        ("C12-H2-only.ome.xml", [{"C12": 1, "H02": 1}]),
        ("C12-H2-only-no-rows.ome.xml", [{"C12": 1, "H02": 1}]),
        ("C12-H2-only-no-columns.ome.xml", [{"C12": 1, "H02": 1}]),
        ("E6-only.ome.xml", [{"E06": 1}]),
        ("E6-only-two-acqs.xml", [{"E06": 3}]),
        ("A1-B1-only-no-acqs.xml", [{"A01": 1, "B01": 1}]),
        ("row-F-only.ome.xml", [{f"F{column:02d}": 1 for column in range(1, 13)}]),
        ("empty-plate.ome.xml", [{}]),
        ("one-screen-one-plate-four-wells.ome.xml", [{"B02": 2, "B03": 2, "C02": 5, "C03": 2}]),
        ("multichannel-no-names.ome.xml", []),
    ],
)
def test_wells_count_from_0_and_may_be_few(name: str, wells: list[dict[str, int]]) -> None:
    assert wells_of(name) == wells


def test_two_plates_of_one_file_are_two_and_shapes_may_be_left_out() -> None:
    assert len(wells_of("two-screens-two-plates-four-wells.ome.xml")) == 2
    shapes = {
        name: [(plate.rows, plate.columns) for plate in read_ome_xml(name, body_of(name)).plates]
        for name in ("C12-H2-only.ome.xml", "C12-H2-only-no-rows.ome.xml", "C12-H2-only-no-columns.ome.xml")
    }
    assert list(shapes.values()) == [[(8, 12)], [(None, 12)], [(8, None)]]


def entries(files: dict[str, bytes], acquisition: int | None = None) -> list[Entry | PlateFacts]:
    return list(OmeTiff("images", acquisition).entries(MemoryStore(files), StorageOptions()))


def test_a_real_companion_has_five_planes_of_one_image_in_five_files() -> None:
    found = entries({"m/multifile.companion.ome": body_of("multifile.companion.ome")})
    assert [
        (each.key, each.parsed.plane, each.parsed.field.well) for each in found if isinstance(each, Entry)
    ] == [(f"m/multifile-Z{plane}.ome.tiff", plane, "multifile") for plane in range(1, 6)]


def test_of_two_acquisitions_one_has_to_be_chosen() -> None:
    body = body_of("E6-only-two-acqs.xml")
    named = re.sub(
        rb"<TiffData[^>]*/>|<MetadataOnly/>",
        b'<TiffData IFD="0" PlaneCount="1"><UUID FileName="x.ome.tif">u</UUID></TiffData>',
        body,
    )
    with pytest.raises(
        ConfigFault, match=r"2 acquisitions, which show the same fields; .*run\.layout\.acquisition=0"
    ):
        entries({"a.companion.ome": named})
    with pytest.raises(ConfigFault, match=r"is 7, and a\.companion\.ome has 2 acquisitions"):
        entries({"a.companion.ome": named}, 7)
    assert {
        each.parsed.field.site for each in entries({"a.companion.ome": named}, 1) if isinstance(each, Entry)
    } <= {1}


def planned(files: dict[str, bytes], **run: object) -> list[PlannedField]:
    with plan_of(MemoryStore(files), RunConfig(layout=OmeTiffSettings(), plate="PX", **run)) as plan:
        return [field for shard in plan.shards() for field in shard.fields]


@pytest.mark.parametrize(
    ("found", "instead", "message"),
    [
        (b'FileName="p-1-DAPI.ome.tif"', b'FileName="../p.ome.tif"', "names the file '../p.ome.tif', which does not lie beside it"),
        (b'FileName="p-1-DAPI.ome.tif"', b'FileName="http://h/p.tif"', "does not lie beside it"),
        (b'FileName="p-1-DAPI.ome.tif"', b'FileName="/etc/passwd"', "does not lie beside it"),
        (b'Row="1"', b'Row="99"', "Row of a Well is '99'"),
        (b'SizeX="30"', b'SizeX="-1"', "SizeX of a Pixels is '-1'"),
        (b'SizeT="1"', b'SizeT="2000000"', None),
        (b'ImageRef ID="I:1"', b'ImageRef ID="I:8"', "well B02 names the image 'I:8', which is not there"),
        (b"<OME ", b"<!DOCTYPE a [<!ENTITY b 'c'>]><OME ", "has a document type"),
        (b"</Image>", b"", "not readable XML"),
    ],
)  # fmt: skip
def test_hostile_companions_are_refused_in_a_sentence(
    found: bytes, instead: bytes, message: str | None
) -> None:
    body = companion({"B02": ("1",)}).replace(found, instead)
    if message is None:
        assert entries({"p.companion.ome": body})
        return
    with pytest.raises((ConfigFault, Unreadable), match=re.escape(message)):
        entries({"p.companion.ome": body})


def discs(number: int) -> np.ndarray:
    """An image of so many bright discs."""
    image = np.full((200, 240), 100, np.uint16)
    rows, columns = np.mgrid[:200, :240]
    for each in range(number):
        row, column = 40 + 60 * (each // 3), 40 + 70 * (each % 3)
        image[(rows - row) ** 2 + (columns - column) ** 2 < 144] = 4000
    return image


COUNTS = {"B02-1": 3, "B02-3": 5, "H12-1": 0}


def written(folder: Path, header: bytes) -> None:
    """Files of a channel each of the images of COUNTS, with this ImageDescription."""
    folder.mkdir()
    for image, number in COUNTS.items():
        for channel, pixels in (("DAPI", discs(number)), ("GFP", discs(1))):
            name = f"p-{image}-{channel}.ome.tif"
            tifffile.imwrite(folder / name, pixels, description=header, metadata=None)


def count(source: Path, out: Path, *more: str) -> dict[tuple[str, str, int], int | None]:
    command = [
        "count",
        str(source),
        str(out),
        "--channel",
        "DAPI",
        "--model",
        "threshold",
        "--set",
        "execution.runner=serial",
        *more,
    ]
    assert main(command) in (ExitCode.OK, ExitCode.FAILURES)
    rows = pq.read_table(out / "fields").to_pylist()
    return {(row["Metadata_Plate"], row["Metadata_Well"], row["Metadata_Site"]): row["count"] for row in rows}


def expected(plate: str) -> dict[tuple[str, str, int], int | None]:
    return {(plate, "B02", 1): 3, (plate, "B02", 2): None, (plate, "B02", 3): 5, (plate, "H12", 1): 0}


XML = companion({"B02": ("B02-1", "B02-2", "B02-3"), "H12": ("H12-1",)}).replace(
    b'SizeX="30" SizeY="20"', b'SizeX="240" SizeY="200"'
)


def test_a_plate_with_a_companion_is_counted_from_the_files_of_its_channel(tmp_path: Path) -> None:
    written(
        tmp_path / "in",
        f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{OME}"><BinaryOnly MetadataFile="p.companion.ome" UUID="urn:uuid:x"/></OME>'.encode(),
    )
    (tmp_path / "in" / "p.companion.ome").write_bytes(XML)
    keys = [path.name for path in (tmp_path / "in").iterdir()]
    assert proposed(keys).layout.kind == "ome-tiff"
    assert count(tmp_path / "in", tmp_path / "out") == expected("P")


def test_a_plate_whose_files_each_describe_the_whole_set_is_counted(tmp_path: Path) -> None:
    written(tmp_path / "in", XML)
    assert count(tmp_path / "in", tmp_path / "out", "--layout", "ome-tiff") == expected("P")


def in_one_file(path: Path, *, odd: bool = False) -> None:
    """All images of COUNTS in one OME-TIFF, with two time points each, of which the second has one disc more. Pages are in no tidy order."""
    pages = [
        (image, channel, time, discs(number + time) if channel == 0 else discs(1))
        for time in (1, 0)
        for channel in (0, 1)
        for image, number in COUNTS.items()
    ]
    xml = XML.replace(b'SizeT="1"', b'SizeT="2"').decode()
    for image in ("B02-1", "B02-2", "B02-3", "H12-1"):
        start = xml.index(f'<Image ID="I:{image}"')
        end = xml.index("</Pixels>", start)
        data = "".join(
            f'<TiffData FirstC="{channel}" FirstT="{time}" IFD="{page}" PlaneCount="1"/>'
            for page, (of, channel, time, _) in enumerate(pages)
            if of == image
        )
        head = xml[start:end].partition("<TiffData")[0]
        xml = f"{xml[:start]}{head}{data}{xml[end:]}"
    path.parent.mkdir()
    with tifffile.TiffWriter(path) as file:
        for number, (_, _, _, pixels) in enumerate(pages):
            described = {"description": xml.encode()} if number == 0 else {}
            file.write(pixels, metadata=None, contiguous=False, **described)
        if odd:
            file.write(discs(0)[:100], metadata=None, contiguous=False)


def test_a_whole_plate_in_one_file_is_counted_page_by_page_each_time_point_a_field(tmp_path: Path) -> None:
    in_one_file(tmp_path / "in" / "plate.ome.tif")
    count(tmp_path / "in", tmp_path / "out", "--layout", "ome-tiff")
    rows = pq.read_table(tmp_path / "out" / "fields").to_pylist()
    counts = {(row["Metadata_Well"], row["Metadata_Site"], row["timepoint"]): row["count"] for row in rows}
    assert counts == {
        ("B02", 1, 1): 3, ("B02", 1, 2): 4, ("B02", 3, 1): 5, ("B02", 3, 2): 6, ("H12", 1, 1): 0, ("H12", 1, 2): 1,
        ("B02", 2, 1): None, ("B02", 2, 2): None,
    }  # fmt: skip


def test_pages_of_several_sizes_are_not_read_by_number(tmp_path: Path) -> None:
    in_one_file(tmp_path / "in" / "plate.ome.tif", odd=True)
    assert set(count(tmp_path / "in", tmp_path / "out", "--layout", "ome-tiff").values()) == {None}
    rows = pq.read_table(tmp_path / "out" / "fields").to_pylist()
    (detail,) = {row["reason_detail"] for row in rows if row["status"] == "failed"}
    assert "of its 13 pages 12 are alike; pages of one size are needed" in detail


def test_a_file_whose_companion_is_not_there_is_told() -> None:
    body = tmp_tiff(f'<OME xmlns="{OME}"><BinaryOnly MetadataFile="gone.companion.ome" UUID="u"/></OME>')
    with pytest.raises(ConfigFault, match=r"is described by 'gone\.companion\.ome', which is not beside it"):
        entries({"a.ome.tif": body})


def tmp_tiff(description: str, *, bigtiff: bool = False) -> bytes:
    from io import BytesIO

    out = BytesIO()
    tifffile.imwrite(out, discs(1), description=description, metadata=None, bigtiff=bigtiff)
    return out.getvalue()


@pytest.mark.parametrize("bigtiff", [False, True])
def test_an_ome_tiff_of_no_plate_is_an_image_of_its_own_name(bigtiff: bool) -> None:
    pixels = '<Pixels DimensionOrder="XYCZT" SizeX="240" SizeY="200" SizeC="1" SizeZ="1" SizeT="1" Type="uint16"><TiffData/></Pixels>'
    xml = f'<OME xmlns="{OME}"><Image ID="I:0" Name="first">{pixels}</Image></OME>'
    files = {"d/a.ome.tif": tmp_tiff(xml, bigtiff=bigtiff), "d/b.ome.tif": tmp_tiff("plain", bigtiff=bigtiff)}
    assert [
        (each.key, each.parsed.field.plate, each.parsed.field.well)
        for each in entries(files)
        if isinstance(each, Entry)
    ] == [
        ("d/a.ome.tif", "d", "first"),
        ("d/b.ome.tif", "d", "b"),
    ]
