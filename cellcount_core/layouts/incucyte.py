"""Images of the IncuCyte (Essen, Sartorius): exported ones, and the raw archive (`.icarch`).

Exports: `<experiment>_<well>_<site>_<dd>d<hh>h<mm>m.tif`, or `<experiment>_<well>_<site>_<yyyy>y<mm>m<dd>d_<hh>h<mm>m.tif` (LIVECell:
`A172_Phase_A7_1_00d00h00m_1.tif`, whose last number is a crop of the image: crop 2 of site 1 is site 1001). The experiment's name is the plate; its last word is the
channel if it is one that the IncuCyte has (Phase, Green, Red, Orange, NIR, Blue, Brightfield).

Raw archive: `EssenFiles/ScanData/YYMM/DD/HHMM/<plate>/<well>-<site>-<C1|C2|Ph>.tif` (Leiden-Cell-Observatory/OMERO_scripts). The plate is the number
of the vessel; plates of one archive are scanned in turn.

Time points are numbered in minutes: of an export with `d h m` since the experiment began, otherwise since 1970-01-01 by the clock of the instrument,
because names tell no beginning. So a scan that is missing shifts no other. Wells have no leading zero, sites count from 1.

There are no metadata files that are read: the archive has its pixel size in `Diag.zip` alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Literal

from cellcount_core.domain.fields import FieldKey, Parsed
from cellcount_core.domain.plates import parse_well
from cellcount_core.layouts.base import (
    Ignored,
    Layout,
    LayoutKind,
    LayoutSettings,
    file_name,
    ignored_name,
    parent,
)

_EXPORT = re.compile(
    r"(?P<experiment>.*?)_?(?P<well>[A-P][0-9]{1,2})_(?P<site>[0-9]{1,3})_"
    r"(?:(?P<days>[0-9]{2,3})d(?P<hours>[0-9]{2})h(?P<minutes>[0-9]{2})m|(?P<date>[0-9]{4}y[0-9]{2}m[0-9]{2}d_[0-9]{2}h[0-9]{2}m))"
    r"(?:_(?P<crop>[0-9]{1,3}))?\.(?:tiff?|png|jpe?g)",
    re.IGNORECASE,
)
_RAW = re.compile(
    r"(?P<folder>(?:.*/)?)(?P<date>[0-9]{4}/[0-9]{2}/[0-9]{4})/(?P<plate>[^/]+)/(?P<well>[A-P][0-9]{1,2})-(?P<site>[0-9]{1,3})-(?P<channel>C[0-9]|Ph)\.tiff?",
    re.IGNORECASE,
)
_CHANNEL = re.compile(
    r"(?:(?P<experiment>.*)_)?(?P<channel>Phase|Green|Red|Orange|NIR|Blue|Bright ?field)", re.IGNORECASE
)
_ARCHIVE = re.compile(r"EssenFiles|ScanData", re.IGNORECASE)
_EXPORTED, _SCANNED = "%Yy%mm%dd_%Hh%Mm", "%y%m/%d/%H%M"


class IncucyteSettings(LayoutSettings):
    """IncuCyte: exports `<experiment>_<well>_<site>_00d00h00m.tif`, and the raw archive `EssenFiles/ScanData/YYMM/DD/HHMM/<plate>/A1-1-Ph.tif`."""

    kind: Literal["incucyte"] = "incucyte"


@dataclass(frozen=True, slots=True)
class Incucyte(Layout):
    """See the module. `root` is the plate of exports in the input itself that tell no experiment."""

    root: str

    def parse(self, key: str) -> Parsed | Ignored | None:
        """See `Layout.parse`. None for an image whose name follows neither convention, or whose date is none."""
        if (ignored := ignored_name(key)) is not None:
            return ignored
        if (match := _RAW.fullmatch(key)) is not None:
            timepoint, folder = _minutes(match["date"], _SCANNED), match["folder"].rstrip("/")
            while _ARCHIVE.fullmatch(file_name(folder)):
                folder = parent(folder)
            plate, channel, site = match["plate"], match["channel"], int(match["site"])
        elif (match := _EXPORT.fullmatch(file_name(key))) is not None:
            folder = parent(key)
            timepoint = _minutes(match["date"], _EXPORTED) if match["date"] else _since_start(match)
            named = _CHANNEL.fullmatch(match["experiment"])
            plate = (
                (named["experiment"] if named is not None else match["experiment"])
                or file_name(folder)
                or self.root
            )
            channel = named["channel"] if named is not None else ""
            site = int(match["site"]) + 1000 * (int(match["crop"] or 1) - 1)
        else:
            return None
        position = parse_well(match["well"])
        if position is None or timepoint is None or site < 0:
            return None
        return Parsed(FieldKey(plate, position.name, site, timepoint), channel, 0, folder)


def _since_start(match: re.Match[str]) -> int:
    return (int(match["days"]) * 24 + int(match["hours"])) * 60 + int(match["minutes"])


@lru_cache(maxsize=4096)
def _minutes(text: str, form: str) -> int | None:
    """Minutes from 1970-01-01 to the date and time in `text`; None if it is none."""
    try:
        found = datetime.strptime(text, form).replace(tzinfo=UTC)
    except ValueError:
        return None
    minutes = int(found.timestamp()) // 60
    return minutes if minutes >= 0 else None


def _build(_: IncucyteSettings, root: str) -> Incucyte:
    return Incucyte(root)


KIND = LayoutKind("incucyte", IncucyteSettings, _build)
