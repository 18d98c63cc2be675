"""Names of Gen5, the program of BioTek (Agilent) Cytation and Lionheart.

`<well>_<read step>_<channel number>_<field>_<channel name>_<time>.tif`: `D6_01_1_2_DAPI_001.tif`, `A10_02_1_1_Bright Field_001.tif`. The well
has no leading zero. All numbers count from 1; the last one is the time point (Gen5: kinetic number), not the plane. A plane stands behind
the field: `_2Z3_`. (Real: WayScience/CytoDataFrame, NF1 plates; the form with a plane as in Bio-Formats' BioTekReader.java.)

Gen5 writes renderings of the same fields beside the images, with the name of what it did around that of the channel: `Stitched[DAPI 377,447]`,
`Tsf[…]`, `ZProj[…]`, and a negative number in place of the read step. They are left out, so that nothing is counted twice; so are masks, whose
names go on behind the time point (`…_001_MaskNuclei.tiff`).

The plate is the folder of the images. Pixel size, the name of the plate and the plane are in the images (`BTIImageMetaData` in a TIFF's
ImageDescription); there are no metadata files.
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
    derived_why,
    file_name,
    ignored_name,
    parent,
)

_NAME = re.compile(
    r"(?P<well>[A-Z]{1,2}[0-9]{1,2})_(?P<step>-?[0-9]{1,3})_(?P<number>[0-9]{1,2})_(?P<site>[0-9]{1,4})(?:Z(?P<plane>[0-9]{1,4}))?"
    r"_(?P<channel>[^_/]+)_(?P<timepoint>-?[0-9]{1,6})(?P<made>_[^/]*mask[^/.]*)?\.[Tt][Ii][Ff][Ff]?",
    re.IGNORECASE,
)
_RENDERING = re.compile(r"(?P<what>[A-Za-z ]+)\[.*")


class CytationSettings(LayoutSettings):
    """Gen5 names (BioTek Cytation, Lionheart): `<well>_<read step>_<channel number>_<field>_<channel name>_<time>.tif`."""

    kind: Literal["cytation"] = "cytation"


@dataclass(frozen=True, slots=True)
class Cytation(Layout):
    """See the module. `root` is the plate of files in the input itself. Plane 0 where the name tells none."""

    root: str

    def parse(self, key: str) -> Parsed | Ignored | None:
        """See `Layout.parse`. None for an image whose name does not follow the convention."""
        if (ignored := ignored_name(key)) is not None:
            return ignored
        match = _NAME.fullmatch(file_name(key))
        position = parse_well(match["well"]) if match is not None else None
        if match is None or position is None:
            return None
        if match["made"]:
            return Ignored(derived_why("_Mask"))
        rendering = _RENDERING.fullmatch(match["channel"])
        if rendering is not None or match["step"].startswith("-"):
            what = f" ({rendering['what']}[…])" if rendering is not None else ""
            return Ignored(f"rendering that Gen5 made of other images{what}")
        folder = parent(key)
        plate = folder.rpartition("/")[2] or self.root
        # Without a kinetic, Gen5 may write -1.
        timepoint = max(1, int(match["timepoint"]))
        key_of = FieldKey(plate, position.name, int(match["site"]), timepoint)
        return Parsed(key_of, match["channel"], int(match["plane"] or 0), folder)


def _build(_: CytationSettings, root: str) -> Cytation:
    return Cytation(root)


KIND = LayoutKind("cytation", CytationSettings, _build)
