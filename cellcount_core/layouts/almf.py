"""Names of the Advanced Light Microscopy Facility's high-throughput microscopy (ALMF, HTM; EMBL), which CellCognition and HTM Explorer read.

`<plate>--<treatment>[--<more>]--W0001--P001--T0000[--Z000]--C00.tif`, mostly in folders `W0001--<treatment>/P001--<treatment>` of the plate (real:
hmbotelho/FIS_analysis, demo_dataset; the Mitocheck movie of NEUBIAS/training-resources). Treatments may hold dots and blanks; they are not read,
a plate map says them. Numbers have three to five digits. T, Z and C count from 0, P is kept as it is. The channel is named as in the file,
"C00"; a file that says "C" alone tells no channel.

W is the running number of the well, row by row. It counts from 1 in both real sets; `first_well` says 0 for sets that count from 0, which
exist too. There is no metadata, so the plate's shape, which gives the wells their names, has to be told (`run.plate_format`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from cellcount_core.domain.fields import FieldKey, Parsed
from cellcount_core.domain.plates import numbered_well
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
    r"(?P<plate>.*?)--(?:.*--)?W(?P<well>[0-9]{3,5})--P(?P<site>[0-9]{3,5})--T(?P<timepoint>[0-9]{3,5})(?:--Z(?P<plane>[0-9]{3,5}))?"
    r"--C(?P<channel>[0-9]{0,3})\.tiff?",
    re.IGNORECASE,
)
_INSIDE = re.compile(r"[WP][0-9]{3,5}(?:--.*)?", re.IGNORECASE)


class AlmfSettings(LayoutSettings):
    """ALMF / HTM (EMBL): `<plate>--<treatment>--W0001--P001--T0000--Z000--C00.tif`. Wells are numbered: `run.plate_format` tells the plate's shape.

    `first_well` is the number of the first well.
    """

    kind: Literal["almf"] = "almf"
    first_well: Literal[0, 1] = 1


@dataclass(frozen=True, slots=True)
class Almf(Layout):
    """See the module. `root` is the plate of files in the input itself whose names tell no plate."""

    root: str
    first_well: int

    def parse(self, key: str) -> Parsed | Ignored | None:
        """See `Layout.parse`. None for an image whose name does not follow the convention, or with a number before that of the first well."""
        if (ignored := ignored_name(key)) is not None:
            return ignored
        match = _NAME.fullmatch(file_name(key))
        number = int(match["well"]) - self.first_well + 1 if match is not None else 0
        if match is None or number < 1:
            return None
        folder = parent(key)
        while _INSIDE.fullmatch(file_name(folder)):
            folder = parent(folder)
        plate = match["plate"] or file_name(folder) or self.root
        where = FieldKey(plate, numbered_well(number), int(match["site"]), int(match["timepoint"]))
        channel = f"C{match['channel']}" if match["channel"] else ""
        return Parsed(where, channel, int(match["plane"] or 0), folder, number)


def _build(settings: AlmfSettings, root: str) -> Almf:
    return Almf(root, settings.first_well)


KIND = LayoutKind("almf", AlmfSettings, _build)
