"""File names read by a regular expression with named groups.

BBBC013: `Channel(?P<channel>\\d)-\\d+-(?P<row>[A-H])-(?P<column>\\d+)\\.tif`; Harmony (Operetta, Phenix):
`r(?P<row>\\d+)c(?P<column>\\d+)f(?P<site>\\d+)p(?P<plane>\\d+)-ch(?P<channel>\\d+)sk(?P<timepoint>\\d+)`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from cellcount_core.domain.errors import ConfigFault, nearest
from cellcount_core.domain.fields import FieldKey, Parsed
from cellcount_core.domain.plates import canonical_well, parse_well, row_name
from cellcount_core.layouts.base import Ignored, Layout, LayoutKind, LayoutSettings, ignored_name, parent

GROUPS = ("plate", "well", "row", "column", "site", "timepoint", "channel", "plane")

_WHERE = "run.layout.pattern"
_MOST_ROWS = 32
_MOST_DIGITS = 9


class PatternSettings(LayoutSettings):
    """File names read by a regular expression with named groups.

    `pattern` is searched in the key (path below the input, '/' separated). Groups: `plate`, `well` (or `row` and `column`),
    `site`, `timepoint`, `channel`, `plane`; each may be absent. `plate` is used if no group gives the plate.
    """

    kind: Literal["pattern"] = "pattern"
    pattern: str
    plate: str = ""


@dataclass(frozen=True, slots=True)
class Pattern(Layout):
    """A compiled pattern, searched in the whole key. Build it with `compile_pattern`.

    `plate` is the plate if no group gives it; if it is "" too, the folder is the plate (`root` for files in the input itself).
    If a group reads the plate from the name of a folder, two such folders of one name are two plates. Rows may be letters or
    numbers (3 is C); site, timepoint and plane must be digits.
    """

    expression: re.Pattern[str]
    plate: str
    root: str

    def parse(self, key: str) -> Parsed | Ignored | None:
        """See `Layout.parse`. None if the pattern does not match the key of an image, or its groups hold no well or numbers."""
        if (ignored := ignored_name(key)) is not None:
            return ignored
        match = self.expression.search(key)
        if match is None:
            return None
        found = {name: text for name, text in match.groupdict().items() if text is not None}
        well = _well(found)
        site, timepoint, plane = (
            _number(found.get(name, default))
            for name, default in (("site", "1"), ("timepoint", "1"), ("plane", "0"))
        )
        if well is None or site is None or timepoint is None or plane is None:
            return None
        given = found.get("plate") or self.plate
        folder = _plate_folder(key, match) if given else parent(key)
        key_of = FieldKey(given or folder or self.root, well, site, timepoint)
        return Parsed(key_of, found.get("channel", ""), plane, folder)


def _plate_folder(key: str, match: re.Match[str]) -> str:
    """The folder whose name is the plate; "" if the plate is read from a file's name, or if another group is read before it."""
    if match.groupdict().get("plate") is None:
        return ""
    start, end = match.span("plate")
    before = any(0 <= match.start(name) < start for name in match.groupdict() if name != "plate")
    close = key.find("/", end)
    return "" if before or close < 0 else key[:close]


def compile_pattern(config: PatternSettings, root: str) -> Pattern:
    """The layout of `config`; `root` is the plate of files in the input itself.

    Raises ConfigFault if the pattern is not a regular expression, has a group of an unknown name, or gives no well or only half of one.

    >>> names = PatternSettings(pattern=r"Channel(?P<channel>\\d)-\\d+-(?P<row>[A-H])-(?P<column>\\d+)\\.tif")
    >>> seen = compile_pattern(names, "plate 1").parse("Channel2-01-A-01.tif")
    >>> seen.field.plate, seen.field.well, seen.field.site, seen.channel
    ('plate 1', 'A01', 1, '2')
    """
    try:
        expression = re.compile(config.pattern)
    except re.error as error:
        at = "" if error.pos is None else f" at character {error.pos + 1}"
        raise ConfigFault(
            f"{_WHERE}: {config.pattern!r} is not a regular expression: {error.msg}{at}"
        ) from None
    groups = set(expression.groupindex)
    for name in sorted(groups - set(GROUPS)):
        raise ConfigFault(f"{_WHERE}: the group {name!r} is unknown{nearest(name, GROUPS)}")
    if "well" in groups and groups & {"row", "column"}:
        raise ConfigFault(f"{_WHERE}: gives the well twice: leave out 'well', or 'row' and 'column'")
    if "well" not in groups and not {"row", "column"} <= groups:
        there = ", ".join(repr(name) for name in GROUPS if name in groups) or "none"
        raise ConfigFault(
            f"{_WHERE}: no group gives the well: expected (?P<well>…), or (?P<row>…) and (?P<column>…); groups there: {there}"
        )
    return Pattern(expression, config.plate, root)


def _well(found: dict[str, str]) -> str | None:
    if "well" in found:
        return canonical_well(found["well"])
    row = found.get("row", "")
    number, column = _number(row), _number(found.get("column", ""))
    if column is None:
        return None
    if number is not None:
        row = row_name(number - 1) if 1 <= number <= _MOST_ROWS else ""
    position = parse_well(f"{row}{column}")
    return None if position is None else position.name


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) <= _MOST_DIGITS else None


KIND = LayoutKind("pattern", PatternSettings, compile_pattern)
