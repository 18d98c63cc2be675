"""IN Cell Analyzer names, in their three forms, and the `.xdce` beside them.

`[<plate>_]A - 01(fld 1 wv 390 - Blue[ z 3][ time 2][ - 2636ms][ wix 0]).tif`, with the column unpadded or in two or three digits;
`[<plate>_]A_01_f2_c1_xUV_mDAPI_z3_t2.tif` (version 7.2); `t1_D04_s1_w1[_z3].tif`. Fields, z slices and time points of names count from 1. The
channel is called as in the file: "390 - Blue", "UV - DAPI" (excitation and emission), "w1". Files without a z have one plane.

`<plate>.xdce` is XML with the root ImageStack. It has an element for each image: its file, `Row` and `Column` from 1, and an `Identifier` whose
`field_index`, `z_index`, `wave_index` and `time_index` count from 0. These images are what is expected, because wells may have different
fields. `offset_point` are the fields' places in µm from the well's centre with y up, in the order of the fields. It also states the plate's
rows and columns, the wavelengths with their filters (a fused one is computed), z slices, pixel size and image size. Its time points count only
if `TimeSchedule` is enabled. (Bio-Formats' InCellReader.java. No real folder was at hand.)
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from cellcount_core.domain.fields import FieldKey, Parsed
from cellcount_core.domain.plates import PlateFacts, Position, WellPosition, expected_fields
from cellcount_core.layouts.base import (
    Ignored,
    Layout,
    LayoutKind,
    LayoutSettings,
    Sidecar,
    Traits,
    extension,
    file_name,
    ignored_name,
    is_hidden,
    parent,
    stem,
)
from cellcount_core.layouts.metadata import (
    MOST_COLUMNS,
    MOST_ROWS,
    Odd,
    Unreadable,
    Values,
    pixel_size,
    read_xml,
)

_TIFF = r"\.tiff?"
_NAMES = (
    re.compile(
        r"(?:(?P<plate>.+)_)?(?P<row>[A-Z]{1,2}) - (?P<column>[0-9]{1,3})\(fld (?P<site>[0-9]{1,5}) wv (?P<channel>.+?)(?: z (?P<plane>[0-9]{1,5}))?"
        rf"(?: time (?P<timepoint>[0-9]{{1,6}}))?(?: - [0-9]+ms)?(?: wix [0-9]+)?\){_TIFF}",
        re.IGNORECASE,
    ),
    re.compile(
        r"(?:(?P<plate>.+)_)?(?P<row>[A-Z]{1,2})_(?P<column>[0-9]{1,3})_f(?P<site>[0-9]{1,5})_c[0-9]{1,3}_x(?P<excitation>[^_]+)_m(?P<emission>[^_]+)"
        rf"_z(?P<plane>[0-9]{{1,5}})_t(?P<timepoint>[0-9]{{1,6}}){_TIFF}",
        re.IGNORECASE,
    ),
    re.compile(
        r"t(?P<timepoint>[0-9]{1,6})_(?P<row>[A-Z]{1,2})(?P<column>[0-9]{2})_s(?P<site>[0-9]{1,5})_(?P<channel>w[0-9]{1,3})(?:_z(?P<plane>[0-9]{1,5}))?"
        + _TIFF,
        re.IGNORECASE,
    ),
)
_LIKE_OTHERS = re.compile(r"t[0-9]+_[A-Z]+[0-9]+_s[0-9]+_w[0-9]+\.tiff?", re.IGNORECASE)
"""The third form without a z, which ImageXpress may write too, of a plate called t1."""
_THUMB = re.compile(r"thumb", re.IGNORECASE)
_XDCE = "xdce"
_MOST_INDEX = 99_999


class InCellSettings(LayoutSettings):
    """IN Cell Analyzer: `A - 01(fld 1 wv 390 - Blue).tif`, `A_01_f2_c1_xUV_mDAPI_z3_t2.tif` or `t1_D04_s1_w1_z3.tif`, with the `.xdce` beside them."""

    kind: Literal["incell"] = "incell"


@dataclass(frozen=True, slots=True)
class InCell(Layout):
    """The plate is the name before the well; for names without one it is that of the `.xdce`, the folder, or `root`."""

    root: str

    def parse(self, key: str) -> Parsed | Sidecar | Ignored | None:
        """See `Layout.parse`. None for an image whose name does not follow the convention."""
        if extension(key) == _XDCE and not is_hidden(key):
            return Sidecar(parent(key), file_name(key))
        if (ignored := ignored_name(key)) is not None:
            return ignored
        name = file_name(key)
        match = next((found for each in _NAMES if (found := each.fullmatch(name)) is not None), None)
        if match is None:
            return Ignored("thumbnail") if _THUMB.search(name) else None
        if _THUMB.search(parent(key).rpartition("/")[2]):
            return Ignored("thumbnail")
        told = match.groupdict()
        well = _well(match["row"].upper(), int(match["column"]))
        if well is None or int(match["site"]) < 1:
            return None
        folder = parent(key)
        plate = told.get("plate") or folder.rpartition("/")[2] or self.root
        channel = told.get("channel") or f"{told['excitation']} - {told['emission']}"
        where = FieldKey(plate, well, int(match["site"]), int(told.get("timepoint") or 1))
        return Parsed(where, channel.strip(), int(told.get("plane") or 0), folder)

    def certain(self, key: str) -> bool:
        """Whether the name is in one of the forms that no other instrument writes."""
        return not _LIKE_OTHERS.fullmatch(file_name(key))

    def describe(self, sidecars: Mapping[str, bytes]) -> tuple[PlateFacts, ...]:
        """What each `.xdce` states."""
        found = []
        for key, body in sorted(sidecars.items()):
            stack = _Stack(key, self)
            read_xml(key, body, stack.start, stack.end)
            found.append(stack.facts())
        return tuple(found)


@lru_cache(maxsize=4096)
def _well(row: str, column: int) -> str | None:
    if not 1 <= column <= MOST_COLUMNS or (len(row) == 2 and row[0] != "A"):
        return None
    number = ord(row[-1]) - ord("A") + (26 if len(row) == 2 else 0)
    return WellPosition(number, column - 1).name if number < MOST_ROWS else None


@dataclass(slots=True)
class _Stack:
    """What has been read from an `.xdce` so far. `waves` are the emission filters in order; `used` the number of each channel's wave."""

    key: str
    layout: InCell
    found: bool = False
    rows: int | None = None
    columns: int | None = None
    timed: bool = True
    times: int = 0
    slices: int = 0
    deep: bool = False
    fused: bool = False
    size: float | None = None
    shape: tuple[int, int] | None = None
    waves: list[str] = field(default_factory=list)
    offsets: dict[int, Position] = field(default_factory=dict)
    plate: str = ""
    sites: defaultdict[tuple[str, int], set[int]] = field(default_factory=lambda: defaultdict(set))
    used: dict[str, int] = field(default_factory=dict)
    planes: set[int] = field(default_factory=set)
    odd: Odd = field(default_factory=Odd)
    notes: list[str] = field(default_factory=list)
    _file: str = ""
    _row: int = 0
    _column: int = 0

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        """An element begins."""
        values = Values(self.key, f"a {name}", attributes)
        match name:
            case "ImageStack":
                self.found = True
            case "Plate":
                self.rows, self.columns = (
                    values.whole("rows", MOST_ROWS),
                    values.whole("columns", MOST_COLUMNS),
                )
            case "TimeSchedule":
                self.timed = attributes.get("enabled", "true").lower() != "false"
            case "TimePoint":
                self.times += 1
            case "Wavelength":
                self.fused = attributes.get("fusion_wave", "false").lower() == "true"
                self.deep = self.deep or attributes.get("imaging_mode") == "3-D"
            case "EmissionFilter":
                self.waves.append("" if self.fused else attributes.get("name", "").strip()[:200])
            case "ZDimensionParameters" if "number_of_slices" in attributes:
                self.slices = values.whole("number_of_slices", _MOST_INDEX)
            case "ObjectiveCalibration":
                self.size = pixel_size(values.number("pixel_width"), "", self.notes)
            case "Size" if {"width", "height"} <= set(attributes):
                self.shape = (values.whole("height", 1_000_000), values.whole("width", 1_000_000))
            case "offset_point":
                place = values.whole("index", _MOST_INDEX, 0) if "index" in attributes else len(self.offsets)
                self.offsets[place] = Position(
                    round(values.number("x"), 3), round(0.0 - values.number("y"), 3)
                )
            case "Image":
                self._file, self._row, self._column = attributes.get("filename", ""), 0, 0
            case "Row" if self._file:
                self._row = values.whole("number", MOST_ROWS)
            case "Column" if self._file:
                self._column = values.whole("number", MOST_COLUMNS)
            case "Identifier" if self._file:
                self._image(values)
            case _:
                pass

    def end(self, name: str, _: str) -> None:
        """An element ends."""
        if name == "Image":
            self._file = ""

    def _image(self, values: Values) -> None:
        parsed = self.layout.parse(file_name(self._file.replace("\\", "/")))
        if not isinstance(parsed, Parsed):
            self.odd.add("name a file that does not follow the convention", self._file)
            return
        where = parsed.field
        if self._row and self._column and WellPosition(self._row - 1, self._column - 1).name != where.well:
            self.odd.add(
                "are of another well than their file is named after; files go by their names", self._file
            )
        if values.whole("field_index", _MOST_INDEX, 0) + 1 != where.site:
            self.odd.add(
                "are of another field than their file is named after; files go by their names", self._file
            )
        self.plate = self.plate or (where.plate if where.plate != self.layout.root else "")
        self.sites[where.well, where.timepoint].add(where.site)
        self.used.setdefault(parsed.channel, values.whole("wave_index", _MOST_INDEX, 0))
        self.planes.add(parsed.plane)

    def facts(self) -> PlateFacts:
        """All that was read."""
        if not self.found:
            raise Unreadable(self.key, "has no ImageStack, which an .xdce file consists of")
        if self.rows is None:
            raise Unreadable(self.key, "has no Plate, which states the shape of the plate")
        why = f"no file; {file_name(self.key)} lists an image of this field"
        return PlateFacts(
            folder=parent(self.key),
            plate=self.plate,
            source=self.key,
            name="" if self.plate else stem(self.key),
            rows=self.rows,
            columns=self.columns,
            channels=tuple(
                (channel, self.waves[wave] if wave < len(self.waves) else "")
                for channel, wave in sorted(self.used.items(), key=lambda each: (each[1], each[0]))
            ),
            um_per_px=self.size,
            image_shape=self.shape,
            positions={
                (well, site): self.offsets[site - 1]
                for (well, _), sites in self.sites.items()
                for site in sites
                if site - 1 in self.offsets
            },
            expected=expected_fields(self.sites, why),
            timepoints=len({time for _, time in self.sites}) or (self.times if self.timed else 1) or None,
            planes=len(self.planes - {0}) or (self.slices if self.deep else None) or None,
            notes=(*self.notes, *self.odd.notes("image")),
        )


def _build(_: InCellSettings, root: str) -> InCell:
    return InCell(root)


KIND = LayoutKind("incell", InCellSettings, _build, Traits(has_sidecars=True))
