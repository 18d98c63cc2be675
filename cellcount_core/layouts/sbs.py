"""Names of the SBS data sets and of the Broad Bioimage Benchmark Collection that no instrument's layout reads.

`Channel<c>-<NN>-<row>-<column>[-<site>].tif` (BBBC013 to BBBC016, CellProfiler's ExampleSBSImages and ExampleVitraImages): `Channel1-01-A-01.tif`,
`Channel 1-01-A-01-00.tif`. NN is the running number of the well, which the row and column say too. A fifth part is the site, from 0. Real:
CellProfiler/CellProfiler, tests/core/data/ExampleSBSImages; CellProfiler/examples, ExampleVitraImages.

`<plate>_<well>_s<site>_w<channel><GUID>.tif` with the well in lower case (BBBC006), below a folder of its z plane, which ends in `_z_NN`.
Planes count from 0, sites and channels from 1. The planes of a field lie in different folders, so the folder of the plate is the one above them.
With wells in capitals such names are ImageXpress names (BBBC021, BBBC022, BBBC039).

Channels are named by their number. There are no metadata files; pixel sizes are not in the images either (their 72 dpi is none).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
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

_SBS = re.compile(
    r"Channel ?(?P<channel>[0-9]{1,2})-[0-9]{1,4}-(?P<row>[A-Z]{1,2})-(?P<column>[0-9]{1,2})(?:-(?P<site>[0-9]{1,3}))?\.tiff?",
    re.IGNORECASE,
)
_LOWER = re.compile(
    r"(?P<plate>.+)_(?P<row>[a-p])(?P<column>[0-9]{2})_s(?P<site>[0-9]{1,3})_w(?P<channel>[0-9])"
    r"(?:_?[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})?\.(?:tiff?|TIFF?)"
)
_PLANE = re.compile(r"(?:.*_)?z_?(?P<plane>[0-9]{1,4})", re.IGNORECASE)


class SbsSettings(LayoutSettings):
    """SBS and BBBC names: `Channel1-01-A-01.tif`, and `<plate>_a01_s1_w1<GUID>.tif` of BBBC006."""

    kind: Literal["sbs"] = "sbs"


@dataclass(frozen=True, slots=True)
class Sbs(Layout):
    """See the module. `root` is the plate of files in the input itself whose names tell no plate. Site 1 if the name tells none."""

    root: str

    def parse(self, key: str) -> Parsed | Ignored | None:
        """See `Layout.parse`. None for an image whose name follows neither convention."""
        if (ignored := ignored_name(key)) is not None:
            return ignored
        folder, plane = parent(key), 0
        if (match := _SBS.fullmatch(file_name(key))) is not None:
            plate = folder.rpartition("/")[2] or self.root
        elif (match := _LOWER.fullmatch(file_name(key))) is not None:
            plate = match["plate"]
            if (stack := _PLANE.fullmatch(file_name(folder))) is not None:
                folder, plane = parent(folder), int(stack["plane"])
        else:
            return None
        position = parse_well(match["row"] + match["column"])
        if position is None:
            return None
        key_of = FieldKey(plate, position.name, int(match["site"] or 1), 1)
        return Parsed(key_of, str(int(match["channel"])), plane, folder)


def _build(_: SbsSettings, root: str) -> Sbs:
    return Sbs(root)


KIND = LayoutKind("sbs", SbsSettings, _build)
