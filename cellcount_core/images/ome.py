"""OME-XML in the header of a TIFF: what it says of the image, and whether it may be believed.

It is read before tifffile reads it, for two reasons. An XML with a document type can name entities that grow without bound
or stand for a file; no OME-XML has one, so it is refused. And tifffile reserves what the numbers ask for, so numbers that no
file holds are refused too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from xml.parsers import expat

from cellcount_core.domain.errors import FieldFault, Reason

_MOST_PLANES = 1_000_000
"""Planes of all images in one file together, and labels along an axis."""

_MORE_THAN_PAGES = 16
"""How many times over the TiffData elements may go through the pages of the file."""

_NUMBER = re.compile(r"[0-9]{1,9}")


@dataclass(slots=True)
class Ome:
    """What an OME-XML says of its first image: attributes of its Pixels (None where there is none), names of its channels ("" where
    one has none) and the planes it promises (0 where unknown); `files` are the identifiers of files that the XML names."""

    pixels: dict[str, str] | None = None
    names: list[str] = field(default_factory=list)
    planes: int = 0
    files: set[str] = field(default_factory=set)


def read_ome(xml: str, pages: int, key: str) -> Ome | None:
    """What `xml` says; None where it is not well-formed. `pages` are those of the file.

    Raises FieldFault UNREADABLE for a document type, and for numbers that are none or that no file holds.
    """
    reader = _Reader(pages, key)
    try:
        _walk(xml, key, reader.start, reader.text, reader.end)
    except expat.ExpatError:
        return None
    return reader.finished()


def refuse_document_type(text: str, key: str) -> None:
    """Raises FieldFault UNREADABLE where the XML `text` has a document type; nothing else is looked at."""
    try:
        _walk(text, key, lambda _, __: None, lambda _: None, lambda _: None)
    except expat.ExpatError:
        return


def _walk(
    xml: str,
    key: str,
    start: Callable[[str, dict[str, str]], None],
    text: Callable[[str], None],
    end: Callable[[str], None],
) -> None:
    def refuse(*_: object) -> None:
        detail = "the XML in the header has a document type (DTD), which that of an image has not"
        raise FieldFault(Reason.UNREADABLE, detail, key)

    parser = expat.ParserCreate("utf-8", " ")
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = lambda name, attributes: start(name.rpartition(" ")[2], attributes)
    parser.CharacterDataHandler = text
    parser.EndElementHandler = lambda name: end(name.rpartition(" ")[2])
    parser.Parse(xml.encode("utf-8", "replace"), True)


class _Reader:
    """Takes the elements of one document in order. Sizes are checked as they come, before anything is made of them."""

    def __init__(self, pages: int, key: str) -> None:
        self.found = Ome()
        self._pages = pages
        self._key = key
        self._inside: list[str] = []
        self._sizes: dict[str, int] = {}
        self._images = 0
        self._channels = 0
        self._uuid: list[str] | None = None
        self._all_planes = 0
        self._gone_through = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """An element begins."""
        parent = self._inside[-1] if self._inside else ""
        self._inside.append(name)
        if name == "Pixels":
            self._begin_pixels(attributes)
        elif name == "Channel" and parent == "Pixels":
            self._channel(attributes)
        elif name == "TiffData" and parent == "Pixels":
            self._tiff_data(attributes)
        elif name.startswith("ModuloAlong"):
            self._range(attributes)
        elif name == "UUID":
            self._uuid = []

    def text(self, text: str) -> None:
        """Text between elements."""
        if self._uuid is not None:
            self._uuid.append(text)

    def end(self, name: str) -> None:
        """An element ends."""
        self._inside.pop()
        if name == "UUID" and self._uuid is not None:
            self.found.files.add("".join(self._uuid).strip())
            self._uuid = None

    def finished(self) -> Ome:
        """What was found, checked as a whole."""
        if self._images:
            # A channel may have several samples (red, green, blue), which are one plane.
            channels = min(self._channels, self._sizes["C"]) or self._sizes["C"]
            self.found.planes = channels * self._sizes["Z"] * self._sizes["T"]
        if self._all_planes > _MOST_PLANES and len(self.found.files) < 2:
            self._refuse(f"{self._all_planes} planes", f"the file has {self._pages} pages")
        return self.found

    def _begin_pixels(self, attributes: dict[str, str]) -> None:
        sizes = {axis: self._number(attributes, f"Size{axis}", 1) for axis in "XYCZT"}
        self._all_planes += sizes["C"] * sizes["Z"] * sizes["T"]
        self._images += 1
        if self._images == 1:
            self.found.pixels, self._sizes = attributes, sizes

    def _channel(self, attributes: dict[str, str]) -> None:
        if self._number(attributes, "SamplesPerPixel", 1) < 1:
            self._refuse("channels of 0 samples a pixel", "1 or more are expected")
        if self._images == 1:
            self._channels += 1
            self.found.names.append((attributes.get("Name") or "").strip())

    def _tiff_data(self, attributes: dict[str, str]) -> None:
        for name in ("IFD", "FirstC", "FirstZ", "FirstT"):
            if self._number(attributes, name, 0) > _MOST_PLANES:
                self._refuse(f"{name}={attributes[name]}", f"{_MOST_PLANES} at most is expected")
        count = self._number(attributes, "NumPlanes", 1 if "IFD" in attributes else 0)
        count = self._number(attributes, "PlaneCount", count) or self._pages
        self._gone_through += min(count, self._pages)
        if count > _MOST_PLANES or self._gone_through > _MORE_THAN_PAGES * max(
            self._pages, self._all_planes, _MORE_THAN_PAGES
        ):
            self._refuse(f"TiffData of {count} planes", f"the file has {self._pages} pages")

    def _range(self, attributes: dict[str, str]) -> None:
        if "Start" not in attributes:
            return
        try:
            first, last, step = (
                float(attributes.get(name, default))
                for name, default in (("Start", "0"), ("End", "0"), ("Step", "1"))
            )
            steps = (last - first) / step
        except (ValueError, ZeroDivisionError):
            steps = math.inf
        if not 0 <= steps <= _MOST_PLANES:
            self._refuse(
                f"an axis from {attributes['Start']} to {attributes.get('End')}", "no image has that"
            )

    def _number(self, attributes: dict[str, str], name: str, default: int) -> int:
        text = attributes.get(name)
        if text is None:
            return default
        if not _NUMBER.fullmatch(text):
            self._refuse(f"{name}={text[:40]!r}", "a number below 1,000,000,000 is expected")
        return int(text)

    def _refuse(self, found: str, expected: str) -> None:
        raise FieldFault(Reason.UNREADABLE, f"the OME-XML in the header says {found}; {expected}", self._key)
