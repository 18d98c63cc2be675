"""Harmony names (Opera Phenix, Operetta) and the index beside them.

`rRRcCCfFFpPP-chCskKfkFflL.tiff`, all numbers from 1, in the folder `Images` of a measurement. The index (`Index.idx.xml`, `Index.xml`)
lies beside the images or, from V7 on, in the folder above, and has a record for each image. Its `TimepointID` counts from 0, the name's `sk`
from 1. Lengths are in metres, and positions are relative to the well's centre with y up. From V6 on, names, pixel sizes and image sizes of
channels stand once, in an `Entry` of one of the `Maps`. `Plate/Well` are the wells that were selected. columbus.py reads its index too.
(Bio-Formats' OperettaReader.java, pe2loaddata.)
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from cellcount_core.domain.fields import FieldKey, Parsed
from cellcount_core.domain.plates import ExpectedFields, PlateFacts, Position, WellPosition
from cellcount_core.domain.scales import LARGEST_UM_PER_PX, SMALLEST_UM_PER_PX
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
from cellcount_core.layouts.metadata import Unreadable, Values, only, read_xml

_NAME = re.compile(
    r"r(?P<row>\d{2})c(?P<column>\d{2})f(?P<site>\d{2,4})p(?P<plane>\d{2,4})-ch(?P<channel>\d{1,2})"
    r"sk(?P<timepoint>\d{1,6})fk\d+fl\d+\.tiff?",
    re.IGNORECASE,
)
_INDEX = frozenset({"index.idx.xml", "index.xml", "index.ref.xml"})
_UM = 1e6


class HarmonySettings(LayoutSettings):
    """Harmony (Operetta, Opera Phenix): `r03c03f01p01-ch1sk1fk1fl1.tiff` with the `Index.idx.xml` or `Index.xml` beside them."""

    kind: Literal["harmony"] = "harmony"


@dataclass(frozen=True, slots=True)
class Harmony(Layout):
    """The plate is the measurement's folder, above `Images`, unless the index names it; `root` if there is no such folder."""

    root: str

    def parse(self, key: str) -> Parsed | Sidecar | Ignored | None:
        """See `Layout.parse`. None for an image whose name does not follow the convention."""
        if file_name(key).lower() in _INDEX and not is_hidden(key):
            return Sidecar(_folder(key), file_name(key))
        if (ignored := ignored_name(key)) is not None:
            return ignored
        match = _NAME.fullmatch(file_name(key))
        if match is None:
            return None
        row, column, site, plane, timepoint = (
            int(match[name]) for name in ("row", "column", "site", "plane", "timepoint")
        )
        if not (1 <= row <= 32 and 1 <= column <= 48):
            return None
        folder = _folder(key)
        plate = folder.rpartition("/")[2] or self.root
        well = WellPosition(row - 1, column - 1).name
        return Parsed(FieldKey(plate, well, site, timepoint), str(int(match["channel"])), plane, folder)

    def describe(self, sidecars: Mapping[str, bytes]) -> tuple[PlateFacts, ...]:
        """What the first index states."""
        key, body = min(sidecars.items())
        index = Index(key)
        read_xml(key, body, index.start, index.end)
        return (index.facts(),)


def _well_of(name: re.Match[str]) -> str:
    return WellPosition(int(name["row"]) - 1, int(name["column"]) - 1).name


def _folder(key: str) -> str:
    folder = parent(key)
    return parent(folder) if file_name(folder).lower() == "images" else folder


@dataclass(slots=True)
class Index:
    """What has been read from an index of Harmony or Columbus so far. `start` and `end` are called as it is read, `facts` at its end."""

    key: str
    on_image: Callable[[FieldKey, Mapping[str, str]], None] = field(default=lambda _, __: None)
    """Called with the field of each image and its values, by the names in the index."""
    path: list[str] = field(default_factory=list)
    plate: dict[str, str] = field(default_factory=dict)
    image: dict[str, str] = field(default_factory=dict)
    entry: str = ""
    channels: dict[str, str] = field(default_factory=dict)
    sizes: set[float] = field(default_factory=set)
    positions: dict[tuple[str, int], Position] = field(default_factory=dict)
    selected: list[str] = field(default_factory=list)
    sites: defaultdict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    planes: set[str] = field(default_factory=set)
    timepoints: set[str] = field(default_factory=set)
    sides: dict[tuple[str, str], int] = field(default_factory=dict)
    """The sides of images in px, by channel and by name: ImageSizeX, ImageSizeY."""
    listed: set[tuple[object, ...]] = field(default_factory=set)
    """What tells the images apart: well, site, channel, plane, time point and FLIM number of each."""
    odd: dict[str, tuple[int, str]] = field(default_factory=dict)
    """What is odd about records, in words -> the number of such images, and one of them."""

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        """An element begins."""
        self.path.append(name)
        if name == "Entry":
            self.entry = attributes.get("ChannelID", "")
        if name == "Well" and self.path[-2:-1] == ["Plate"]:
            self.selected.append(self._well_of_id(attributes.get("id", "")))
        if name == "Image" and self.path[-2:-1] == ["Images"]:
            self.image = {}
        if name == "URL" and "BufferNo" in attributes:
            self.image["BufferNo"] = attributes["BufferNo"]

    def end(self, name: str, text: str) -> None:
        """An element ends."""
        self.path.pop()
        above = self.path[-1] if self.path else ""
        if above == "Plate":
            self.plate.setdefault(name, text.strip())
        elif above == "Image":
            if self.image.setdefault(name, text.strip()) != text.strip():
                both = f"{self.image[name]!r} and {text.strip()!r}"
                raise Unreadable(self.key, f"an Image states {name} twice: {both}")
        elif above == "Entry" and self.entry:
            self._channel(self.entry, name, text)
        if name == "Image" and above == "Images" and self.image:
            self._record()

    def _channel(self, channel: str, name: str, text: str) -> None:
        if name == "ChannelName":
            self.channels[channel] = text.strip()
        if name in ("ImageSizeX", "ImageSizeY"):
            self.sides[channel, name] = Values(self.key, f"channel {channel}", {name: text}).whole(
                name, 1_000_000
            )
        if name == "ImageResolutionX":
            size = round(self._metres(name, text) * _UM, 6)
            if SMALLEST_UM_PER_PX <= size <= LARGEST_UM_PER_PX:
                self.sizes.add(size)
            else:
                why = f"the pixel size {size:g} µm is stated, which no microscope has and which is not taken"
                self._odd(why, f"one of channel {channel}")

    def _record(self) -> None:
        row, column, site = (self._whole(name) for name in ("Row", "Col", "FieldID"))
        well = self._well(row, column)
        self.sites[well].add(site)
        self.planes.add(self.image.get("PlaneID", ""))
        self.timepoints.add(self.image.get("TimepointID", ""))
        channel = self.image.get("ChannelID", "")
        self._check(FieldKey("", well, site, 1), channel)
        self.on_image(FieldKey("", well, site, self._number("TimepointID", 1)), self.image)
        for name in ("ChannelName", "ImageResolutionX", "ImageSizeX", "ImageSizeY"):
            if name in self.image:
                self._channel(channel, name, self.image[name])
        if "PositionX" in self.image and "PositionY" in self.image:
            x, y = (self._metres(name, self.image[name]) * _UM for name in ("PositionX", "PositionY"))
            self.positions[well, site] = Position(round(x, 3), round(0.0 - y, 3))

    def _check(self, key: FieldKey, channel: str) -> None:
        """Note what is wrong with the record of an image."""
        url = self.image.get("URL", "")
        shown = url or f"{key.well}, site {key.site}, channel {channel}"
        if self.image.get("State", "Ok").casefold() not in ("", "ok"):
            self._odd(f"the state {self.image['State']!r} is given, not 'Ok'", shown)
        self._once((key.well, key.site, channel), shown)
        if "://" in url or url.startswith("/") or ".." in re.split(r"[/\\]", url):
            self._odd("the URL leads out of the folder of the images; it is not opened", shown)
            return
        named = _NAME.fullmatch(file_name(url))
        if named is not None and (
            _well_of(named) != key.well
            or int(named["site"]) != key.site
            or str(int(named["channel"])) != channel
        ):
            self._odd(
                "the URL names a file of another well, field or channel; files go by their names", shown
            )

    def _once(self, of: tuple[str, int, str], shown: str) -> None:
        """Note an image that is listed a second time."""
        well, site, channel = of
        place = (self.image.get(name, "") for name in ("PlaneID", "TimepointID", "FlimID"))
        image = (well, site, channel, *place)
        if image in self.listed:
            self._odd("an image of the same field, channel, plane and time point is listed before", shown)
        self.listed.add(image)

    def _odd(self, why: str, image: str) -> None:
        number, first = self.odd.get(why, (0, image))
        self.odd[why] = (number + 1, first)

    def facts(self) -> PlateFacts:
        """All that was read."""
        if not self.plate:
            raise Unreadable(self.key, "has no Plate, which an index of Harmony begins with")
        if not self.sites:
            raise Unreadable(self.key, "lists no image: there is no Image in its Images")
        return PlateFacts(
            folder=_folder(self.key),
            plate="",
            source=self.key,
            name=self.plate.get("Name", ""),
            rows=self._whole("PlateRows", self.plate),
            columns=self._whole("PlateColumns", self.plate),
            channels=tuple(sorted(self.channels.items())),
            um_per_px=only(self.sizes),
            image_shape=self._shape(),
            positions=self.positions,
            expected=tuple(self._expected()),
            planes=len(self.planes) or None,
            timepoints=len(self.timepoints) or None,
            notes=tuple(self._notes()),
        )

    def _shape(self) -> tuple[int, int] | None:
        """Height and width of the images, if all channels have the same."""
        sides = [
            only(side for (_, name), side in self.sides.items() if name == each)
            for each in ("ImageSizeY", "ImageSizeX")
        ]
        return None if sides[0] is None or sides[1] is None else (sides[0], sides[1])

    def _notes(self) -> Iterator[str]:
        for why, (number, first) in sorted(self.odd.items()):
            yield f"of {number} {'image' if number == 1 else 'images'}, such as {first}, {why}"

    def _expected(self) -> Iterator[ExpectedFields]:
        name = file_name(self.key)
        for well, sites in sorted(self.sites.items()):
            yield ExpectedFields((well,), tuple(sorted(sites)), f"no file; {name} lists images of this field")
        unlisted = sorted(set(self.selected) - set(self.sites))
        if unlisted:
            anywhere = sorted(set().union(*self.sites.values())) or [1]
            why = f"no file; {name} has this well among those selected, and no image of it"
            yield ExpectedFields(tuple(unlisted), tuple(anywhere), why)

    def _well_of_id(self, name: str) -> str:
        if not re.fullmatch(r"[0-9]{4}|[0-9]{6}", name):
            raise Unreadable(self.key, f"a Well has the id {name!r}; four digits such as 0303 were expected")
        digits = len(name) // 2
        return self._well(int(name[:digits]), int(name[digits:]))

    def _well(self, row: int, column: int) -> str:
        if not (1 <= row <= 32 and 1 <= column <= 48):
            raise Unreadable(self.key, f"row {row}, column {column}: no plate has such a well")
        return WellPosition(row - 1, column - 1).name

    def _whole(self, name: str, values: Mapping[str, str] | None = None) -> int:
        text = (self.image if values is None else values).get(name, "")
        if not re.fullmatch(r"[0-9]{1,6}", text):
            raise Unreadable(self.key, f"{name} is {text!r}; a whole number was expected")
        return int(text)

    def _number(self, name: str, default: int) -> int:
        """The whole number of `name`; the default if the image has none."""
        return self._whole(name) if self.image.get(name) else default

    def _metres(self, name: str, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise Unreadable(self.key, f"{name} is {text!r}; a number of metres was expected")
        return value


def _build(_: HarmonySettings, root: str) -> Harmony:
    return Harmony(root)


KIND = LayoutKind("harmony", HarmonySettings, _build, Traits(has_sidecars=True))
