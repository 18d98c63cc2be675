"""ImageXpress / MetaXpress names, as the database export and the plate export write them.

`[<date>/<id>/][TimePoint_n/][ZStep_n/]<plate>_<well>[_s<site>][_w<channel>][_thumb][GUID].tif` (real examples of all forms:
faim-ipa, resources/ImageXpress and ImageXpress_exported). A GUID follows the channel's number without a separator. The
channel is named as in the file, "w1"; an exported plate of one channel leaves the number out and has "w1".

Planes: a file outside any `ZStep_n` folder, or in `ZStep_0`, is the instrument's projection ("Z Projection Method" stands
in its metadata) and has plane 0; `ZStep_1` and up are planes 1 and up. A channel that was not stacked has its one image
in the place of the projection.

Plates: the plate is the name before the well. The same plate name may be found below several folders (`<date>/<id>`, or
`9987_Plate_3420/` and `9987_Plate_3434/` both full of `9987_B02.TIF`): that is one acquisition a folder, never two halves
of one, so planning then calls the plates `<plate>@<folder>`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from cellcount_core.domain.fields import FieldKey, Parsed
from cellcount_core.domain.wells import parse_well
from cellcount_core.layouts.base import (
    Ignored,
    Layout,
    LayoutKind,
    LayoutSettings,
    Traits,
    file_name,
    ignored_name,
    parent,
)

_GUID = r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
# Wells have capitals and two digits, or "_s1" and "_w1" would be wells too.
_NAME = re.compile(
    r"(?:(?P<plate>.+)_)?(?P<well>[A-Z]{1,2}[0-9]{2})"
    r"(?:_s(?P<site>[0-9]{1,6}))?(?:_w(?P<channel>[0-9]{1,2}))?(?P<thumb>_thumb)?"
    rf"(?:{_GUID})?\.[Tt][Ii][Ff][Ff]?"
)
_STEP = re.compile(r"(?P<kind>TimePoint|ZStep)_(?P<number>[0-9]{1,6})", re.IGNORECASE)

PROJECTION = 0


class ImageXpressSettings(LayoutSettings):
    """ImageXpress / MetaXpress names: `<plate>_<well>[_s<site>][_w<channel>][GUID].tif`, `TimePoint_n`, `ZStep_n`."""

    kind: Literal["imagexpress"] = "imagexpress"


@dataclass(frozen=True, slots=True)
class ImageXpress(Layout):
    """Site 1, time point 1 and channel "w1" where name and folders do not give them. Thumbnails are ignored.

    `root` is the plate of files that lie in the input itself and whose names give none.
    """

    root: str

    def parse(self, key: str) -> Parsed | Ignored | None:
        """None for an image whose name does not follow the convention."""
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


def tells_site_or_channel(key: str) -> bool:
    """Whether the name follows the convention and gives a site or a channel: hardly a coincidence."""
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
    """The folder of the acquisition, time point and plane, from the folders a file lies in."""
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


def _build(_: ImageXpressSettings, root: str) -> ImageXpress:
    return ImageXpress(root)


KIND = LayoutKind("imagexpress", ImageXpressSettings, _build, Traits(projection_plane=PROJECTION))
