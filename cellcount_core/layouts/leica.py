"""Folders of Leica's Matrix Screener (LAS AF, LAS X), and the scanning template beside them.

`experiment--*/slide--S00/chamber--U00--V00/field--X00--Y00/image--L0000--S00--U00--V00--J08--E00--O00--X00--Y00--T0000--Z00--C00.ome.tif`;
tokens have two to four digits, images may be `.png` (real: arve0/leicaexperiment and arve0/leicaautomator, test data). All tokens count
from 0. S is the slide, J the job, L the loop, T the time point, Z the plane and C the channel, which is named as in the file, "C00".

U is the column of the well and V its row, X the column of the field in its well and Y its row. The descriptions of leicaexperiment contradict
its code here, so the settings can turn each pair around. A field has the site 1000 x (row + 1) + column + 1: 2003 is row 1, column 2. A site that
counted through the well would need the size of the grid, which names do not tell.

The plate is the folder of the experiment; other slides than S00 are plates of their own. Stitched images are left out.

`AdditionalData/{ScanningTemplate}*.xml` states the wells and fields, counting from 1, with the job assigned to each, and stage positions in
metres. They grow with X and with Y, and the images of `field--X00--Y01` lie below those of `field--X00--Y00` (TileConfiguration.txt of
the real set): y points down. Fields without a job, or switched off, were not to be imaged. Pixel sizes are in the images (OME-XML).
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from cellcount_core.domain.fields import FieldKey, Parsed
from cellcount_core.domain.plates import ExpectedFields, PlateFacts, Position, WellPosition
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
from cellcount_core.layouts.metadata import Unreadable, read_xml

_NAME = re.compile(
    r"image(?P<tokens>(?:--[A-Z][0-9]{2,4}){4,16})(?:\.ome)?\.(?:tiff?|png|jpe?g)", re.IGNORECASE
)
_TOKEN = re.compile(r"--([A-Z])([0-9]+)", re.IGNORECASE)
_INSIDE = re.compile(r"(?:slide|chamber|field)--[A-Z0-9-]+|metadata", re.IGNORECASE)
_STITCHED = re.compile(r"stitched\b.*", re.IGNORECASE)
_TEMPLATE = re.compile(r"(?P<folder>(?:.*/)?)AdditionalData/\{ScanningTemplate\}[^/]*\.xml", re.IGNORECASE)
_UM = 1e6
_MOST_COLUMN, _MOST_ROW = 998, 9998
_MOST_FIELDS = 1_000_000


class LeicaSettings(LayoutSettings):
    """Leica Matrix Screener: `image--L00--S00--U00--V00--J08--E00--O00--X00--Y00--T00--Z00--C00.ome.tif` with its scanning template.

    `well_column` is the token that is the well's column, `field_column` the one that is the field's column in its well; the other token
    of each pair is the row. `time` is the token that is the time point: the loop, L, where the whole scan was repeated. `job` is the number
    of the job (J) that is counted where several imaged the same fields.
    """

    kind: Literal["leica"] = "leica"
    well_column: Literal["U", "V"] = "U"
    field_column: Literal["X", "Y"] = "X"
    time: Literal["T", "L"] = "T"
    job: Annotated[int, Field(ge=0)] | None = None


@dataclass(frozen=True, slots=True)
class Leica(Layout):
    """See the module. `root` is the plate if the input itself is the folder of the experiment."""

    root: str
    settings: LeicaSettings

    def parse(self, key: str) -> Parsed | Sidecar | Ignored | None:
        """See `Layout.parse`. None for an image whose name does not follow the convention."""
        if (template := _TEMPLATE.fullmatch(key)) is not None and not is_hidden(key):
            return Sidecar(template["folder"].rstrip("/"), file_name(key))
        if (ignored := ignored_name(key)) is not None:
            return ignored
        if _STITCHED.fullmatch(file_name(key)) is not None:
            return Ignored("stitched rendering")
        match = _NAME.fullmatch(file_name(key))
        found = _TOKEN.findall(match["tokens"]) if match is not None else []
        tokens = {letter.upper(): int(number) for letter, number in found}
        if not {"U", "V", "X", "Y"} <= tokens.keys() or len(tokens) < len(found):
            return None
        if self.settings.job is not None and tokens.get("J", 0) != self.settings.job:
            return Ignored(f"image of another job (J{tokens.get('J', 0):02d})")
        well = self._well(tokens["U"], tokens["V"])
        site = self._site(tokens["X"], tokens["Y"])
        if well is None or site is None:
            return None
        folder = _experiment(parent(key))
        key_of = FieldKey(
            self._plate(folder, tokens.get("S", 0)), well, site, tokens.get(self.settings.time, 0)
        )
        return Parsed(key_of, f"C{tokens.get('C', 0):02d}", tokens.get("Z", 0), folder)

    def describe(self, sidecars: Mapping[str, bytes]) -> tuple[PlateFacts, ...]:
        """What the scanning template states, a plate for each slide. Of several templates the first by name is read."""
        key, body = min(sidecars.items())
        template = _Template(key)
        read_xml(key, body, template.start, template.end)
        others = tuple(
            f"is read; {file_name(other)} lies beside it and is not" for other in sorted(sidecars)[1:]
        )
        return self._facts(template, others)

    def _plate(self, folder: str, slide: int) -> str:
        name = file_name(folder) or self.root
        return f"{name}-S{slide:02d}" if slide else name

    def _well(self, u: int, v: int) -> str | None:
        column, row = (u, v) if self.settings.well_column == "U" else (v, u)
        return WellPosition(row, column).name if 0 <= row < 32 and 0 <= column < 48 else None

    def _site(self, x: int, y: int) -> int | None:
        column, row = (x, y) if self.settings.field_column == "X" else (y, x)
        within = 0 <= column <= _MOST_COLUMN and 0 <= row <= _MOST_ROW
        return 1000 * (row + 1) + column + 1 if within else None

    def _facts(self, template: _Template, notes: tuple[str, ...]) -> tuple[PlateFacts, ...]:
        key = template.key
        folder = parent(parent(key))
        why = f"no file; {file_name(key)} has a job for this field"
        x, y = template.wells
        columns, rows = (x, y) if self.settings.well_column == "U" else (y, x)
        told = []
        for slide, fields in sorted(template.fields.items()):
            wells: defaultdict[str, set[int]] = defaultdict(set)
            positions: dict[tuple[str, int], Position] = {}
            for (u, v, fx, fy), position in fields.items():
                well, site = self._well(u - 1, v - 1), self._site(fx - 1, fy - 1)
                if well is None or site is None:
                    raise Unreadable(key, f"well {u}, {v}, field {fx}, {fy}: no plate has such a field")
                wells[well].add(site)
                if position is not None:
                    positions[well, site] = position
            alike: defaultdict[tuple[int, ...], list[str]] = defaultdict(list)
            for well, sites in wells.items():
                alike[tuple(sorted(sites))].append(well)
            told.append(
                PlateFacts(
                    folder=folder,
                    plate=self._plate(folder, slide - 1),
                    source=key,
                    # One well is a slide, not a plate.
                    rows=rows if rows * columns > 1 else None,
                    columns=columns if rows * columns > 1 else None,
                    positions=positions,
                    expected=tuple(
                        ExpectedFields(tuple(sorted(those)), sites, why)
                        for sites, those in sorted(alike.items())
                    ),
                    notes=notes,
                )
            )
        return tuple(told)


def _experiment(folder: str) -> str:
    """The folder of the experiment, from the folder of an image."""
    while _INSIDE.fullmatch(file_name(folder)):
        folder = parent(folder)
    return folder


_Field = tuple[int, int, int, int]
"""Column and row of the well, and X and Y of the field in it, all from 1."""


@dataclass(slots=True)
class _Template:
    """What has been read from a scanning template so far: for each slide, the fields that have a job, with their places on the stage."""

    key: str
    counts: dict[str, int] = field(default_factory=dict)
    fields: defaultdict[int, dict[_Field, Position | None]] = field(default_factory=lambda: defaultdict(dict))
    depth: int = 0
    current: tuple[int, _Field] | None = None
    x_um: float | None = None

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        """An element begins."""
        if self.depth == 0 and name != "MatrixScreenerTemplate":
            raise Unreadable(
                self.key, f"a scanning template begins with MatrixScreenerTemplate (found {name!r})"
            )
        self.depth += 1
        if name != "ScanFieldData":
            return
        self.current, self.x_um = None, None
        if (
            attributes.get("JobAssigned", "").lower() != "true"
            or attributes.get("Enabled", "").lower() != "true"
        ):
            return
        slide, *place = (
            self._whole(each, attributes.get(each, ""))
            for each in ("SlideNo", "WellX", "WellY", "FieldX", "FieldY")
        )
        of = (place[0], place[1], place[2], place[3])
        self.fields[slide].setdefault(of, None)
        self.current = slide, of
        if sum(map(len, self.fields.values())) > _MOST_FIELDS:
            raise Unreadable(self.key, f"has more than {_MOST_FIELDS} fields")

    def end(self, name: str, text: str) -> None:
        """An element ends."""
        self.depth -= 1
        if name in ("CountOfWellsX", "CountOfWellsY"):
            self.counts[name] = self._whole(name, text.strip())
        if self.current is None or name not in ("FieldXCoordinate", "FieldYCoordinate"):
            return
        um = self._metres(name, text) * _UM
        if name == "FieldXCoordinate":
            self.x_um = um
        elif self.x_um is not None:
            slide, of = self.current
            self.fields[slide][of] = Position(round(self.x_um, 3), round(um, 3))

    @property
    def wells(self) -> tuple[int, int]:
        """How many wells there are along x and y. Raises Unreadable if the template does not say it, or has no field."""
        if not self.fields:
            raise Unreadable(self.key, "has no ScanFieldData with a job: no field was to be imaged")
        for name, most in (("CountOfWellsX", 48), ("CountOfWellsY", 48)):
            if not 1 <= self.counts.get(name, 0) <= most:
                raise Unreadable(
                    self.key, f"{name} is {self.counts.get(name)}; a number from 1 to {most} was expected"
                )
        return self.counts["CountOfWellsX"], self.counts["CountOfWellsY"]

    def _whole(self, name: str, text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,6}", text) or int(text) == 0:
            raise Unreadable(self.key, f"{name} is {text!r}; a whole number from 1 was expected")
        return int(text)

    def _metres(self, name: str, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise Unreadable(self.key, f"{name} is {text!r}; a number of metres was expected")
        return value


def _build(settings: LeicaSettings, root: str) -> Leica:
    return Leica(root, settings)


KIND = LayoutKind("leica", LeicaSettings, _build, Traits(has_sidecars=True))
