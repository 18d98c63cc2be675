"""Names of scans by Thermo's EVOS (M7000, FL Auto).

`<scan>_(Plate|Top Slide|Bottom Slide)_<kind>[n]_p##[_z##]_0_<well>f##d#.TIF`. The kind says what the image is, and one field is written as
several: `R` is raw and is the only one that is counted. `M` (the channels merged into a colour picture), `D` (as displayed) and the stitched
ones, `TR`, `TM` and `TD`, show the same fields again and are left out. What n and `p##` count is not known, so raw files that differ in them
alone are said to claim one place, and are not merged. Fields and dyes (`d#`) count from 0, and so do the tables; z is given as it is in the
name. The plate is the scan, with the part of the slide holder if it is a slide, whose areas are named like wells. There is no metadata beside
the files. (Real names: the test files of napari-ndev. The other kinds are synthetic in the tests.)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
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

_NAME = re.compile(
    r"(?P<scan>.+)_(?P<holder>Plate|Top Slide|Bottom Slide)_(?P<kind>T?[RMD])(?P<number>[0-9]{0,4})_p(?P<position>[0-9]{2,4})(?:_z(?P<plane>[0-9]{2,4}))?"
    r"_[0-9]{1,4}_(?P<well>[A-Z]{1,2}[0-9]{2})f(?P<site>[0-9]{2,4})d(?P<channel>[0-9]{1,2})\.tiff?",
    re.IGNORECASE,
)
_DERIVED = {"M": "channels merged into a picture", "D": "image as displayed", "T": "stitched image"}


class EvosSettings(LayoutSettings):
    """Thermo EVOS: `<scan>_Plate_R_p00_0_A01f00d0.TIF`; merged, displayed and stitched images of the same fields are left out."""

    kind: Literal["evos"] = "evos"


@dataclass(frozen=True, slots=True)
class Evos(Layout):
    """The plate is the name of the scan, with the part of the slide holder."""

    def parse(self, key: str) -> Parsed | Ignored | None:
        """See `Layout.parse`. None for an image whose name does not follow the convention."""
        if (ignored := ignored_name(key)) is not None:
            return ignored
        match = _NAME.fullmatch(file_name(key))
        well = _well(match["well"]) if match else None
        if match is None or well is None:
            return None
        if (kind := match["kind"].upper()) != "R":
            return Ignored(_DERIVED[kind[0]])
        holder = match["holder"].lower()
        plate = match["scan"] if holder == "plate" else f"{match['scan']} {holder}"
        where = FieldKey(plate, well, int(match["site"]), 1)
        return Parsed(where, f"d{int(match['channel'])}", int(match["plane"] or 0), parent(key))


@lru_cache(maxsize=4096)
def _well(text: str) -> str | None:
    position = parse_well(text)
    return None if position is None else position.name


def _build(_: EvosSettings, __: str) -> Evos:
    return Evos()


KIND = LayoutKind("evos", EvosSettings, _build)
