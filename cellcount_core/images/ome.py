"""OME-XML in the header of a TIFF: what it says about the image, and in which file and on which page each plane lies.

The TiffData elements alone say which page is which plane, never the position of a page. In a set of files each
element also names the file, by its name, its UUID or both. tifffile is not used for this: it gives zeros for planes
in other files, and goes by position where it cannot follow the XML.

XML with a document type can define entities that grow without bound or that read files. No OME-XML has one, so it is
refused, and so are numbers that no file can reach.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from xml.parsers import expat

from cellcount_core.domain.errors import FieldFault, Reason

_MOST_PLANES = 1_000_000
"""Most planes that all images of one file together may have; also most labels along an axis."""

_MORE_THAN_PAGES = 16
"""The TiffData elements may go through the pages of the file at most this many times."""

_NUMBER = re.compile(r"[0-9]{1,9}")

Position = tuple[int, int, int]
"""Channel, z plane and time point of a plane, each from 0."""


@dataclass(frozen=True, slots=True)
class TiffData:
    """One TiffData element: the `count` pages from page `ifd` on hold the planes from `first` on, in the image's
    order.

    `count` is 0 if it means all pages that there are. `file` and `uuid` name the file; "" if the element does not.
    """

    ifd: int = 0
    first: Position = (0, 0, 0)
    count: int = 0
    file: str = ""
    uuid: str = ""


@dataclass(slots=True)
class OmeImage:
    """One Image element: the attributes of its Pixels, its sizes by axis, the names of its channels ("" for one
    without), their samples per pixel, and its TiffData."""

    pixels: dict[str, str]
    sizes: dict[str, int]
    names: list[str] = field(default_factory=list)
    samples: list[int] = field(default_factory=list)
    data: list[TiffData] = field(default_factory=list)

    def channels(self, samples: int) -> int:
        """Number of channels if pages have `samples` per pixel: several samples (red, green, blue) are one channel
        and one plane."""
        channels = self.sizes["C"]
        return channels // samples if channels % samples == 0 else min(len(self.names), channels) or channels

    @property
    def pixels_of_plane(self) -> int:
        """Pixels in one plane."""
        return self.sizes["X"] * self.sizes["Y"]

    def names_file(self, name: str) -> bool:
        """Whether one of the TiffData elements has this name for its file."""
        return any(_named(block) == name for block in self.data)


@dataclass(slots=True)
class Ome:
    """The contents of an OME-XML: its images, the UUID of its own file, and the name of the file that holds the
    metadata instead ("" if none)."""

    images: list[OmeImage] = field(default_factory=list)
    uuid: str = ""
    metadata_file: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a plane lies: on page `ifd` of the file named `file`, which must have the UUID `uuid`. `file` is "" for
    the file that is open."""

    file: str
    ifd: int
    uuid: str = ""


@dataclass(frozen=True, slots=True)
class _Run:
    """The `count` pages of `file` from `ifd` on hold the planes from number `start` on."""

    start: int
    ifd: int
    count: int
    file: str
    uuid: str


@dataclass(frozen=True, slots=True)
class PlaneMap:
    """Where the planes of one image lie, the order and sizes of its axes, and over how many `files` it is spread."""

    runs: tuple[_Run, ...]
    order: tuple[str, ...]
    sizes: Mapping[str, int]
    files: int

    def place(self, position: Position) -> Place | None:
        """Where a plane lies; None if the XML does not say."""
        rank = _rank(position, self.order, self.sizes)
        if rank is None:
            return None
        number = bisect_right(self.runs, rank, key=lambda run: run.start) - 1
        if number < 0 or rank >= self.runs[number].start + self.runs[number].count:
            return None
        run = self.runs[number]
        return Place(run.file, run.ifd + rank - run.start, run.uuid)

    def held(self) -> list[Position]:
        """The planes that lie in the file that is open, sorted."""
        own = (run for run in self.runs if not run.file)
        return sorted(
            _unrank(run.start + step, self.order, self.sizes) for run in own for step in range(run.count)
        )


def read_ome(xml: str, pages: int, key: str) -> Ome | None:
    """Read the OME-XML `xml` of a file with `pages` pages. None if it is not well-formed XML.

    Raises FieldFault(UNREADABLE) for a document type, and for numbers that are malformed or that no file can reach.
    """
    reader = _Reader(pages, key)
    try:
        walk_xml(xml, key, reader.start, reader.text, reader.end)
    except expat.ExpatError:
        return None
    return reader.finished()


def refuse_document_type(text: str, key: str) -> None:
    """Raises FieldFault(UNREADABLE) if the XML `text` has a document type. Nothing else is checked."""
    try:
        walk_xml(text, key, lambda _, __: None, lambda _: None, lambda _: None)
    except expat.ExpatError:
        return


def map_planes(image: OmeImage, own: str | None, pages: int, samples: int, key: str) -> PlaneMap:
    """Find the page of every plane of `image`.

    `own` is the name that the TiffData elements have for the open file, which has `pages` pages of `samples` per
    pixel; None if they name only one file. Raises FieldFault(WRONG_SHAPE) if two elements place the same plane, or
    one page is to be two planes; FieldFault(UNREADABLE) for more planes than possible.
    """
    sizes = {"C": image.channels(samples), "Z": image.sizes["Z"], "T": image.sizes["T"]}
    data = image.data or [TiffData()]
    names = {_named(block) for block in data}
    if len(names) > 1:
        # Leica's sets count channels that their own SizeC does not.
        for axis, number in zip("CZT", range(3), strict=True):
            sizes[axis] = max(sizes[axis], 1 + max(block.first[number] for block in data))
    total = sizes["C"] * sizes["Z"] * sizes["T"]
    if total > _MOST_PLANES:
        raise FieldFault(
            Reason.UNREADABLE, f"the OME-XML in the header says {total} planes in one image", key
        )
    order = tuple(axis for axis in image.pixels.get("DimensionOrder", "XYCZT") if axis in "CZT")
    if sorted(order) != ["C", "T", "Z"]:
        order = ("C", "Z", "T")
    ranked = [(_rank(block.first, order, sizes), block) for block in data]
    starts = sorted(start for start, _ in ranked if start is not None)
    runs: dict[_Run, None] = {}
    for start, block in ranked:
        if start is None:
            continue
        name = "" if own is None or _named(block) == own else _named(block)
        next_start = bisect_right(starts, start)
        room = (starts[next_start] if next_start < len(starts) else total) - start
        count = block.count or max(0, room if name else min(room, pages - block.ifd))
        runs[_Run(start, block.ifd, min(count, total - start), name, block.uuid if name else "")] = None
    ordered = tuple(sorted(runs, key=lambda run: (run.start, run.file, run.ifd)))
    _check_apart(ordered, key)
    return PlaneMap(ordered, order, sizes, len(names))


def _check_apart(runs: Sequence[_Run], key: str) -> None:
    for before, run in pairwise(runs):
        if run.start < before.start + before.count:
            raise FieldFault(
                Reason.WRONG_SHAPE,
                _twice(run, f"plane {run.start} (in the image's order, from 0)", "two pages"),
                key,
            )
    by_page = sorted((run for run in runs if run.count), key=lambda run: (run.file, run.ifd))
    for before, run in pairwise(by_page):
        if run.file == before.file and run.ifd < before.ifd + before.count:
            raise FieldFault(Reason.WRONG_SHAPE, _twice(run, f"page {run.ifd} (from 0)", "two planes"), key)


def _twice(run: _Run, what: str, claimed: str) -> str:
    where = f" of {run.file}" if run.file else ""
    return f"by the OME-XML {what}{where} is {claimed}; declare what the pages are (run.pages or run.axes)"


def own_name(images: Sequence[OmeImage], uuid: str, file: str, key: str) -> str | None:
    """The name that the TiffData elements of a set have for the open file, whose name is `file` and whose XML has the
    UUID `uuid`. None if they name at most one file.

    Raises FieldFault(WRONG_SHAPE) if no name can be that of the open file, or if its name and its UUID belong to
    different files of the set.
    """
    blocks = [block for image in images for block in image.data]
    names = {_named(block) for block in blocks}
    by_name = next((name for name in sorted(names) if name.casefold() == file.casefold()), None)
    uuids = {block.uuid for block in blocks} - {""}
    by_uuid = {_named(block) for block in blocks if block.uuid and block.uuid == uuid}
    if len(names) < 2 and (by_name is not None or by_uuid or not uuid or not uuids):
        return None
    if by_name is not None and (not by_uuid or by_name in by_uuid):
        return by_name
    if by_name is None and len(by_uuid) == 1:
        return by_uuid.pop()
    if by_name is None and not by_uuid and "" in names:
        return ""
    shown = ", ".join(sorted(names)[:4]) + (", …" if len(names) > 4 else "")
    found = (
        f"its UUID is that of {', '.join(sorted(by_uuid))}"
        if by_uuid
        else "neither its name nor its UUID is among them"
    )
    raise FieldFault(
        Reason.WRONG_SHAPE,
        f"the OME-XML is that of other files ({shown}): {found}; give it its own name back",
        key,
    )


def _named(block: TiffData) -> str:
    return block.file or block.uuid


def _rank(position: Position, order: Sequence[str], sizes: Mapping[str, int]) -> int | None:
    """The number of a plane in the image's order; None if it lies outside the image (ImageJ writes such positions
    after cropping)."""
    at = dict(zip("CZT", position, strict=True))
    if any(at[axis] >= sizes[axis] for axis in "CZT"):
        return None
    return at[order[0]] + sizes[order[0]] * (at[order[1]] + sizes[order[1]] * at[order[2]])


def _unrank(rank: int, order: Sequence[str], sizes: Mapping[str, int]) -> Position:
    at: dict[str, int] = {}
    for axis in order:
        rank, at[axis] = divmod(rank, sizes[axis])
    return at["C"], at["Z"], at["T"]


def walk_xml(
    xml: str,
    key: str,
    start: Callable[[str, dict[str, str]], None],
    text: Callable[[str], None],
    end: Callable[[str], None],
) -> None:
    """Walk the elements of an XML text, by their names without namespaces. Raises FieldFault(UNREADABLE) if it has a document type, and
    expat.ExpatError if it is not XML."""

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
    """Collects what one document says, element by element. Sizes are checked as they come, before anything is built
    from them."""

    def __init__(self, pages: int, key: str) -> None:
        self.found = Ome()
        self._pages = pages
        self._key = key
        self._inside: list[str] = []
        self._uuid: list[str] | None = None
        self._all_planes = 0
        self._gone_through = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """An element begins."""
        parent = self._inside[-1] if self._inside else ""
        self._inside.append(name)
        if name == "OME":
            self.found.uuid = attributes.get("UUID", "").strip()
        elif name == "BinaryOnly":
            self.found.metadata_file = attributes.get("MetadataFile", "").strip()
        elif name == "Pixels":
            self._begin_pixels(attributes)
        elif name == "Channel" and parent == "Pixels":
            self._channel(attributes)
        elif name == "TiffData" and parent == "Pixels":
            self._tiff_data(attributes)
        elif name.startswith("ModuloAlong"):
            self._range(attributes)
        elif name == "UUID":
            self._uuid = []
            self._name_file(attributes.get("FileName", ""), "")

    def text(self, text: str) -> None:
        """Text between elements."""
        if self._uuid is not None:
            self._uuid.append(text)

    def end(self, name: str) -> None:
        """An element ends."""
        self._inside.pop()
        if name == "UUID" and self._uuid is not None:
            self._name_file("", "".join(self._uuid).strip())
            self._uuid = None

    def finished(self) -> Ome:
        """The result, after a check of all images together."""
        named = {_named(block) for image in self.found.images for block in image.data}
        if self._all_planes > _MOST_PLANES and len(named) < 2:
            self._refuse(f"{self._all_planes} planes", f"the file has {self._pages} pages")
        return self.found

    def _begin_pixels(self, attributes: dict[str, str]) -> None:
        sizes = {axis: self._number(attributes, f"Size{axis}", 1) for axis in "XYCZT"}
        self._all_planes += sizes["C"] * sizes["Z"] * sizes["T"]
        self.found.images.append(OmeImage(attributes, sizes))

    def _channel(self, attributes: dict[str, str]) -> None:
        samples = self._number(attributes, "SamplesPerPixel", 1)
        if samples < 1:
            self._refuse("channels of 0 samples a pixel", "1 or more are expected")
        self.found.images[-1].names.append((attributes.get("Name") or "").strip())
        self.found.images[-1].samples.append(samples)

    def _tiff_data(self, attributes: dict[str, str]) -> None:
        found = {name: self._number(attributes, name, 0) for name in ("IFD", "FirstC", "FirstZ", "FirstT")}
        for name, value in found.items():
            if value > _MOST_PLANES:
                self._refuse(f"{name}={attributes[name]}", f"{_MOST_PLANES} at most is expected")
        said = self._number(attributes, "NumPlanes", 1 if "IFD" in attributes else 0)
        said = self._number(attributes, "PlaneCount", said)
        count = said or self._pages
        self._gone_through += min(count, self._pages)
        if count > _MOST_PLANES or self._gone_through > _MORE_THAN_PAGES * max(
            self._pages, self._all_planes, _MORE_THAN_PAGES
        ):
            self._refuse(f"TiffData of {count} planes", f"the file has {self._pages} pages")
        first = (found["FirstC"], found["FirstZ"], found["FirstT"])
        self.found.images[-1].data.append(TiffData(found["IFD"], first, said))

    def _name_file(self, file: str, uuid: str) -> None:
        if "TiffData" not in self._inside or not self.found.images or not self.found.images[-1].data:
            return
        data = self.found.images[-1].data
        # Paths are those of the machine that wrote the set; its files lie together.
        name = re.split(r"[/\\]", file)[-1] or data[-1].file
        data[-1] = replace(data[-1], file=name, uuid=uuid or data[-1].uuid)

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
