"""What OME-XML, ImageJ and MetaSeries headers say of a TIFF: channel names, pixel size, significant bits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import tifffile

from cellcount_core.images.ome import Ome

_UM = {
    "um": 1.0, "µm": 1.0, "μm": 1.0, "\\u00b5m": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0, "micrometre": 1.0,
    "nm": 1e-3, "pm": 1e-6, "å": 1e-4, "mm": 1e3, "cm": 1e4, "m": 1e6,
}  # fmt: skip
"""um in one of a unit; OME writes either mu, ImageJ may write it as an escape."""

_ALIKE = 0.01


@dataclass(frozen=True, slots=True)
class Described:
    """`names` of the channels ("" where one has none; empty where no header names them), pixel size in um, bits in use."""

    names: tuple[str, ...] = ()
    um_per_px: float | None = None
    bits: int | None = None


def describe(tif: tifffile.TiffFile, ome: Ome | None) -> Described:
    """What the headers of an open TIFF say, `ome` among them; dots per inch are for printing and are not looked at."""
    if tif.is_ome:
        return Described() if ome is None else _of_ome(ome)
    if tif.is_imagej:
        return _imagej(dict(tif.imagej_metadata or {}), tif.pages.first)
    if tif.is_metaseries:
        return _metaseries(dict(tif.metaseries_metadata or {}))
    return Described()


def usable_names(names: Sequence[str], count: int) -> tuple[str, ...]:
    """`names` where there are `count` of them, all different; else "" for one channel, "0", "1", … for several."""
    if len(names) == count and all(names) and len(set(names)) == count:
        return tuple(names)
    return ("",) if count == 1 else tuple(str(number) for number in range(count))


def _same(x: float | None, y: float | None) -> float | None:
    """The pixel size where x and y agree within 1 %."""
    if x is None or y is None or not (math.isfinite(x) and math.isfinite(y)) or min(x, y) <= 0:
        return None
    return x if abs(x - y) <= _ALIKE * max(x, y) else None


def _of_ome(ome: Ome) -> Described:
    if ome.pixels is None:
        return Described()
    size = _same(_length(ome.pixels, "X"), _length(ome.pixels, "Y"))
    bits = ome.pixels.get("SignificantBits", "")
    return Described(tuple(ome.names), size, int(bits) if bits.isascii() and bits.isdigit() else None)


def _length(pixels: Mapping[str, str], axis: str) -> float | None:
    unit = _UM.get(pixels.get(f"PhysicalSize{axis}Unit", "µm").strip().lower())
    value = _number(pixels.get(f"PhysicalSize{axis}"))
    return None if unit is None or value is None else value * unit


def _number(text: object) -> float | None:
    try:
        return float(text) if isinstance(text, str | int | float) else None
    except (ValueError, OverflowError):
        return None


def _imagej(meta: Mapping[str, object], page: tifffile.TiffPage) -> Described:
    unit = _UM.get(str(meta.get("unit", "")).strip().lower())
    size = None
    if unit is not None:
        size = _same(_per_unit(page, "XResolution", unit), _per_unit(page, "YResolution", unit))
    return Described(_imagej_names(meta), size)


def _per_unit(page: tifffile.TiffPage, tag: str, unit: float) -> float | None:
    """um per px from ImageJ's pixels per unit, a fraction."""
    value = page.tags.valueof(tag)
    if not isinstance(value, tuple) or len(value) != 2 or not value[0]:
        return None
    return unit * float(value[1]) / float(value[0])


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


def _metaseries(meta: Mapping[str, object]) -> Described:
    info = meta.get("PlaneInfo")
    if not isinstance(info, dict):
        return Described()
    name = str(info.get("_IllumSetting_") or "").strip()
    unit = _UM.get(str(info.get("spatial-calibration-units", "")).strip().lower())
    size = None
    if unit is not None and info.get("spatial-calibration-state") is True:
        x, y = _number(info.get("spatial-calibration-x")), _number(info.get("spatial-calibration-y"))
        size = _same(None if x is None else x * unit, None if y is None else y * unit)
    return Described((name,) if name else (), size)
