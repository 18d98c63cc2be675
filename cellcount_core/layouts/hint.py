"""Do names follow an instrument's convention that the layout in use does not read?

Real names of each convention stand in `tests/unit/layouts/test_hint.py`; each expression is one that the layout `pattern` takes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from cellcount_core.layouts.base import ignored_name
from cellcount_core.layouts.imagexpress import tells_site_or_channel

IMAGEXPRESS = "ImageXpress"

PATTERNS: Mapping[str, str] = {
    "Harmony (Operetta, Opera Phenix)": r"r(?P<row>\d+)c(?P<column>\d+)f(?P<site>\d+)p(?P<plane>\d+)-ch(?P<channel>\d+)sk(?P<timepoint>\d+)",
    "BBBC (Channel1-01-A-01)": r"Channel ?(?P<channel>\d+)-\d+-(?P<row>[A-P])-(?P<column>\d+)",
    "CellVoyager": r"_(?P<well>[A-P]\d\d)_T(?P<timepoint>\d+)F(?P<site>\d+)L\d+A\d+Z(?P<plane>\d+)C(?P<channel>\d+)\.",
    "Cellomics or EVOS": r"(?P<plate>[^/]+)_(?P<well>[A-P]\d\d)f(?P<site>\d+)d(?P<channel>\d+)\.",
    "Cytation": r"(?P<well>[A-P]\d{1,2})_\d\d_\d+_(?P<site>\d+)_(?P<channel>[A-Za-z][^_/]*)_(?P<timepoint>\d{3})\.",
    "scanR": r"--W(?P<well>\d+)--P(?P<site>\d+)--Z(?P<plane>\d+)--T(?P<timepoint>\d+)--(?P<channel>[^./]+)\.",
    "ALMF": r"--W(?P<well>\d+)--P(?P<site>\d+)--T(?P<timepoint>\d+)(?:--Z(?P<plane>\d+))?--C(?P<channel>\d*)\.",
}
"""The expression for `run.layout.pattern` that reads the names of a convention, by how people call it."""

_PLATE = "(?P<plate>[^/]+)"
# Without the plate, whose end would be sought from each character on: this is asked of every file.
_LIKE = {name: re.compile(pattern.removeprefix(_PLATE)) for name, pattern in PATTERNS.items()}


def convention(key: str) -> str:
    """Which instrument's convention the name of the image `key` follows, "" for none: one that gives more than a well, hardly by chance."""
    if tells_site_or_channel(key):
        return IMAGEXPRESS
    for name, expression in _LIKE.items():
        if expression.search(key) is not None:
            return name
    return ""


def suggest(keys: Iterable[str]) -> str | None:
    """A warning for a run with layout `flat` where most names of images follow one convention, or None."""
    seen = Counter(convention(key) for key in keys if ignored_name(key) is None)
    return hint(seen.total(), seen)


def hint(images: int, conventions: Mapping[str, int]) -> str | None:
    """The warning, where more than half of the names of `images` follow one of `conventions` (how many follow each)."""
    known = {name: names for name, names in conventions.items() if name}
    if not known:
        return None
    name = max(known, key=lambda each: (known[each], each))
    if known[name] * 2 <= images:
        return None
    if name == IMAGEXPRESS:
        named, layout = "ImageXpress names (plate_well_site_channel)", "imagexpress"
    else:
        named, layout = f"{name} names", f"pattern --set 'run.layout.pattern={PATTERNS[name]}'"
    return (
        f"{known[name]} of {images} names look like {named}, but the layout 'flat' counts every file as an image of its own, "
        f"channels, planes and thumbnails too: did you mean --layout {layout}?"
    )
