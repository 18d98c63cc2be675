"""What an OME-XML may say, and what no file holds."""

from __future__ import annotations

import numpy as np
import pytest

from cellcount_core.domain.errors import FieldFault, Reason
from cellcount_core.images.ome import TiffData, read_ome
from tests.hostile.tiffs import ome_xml
from tests.unit.images.encoded import noise, opened, tiff

_RANGE = '<M><ModuloAlongT Start="{}" End="{}" Step="{}"/></M>'


def test_the_first_image_is_told_and_the_files_that_are_named() -> None:
    xml = ome_xml(
        z="3",
        name=" DAPI ",
        data='<TiffData IFD="0" PlaneCount="3"><UUID FileName="D:\\run\\a.tif"> urn:1 </UUID></TiffData>',
    )
    found = read_ome(xml, 3, "a.tif")
    assert found is not None
    [image] = found.images
    assert (image.names, image.pixels["SizeX"]) == (["DAPI"], "96")
    assert image.data == [TiffData(0, (0, 0, 0), 3, "a.tif", "urn:1")]


@pytest.mark.parametrize(
    "xml",
    [
        ome_xml(z="-5"),
        ome_xml(z="4_0"),
        ome_xml(z="４"),
        ome_xml(z="9999999999"),
        ome_xml(z="2000000"),
        ome_xml(samples="0"),
        ome_xml(data='<TiffData PlaneCount="30000000"/>'),
        ome_xml(data='<TiffData IFD="-1"/>'),
        ome_xml(data="<TiffData/>" * 300),
        ome_xml(annotations=_RANGE.format(0, 600_000_000, 1)),
        ome_xml(annotations=_RANGE.format(0, 6, 0)),
        ome_xml(annotations=_RANGE.format("nan", 6, 1)),
        ome_xml(annotations=_RANGE.format(0, 6, "1e-30")),
        "<!DOCTYPE OME>" + ome_xml(),
    ],
)
def test_numbers_that_no_file_holds_are_refused(xml: str) -> None:
    with pytest.raises(FieldFault) as caught:
        read_ome(xml, 9, "a.tif")
    assert caught.value.reason is Reason.UNREADABLE
    assert caught.value.key == "a.tif"


def test_a_plate_of_many_files_may_be_described_in_each() -> None:
    files = "".join(f"<TiffData><UUID>urn:{n}</UUID></TiffData>" for n in range(2))
    found = read_ome(ome_xml(z="999999", data=files, more=ome_xml(z="999999")), 1, "a.tif")
    assert found is not None
    assert [len(image.data) for image in found.images] == [2, 1]
    assert read_ome(ome_xml(annotations=_RANGE.format(0, 6, 0.5)), 9, "a.tif") is not None


def test_an_xml_that_is_torn_is_left_alone_and_its_file_is_read() -> None:
    pixels = noise(96, 96)
    torn = ome_xml(z="4").replace("</Pixels>", "")
    assert read_ome(torn, 1, "a.tif") is None
    image = opened(tiff(pixels, description=torn.encode(), metadata=None))
    assert image.channels == ("",)
    np.testing.assert_array_equal(image.read("", 0), pixels)
