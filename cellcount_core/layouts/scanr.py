"""scanR names (Olympus, Evident), and the `experiment_descriptor.xml` and `metadata.ome.xml` that describe them.

`<well or nothing>--W#####--P#####--Z#####--T#####--<channel>.tif` in the folder `data` of an experiment. W and P count from 1, Z and T from 0,
as the tables then do. W is the running number of the well, row by row; the text before it is the well's name, if it has one ("B2"). Without
it the well is found by the plate's shape, or by a name that the metadata gives the number. A channel's name may hold blanks and `#`.

`data/metadata.ome.xml` (scanR 3) has an image for each well and position, "Well 14, Position 1 (B2)", with its pixel size in µm, its stage
position in µm with y up, and the files that were written: these are the expected fields. `experiment_descriptor.xml`, above `data`, is a
LabVIEW structure of names and values in Latin-1, mostly without saying so: the shape of the plate, the wells that were selected, how many
positions each has, the pixel size, z slices and time points, and the channels (an idle one, and "Autofocus", were not acquired). Its positions
have no stated unit and are not used. A selected well or a position without a file is missing. (Bio-Formats' ScanrReader.java; the
metadata.ome.xml of fractal-uzh-converters. No real descriptor was at hand.)

TIFFs that the frame grabber wrote (Software "National Instruments IMAQ") hold 12-bit values with an offset, which is taken off where images
are decoded (images/tiff.py).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from cellcount_core.domain.fields import FieldKey, Parsed
from cellcount_core.domain.plates import (
    FORMATS,
    ExpectedFields,
    PlateFacts,
    Position,
    expected_fields,
    numbered_well,
    parse_well,
    well_of_number,
)
from cellcount_core.layouts.base import (
    Ignored,
    Layout,
    LayoutKind,
    LayoutSettings,
    Sidecar,
    Traits,
    file_name,
    ignored_name,
    is_hidden,
    parent,
)
from cellcount_core.layouts.metadata import (
    MOST_COLUMNS,
    MOST_ROWS,
    Odd,
    Unreadable,
    Values,
    only,
    pixel_size,
    read_xml,
)

_NAME = re.compile(
    r"(?P<well>[^/]*?)--W(?P<number>[0-9]{5})--P(?P<site>[0-9]{5})--Z(?P<plane>[0-9]{5})--T(?P<timepoint>[0-9]{5})--(?P<channel>.+)\.tiff?",
    re.IGNORECASE,
)
_IMAGE = re.compile(
    r"Well (?P<number>[0-9]{1,5}), Position (?P<site>[0-9]{1,5})(?: \((?P<well>[^)]{1,20})\))?"
)
_DESCRIPTOR, _OME = "experiment_descriptor.xml", "metadata.ome.xml"
_MOST_NUMBER, _MOST_SITES, _MOST_STEPS = 99_999, 10_000, 99_999
_ALIKE = 0.01


class ScanrSettings(LayoutSettings):
    """scanR (Olympus, Evident): `B2--W00014--P00001--Z00000--T00000--DAPI.tif`, `experiment_descriptor.xml`, `metadata.ome.xml`."""

    kind: Literal["scanr"] = "scanr"


@dataclass(frozen=True, slots=True)
class Scanr(Layout):
    """The plate is the name in the descriptor, or else the experiment's folder, above `data`; `root` if there is no such folder."""

    root: str

    def parse(self, key: str) -> Parsed | Sidecar | Ignored | None:
        """See `Layout.parse`. None for an image whose name does not follow the convention."""
        folder = _folder(parent(key))
        if file_name(key).lower() in (_DESCRIPTOR, _OME) and not is_hidden(key):
            return Sidecar(folder, file_name(key))
        if (ignored := ignored_name(key)) is not None:
            return ignored
        match = _NAME.fullmatch(file_name(key))
        if match is None or int(match["number"]) < 1 or int(match["site"]) < 1:
            return None
        named, number = _well(match["well"]), int(match["number"])
        plate = folder.rpartition("/")[2] or self.root
        where = FieldKey(plate, named or numbered_well(number), int(match["site"]), int(match["timepoint"]))
        return Parsed(where, match["channel"], int(match["plane"]), folder, 0 if named else number)

    def describe(self, sidecars: Mapping[str, bytes]) -> tuple[PlateFacts, ...]:
        """What the descriptor of one experiment and the OME-XML of its images state."""
        descriptor, ome = _Descriptor(""), _Ome("", self)
        for key, body in sorted(sidecars.items()):
            if file_name(key).lower() == _DESCRIPTOR:
                descriptor = _Descriptor(key)
                read_xml(key, body, descriptor.start, descriptor.end)
                descriptor.whole()
            else:
                ome = _Ome(key, self)
                read_xml(key, body, ome.start)
                ome.whole()
        return (_facts(descriptor, ome),)


@lru_cache(maxsize=4096)
def _well(text: str) -> str:
    position = parse_well(text.strip())
    return "" if position is None else position.name


def _folder(folder: str) -> str:
    return parent(folder) if file_name(folder).lower() == "data" else folder


@dataclass(slots=True)
class _Descriptor:
    """What an `experiment_descriptor.xml` states: LabVIEW's flat text of clusters, in which a `Name` is followed by its `Val`.

    `labels` are the names of the selected wells by their numbers, "" for a well without one.
    """

    key: str
    name: str = ""
    rows: int | None = None
    columns: int | None = None
    plate: str = ""
    size: float | None = None
    slices: int | None = None
    timepoints: int | None = None
    across: int = 1
    down: int = 1
    listed: int | None = None
    labels: dict[int, str] = field(default_factory=dict)
    channels: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _number: int = 0
    _candidate: str | None = None
    _in_format: bool = False
    _in_positions: bool = False
    _begins: bool = False
    _found: bool = False

    def start(self, name: str, _: Mapping[str, str]) -> None:
        """An element begins."""
        if name in ("Array", "Cluster"):
            self._begins = True

    def end(self, name: str, text: str) -> None:
        """An element ends."""
        value = text.strip()
        if name in ("Array", "Cluster"):
            self._begins = False
        if not value:
            return
        if name == "Name":
            self.name = value
            self._in_positions = self._in_positions or value == "subposition list"
            self._in_format = self._in_format or value == "format typedef"
        elif name == "Dimsize" and self._in_positions and self.listed is None:
            self.listed = self._whole(value, _MOST_SITES, 0)
        elif name == "Val":
            self._value(value)

    def _value(self, value: str) -> None:
        self._found = True
        match self.name:
            case "Rows" if self._in_format:
                self.rows = self._whole(value, MOST_ROWS)
            case "Columns" if self._in_format:
                self.columns, self._in_format = self._whole(value, MOST_COLUMNS), False
            case "columns/well":
                self.across = self._whole(value, _MOST_SITES)
            case "rows/well":
                self.down = self._whole(value, _MOST_SITES)
            case "# slices":
                self.slices = self._whole(value, _MOST_STEPS, 0) or None
            case "timeloop real":
                self.timepoints = self._whole(value, _MOST_STEPS, 0) or None
            case "plate name":
                self.plate = value[:200]
            case "conversion factor um/pixel":
                self.size = pixel_size(
                    Values(self.key, "the experiment", {self.name: value}).number(self.name), "", self.notes
                )
            case "name" if self._begins:
                self._candidate = value[:200]
            case "idle" if self._candidate is not None:
                if value == "0" and self._candidate.casefold() != "autofocus":
                    self.channels.append(self._candidate)
                self._candidate = None
            case "well selection table + cDNA" if value[0].isdigit():
                self._number = self._whole(value, _MOST_NUMBER)
                self.labels.setdefault(self._number, "")
            case "well selection table + cDNA" if self._number:
                self.labels[self._number] = self.labels[self._number] or _well(value)
            case _:
                pass

    def _whole(self, value: str, most: int, least: int = 1) -> int:
        return Values(self.key, "the experiment", {self.name: value}).whole(self.name, most, least)

    def whole(self) -> None:
        """Raise Unreadable if nothing in it has a name and a value."""
        if not self._found:
            raise Unreadable(
                self.key, "has no Val, in which the descriptor of an experiment states everything"
            )

    @property
    def positions(self) -> int:
        """How many positions each well has."""
        return min(self.listed if self.listed is not None else self.across * self.down, _MOST_SITES)


@dataclass(slots=True)
class _Ome:
    """What a `metadata.ome.xml` states of the images that were written."""

    key: str
    layout: Scanr
    wells: dict[int, str] = field(default_factory=dict)
    positions: dict[tuple[str, int], Position] = field(default_factory=dict)
    sites: defaultdict[tuple[str, int], set[int]] = field(default_factory=lambda: defaultdict(set))
    channels: dict[str, None] = field(default_factory=dict)
    planes: set[int] = field(default_factory=set)
    sizes: set[float] = field(default_factory=set)
    shapes: set[tuple[int, int]] = field(default_factory=set)
    odd: Odd = field(default_factory=Odd)
    notes: list[str] = field(default_factory=list)
    _place: tuple[int, int] | None = None
    _of: tuple[str, int] | None = None

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        """An element begins."""
        values = Values(self.key, f"a {name}", attributes)
        if name == "Image":
            self._image(attributes.get("Name", ""))
        elif name == "Pixels":
            self._pixels(values)
        elif name == "UUID" and "FileName" in attributes:
            self._file(attributes["FileName"])
        elif name == "Plane" and self._of is not None and {"PositionX", "PositionY"} <= set(attributes):
            self.positions[self._of] = Position(values.number("PositionX"), 0.0 - values.number("PositionY"))

    def _image(self, name: str) -> None:
        self._place = self._of = None
        match = _IMAGE.fullmatch(name.strip())
        if match is None:
            self.odd.add("have another name than scanR gives them (Well 14, Position 1)", name)
            return
        self._place = (int(match["number"]), int(match["site"]))
        if well := _well(match["well"] or ""):
            self.wells[self._place[0]] = well

    def _pixels(self, values: Values) -> None:
        self.shapes.add((values.whole("SizeY", 1_000_000), values.whole("SizeX", 1_000_000)))
        unit = values.values.get("PhysicalSizeXUnit", "µm")
        if "PhysicalSizeX" not in values.values:
            return
        if unit not in ("µm", "μm", "um"):
            self.odd.add(f"have a pixel size in {unit[:20]!r}, which is not taken", str(self._place or ""))
        elif (size := pixel_size(values.number("PhysicalSizeX"), "", self.notes)) is not None:
            self.sizes.add(size)

    def _file(self, name: str) -> None:
        parsed = self.layout.parse(file_name(name.replace("\\", "/")))
        if not isinstance(parsed, Parsed):
            self.odd.add("name a file that does not follow the convention", name)
            return
        where = parsed.field
        if self._place is not None and parsed.numbered not in (0, self._place[0]):
            self.odd.add("are of another well than their file is named after; files go by their names", name)
        self._of = (where.well, where.site)
        self.sites[where.well, where.timepoint].add(where.site)
        self.channels[parsed.channel] = None
        self.planes.add(parsed.plane)

    def whole(self) -> None:
        """Raise Unreadable if it has no image."""
        if not self.shapes:
            raise Unreadable(self.key, "has no image: there is no Pixels in it")


def _facts(descriptor: _Descriptor, ome: _Ome) -> PlateFacts:
    source = ome.key or descriptor.key
    size = only(ome.sizes) or descriptor.size
    notes = [*descriptor.notes, *dict.fromkeys(ome.notes), *ome.odd.notes("image")]
    if size is not None and descriptor.size is not None and abs(size - descriptor.size) > _ALIKE * size:
        notes.append(
            f"states {size:g} µm/px and {file_name(descriptor.key)} states {descriptor.size:g}; the former is taken"
        )
    shape = _shape(descriptor, ome)
    wells = {number: name for number, name in {**descriptor.labels, **ome.wells}.items() if name}
    acquired = ome.channels or dict.fromkeys(descriptor.channels)
    return PlateFacts(
        folder=_folder(parent(source)),
        plate="",
        source=source,
        name=descriptor.plate,
        rows=shape[0] if shape else None,
        columns=shape[1] if shape else None,
        channels=tuple((channel, "") for channel in acquired),
        um_per_px=size,
        image_shape=only(ome.shapes),
        positions=ome.positions,
        expected=(
            *expected_fields(ome.sites, f"no file; {file_name(ome.key)} has an image of this field"),
            *_selected(descriptor, wells, shape),
        ),
        timepoints=len({time for _, time in ome.sites}) or descriptor.timepoints,
        planes=len(ome.planes) or descriptor.slices,
        notes=tuple(notes),
        wells=wells,
    )


def _shape(descriptor: _Descriptor, ome: _Ome) -> tuple[int, int] | None:
    """The stated shape; without one, that of the only plate format on which all numbers and names of wells go together."""
    if descriptor.rows is not None and descriptor.columns is not None:
        return descriptor.rows, descriptor.columns
    below = {number: name for number, name in ome.wells.items() if not name.startswith("A")}
    fitting = [
        (rows, columns)
        for rows, columns in FORMATS.values()
        if below and all(well_of_number(number, rows, columns) == name for number, name in ome.wells.items())
    ]
    return fitting[0] if len(fitting) == 1 else None


def _selected(
    descriptor: _Descriptor, wells: Mapping[int, str], shape: tuple[int, int] | None
) -> Iterator[ExpectedFields]:
    """The selected wells of which the name is known, with every position."""
    names = {
        number: wells.get(number) or (well_of_number(number, *shape) if shape else None)
        for number in descriptor.labels
    }
    named = tuple(name for name in names.values() if name)
    if named and descriptor.positions:
        why = f"no file; {file_name(descriptor.key)} has this well among those selected, with {descriptor.positions} positions"
        yield ExpectedFields(named, tuple(range(1, descriptor.positions + 1)), why)


def _build(_: ScanrSettings, root: str) -> Scanr:
    return Scanr(root)


KIND = LayoutKind("scanr", ScanrSettings, _build, Traits(has_sidecars=True))
