"""Names of wells on 6- to 1536-well plates: "B02", "AF48"."""

from __future__ import annotations

import re
from dataclasses import dataclass

_NAME = re.compile(r"^([A-Za-z]{1,2})0?([1-9][0-9]?)$")

FORMATS: dict[int, tuple[int, int]] = {
    6: (2, 3), 12: (3, 4), 24: (4, 6), 48: (6, 8), 96: (8, 12), 384: (16, 24), 1536: (32, 48),
}  # fmt: skip
"""Rows and columns of each plate format, by its number of wells (ANSI/SLAS 4-2004 for 96, 384, 1536)."""


@dataclass(frozen=True, slots=True, order=True)
class WellPosition:
    """Zero-based row and column of a well."""

    row: int
    column: int

    @property
    def name(self) -> str:
        """The name with two-digit column: "B02", "AF48"."""
        return f"{row_name(self.row)}{self.column + 1:02d}"


def row_name(row: int) -> str:
    """Letters of the zero-based row: 0 is A, 25 is Z, 26 is AA."""
    return chr(65 + row) if row < 26 else "A" + chr(65 + row - 26)


def parse_well(name: str) -> WellPosition | None:
    """Position of a well named like "B2", "b02" or "AA01"; None where the name is not a well of any format."""
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
    """The two-digit form of a well's name ("b2" gives "B02"); other names come back unchanged."""
    position = parse_well(name)
    return position.name if position else name


def smallest_format(positions: list[WellPosition]) -> int:
    """Number of wells of the smallest standard plate that holds all `positions`."""
    for wells, (rows, columns) in FORMATS.items():
        if all(p.row < rows and p.column < columns for p in positions):
            return wells
    return 1536
