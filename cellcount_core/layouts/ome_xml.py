"""What OME-XML says of plates and their images: which files hold which planes of which image, and which wells the images are of.

Elements are read as they come, of any version of the schema, and sizes are checked before anything is built from them. Files are named beside the
XML, by name alone. What an image file's own header says of its pixels is read where images are decoded (images/ome.py).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from cellcount_core.domain.fields import FieldKey, Parsed
from cellcount_core.domain.plates import Position, WellPosition
from cellcount_core.layouts.base import file_name, parent
from cellcount_core.layouts.metadata import MOST_COLUMNS, MOST_ROWS, Unreadable, Values, read_xml

OME_TIFF = re.compile(r".*\.ome\.(?:tiff?|tf[28]|btf)", re.IGNORECASE)
_LENGTHS = {"nm": 1e-3, "µm": 1.0, "μm": 1.0, "um": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6}
"""How many µm each unit is."""

_MOST_PLANES = 2_000_000
"""Planes of all images of one XML together, which bounds the time to read it."""


@dataclass(slots=True)
class Held:
    """The planes of an image that a file holds: the numbers of their channels, z planes and time points, each from 0, and in `runs` where they lie:
    the first plane's rank in the image, its page, and how many follow."""

    channels: set[int] = field(default_factory=set)
    zs: set[int] = field(default_factory=set)
    times: set[int] = field(default_factory=set)
    runs: list[tuple[int, int, int]] = field(default_factory=list)


@dataclass(slots=True)
class SetImage:
    """An Image: its name, the height and width of its planes in px, its sizes along C, Z and T and their order in files, the size of its pixels, the
    names of its channels ("" for one without), and the planes that each of its `files` holds, by keys."""

    name: str
    shape: tuple[int, int] = (0, 0)
    order: str = "CZT"
    sizes: dict[str, int] = field(default_factory=lambda: {"C": 1, "Z": 1, "T": 1})
    um_per_px: float | None = None
    channels: list[str] = field(default_factory=list)
    files: dict[str, Held] = field(default_factory=dict)

    def parsed(self, place: FieldKey, held: Held, folder: str) -> Parsed:
        """What the planes that a file holds are: their channel, plane and time point, if it is one alone."""
        channel = ""
        if len(held.channels) == 1:
            number = min(held.channels)
            named = self.channels[number] if number < len(self.channels) else ""
            channel = named or (f"C{number}" if self.sizes["C"] > 1 else "")
        plane = min(held.zs) + 1 if len(held.zs) == 1 and self.sizes["Z"] > 1 else 0
        time = min(held.times) + 1 if len(held.times) == 1 else 1
        return Parsed(FieldKey(place.plate, place.well, place.site, time), channel, plane, folder)

    def pages(self, held: Held) -> Iterator[tuple[int, Held]]:
        """The pages of a file, from 0, each with the one plane that it holds."""
        for rank, page, count in held.runs:
            for step in range(count):
                c, z, t = self._at(rank + step)
                yield page + step, Held({c}, {z}, {t})

    def hold(self, file: str, first: Mapping[str, int], page: int, count: int | None) -> int:
        """Note that `file` holds `count` planes from `first` on, in the image's order (None: all that follow), from `page` on. Returns how
        many."""
        sizes = [self.sizes[axis] for axis in self.order]
        rank = sum(first[axis] * math.prod(sizes[:at]) for at, axis in enumerate(self.order))
        total = math.prod(sizes)
        number = max(0, min(total - rank, total if count is None else count))
        held = self.files.setdefault(file, Held())
        if number > _MOST_PLANES:
            return number
        held.runs.append((rank, page, number))
        for step in range(number):
            for numbers, at in zip((held.channels, held.zs, held.times), self._at(rank + step), strict=True):
                numbers.add(at)
        return number

    def _at(self, rank: int) -> tuple[int, int, int]:
        """Channel, z plane and time point of the plane of this rank in the image's order."""
        at: dict[str, int] = {}
        for axis in self.order:
            rank, at[axis] = divmod(rank, self.sizes[axis])
        return at["C"], at["Z"], at["T"]


@dataclass(slots=True)
class OmeSample:
    """A WellSample: its ID, the ID of its image, and its place if it has one in a unit of length."""

    id: str
    image: str = ""
    position: Position | None = None


@dataclass(slots=True)
class OmePlate:
    """A Plate: its ID and name, its shape if it is stated, the samples of its wells, and the IDs of the samples of each acquisition."""

    id: str
    name: str
    rows: int | None
    columns: int | None
    wells: dict[str, list[OmeSample]] = field(default_factory=dict)
    acquisitions: list[set[str]] = field(default_factory=list)


@dataclass(slots=True)
class OmeXml:
    """What an OME-XML says. `key` is that of its file; files that it names lie beside it."""

    key: str
    plates: list[OmePlate] = field(default_factory=list)
    images: dict[str, SetImage] = field(default_factory=dict)
    elsewhere: str = ""
    uuid: str = ""
    _path: list[str] = field(default_factory=list)
    _image: SetImage | None = None
    _data: dict[str, str] | None = None
    _named: str = ""
    _planes: int = 0

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        """An element begins."""
        if not self._path and name != "OME":
            raise Unreadable(self.key, f"OME-XML begins with OME (found {name!r})")
        above = self._path[-1] if self._path else ""
        self._path.append(name)
        values = Values(self.key, f"a {name}", attributes)
        if name == "OME":
            self.uuid = attributes.get("UUID", "")
        elif name == "BinaryOnly":
            self.elsewhere = attributes.get("MetadataFile", "")
        elif name == "Plate":
            rows = values.whole("Rows", MOST_ROWS) if "Rows" in attributes else None
            columns = values.whole("Columns", MOST_COLUMNS) if "Columns" in attributes else None
            self.plates.append(
                OmePlate(
                    attributes.get("ID", f"Plate:{len(self.plates)}"),
                    attributes.get("Name", "").strip(),
                    rows,
                    columns,
                )
            )
        elif above == "Plate" or (above in ("Well", "PlateAcquisition", "WellSample") and self.plates):
            self._of_plate(name, values)
        elif name == "Image":
            self._image = SetImage(attributes.get("Name", "").strip())
            if self.images.setdefault(attributes.get("ID", ""), self._image) is not self._image:
                raise Unreadable(self.key, f"has two images of the ID {attributes.get('ID', '')!r}")
        elif self._image is not None:
            self._of_image(self._image, name, values)

    def _of_plate(self, name: str, values: Values) -> None:
        plate, attributes = self.plates[-1], values.values
        if name == "Well":
            row, column = values.whole("Row", MOST_ROWS - 1, 0), values.whole("Column", MOST_COLUMNS - 1, 0)
            well = WellPosition(row, column).name
            if well in plate.wells:
                raise Unreadable(self.key, f"the plate {plate.name or plate.id!r} has the well {well} twice")
            plate.wells[well] = []
        elif name == "WellSample" and plate.wells:
            list(plate.wells.values())[-1:][0].append(
                OmeSample(attributes.get("ID", ""), position=_position(values))
            )
        elif name == "ImageRef" and plate.wells and (samples := plate.wells[next(reversed(plate.wells))]):
            samples[-1].image = attributes.get("ID", "")
        elif name == "PlateAcquisition":
            plate.acquisitions.append(set())
        elif name == "WellSampleRef" and plate.acquisitions:
            plate.acquisitions[-1].add(attributes.get("ID", ""))

    def _of_image(self, image: SetImage, name: str, values: Values) -> None:
        attributes = values.values
        if name == "Pixels":
            image.shape = values.whole("SizeY", 10**9), values.whole("SizeX", 10**9)
            image.sizes = {axis: values.whole(f"Size{axis}", _MOST_PLANES) for axis in "CZT"}
            order = "".join(axis for axis in attributes.get("DimensionOrder", "XYCZT") if axis in "CZT")
            image.order = order if sorted(order) == ["C", "T", "Z"] else "CZT"
            unit = _LENGTHS.get(attributes.get("PhysicalSizeXUnit", "µm"))
            if "PhysicalSizeX" in attributes and unit is not None:
                image.um_per_px = values.number("PhysicalSizeX") * unit
        elif name == "Channel" and len(image.channels) < image.sizes["C"]:
            image.channels.append(attributes.get("Name", "").strip())
        elif name == "TiffData":
            self._data, self._named = dict(attributes), ""
        elif name == "UUID" and self._data is not None:
            self._named = attributes.get("FileName", "").strip()
            if self._named in (".", "..") or re.search(r"[/\\\0]", self._named):
                raise Unreadable(
                    self.key, f"names the file {self._named[:80]!r}, which does not lie beside it"
                )

    def end(self, name: str, text: str) -> None:
        """An element ends."""
        self._path.pop()
        if name == "UUID" and self._data is not None:
            self._data["UUID"] = text.strip()
        elif name == "TiffData" and self._data is not None and self._image is not None:
            self._hold(self._image, Values(self.key, "a TiffData", self._data))
            self._data = None
        elif name == "Image":
            self._image = None

    def _hold(self, image: SetImage, values: Values) -> None:
        """Take a TiffData, in which `UUID` is that of the file."""
        name = self._named
        if not name and values.values.get("UUID", self.uuid) == self.uuid and OME_TIFF.fullmatch(self.key):
            name = file_name(self.key)
        if not name:
            return
        first = {
            axis: values.whole(f"First{axis}", 10**9, 0) if f"First{axis}" in values.values else 0
            for axis in "CZT"
        }
        if any(first[axis] >= image.sizes[axis] for axis in "CZT"):
            # Leica's sets count channels that their own SizeC does not; ImageJ writes positions outside after cropping.
            image.sizes = {axis: max(size, first[axis] + 1) for axis, size in image.sizes.items()}
        page = values.whole("IFD", 10**9, 0) if "IFD" in values.values else 0
        single = {"IFD", "FirstC", "FirstZ", "FirstT"} & values.values.keys()
        count = (
            values.whole("PlaneCount", 10**9, 0) if "PlaneCount" in values.values else 1 if single else None
        )
        folder = parent(self.key)
        self._planes += image.hold(f"{folder}/{name}" if folder else name, first, page, count)
        if self._planes > _MOST_PLANES:
            raise Unreadable(self.key, f"places more than {_MOST_PLANES} planes")


def _position(values: Values) -> Position | None:
    units = [_LENGTHS.get(values.values.get(f"Position{axis}Unit", "")) for axis in "XY"]
    if units[0] is None or units[1] is None or not {"PositionX", "PositionY"} <= values.values.keys():
        return None
    return Position(
        round(values.number("PositionX") * units[0], 3), round(values.number("PositionY") * units[1], 3)
    )


def read_ome_xml(key: str, body: bytes) -> OmeXml:
    """Read the OME-XML `body` of the file `key`. Raises Unreadable if it is none, or if its numbers or names cannot be."""
    xml = OmeXml(key)
    read_xml(key, body, xml.start, xml.end)
    return xml
