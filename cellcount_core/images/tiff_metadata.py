"""What OME-XML, ImageJ, MetaSeries and MetaMorph STK headers say of a TIFF: channel names, pixel size, significant bits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from unicodedata import normalize

import tifffile

from cellcount_core.images.ome import OmeImage

_UM = {
    "um": 1.0, "μm": 1.0, "\\u00b5m": 1.0, "\\u03bcm": 1.0, "micron": 1.0, "micrometer": 1.0, "micrometre": 1.0,
    "nm": 1e-3, "nanometer": 1e-3, "nanometre": 1e-3, "pm": 1e-6, "å": 1e-4, "angstrom": 1e-4,
    "mm": 1e3, "millimeter": 1e3, "millimetre": 1e3, "cm": 1e4, "centimeter": 1e4, "centimetre": 1e4,
    "m": 1e6, "meter": 1e6, "metre": 1e6, "inch": 25400.0, "inche": 25400.0, "in": 25400.0,
}  # fmt: skip
"""um in one of a unit, as writers spell it; ImageJ may write mu as an escape."""

_GARBLED = {"Âµ": "µ", "Î¼": "μ"}
"""A mu that was written as UTF-8 and read as Latin-1."""

_NO_UNIT = frozenset({"", "pixel", "px", "reference frame", "none", "null", "unknown"})

_ALIKE = 0.01
_TAG_ALIKE = 0.02
_LEAST_UM, _MOST_UM = 0.01, 100.0
"""um per px that a microscope's image can have."""

_PRINTED_UM = 20.0
"""A resolution tag of more um per px (fewer than 1,270 dots an inch) is one for printing."""

CALIBRATION_OUT_OF_RANGE = "calibration_out_of_range"
CALIBRATION_CONTRADICTORY = "calibration_contradictory"
CALIBRATION_INCOMPLETE = "calibration_incomplete"
CALIBRATION_UNIT_UNKNOWN = "calibration_unit_unknown"


@dataclass(frozen=True, slots=True)
class Described:
    """`names` of the channels ("" where one has none; empty where no header names them), pixel size in um, bits in use, and codes of
    what is said of the pixel size and cannot be."""

    names: tuple[str, ...] = ()
    um_per_px: float | None = None
    bits: int | None = None
    warnings: tuple[str, ...] = ()


def describe(tif: tifffile.TiffFile, image: OmeImage | None) -> Described:
    """What the headers of an open TIFF say, `image` of its OME-XML among them; dots per inch are for printing and are not looked at."""
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
    return Described()


def calibrated(
    names: tuple[str, ...], bits: int | None, sides: Sequence[tuple[float | None, str]], tag: float | None
) -> Described:
    """With the pixel size that `sides` (x and y: a number and its unit) give, where it can be and `tag` (um) does not contradict it."""
    units = [_unit(unit) for value, unit in sides if value is not None]
    if not units or all(unit in _NO_UNIT for unit in units):
        return Described(names, None, bits)
    if any(unit not in _UM for unit in units):
        return Described(names, None, bits, (CALIBRATION_UNIT_UNKNOWN,))
    found = [value * _UM[_unit(unit)] for value, unit in sides if value is not None]
    if not all(_LEAST_UM <= value <= _MOST_UM for value in found):
        return Described(names, None, bits, (CALIBRATION_OUT_OF_RANGE,))
    if len(found) < 2:
        return Described(names, None, bits, (CALIBRATION_INCOMPLETE,))
    x, y = found
    if abs(x - y) > _ALIKE * max(x, y) or (tag is not None and abs(x - tag) > _TAG_ALIKE * x):
        return Described(names, None, bits, (CALIBRATION_CONTRADICTORY,))
    return Described(names, x, bits)


def _unit(text: str) -> str:
    """The unit as `_UM` spells it."""
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
    """um per px by the resolution tags, where they are of the image and not of its print; None for no such."""
    unit = {2: 25400.0, 3: 1e4}.get(int(page.tags.valueof("ResolutionUnit") or 0))
    x, y = (_per_unit(page, tag) for tag in ("XResolution", "YResolution"))
    if unit is None or x is None or y is None or abs(x - y) > _ALIKE * max(x, y):
        return None
    return x * unit if _LEAST_UM <= x * unit <= _PRINTED_UM else None


def _number(text: object) -> float | None:
    """What an attribute says; None where it is not there, not-a-number where it is none ("0,5")."""
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
    """Units per px from a resolution tag: pixels per unit, a fraction."""
    value = page.tags.valueof(tag)
    if not isinstance(value, tuple) or len(value) != 2 or not value[0]:
        return None
    return float(value[1]) / float(value[0])


def _imagej_names(meta: Mapping[str, object]) -> tuple[str, ...]:
    """Slice labels name channels only where each channel has one label, the same on all its planes."""
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
    """The UIC tags of MetaMorph and of ImageXpress before MetaSeries: `Name` is the wavelength's, `SpatialCalibration` is 1 where it is on."""
    name = str(meta.get("Name") or "").strip()
    unit = str(meta.get("CalibrationUnits", ""))
    on = meta.get("SpatialCalibration") == 1
    sides = [(_number(meta.get(f"{axis}Calibration")) if on else None, unit) for axis in "XY"]
    return calibrated((name,) if name else (), None, sides, _tagged(page))
