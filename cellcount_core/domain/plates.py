"""Plates: the names of wells on 6- to 1536-well plates ("B02", "AF48"), and what an instrument's metadata files state of a plate."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product

_NAME = re.compile(r"^([A-Za-z]{1,2})0?([1-9][0-9]?)$")

FORMATS: dict[int, tuple[int, int]] = {
    6: (2, 3), 12: (3, 4), 24: (4, 6), 48: (6, 8), 96: (8, 12), 384: (16, 24), 1536: (32, 48),
}  # fmt: skip
"""Rows and columns of each plate format, by its number of wells (ANSI/SLAS 4-2004 for 96, 384, 1536)."""


@dataclass(frozen=True, slots=True, order=True)
class WellPosition:
    """The row and column of a well, both from 0."""

    row: int
    column: int

    @property
    def name(self) -> str:
        """The name with a two-digit column: "B02", "AF48"."""
        return f"{row_name(self.row)}{self.column + 1:02d}"


def row_name(row: int) -> str:
    """The letters of a row, which is numbered from 0: 0 is A, 25 is Z, 26 is AA."""
    return chr(65 + row) if row < 26 else "A" + chr(65 + row - 26)


def parse_well(name: str) -> WellPosition | None:
    """The position of a well named like "B2", "b02" or "AA01"; None if no plate format has a well of that name.

    >>> parse_well("b2"), parse_well("Z99")
    (WellPosition(row=1, column=1), None)
    """
    match = _NAME.match(name)
    if match is None:
        return None
    letters = match.group(1).upper()
    if len(letters) == 2 and letters[0] != "A":
        return None
    row = ord(letters[-1]) - 65 + (26 if len(letters) == 2 else 0)
    column = int(match.group(2)) - 1
    return WellPosition(row, column) if row < 32 and column < 48 else None


def canonical_well(name: str) -> str:
    """The name of a well with a two-digit column. Other names come back unchanged.

    >>> canonical_well("b2"), canonical_well("slide 7")
    ('B02', 'slide 7')
    """
    position = parse_well(name)
    return position.name if position else name


def numbered_well(number: int) -> str:
    """What a well is called as long as only its running number is known. No plate has a well of such a name.

    >>> numbered_well(29), parse_well(numbered_well(29))
    ('W00029', None)
    """
    return f"W{number:05d}"


def well_of_number(number: int, rows: int, columns: int) -> str | None:
    """The name of the well of this running number, which counts from 1, row by row; None if the plate has no such well.

    >>> well_of_number(29, 8, 12), well_of_number(97, 8, 12)
    ('C05', None)
    """
    if not 1 <= number <= rows * columns:
        return None
    return WellPosition(*divmod(number - 1, columns)).name


def smallest_format(positions: list[WellPosition]) -> int:
    """The number of wells of the smallest standard plate that holds all `positions`; 1536 if none does.

    >>> smallest_format([WellPosition(0, 0), WellPosition(7, 11)])
    96
    """
    for wells, (rows, columns) in FORMATS.items():
        if all(p.row < rows and p.column < columns for p in positions):
            return wells
    return 1536


@dataclass(frozen=True, slots=True)
class Position:
    """The place of a field's centre on the stage in µm: `x_um` to the right and `y_um` down, as one looks at the plate."""

    x_um: float
    y_um: float


@dataclass(frozen=True, slots=True)
class ExpectedFields:
    """Fields that the instrument was to write: each of `wells` with each of `sites` at each of `timepoints`.

    If `timepoints` is empty, the time points that have files are meant. `why` becomes the `reason_detail` of the fields that are not there:
    it names the file that states them and, if the instrument gives one, its own reason.
    """

    wells: tuple[str, ...]
    sites: tuple[int, ...]
    why: str
    timepoints: tuple[int, ...] = ()

    def places(self, timepoints: Iterable[int]) -> Iterator[tuple[str, int, int]]:
        """Well, site and time point of each, in order. `timepoints` are those that have files."""
        return product(
            sorted(set(self.wells)), sorted(set(self.sites)), sorted(set(self.timepoints or timepoints))
        )


def expected_fields(sites: Mapping[tuple[str, int], Collection[int]], why: str) -> tuple[ExpectedFields, ...]:
    """The sites that were to be written, by well and time point, as `ExpectedFields`: one for all wells that are alike."""
    alike: dict[tuple[int, tuple[int, ...]], list[str]] = {}
    for (well, timepoint), there in sites.items():
        alike.setdefault((timepoint, tuple(sorted(there))), []).append(well)
    return tuple(
        ExpectedFields(tuple(sorted(wells)), of_each, why, (timepoint,))
        for (timepoint, of_each), wells in sorted(alike.items())
    )


@dataclass(frozen=True, slots=True)
class PlateFacts:
    """What metadata files state of one plate. What they do not state is None or empty.

    The plate is the one whose files lie below `folder` and which the layout calls `plate` ("" if file names tell no plate). `source` is the
    key of the file that states the facts. `name` is what the instrument calls the plate, "" if it is the same as `plate`. `rows` and
    `columns` are the shape of the plate in wells. `channels` pairs each channel as file names call it ("w1") with its name in the instrument
    ("DAPI"), in the instrument's order. `um_per_px` is the size of a pixel in the object plane, in µm, and `image_shape` the height and width
    of every image in px. `positions` holds the place of each
    well and site. `timepoints` and `planes` (z) say how many there are. `wells` names wells that file names only number, by their running
    numbers; if `rows` and `columns` are known, they need not be in it. Positions and expected fields may call such a well
    `numbered_well(number)`. `acquired` are the channels that each well was imaged in, as file names call them, if not all wells were to be
    imaged in all channels; nothing is known of a well that is not in it.
    `notes` say in words what the file states that cannot be believed, or that the instrument says went wrong.
    """

    folder: str
    plate: str
    source: str
    name: str = ""
    rows: int | None = None
    columns: int | None = None
    channels: tuple[tuple[str, str], ...] = ()
    um_per_px: float | None = None
    image_shape: tuple[int, int] | None = None
    positions: Mapping[tuple[str, int], Position] = field(default_factory=dict)
    expected: tuple[ExpectedFields, ...] = ()
    timepoints: int | None = None
    planes: int | None = None
    notes: tuple[str, ...] = ()
    wells: Mapping[int, str] = field(default_factory=dict)
    acquired: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def plain(self) -> dict[str, object]:
        """Plain data for JSON, without what each row of a plan says itself (positions and expected fields)
        and without the shape of images, which is only compared with the images."""
        return {
            "folder": self.folder,
            "source": self.source,
            "rows": self.rows,
            "columns": self.columns,
            "channels": dict(self.channels),
            "um_per_px": self.um_per_px,
            "timepoints": self.timepoints,
            "planes": self.planes,
        }
