"""Whether names follow a convention that the layout `flat` ignores: that of an instrument, or one ending for each channel.

Real names of each convention are in `tests/unit/layouts/test_hint.py`. Each expression can be given to the layout `pattern`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import groupby

from cellcount_core.layouts.base import ignored_name
from cellcount_core.layouts.imagexpress import tells_site_or_channel

IMAGEXPRESS = "ImageXpress"
HARMONY = "Harmony (Operetta, Opera Phenix)"
CELLVOYAGER = "CellVoyager"
SCANR = "scanR"
INCELL = "IN Cell Analyzer"
HCSAI = "ImageXpress HCS.ai"
SBS = "BBBC (Channel1-01-A-01)"
CYTATION = "Cytation"
LEICA = "Leica Matrix Screener"
MICROMANAGER = "Micro-Manager"
ALMF = "ALMF"
INCUCYTE = "IncuCyte"
CELLOMICS = "Cellomics"
EVOS = "EVOS"

LAYOUTS: Mapping[str, str] = {
    IMAGEXPRESS: "imagexpress",
    HARMONY: "harmony",
    CELLVOYAGER: "cellvoyager",
    SCANR: "scanr",
    INCELL: "incell",
    HCSAI: "hcsai",
    SBS: "sbs",
    CYTATION: "cytation",
    LEICA: "leica",
    MICROMANAGER: "micromanager",
    ALMF: "almf",
    INCUCYTE: "incucyte",
    CELLOMICS: "cellomics",
    EVOS: "evos",
}
"""The layouts of the conventions that have one of their own, by how people call the convention. `PATTERNS` read the others."""

PATTERNS: Mapping[str, str] = {
    HARMONY: r"r(?P<row>\d+)c(?P<column>\d+)f(?P<site>\d+)p(?P<plane>\d+)-ch(?P<channel>\d+)sk(?P<timepoint>\d+)",
    SBS: r"Channel ?\d+-\d+-[A-P]-\d+",
    CELLVOYAGER: r"(?:_[A-Z]{1,2}\d\d_T\d+F\d+L\d+A\d+Z\d+C\d+|(?:^|/)W\d{4,5}F\d{4}T\d{4}Z\d{3}C\d)\.",
    CELLOMICS: r"_\d{12}_[A-Z]{1,2}\d\df\d+[do]\d+\.",
    EVOS: r"_(?:Plate|Top Slide|Bottom Slide)_T?[RMD]\d*_p\d+_",
    "Cellomics or EVOS": r"(?P<plate>[^/]+)_(?P<well>[A-P]\d\d)f(?P<site>\d+)d(?P<channel>\d+)\.",
    CYTATION: r"[A-P]\d{1,2}_\d\d_\d+_\d+(?:Z\d+)?_[A-Za-z][^_/]*_\d{3}\.",
    LEICA: r"--U\d{2,4}--V\d{2,4}(?:--[A-Z]\d{2,4})*--X\d{2,4}--Y\d{2,4}--",
    MICROMANAGER: r"(?:^|/)img_(?:channel\d{3}_position\d{3}_time\d{9}_z\d{3}|\d{9}_[^/]+_\d{3})\.|MMStack_[^/]+\.ome\.",
    INCUCYTE: r"_[A-P]\d{1,2}_\d{1,2}_(?:\d{2}d\d{2}h\d{2}m|\d{4}y\d{2}m\d{2}d_\d{2}h\d{2}m)[_.]|/\d{4}/\d{2}/\d{4}/[^/]+/[A-P]\d{1,2}-\d-(?:C\d|Ph)\.",
    SCANR: r"--W(?P<well>\d+)--P(?P<site>\d+)--Z(?P<plane>\d+)--T(?P<timepoint>\d+)--(?P<channel>[^./]+)\.",
    INCELL: (
        r"(?:(?:^|[/_])[A-Z]{1,2} - \d{1,3}\(fld \d+ wv |(?:^|[/_])[A-Z]{1,2}_\d{1,3}_f\d+_c\d+_x[^/_]+_m[^/_]+_z\d+_t\d+\."
        r"|(?:^|/)t\d+_[A-Z]{1,2}\d\d_s\d+_w\d+_z\d+\.)"
    ),
    HCSAI: r"_t\d+_[A-Z]{1,2}\d\d_s\d+_w\d+_z\d+\.",
    ALMF: r"--W\d+--P\d+--T\d+(?:--Z\d+)?--C\d*\.",
}
"""An expression that finds the names of a convention, by how people call it; `run.layout.pattern` takes it where there is no layout."""

_PLATE = "(?P<plate>[^/]+)"
# Without the plate, whose end would be sought from each character on: this is asked of every file.
_LIKE = {name: re.compile(pattern.removeprefix(_PLATE)) for name, pattern in PATTERNS.items()}


def convention(key: str) -> str:
    """The instrument whose convention the name of the image `key` follows; "" if none. The name must tell more than a well."""
    if tells_site_or_channel(key):
        return IMAGEXPRESS
    for name, expression in _LIKE.items():
        if expression.search(key) is not None:
            return name
    return ""


def suggest(keys: Iterable[str]) -> str | None:
    """A warning for a run with layout `flat` if most names of images follow one instrument's convention, else None."""
    seen = Counter(convention(key) for key in keys if ignored_name(key) is None)
    return hint(seen.total(), seen)


def hint(images: int, conventions: Mapping[str, int]) -> str | None:
    """The warning if more than half of the `images` names follow one convention; else None. `conventions` counts the names of each."""
    known = {name: names for name, names in conventions.items() if name}
    if not known:
        return None
    name = max(known, key=lambda each: (known[each], each))
    if known[name] * 2 <= images:
        return None
    named = f"{name} names" + (" (plate_well_site_channel)" if name == IMAGEXPRESS else "")
    layout = LAYOUTS.get(name) or f"pattern --set 'run.layout.pattern={PATTERNS[name]}'"
    return (
        f"{known[name]} of {images} names look like {named}, but the layout 'flat' counts every file as an image of its own, "
        f"channels, planes and thumbnails too: did you mean --layout {layout}?"
    )


_LETTER = re.compile(r"(?P<before>.*[0-9])(?P<ending>[A-Za-z])", re.DOTALL)
_WORD = re.compile(
    r"(?P<before>.*)(?P<separator>[_\-. ])(?P<ending>[A-Za-z][A-Za-z0-9]{0,11}|[0-9]{3}nm)", re.DOTALL
)
_ALPHABET = "abcdefghijklmnopqrstuvwxyz"
_MOST_SETS = 64
_LEAST_IMAGES = 2
_LEAST_SHARE = 0.8


def channel_endings(names: Iterable[tuple[str, str]]) -> str | None:
    """A warning if names of images differ only in their endings, and have the same few endings everywhere ("A9 p5d", "A9 p5f"); else None.

    `names` are the folder and the name without extension of each image, sorted. There must be at least two such groups, with at least
    four fifths of the images in them. Endings that count (a, b, c) are not treated as channels.
    """
    images = 0
    sets: Counter[tuple[str, tuple[str, ...]]] = Counter()
    example: dict[tuple[str, tuple[str, ...]], str] = {}
    for (_, before, separator), group in groupby(names, _apart):
        stems = [stem for _, stem in group]
        images += len(stems)
        endings = tuple(dict.fromkeys(stem[len(before) + len(separator) :] for stem in stems))
        of = (separator, endings)
        if (
            2 <= len(endings) == len(stems)
            and before
            and not _counts(endings)
            and (of in sets or len(sets) < _MOST_SETS)
        ):
            sets[of] += 1
            example.setdefault(of, before + separator)
    if not sets:
        return None
    (separator, endings), pairs = sets.most_common(1)[0]
    if pairs < _LEAST_IMAGES or pairs * len(endings) < _LEAST_SHARE * images:
        return None
    first = example[separator, endings]
    shown = " and ".join(repr(first + ending) for ending in endings[:3])
    pattern = f"(?P<well>[^/]+){re.escape(separator)}(?P<channel>{'|'.join(endings)})\\.[^./]+$"
    return (
        f"the names of {pairs * len(endings)} of {images} images differ by their ending alone ({shown}), and the layout 'flat' counts"
        f" each as an image of its own: if they are channels of one image, say so: --layout pattern --set"
        f" 'run.layout.pattern={pattern}' --channel {endings[0]}"
    )


def _apart(name: tuple[str, str]) -> tuple[str, str, str]:
    """The folder, the part of a name before its ending, and what separates the two."""
    folder, stem = name
    if (match := _LETTER.fullmatch(stem)) is not None:
        return folder, match["before"], ""
    if (match := _WORD.fullmatch(stem)) is not None:
        return folder, match["before"], match["separator"]
    return folder, stem, ""


def _counts(endings: tuple[str, ...]) -> bool:
    return "".join(endings).lower() == _ALPHABET[: len(endings)]
