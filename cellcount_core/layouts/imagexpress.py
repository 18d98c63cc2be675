"""ImageXpress / MetaXpress names, as the database export and the plate export write them, and the `.HTD` beside them.

`[<date>/<id>/][TimePoint_n/][ZStep_n/]<plate>_<well>[_s<site>][_w<channel>][_thumb][GUID].tif` (real examples of all forms:
faim-ipa, resources/ImageXpress and ImageXpress_exported). A GUID follows the channel's number without a separator, as
`_GUID` or as `_[GUID]`. The channel is named as in the file, "w1"; an exported plate of one channel leaves the number out
and has "w1". Wells, sites, channels and time points count from 1.

Planes: a file outside of all `ZStep_n` folders, or in `ZStep_0`, is the instrument's projection (its metadata has "Z Projection Method")
and has plane 0; `ZStep_1` and up are planes 1 and up. A channel without a stack has its one image in the place of the projection.

Plates: the plate is the name before the well. If several folders have files of the same plate (`<date>/<id>`, or `9987_Plate_3420/` and
`9987_Plate_3434/` both with a `9987_B02.TIF`), each folder is an acquisition of its own, and planning calls the plates
`<plate>@<folder>`.

The `.HTD` (Bio-Formats' CellWorxReader.java reads it too) is in the folder of the plate, with a copy in each subfolder. It has one line
for each key: `"XWells", 12`. It states the wells, sites, channels, time points and z steps that were selected. It has no pixel size; the
TIFFs have it. Its last line is `"EndFile"`. A file without that line, or without another line that every HTD has, was cut short and is
refused, because it would hide missing fields. A wavelength with `WaveCollect` 0 was not acquired, so it is not missing. Sites are
numbered over the selected cells of the grid of sites, in reading order. If no SiteSelection line is there, no field is expected of it.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from cellcount_core.domain.fields import FieldKey, Parsed
from cellcount_core.domain.plates import ExpectedFields, PlateFacts, WellPosition, parse_well
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
from cellcount_core.layouts.metadata import Unreadable, text_of

_GUID = r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
# Wells have capitals and two digits, or "_s1" and "_w1" would be wells too.
_NAME = re.compile(
    r"(?:(?P<plate>.+)_)?(?P<well>[A-Z]{1,2}[0-9]{2})"
    r"(?:_s(?P<site>[0-9]{1,6}))?(?:_w(?P<channel>[0-9]{1,2}))?(?P<thumb>_thumb)?"
    rf"(?:_?{_GUID}|_?\[{_GUID}\])?\.[Tt][Ii][Ff][Ff]?"
)
_STEP = re.compile(r"(?P<kind>TimePoint|ZStep)_(?P<number>[0-9]{1,6})", re.IGNORECASE)

PROJECTION = 0

_HTD = "htd"
_MOST_BYTES = 4 * 2**20
_NO_SELECTION = (
    "no SiteSelection line says which sites were acquired, so fields that are missing are not told by it"
)
_MOST_SITES, _MOST_CHANNELS, _MOST_STEPS = 10_000, 99, 100_000


class ImageXpressSettings(LayoutSettings):
    """ImageXpress / MetaXpress names: `<plate>_<well>[_s<site>][_w<channel>][GUID].tif`, `TimePoint_n`, `ZStep_n`."""

    kind: Literal["imagexpress"] = "imagexpress"


@dataclass(frozen=True, slots=True)
class ImageXpress(Layout):
    """Site 1, time point 1 and channel "w1" if neither name nor folders tell them. Thumbnails are ignored.

    `root` is the plate of files in the input folder itself whose names tell no plate.
    """

    root: str

    def parse(self, key: str) -> Parsed | Sidecar | Ignored | None:
        """See `Layout.parse`. None for an image whose name does not follow the convention."""
        if extension(key) == _HTD and not is_hidden(key):
            return Sidecar(_place(parent(key))[0], file_name(key), _MOST_BYTES)
        if (ignored := ignored_name(key)) is not None:
            return ignored
        match = _NAME.fullmatch(file_name(key))
        well = _well(match["well"]) if match else None
        if match is None or well is None:
            return None
        if match["thumb"]:
            return Ignored("thumbnail")
        folder, timepoint, plane = _place(parent(key))
        plate = match["plate"] or folder.rpartition("/")[2] or self.root
        site = int(match["site"] or 1)
        return Parsed(FieldKey(plate, well, site, timepoint), f"w{int(match['channel'] or 1)}", plane, folder)

    def certain(self, key: str) -> bool:
        """Whether the name tells a site or a channel; a well alone is told by many names."""
        return tells_site_or_channel(key)

    def describe(self, sidecars: Mapping[str, bytes]) -> tuple[PlateFacts, ...]:
        """What each `.HTD` states; its name is that of the plate."""
        return tuple(_read_htd(key, body) for key, body in sorted(sidecars.items()))


def tells_site_or_channel(key: str) -> bool:
    """Whether the name follows the convention and tells a site or a channel, which is hardly a coincidence."""
    match = _NAME.fullmatch(file_name(key))
    return (
        match is not None
        and bool(match["site"] or match["channel"])
        and parse_well(match["well"]) is not None
    )


@lru_cache(maxsize=4096)
def _well(text: str) -> str | None:
    position = parse_well(text)
    return None if position is None else position.name


@lru_cache(maxsize=4096)
def _place(path: str) -> tuple[str, int, int]:
    """The folder of the acquisition, the time point and the plane, from the folders of a file."""
    timepoint, plane = 1, PROJECTION
    folder: list[str] = []
    for part in path.split("/"):
        step = _STEP.fullmatch(part)
        if step is None:
            folder.append(part)
        elif step["kind"].lower() == "zstep":
            plane = int(step["number"])
        else:
            timepoint = int(step["number"])
    return "/".join(folder), timepoint, plane


class _Htd:
    """The lines of a `.HTD` by their keys. Every method raises Unreadable if a value does not fit its key."""

    def __init__(self, key: str, body: bytes) -> None:
        self._key = key
        lines = [line for line in re.split(r"[\r\n]+", text_of(body)) if line.strip()]
        if not lines or _line(key, lines[0])[0] != "HTSInfoFile":
            found = lines[0][:40] if lines else ""
            raise Unreadable(key, f'an HTD file begins with "HTSInfoFile" (found {found!r})')
        if _line(key, lines[-1])[0] != "EndFile":
            raise Unreadable(
                key, f'is cut short: an HTD file ends with "EndFile", and its last line is {lines[-1][:40]!r}'
            )
        self._values: dict[str, list[str]] = {}
        for line in lines:
            name, *values = _line(key, line)
            if self._values.setdefault(name, values) != values:
                raise Unreadable(key, f"states {name} twice, and not the same")

    def number(self, name: str, default: int | None, most: int) -> int:
        """The whole number of `name`, at most `most`. The line is required if `default` is None."""
        values = self._values.get(name)
        if values is None and default is not None:
            return default
        values = self._required(name)
        if len(values) != 1 or not re.fullmatch(r"[0-9]{1,6}", values[0]) or int(values[0]) > most:
            raise Unreadable(
                self._key, f"{name} is {', '.join(values)!r}; a whole number up to {most} was expected"
            )
        return int(values[0])

    def flag(self, name: str, default: str | None = None) -> bool:
        """Whether `name` is TRUE. The line is required if `default` is None."""
        values = self._values.get(name)
        if values is None and default is not None:
            values = [default]
        return self._truth(name, self._required(name) if values is None else values, 1)[0]

    def flags(self, name: str, columns: int) -> list[bool]:
        """TRUE or FALSE for each of `columns` columns."""
        return self._truth(name, self._required(name), columns)

    def _required(self, name: str) -> list[str]:
        if name not in self._values:
            raise Unreadable(self._key, f"has no line {name}, which each HTD file has")
        return self._values[name]

    def has(self, name: str) -> bool:
        """Whether there is a line `name`."""
        return name in self._values

    def text(self, name: str) -> str:
        """The text of `name`, "" if there is no such line."""
        return ", ".join(self._values.get(name, []))

    def _truth(self, name: str, values: list[str], columns: int) -> list[bool]:
        known = {"TRUE": True, "FALSE": False}
        if len(values) != columns or not all(value.upper() in known for value in values):
            shown = ", ".join(values)[:60]
            raise Unreadable(self._key, f"{name} is {shown!r}; TRUE or FALSE was expected {columns} times")
        return [known[value.upper()] for value in values]


def _line(key: str, line: str) -> list[str]:
    try:
        return [value.strip() for value in next(csv.reader([line], skipinitialspace=True))]
    except csv.Error as error:
        raise Unreadable(key, f"not a line of an HTD file: {error}") from None


def _read_htd(key: str, body: bytes) -> PlateFacts:
    htd = _Htd(key, body)
    rows, columns = htd.number("YWells", None, 32), htd.number("XWells", None, 48)
    why = f"no file; {file_name(key)} states that this well and site were acquired"
    wells, sites = _selected_wells(htd, rows, columns), _selected_sites(htd)
    stacked = htd.flag("ZSeries", "FALSE")
    return PlateFacts(
        folder=_place(parent(key))[0],
        plate=stem(key),
        source=key,
        rows=rows or None,
        columns=columns or None,
        channels=_channels(htd),
        expected=() if sites is None else (ExpectedFields(wells, sites, why),),
        notes=(_NO_SELECTION,) if sites is None else (),
        timepoints=htd.number("TimePoints", 0, _MOST_STEPS) or None,
        planes=(htd.number("ZSteps", 0, _MOST_STEPS) or None) if stacked else None,
    )


def _selected_wells(htd: _Htd, rows: int, columns: int) -> tuple[str, ...]:
    return tuple(
        WellPosition(row, column).name
        for row in range(rows)
        for column, selected in enumerate(htd.flags(f"WellsSelection{row + 1}", columns))
        if selected
    )


def _selected_sites(htd: _Htd) -> tuple[int, ...] | None:
    """The selected sites. If `Sites` is FALSE there is one, whatever the size of the grid. None if no line says which were selected."""
    if not htd.flag("Sites"):
        return (1,)
    across, down = htd.number("XSites", None, _MOST_SITES), htd.number("YSites", None, _MOST_SITES)
    if not any(htd.has(f"SiteSelection{row + 1}") for row in range(down)):
        return None
    number = sum(sum(htd.flags(f"SiteSelection{row + 1}", across)) for row in range(down))
    return tuple(range(1, number + 1))


def _channels(htd: _Htd) -> tuple[tuple[str, str], ...]:
    """The channels that were acquired, with their names. If `Waves` is FALSE there is one."""
    number = htd.number("NWavelengths", None, _MOST_CHANNELS) if htd.flag("Waves") else 1
    return tuple(
        (f"w{wave}", htd.text(f"WaveName{wave}").strip())
        for wave in range(1, number + 1)
        if htd.number(f"WaveCollect{wave}", 1, 1_000) != 0
    )


def _build(_: ImageXpressSettings, root: str) -> ImageXpress:
    return ImageXpress(root)


KIND = LayoutKind(
    "imagexpress", ImageXpressSettings, _build, Traits(projection_plane=PROJECTION, has_sidecars=True)
)
