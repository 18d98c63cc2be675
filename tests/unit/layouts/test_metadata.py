"""Metadata files are read whatever their encoding, and XML that can do harm is refused in words."""

from __future__ import annotations

import tracemalloc

import pytest

from cellcount_core.layouts.harmony import Harmony
from cellcount_core.layouts.metadata import Unreadable, read_xml, text_of
from tests.contract.layouts.layout_contract import HARMONY

XML = '<?xml version="1.0"?><a:Root xmlns:a="urn:x"><a:Name unit="µm">Grün</a:Name><Empty/></a:Root>'


def seen(body: bytes) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    read_xml("m.xml", body, lambda name, attributes: None, lambda name, text: found.append((name, text)))
    return found


def refusal(body: bytes) -> str:
    with pytest.raises(Unreadable) as caught:
        seen(body)
    assert caught.value.key == "m.xml"
    return caught.value.why


@pytest.mark.parametrize(
    "body",
    [
        XML.encode(),
        XML.encode("utf-8-sig"),
        XML.encode("utf-16"),
        b"\xff\xfe" + XML.replace("?>", ' encoding="UTF-16"?>').encode("utf-16-le"),
        XML.encode("latin-1"),
        XML.replace("?>", ' encoding="iso-8859-1"?>').encode("latin-1"),
        XML.replace("?>", " encoding='windows-1252'?>").encode("cp1252"),
        XML.replace("?>", ' encoding="utf-8"?>').encode("latin-1"),
    ],
)
def test_xml_of_any_encoding_is_read_by_local_names(body: bytes) -> None:
    assert seen(body) == [("Name", "Grün"), ("Empty", ""), ("Root", "")]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'<!DOCTYPE x [<!ENTITY a "aaaaaaaa">]><x>&a;</x>', "has a document type"),
        (b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><x/>', "has a document type"),
        (b"<a>&undeclared;</a>", "undefined entity in line 1"),
        (XML.encode()[:60], "not readable XML"),
        (b"", "no element found"),
        (b"not xml", "not readable XML"),
        (b"<a>" * 70, "nested more than 64 deep"),
        (
            XML.replace("?>", ' encoding="utf-e"?>').encode(),
            "declares the encoding 'utf-e', which does not exist",
        ),
        (
            XML.replace("?>", ' encoding="zlib"?>').encode(),
            "declares the encoding 'zlib', which does not exist",
        ),
    ],
)
def test_xml_that_is_none_or_can_do_harm_is_refused(body: bytes, why: str) -> None:
    assert why in refusal(body)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_elements_of_an_index() -> None:
    body = b"<Images>" + b"<Image><Row>1</Row><Col>2</Col></Image>\n" * 30_000 + b"</Images>"
    tracemalloc.start()
    read_xml("m.xml", body, lambda name, attributes: None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * len(body)


def test_text_is_read_in_what_instrument_pcs_write() -> None:
    assert text_of("10 µm".encode("utf-8-sig")) == text_of("10 µm".encode("utf-16")) == "10 µm"
    assert text_of("10 µm".encode()) == text_of("10 µm".encode("cp1252")) == "10 µm"
    assert text_of(b"\x81\xff") == "\ufffdÿ"


RECORD = "<Row>3</Row><Col>4</Col><FieldID>1</FieldID>"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("<State>Failed</State>", "the state 'Failed' is given"),
        ("<URL>../../other/r03c04f01p01-ch1sk1fk1fl1.tiff</URL>", "leads out of the folder"),
        ("<URL>http://host/r03c04f01p01-ch1sk1fk1fl1.tiff</URL>", "leads out of the folder"),
        ("<URL>r03c05f01p01-ch1sk1fk1fl1.tiff</URL>", "a file of another well, field or channel"),
        ("<URL>r03c04f01p01-ch2sk1fk1fl1.tiff</URL>", "a file of another well, field or channel"),
    ],
)
def test_what_an_index_says_of_an_image_that_it_should_not_is_noted(more: str, said: str) -> None:
    body = HARMONY.replace(RECORD.encode(), f"{RECORD}{more}".encode())
    [facts] = Harmony("p").describe({"m/Images/Index.idx.xml": body})
    [note] = facts.notes
    assert note.startswith("of 1 image, such as ")
    assert said in note


@pytest.mark.parametrize("size", ["0", "-6.5E-07", "6.5"])
def test_a_pixel_size_that_no_microscope_has_is_noted_and_not_taken(size: str) -> None:
    [facts] = Harmony("p").describe({"m/Images/Index.idx.xml": HARMONY.replace(b"6.5E-07", size.encode())})
    assert facts.um_per_px is None
    assert "which no microscope has" in facts.notes[0]


def refused(body: bytes) -> str:
    with pytest.raises(Unreadable) as caught:
        Harmony("p").describe({"m/Images/Index.idx.xml": body})
    return str(caught.value)


@pytest.mark.parametrize("images", [b"<Images/>", b"<Images></Images>", b""])
def test_an_index_without_images_is_refused(images: bytes) -> None:
    start, end = HARMONY.index(b"<Images>"), HARMONY.index(b"</Images>") + len(b"</Images>")
    assert refused(HARMONY[:start] + images + HARMONY[end:]) == (
        "m/Images/Index.idx.xml: lists no image: there is no Image in its Images"
    )


def test_an_image_that_states_something_twice_is_refused_if_it_is_not_the_same() -> None:
    same, other = (RECORD.replace("</FieldID>", f"</FieldID><FieldID>{site}</FieldID>") for site in (1, 7))
    Harmony("p").describe({"m/Images/Index.idx.xml": HARMONY.replace(RECORD.encode(), same.encode())})
    assert refused(HARMONY.replace(RECORD.encode(), other.encode())) == (
        "m/Images/Index.idx.xml: an Image states FieldID twice: '1' and '7'"
    )


def test_an_image_that_is_listed_twice_is_noted() -> None:
    twice = HARMONY.replace(b"<FieldID>3</FieldID>", b"<FieldID>2</FieldID>")
    [facts] = Harmony("p").describe({"m/Images/Index.idx.xml": twice})
    assert facts.notes == (
        "of 1 image, such as P24, site 2, channel 1, an image of the same field, channel, plane and time point is listed before",
    )


@pytest.mark.parametrize(("second", "shape"), [((64, 96), (64, 96)), ((64, 64), None)])
def test_the_shape_of_images_is_stated_where_all_have_the_same(
    second: tuple[int, int], shape: tuple[int, int] | None
) -> None:
    body = HARMONY
    for height, width in ((64, 96), second):
        sizes = f"<ImageSizeX>{width}</ImageSizeX><ImageSizeY>{height}</ImageSizeY><TimepointID >"
        body = body.replace(b"<TimepointID>", sizes.encode(), 1)
    [facts] = Harmony("p").describe({"m/Images/Index.idx.xml": body})
    assert facts.image_shape == shape
