"""Which page is which plane is what TiffData says: in one file, in sets of files, and where a companion describes them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import tifffile

from cellcount_core.domain.errors import FieldFault, Reason
from cellcount_core.images.decode import ImageFile, open_image
from cellcount_core.images.imagefile import UNDECLARED, Declared
from tests.unit.images.encoded import Array

A, B = ("s_a.ome.tif", "urn:uuid:0a"), ("s_b.ome.tif", "urn:uuid:0b")


def xml(
    data: str,
    *,
    c: int = 2,
    z: int = 1,
    t: int = 1,
    order: str = "XYCZT",
    uuid: str = "",
    names: Sequence[str] = ("DAPI", "GFP"),
) -> str:
    """An OME-XML with these TiffData."""
    channels = "".join(f'<Channel ID="Channel:0:{n}" Name="{name}"/>' for n, name in enumerate(names[:c]))
    own = f' UUID="{uuid}"' if uuid else ""
    return (
        f'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"{own}><Image ID="Image:0">'
        f'<Pixels ID="Pixels:0" DimensionOrder="{order}" Type="uint16" SizeX="32" SizeY="32" SizeC="{c}" SizeZ="{z}" SizeT="{t}">'
        f"{channels}{data}</Pixels></Image></OME>"
    )


def block(file: tuple[str, str] | None = None, **attributes: int) -> str:
    """One TiffData element."""
    said = " ".join(f'{name}="{value}"' for name, value in attributes.items())
    inside = "" if file is None else f'<UUID FileName="{file[0]}">{file[1]}</UUID>'
    return f"<TiffData {said}>{inside}</TiffData>"


def pages(values: Sequence[int], description: str) -> bytes:
    """A TIFF of pages that each hold one value."""
    sink = io.BytesIO()
    with tifffile.TiffWriter(sink) as writer:
        for number, value in enumerate(values):
            page = np.full((32, 32), value, np.uint16)
            text = description.encode() if number == 0 else None
            writer.write(page, description=text, metadata=None, contiguous=False, photometric="minisblack")
    return sink.getvalue()


def opened(
    body: bytes,
    name: str = "p/s_a.ome.tif",
    others: Mapping[str, bytes] | None = None,
    declared: Declared = UNDECLARED,
) -> ImageFile:
    return open_image(body, name, max_pixels=100_000, declared=declared, beside=(others or {}).get)


def value(plane: Array) -> int:
    assert plane.min() == plane.max()
    return int(plane.min())


def refused(body: bytes, **given: object) -> FieldFault:
    with pytest.raises(FieldFault) as caught:
        opened(body, **given).read("DAPI", 0)  # type: ignore[arg-type]
    return caught.value


def test_tiff_data_says_which_page_is_which_plane_whatever_their_order() -> None:
    swapped = block(IFD=1, FirstC=0) + block(IFD=0, FirstC=1)
    image = opened(pages([8, 40], xml(swapped)))
    assert [value(image.read(name, 0)) for name in ("DAPI", "GFP", "dapi")] == [40, 8, 40]
    # Planes of one channel first (XYZCT), and of the first plane's channels first (XYCZT).
    for order, right in (("XYZCT", [0, 1, 2, 3]), ("XYCZT", [0, 2, 1, 3]), ("XYTZC", [0, 1, 2, 3])):
        image = opened(pages([0, 1, 2, 3], xml("<TiffData/>", z=2, order=order)))
        assert [value(image.read(name, z)) for name in ("DAPI", "GFP") for z in (0, 1)] == right, order
    # Without TiffData, and with one that begins in the middle.
    image = opened(pages([5, 6], xml("")))
    assert [value(image.read(name, 0)) for name in ("DAPI", "GFP")] == [5, 6]
    late = block(IFD=2, FirstC=0, PlaneCount=2)
    image = opened(pages([9, 9, 5, 6], xml(late)))
    assert [value(image.read(name, 0)) for name in ("DAPI", "GFP")] == [5, 6]


def test_a_file_that_was_renamed_alone_is_still_its_own() -> None:
    image = opened(pages([5, 6], xml(block(A, IFD=0, FirstC=1) + block(A, IFD=1, FirstC=0))), "other.tif")
    assert [value(image.read(name, 0)) for name in ("DAPI", "GFP")] == [6, 5]


def test_a_page_that_is_two_planes_or_a_plane_on_two_pages_is_refused() -> None:
    for data in (block(IFD=0, FirstC=0) + block(IFD=0, FirstC=1), block(IFD=0) + block(IFD=1)):
        fault = refused(pages([5, 6], xml(data)))
        assert fault.reason is Reason.WRONG_SHAPE
        assert "run.pages" in fault.detail


def test_a_plane_that_no_page_is_named_for_is_missing_and_never_another() -> None:
    image = opened(pages([5, 6, 7, 8], xml(block(IFD=0, FirstC=1) + block(IFD=1, FirstC=1, FirstZ=1), z=2)))
    assert image.channels == ("GFP",)
    with pytest.raises(FieldFault) as caught:
        image.own("DAPI")
    assert caught.value.reason is Reason.CHANNEL_MISSING
    with pytest.raises(FieldFault) as caught:
        image.read("DAPI", 0)
    assert caught.value.reason is Reason.TRUNCATED
    assert refused(pages([5], xml("<TiffData/>"))).reason is Reason.TRUNCATED


def by_channel(z: int = 2) -> str:
    return "".join(
        block(file, IFD=n, FirstC=c, FirstZ=n, PlaneCount=1)
        for c, file in enumerate((A, B))
        for n in range(z)
    )


@pytest.mark.parametrize("own", [True, False], ids=["uuid", "name"])
def test_a_set_by_channel_gives_each_file_its_own_channel_and_never_the_other(own: bool) -> None:
    for file, held, other in ((A, "DAPI", "GFP"), (B, "GFP", "DAPI")):
        image = opened(pages([1, 2], xml(by_channel(), z=2, uuid=file[1] if own else "")), f"p/{file[0]}")
        assert (image.channels, image.whole, image.planes) == ((held,), ("DAPI", "GFP"), 2)
        assert [value(image.read(held, z)) for z in (0, 1)] == [1, 2]
        assert (image.own(held), image.own(other)) == ((0, 1), ())
        second = B if file is A else A
        with pytest.raises(FieldFault) as caught:
            image.read(other, 0)
        assert (caught.value.reason, second[0] in caught.value.detail) == (Reason.ABSENT, True)
        there = pages([7, 8], xml(by_channel(), z=2, uuid=second[1] if own else ""))
        image = opened(pages([1, 2], xml(by_channel(), z=2)), f"p/{file[0]}", {second[0]: there})
        assert [value(image.read(name, 1)) for name in (held, other)] == [2, 8]


def test_a_plane_in_another_file_of_the_set_is_read_there() -> None:
    data = block(A, IFD=0, FirstZ=0) + block(B, IFD=1, FirstZ=1)
    first = pages([11], xml(data, c=1, z=2, uuid=A[1]))
    second = pages([99, 22], xml(data, c=1, z=2, uuid=B[1]))
    image = opened(first, f"p/{A[0]}", {B[0]: second})
    assert (image.planes, image.own("DAPI")) == (2, (0,))
    assert [value(image.read("DAPI", z)) for z in (0, 1)] == [11, 22]
    assert opened(second, f"p/{B[0]}", {A[0]: first}).own("DAPI") == (1,)
    for others, reason in (
        ({}, Reason.ABSENT),
        ({B[0]: b"no TIFF"}, Reason.UNREADABLE),
        ({B[0]: pages([99], xml(data, c=1, z=2, uuid=B[1]))}, Reason.TRUNCATED),
        ({B[0]: pages([99, 22], xml(data, c=1, z=2, uuid="urn:uuid:0c"))}, Reason.WRONG_SHAPE),
    ):
        image = opened(first, f"p/{A[0]}", others)
        with pytest.raises(FieldFault) as caught:
            image.read("DAPI", 1)
        assert caught.value.reason is reason


def test_a_file_that_cannot_be_told_from_the_others_of_its_set_is_refused() -> None:
    alone = block(A, IFD=0) + block(A, IFD=1, FirstZ=1)
    for name, uuid, data in (
        ("p/x.tif", "", by_channel()),
        (f"p/{B[0]}", A[1], by_channel()),
        (f"p/{B[0]}", B[1], alone),
    ):
        fault = refused(pages([1, 2], xml(data, z=2, uuid=uuid)), name=name)
        assert fault.reason is Reason.WRONG_SHAPE
        assert "s_a.ome.tif" in fault.detail
    # Renamed, and known by its UUID; letters of a name may be small or capital.
    assert opened(pages([1, 2], xml(by_channel(), z=2)), "p/S_B.OME.TIF").channels == ("GFP",)
    assert opened(pages([1, 2], xml(by_channel(), z=2, uuid=B[1])), "p/x.tif").channels == ("GFP",)


def test_elements_without_a_count_end_where_the_next_begins() -> None:
    data = block(A, FirstC=0) + block(B, FirstC=1)
    for file, held in ((A, "DAPI"), (B, "GFP")):
        image = opened(pages([1, 2], xml(data, z=2, order="XYZCT", uuid=file[1])), f"p/{file[0]}")
        assert image.channels == (held,)
        assert [value(image.read(held, z)) for z in (0, 1)] == [1, 2]


def test_time_points_in_files_of_their_own_are_no_axis_of_each() -> None:
    data = block(A, IFD=0, FirstT=0) + block(B, IFD=0, FirstT=1)
    image = opened(pages([7], xml(data, c=1, t=2, uuid=B[1])), f"p/{B[0]}")
    assert (image.images, value(image.read("DAPI", 0))) == (1, 7)
    fault = refused(pages([7, 8], xml("<TiffData/>", c=1, t=2)))
    assert "run.pages: time" in fault.detail
    image = opened(pages([7, 8], xml("<TiffData/>", c=1, t=2)), declared=Declared(pages="time"))
    assert [value(image.read("DAPI", 0, index)) for index in range(image.images)] == [7, 8]
    # Time points that were written as planes, and the other way round.
    image = opened(pages([7, 8], xml("<TiffData/>", c=1, z=2)), declared=Declared(pages="time"))
    assert (image.images, image.planes) == (2, 1)
    image = opened(pages([7, 8], xml("<TiffData/>", c=1, t=2)), declared=Declared(pages="z"))
    assert (image.images, image.planes, value(image.read("", 1))) == (1, 2, 8)


def test_a_companion_describes_the_pages_and_without_it_nothing_does() -> None:
    binary = '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{}"><BinaryOnly MetadataFile="s.companion.ome" UUID="urn:uuid:0c"/></OME>'
    companion = xml(by_channel(1))
    for file, held, other in ((A, "DAPI", "GFP"), (B, "GFP", "DAPI")):
        body = pages([4], binary.format(file[1]))
        image = opened(body, f"p/{file[0]}", {"s.companion.ome": companion.encode()})
        assert (image.channels, value(image.read(held, 0))) == ((held,), 4)
        assert image.own(other) == ()
        fault = refused(body, name=f"p/{file[0]}")
        assert (fault.reason, "s.companion.ome" in fault.detail) == (Reason.ABSENT, True)
        assert value(opened(body, declared=Declared(pages="z")).read("", 0)) == 4
    # The metadata may lie in the first TIFF of the set.
    master = pages([4], xml(by_channel(1), uuid=A[1]))
    second = pages([5], binary.replace("s.companion.ome", A[0]).format(B[1]))
    assert opened(second, f"p/{B[0]}", {A[0]: master}).channels == ("GFP",)


def test_one_image_of_a_plate_that_each_file_describes_is_its_own() -> None:
    one = xml(block(A, IFD=0), c=1)
    both = one.replace(
        "</Image>",
        "</Image>" + xml(block(B, IFD=0), c=1, names=["GFP"]).split("</OME>")[0].partition('06">')[2],
    )
    for file, name in ((A, "DAPI"), (B, "GFP")):
        image = opened(pages([3], both), f"p/{file[0]}")
        assert (image.channels, image.whole) == ((name,), (name,))
