"""Acquisitions of Squid (Cephla): a folder for each time point, and `coordinates.csv` and `acquisition parameters.json` beside them.

`<acquisition>/<t>/<region>_<fov>_<z>_<channel>.tiff` (or `.bmp`): `0/B2_3_0_Fluorescence_405_nm_Ex.tiff`. Time points, fields of view and
planes count from 0 and keep their numbers. A region that is called as a well is one; any other ("manual0") keeps its name. A channel is named as in the
file; it holds `_` where Squid shows blanks.

`coordinates.csv` has the columns `region`, `fov`, `x (mm)`, `y (mm)`, one row for each field (or plane). One lies in each time point's folder, with
what was imaged, and in newer versions one above them, with what was to be imaged, which is read where there is one. Rows of a plate have
growing y (A1 is at small x and y in Squid's plate formats), so y points down. `acquisition parameters.json` states numbers of time points (Nt)
and planes (Nz), and the optics: a pixel is `sensor_pixel_size_um` divided by the magnification, which is that of the objective x
`tube_lens_mm` / the objective's `tube_lens_f_mm`. It does not state a camera's binning.

Grammar and keys as in Cephla-Lab/Squid; no real folder was at hand.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from cellcount_core.domain.fields import FieldKey, Parsed
from cellcount_core.domain.plates import ExpectedFields, PlateFacts, Position, canonical_well, parse_well
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
from cellcount_core.layouts.metadata import Json, Unreadable, pixel_size, read_json, text_of

_NAME = re.compile(
    r"(?P<region>[^_/]+)_(?P<site>[0-9]{1,6})_(?P<plane>[0-9]{1,6})_(?P<channel>[A-Za-z][^/]*)\.(?:tiff?|bmp|png|jpe?g)",
    re.IGNORECASE,
)
_TIME = re.compile(r"[0-9]{1,6}")
_COORDINATES, _PARAMETERS = "coordinates.csv", "acquisition parameters.json"
_UM = 1e3
_MOST_ROWS = 2_000_000
_FARTHEST_MM = 1e6


class SquidSettings(LayoutSettings):
    """Squid (Cephla): `<t>/<well>_<fov>_<z>_<channel>.tiff` with `coordinates.csv` and `acquisition parameters.json`."""

    kind: Literal["squid"] = "squid"


@dataclass(frozen=True, slots=True)
class Squid(Layout):
    """The plate is the folder of the acquisition, above that of the time point; `root` if that is the input itself."""

    root: str

    def parse(self, key: str) -> Parsed | Sidecar | Ignored | None:
        """See `Layout.parse`. None for an image whose name or folder does not follow the convention."""
        folder, timepoint = _place(key)
        if file_name(key) in (_COORDINATES, _PARAMETERS) and not is_hidden(key):
            return Sidecar(folder, file_name(key), alike=False)
        if (ignored := ignored_name(key)) is not None:
            return ignored
        match = _NAME.fullmatch(file_name(key))
        if match is None or timepoint is None:
            return None
        plate = file_name(folder) or self.root
        where = FieldKey(plate, canonical_well(match["region"]), int(match["site"]), timepoint)
        return Parsed(where, match["channel"], int(match["plane"]), folder)

    def certain(self, key: str) -> bool:
        """Only a region that is called as a well: other names with two numbers in a numbered folder are common."""
        return parse_well(file_name(key).partition("_")[0]) is not None

    def describe(self, sidecars: Mapping[str, bytes]) -> tuple[PlateFacts, ...]:
        """What the coordinates and the parameters of one acquisition state."""
        stated = _Stated()
        for key, body in sorted(sidecars.items()):
            if file_name(key) == _COORDINATES:
                stated.coordinates(key, body)
            else:
                stated.parameters(key, read_json(key, body))
        first = min(sidecars)
        folder, _ = _place(first)
        return (stated.facts(folder, file_name(folder) or self.root, first),)


def _place(key: str) -> tuple[str, int | None]:
    """The folder of the acquisition, and the time point of the folder below it that the file lies in, if it does."""
    folder = parent(key)
    if _TIME.fullmatch(file_name(folder)):
        return parent(folder), int(file_name(folder))
    return folder, None


@dataclass(slots=True)
class _Stated:
    """What has been read of one acquisition so far."""

    positions: dict[tuple[str, int], Position] = field(default_factory=dict)
    sites: defaultdict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    listed_in: str = ""
    um_per_px: float | None = None
    timepoints: int | None = None
    planes: int | None = None
    notes: list[str] = field(default_factory=list)

    def coordinates(self, key: str, body: bytes) -> None:
        """Take the rows of a `coordinates.csv`."""
        self.listed_in = file_name(key)
        for line, row in _rows(key, body):
            well = canonical_well(row["region"])
            if not re.fullmatch(r"[0-9]{1,6}", row["fov"]) or not well:
                raise Unreadable(
                    key,
                    f"line {line}: fov is {row['fov'][:40]!r} of region {well[:40]!r}; a whole number was expected",
                )
            site = int(row["fov"])
            self.sites[well].add(site)
            x, y = (_millimetres(key, line, name, row[name]) for name in ("x (mm)", "y (mm)"))
            self.positions.setdefault((well, site), Position(round(x * _UM, 3), round(y * _UM, 3)))

    def parameters(self, key: str, value: Json) -> None:
        """Take the values of an `acquisition parameters.json`."""
        if not isinstance(value, dict):
            raise Unreadable(key, "is not a JSON object")
        self.timepoints, self.planes = (_count(key, value, name) for name in ("Nt", "Nz"))
        lens = value.get("objective")
        if not isinstance(lens, dict):
            return
        sensor, tube = _size(key, value, "sensor_pixel_size_um"), _size(key, value, "tube_lens_mm")
        magnification, designed = _size(key, lens, "magnification"), _size(key, lens, "tube_lens_f_mm")
        if sensor and tube and magnification and designed:
            self.um_per_px = pixel_size(sensor / (magnification * tube / designed), "", self.notes)

    def facts(self, folder: str, plate: str, source: str) -> PlateFacts:
        """All that was read."""
        why = f"no file; {self.listed_in} lists this field"
        alike: defaultdict[tuple[int, ...], list[str]] = defaultdict(list)
        for well, sites in self.sites.items():
            alike[tuple(sorted(sites))].append(well)
        return PlateFacts(
            folder=folder,
            plate=plate,
            source=source,
            um_per_px=self.um_per_px,
            positions=self.positions,
            expected=tuple(
                ExpectedFields(tuple(sorted(wells)), sites, why) for sites, wells in sorted(alike.items())
            ),
            timepoints=self.timepoints,
            planes=self.planes,
            notes=tuple(self.notes),
        )


def _rows(key: str, body: bytes) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the rows of a `coordinates.csv` with their lines. Raises Unreadable if a column is not there, or a row has too few values."""
    reader = csv.reader(io.StringIO(text_of(body), newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        wanted = ("region", "fov", "x (mm)", "y (mm)")
        if absent := [name for name in wanted if name not in header]:
            raise Unreadable(
                key,
                f"has no column {absent[0]!r}; there are {', '.join(map(repr, header[:8])) or 'none'}"[:300],
            )
        places = {name: header.index(name) for name in wanted}
        for number, row in enumerate(reader):
            if number > _MOST_ROWS:
                raise Unreadable(key, f"has more than {_MOST_ROWS} rows")
            if not row:
                continue
            if len(row) < len(header):
                raise Unreadable(
                    key, f"line {reader.line_num}: has {len(row)} values, the header has {len(header)}"
                )
            yield reader.line_num, {name: row[place].strip() for name, place in places.items()}
    except csv.Error as error:
        raise Unreadable(key, f"not a CSV table: {error}") from None


def _millimetres(key: str, line: int, name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not abs(value) < _FARTHEST_MM:
        raise Unreadable(key, f"line {line}: {name} is {text[:40]!r}; a number of millimetres was expected")
    return value


def _count(key: str, value: dict[str, Json], name: str) -> int | None:
    found = value.get(name)
    if found is None:
        return None
    if not isinstance(found, int) or isinstance(found, bool) or not 1 <= found <= 1_000_000:
        raise Unreadable(key, f"{name} is {str(found)[:40]!r}; a whole number from 1 was expected")
    return found


def _size(key: str, value: dict[str, Json], name: str) -> float | None:
    """A length or magnification above 0; None if it is not there."""
    found = value.get(name)
    if found is None:
        return None
    if not isinstance(found, int | float) or not 1e-6 < found < 1e6:
        raise Unreadable(key, f"{name} is {str(found)[:40]!r}; a number above 0 was expected")
    return float(found)


def _build(_: SquidSettings, root: str) -> Squid:
    return Squid(root)


KIND = LayoutKind("squid", SquidSettings, _build, Traits(has_sidecars=True))
