"""What the headers of a TIFF say about its image: channel names, pixel size, bits in use (OME-XML, ImageJ,
MetaSeries, STK, Gen5).

A pixel size is used only if it is possible for a microscope and nothing in the file contradicts it; otherwise a
warning says why not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from unicodedata import normalize
from xml.parsers import expat

import tifffile

from cellcount_core.domain.errors import FieldFault
from cellcount_core.domain.scales import LARGEST_UM_PER_PX, SMALLEST_UM_PER_PX
from cellcount_core.images.ome import OmeImage, walk_xml

_UM = {
    "um": 1.0, "μm": 1.0, "\\u00b5m": 1.0, "\\u03bcm": 1.0, "micron": 1.0, "micrometer": 1.0, "micrometre": 1.0,
    "nm": 1e-3, "nanometer": 1e-3, "nanometre": 1e-3, "pm": 1e-6, "å": 1e-4, "angstrom": 1e-4,
    "mm": 1e3, "millimeter": 1e3, "millimetre": 1e3, "cm": 1e4, "centimeter": 1e4, "centimetre": 1e4,
    "m": 1e6, "meter": 1e6, "metre": 1e6, "inch": 25400.0, "inche": 25400.0, "in": 25400.0,
}  # fmt: skip
"""How many um each unit is, by the names that writers use for it. ImageJ may write the letter mu as an escape
sequence."""

_GARBLED = {"Âµ": "µ", "Î¼": "μ"}
"""The letter mu, written as UTF-8 and read as Latin-1."""

_NO_UNIT = frozenset({"", "pixel", "px", "reference frame", "none", "null", "unknown"})

_ALIKE = 0.01
"""Relative difference up to which the pixel sizes along x and y count as equal."""
_TAG_ALIKE = 0.02
"""Relative difference up to which a pixel size agrees with the resolution tags."""
_PRINTED_UM = 20.0
"""Resolution tags that mean more um per px than this (fewer than 1,270 dots an inch) are about printing."""

_GEN5 = "<BTIImageMetaData"
_GEN5_CHANNEL = re.compile(r"(?:[A-Za-z ]+\[)?\s*(?P<name>[^\[\]]*?)(?:\s+[0-9.]+\s*,\s*[0-9.]+)?\s*\]?")
"""A channel as Gen5 calls it: "DAPI 377,447", or "Stitched[DAPI 377,447]", of which the numbers are wavelengths."""
_MOST_NAMED_PAGES = 32

CALIBRATION_OUT_OF_RANGE = "calibration_out_of_range"
CALIBRATION_CONTRADICTORY = "calibration_contradictory"
CALIBRATION_INCOMPLETE = "calibration_incomplete"
CALIBRATION_UNIT_UNKNOWN = "calibration_unit_unknown"


@dataclass(frozen=True, slots=True)
class Described:
    """What the headers say.

    `names` are the channels' names ("" for one without a name; an empty tuple if no header names any), `um_per_px`
    the pixel size in um, `bits` the bits in use, and `warnings` the codes of what is said about the pixel size but
    cannot be right.
    """

    names: tuple[str, ...] = ()
    um_per_px: float | None = None
    bits: int | None = None
    warnings: tuple[str, ...] = ()


def describe(tif: tifffile.TiffFile, image: OmeImage | None) -> Described:
    """What the headers of an open TIFF say; `image` is the image of its OME-XML, if any.

    Resolution tags in dots per inch are meant for printing and are never used as the pixel size, only to check one.
    """
    if image is not None:
        return _of_ome(image, tif.pages.first)
    if tif.is_ome:
        return Described()
    if tif.is_imagej:
        return _imagej(dict(tif.imagej_metadata or {}), tif.pages.first)
    if tif.is_metaseries:
        return _metaseries(dict(tif.metaseries_metadata or {}), tif.pages.first)
    if tif.is_stk:
        return _stk(dict(tif.stk_metadata or {}), tif.pages.first)
    if _GEN5 in str(tif.pages.first.description or "")[:1000]:
        return _gen5(tif)
    return Described()


def calibrated(
    names: tuple[str, ...], bits: int | None, sides: Sequence[tuple[float | None, str]], tag: float | None
) -> Described:
    """A `Described` with the pixel size that `sides` gives: a number and its unit, along x and along y.

    The pixel size is left out, with a warning where something was said, if it is incomplete, impossible, in an
    unknown unit, not the same along x and y, or contradicted by `tag` (um per px from resolution tags, None if there
    are none).
    """
    units = [_unit(unit) for value, unit in sides if value is not None]
    if not units or all(unit in _NO_UNIT for unit in units):
        return Described(names, None, bits)
    if any(unit not in _UM for unit in units):
        return Described(names, None, bits, (CALIBRATION_UNIT_UNKNOWN,))
    found = [value * _UM[_unit(unit)] for value, unit in sides if value is not None]
    if not all(SMALLEST_UM_PER_PX <= value <= LARGEST_UM_PER_PX for value in found):
        return Described(names, None, bits, (CALIBRATION_OUT_OF_RANGE,))
    if len(found) < 2:
        return Described(names, None, bits, (CALIBRATION_INCOMPLETE,))
    x, y = found
    if abs(x - y) > _ALIKE * max(x, y) or (tag is not None and abs(x - tag) > _TAG_ALIKE * x):
        return Described(names, None, bits, (CALIBRATION_CONTRADICTORY,))
    return Described(names, x, bits)


def _unit(text: str) -> str:
    """The unit in the spelling that `_UM` has."""
    for garbled, meant in _GARBLED.items():
        text = text.replace(garbled, meant)
    plain = normalize("NFKC", text.strip().strip('"\0')).lower()
    return plain[:-1] if plain.endswith("s") and len(plain) > 3 else plain


def _of_ome(image: OmeImage, page: tifffile.TiffPage) -> Described:
    said = image.pixels
    bits = said.get("SignificantBits", "")
    sides = [
        (_number(said.get(f"PhysicalSize{axis}")), said.get(f"PhysicalSize{axis}Unit", "µm")) for axis in "XY"
    ]
    return calibrated(
        tuple(image.names), int(bits) if bits.isascii() and bits.isdigit() else None, sides, _tagged(page)
    )


def _tagged(page: tifffile.TiffPage) -> float | None:
    """um per px from the resolution tags, or None if there are none or they are about printing."""
    unit = {2: 25400.0, 3: 1e4}.get(int(page.tags.valueof("ResolutionUnit") or 0))
    x, y = (_per_unit(page, tag) for tag in ("XResolution", "YResolution"))
    if unit is None or x is None or y is None or abs(x - y) > _ALIKE * max(x, y):
        return None
    return x * unit if SMALLEST_UM_PER_PX <= x * unit <= _PRINTED_UM else None


def _number(text: object) -> float | None:
    """The number in a header's value: None if there is no value, NaN if it is no number ("0,5")."""
    try:
        return float(text) if isinstance(text, str | int | float) and text != "" else None
    except (ValueError, OverflowError):
        return math.nan


def _imagej(meta: Mapping[str, object], page: tifffile.TiffPage) -> Described:
    unit = str(meta.get("unit", ""))
    sides = [
        (_per_unit(page, "XResolution"), unit),
        (_per_unit(page, "YResolution"), str(meta.get("yunit", unit))),
    ]
    return calibrated(_imagej_names(meta), None, sides, None)


def _per_unit(page: tifffile.TiffPage, tag: str) -> float | None:
    """Units per px from a resolution tag, which holds pixels per unit as a fraction."""
    value = page.tags.valueof(tag)
    if not isinstance(value, tuple) or len(value) != 2 or not value[0]:
        return None
    return float(value[1]) / float(value[0])


def _imagej_names(meta: Mapping[str, object]) -> tuple[str, ...]:
    """Channel names from ImageJ's slice labels. They are names only if each channel has one label, the same on all
    its planes."""
    labels = meta.get("Labels")
    counts = [meta.get("channels", 1), meta.get("slices", 1), meta.get("frames", 1)]
    channels = counts[0]
    if not isinstance(labels, list) or not isinstance(channels, int) or channels < 2:
        return ()
    if len(labels) != math.prod(count for count in counts if isinstance(count, int)):
        return ()
    by_channel = [{str(label).strip() for label in labels[number::channels]} for number in range(channels)]
    return tuple(names.pop() if len(names) == 1 else "" for names in by_channel)


def _metaseries(meta: Mapping[str, object], page: tifffile.TiffPage) -> Described:
    info = meta.get("PlaneInfo")
    if not isinstance(info, dict):
        return Described()
    name = str(info.get("_IllumSetting_") or "").strip()
    unit = str(info.get("spatial-calibration-units", ""))
    on = info.get("spatial-calibration-state") is True
    sides = [(_number(info.get(f"spatial-calibration-{axis}")) if on else None, unit) for axis in "xy"]
    return calibrated((name,) if name else (), None, sides, _tagged(page))


def _stk(meta: Mapping[str, object], page: tifffile.TiffPage) -> Described:
    """The UIC tags of MetaMorph, and of ImageXpress before MetaSeries. `Name` is the wavelength's name;
    `SpatialCalibration` is 1 if the pixel size is valid."""
    name = str(meta.get("Name") or "").strip()
    unit = str(meta.get("CalibrationUnits", ""))
    on = meta.get("SpatialCalibration") == 1
    sides = [(_number(meta.get(f"{axis}Calibration")) if on else None, unit) for axis in "XY"]
    return calibrated((name,) if name else (), None, sides, _tagged(page))


def _gen5(tif: tifffile.TiffFile) -> Described:
    """The XML that Gen5 (BioTek Cytation) writes into each page: a page is a channel, and the image has a width in px and in µm."""
    page = tif.pages.first
    texts, first = _gen5_page(str(page.description))
    pages = len(tif.pages)
    names = [first]
    if 1 < pages <= _MOST_NAMED_PAGES:
        names += [_gen5_page(str(each.aspage().description or ""))[1] for each in tif.pages[1:]]
    elif pages > 1:
        names = []
    sides = []
    for px, um, side in (
        ("PixelWidth", "ImageWidthMicrons", page.imagewidth),
        ("PixelHeight", "ImageHeightMicrons", page.imagelength),
    ):
        long, wide = _number(texts.get(um)), _number(texts.get(px))
        if long is None or not wide:
            continue
        if wide != side:
            return Described(tuple(names), None, None, (CALIBRATION_CONTRADICTORY,))
        sides.append((long / wide, "µm"))
    return calibrated(tuple(names) if any(names) else (), None, sides, _tagged(page))


def _gen5_page(description: str) -> tuple[dict[str, str], str]:
    """The texts of the elements of a page's XML by their names, and what the channel is called; nothing if it is not XML."""
    found: dict[str, str] = {}
    names: list[str] = []
    text: list[str] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        text.clear()
        if name == "Channel" and (
            called := _GEN5_CHANNEL.fullmatch(attributes.get("Color", "")[:200].strip())
        ):
            names.append(called["name"].strip())

    def end(name: str) -> None:
        found.setdefault(name, "".join(text).strip())
        text.clear()

    try:
        walk_xml(description, "", start, text.append, end)
    except (expat.ExpatError, FieldFault):
        return {}, ""
    return found, names[0] if names else ""
