"""Cellomics names (ArrayScan, CellInsight, CX7).

`<plate>_<12-digit run>_<well>f##d#.(C01|DIB|TIF)`. The run is the number of one scan of the plate: scans of one plate are kept apart, as
`<plate>@<run>`, because they show the same fields. Fields and channels (`d#`) count from 0, as in the tables, and the first field that was
imaged may have a higher number. `o#` in place of `d#` is an overlay that the instrument drew, which is left out. There are no metadata files
that are read (the instrument keeps them in a database), so the plate's shape, the channels' names and the expected fields are not known; a C01
and a DIB hold their pixel size (images/cellomics.py). (Bio-Formats' CellomicsReader.java; real files: CellProfiler's AS_09047 and AS_09125.)
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
    r"(?P<plate>.+)_(?P<run>[0-9]{12})_(?P<well>[A-Z]{1,2}[0-9]{2})f(?P<site>[0-9]{2,4})(?P<kind>[do])(?P<channel>[0-9]{1,2})\.(?:c01|dib|tiff?)",
    re.IGNORECASE,
)


class CellomicsSettings(LayoutSettings):
    """Cellomics (ArrayScan, CellInsight, CX7): `<plate>_<run>_A01f00d0.C01`, or `.TIF`; overlays (`o0`) are left out."""

    kind: Literal["cellomics"] = "cellomics"


@dataclass(frozen=True, slots=True)
class Cellomics(Layout):
    """The plate is the name before the run."""

    def parse(self, key: str) -> Parsed | Ignored | None:
        """See `Layout.parse`. None for an image whose name does not follow the convention."""
        if (ignored := ignored_name(key)) is not None:
            return ignored
        match = _NAME.fullmatch(file_name(key))
        well = _well(match["well"]) if match else None
        if match is None or well is None:
            return None
        if match["kind"].lower() == "o":
            return Ignored("overlay")
        where = FieldKey(match["plate"], well, int(match["site"]), 1)
        # Scans of one plate may lie in one folder; as folders of their own they are kept apart.
        folder = f"{parent(key)}/{match['run']}".lstrip("/")
        return Parsed(where, f"d{int(match['channel'])}", 0, folder)


@lru_cache(maxsize=4096)
def _well(text: str) -> str | None:
    position = parse_well(text)
    return None if position is None else position.name


def _build(_: CellomicsSettings, __: str) -> Cellomics:
    return Cellomics()


KIND = LayoutKind("cellomics", CellomicsSettings, _build)
