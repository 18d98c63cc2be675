"""What is doubtful about a field that was counted: its image, its size, and how unlike it is what the model is made for."""

from __future__ import annotations

import numpy as np

from cellcount_core.domain.doubts import Doubt
from cellcount_core.domain.scales import FieldScale
from cellcount_core.images.debris import View, longest_edge
from cellcount_core.images.drawn import looks_like_mask
from cellcount_core.images.imagefile import Plane
from cellcount_core.images.normalise import Normalisation, estimate
from cellcount_core.images.quality import Quality, padding, unevenness, zero_tail
from cellcount_core.models.package import Package
from cellcount_core.pipeline.pixels import Pixels
from cellcount_core.pipeline.separate import Counted

_FLUORESCENCE = "fluorescence"

_TYPICAL = 0.5
_PADDED = 0.1
_UNEVEN = 0.25
_SATURATED = 0.4
_SATURATED_PIXELS = 0.01
"""A part of the image below which its saturated pixels are specks, whatever part of the objects they make up."""

_SMALLEST_PX = 4.0
_LARGEST_SHARE = 1 / 3
_APART = 1.6
_FEW = 5
_BRIGHT_EDGE = 1.5
"""Times the objects' own level above the background from which on a border is bright."""

_LONG_EDGE = 3.0
"""Median diameters that an object, or a few in a row, may reach along a border."""

_EDGE_SHARE = 0.2

_PIECES = 3
"""Fewer things that stand out of an image are a grain or a fibre in an empty field."""

_SMALLEST_SEEN_PX = 6.0
"""Objects of a package of any scale: below this diameter they are what its smoothing leaves of noise."""


def doubts(
    channel: str,
    plane: Plane,
    norm: Normalisation,
    quality: Quality,
    scale: FieldScale,
    found: Counted,
    unlike: float | None,
    package: Package,
) -> tuple[Doubt, ...]:
    """Doubts about a counted field, in the order of `Doubt`; () where nothing is odd.

    `plane` (H, W) is the counted `channel` in raw units, `norm` its levels, `scale` what it was counted at, `found` its objects and
    `unlike` its `out_of_domain` score. But for the background's kind, masks and the objects' size nothing is asked of an image whose signal does
    not rise above its noise.
    """
    shorter = min(plane.shape)
    told = {
        Doubt.OUT_OF_DOMAIN: unlike is not None and unlike > _TYPICAL,
        Doubt.BRIGHT_BACKGROUND: _FLUORESCENCE in package.modality and norm.inverted,
        Doubt.DARK_BACKGROUND: _is_dark(plane, package),
        Doubt.LOOKS_LIKE_MASK: looks_like_mask(plane),
        Doubt.PADDED: not quality.empty and padding(plane) > _PADDED,
        Doubt.HALF_SATURATED: _half_saturated(quality, found.area / plane.size),
        Doubt.OBJECTS_IN_EMPTY: quality.empty and found.count > 0,
        Doubt.NOTHING_FOUND: not quality.empty and not found.count and _shows(plane, norm) >= _PIECES,
        Doubt.BRIGHT_DEBRIS: norm.debris is not None or _bright_edge(plane, norm, found, channel),
        Doubt.ZERO_TAIL: zero_tail(plane),
        Doubt.SIZE_ABSURD: _absurd(scale.diameter_px, shorter),
        Doubt.SIZE_UNLIKE: _unlike_size(scale, found, shorter, package),
    }
    # Light is not looked at where padding would pass for its shadow.
    told[Doubt.UNEVEN_LIGHT] = (
        not quality.empty and not told[Doubt.PADDED] and unevenness(plane, norm) > _UNEVEN
    )
    return tuple(doubt for doubt in Doubt if told.get(doubt))


def colour_doubts(pixels: Pixels, norm: Normalisation, package: Package) -> tuple[Doubt, ...]:
    """The doubt about a luminance of different stains.

    () for a package of stained tissue, whose images are luminance, and where `norm` found the background brighter than the objects: that
    is stained tissue under a package for fluorescence, of which no one colour is right (`BRIGHT_BACKGROUND` says what is).
    """
    differ = pixels.colours_differ and not norm.inverted
    return (Doubt.COLOURS_DIFFER,) if differ and _FLUORESCENCE in package.modality else ()


def _is_dark(plane: Plane, package: Package) -> bool:
    """Whether objects are brighter than the background, under a package for dark ones."""
    spec = package.input
    if spec.polarity != "dark":
        return False
    free = estimate(plane, percentile=spec.percentile, floor_sigmas=spec.floor_sigmas, polarity="auto")
    return not free.inverted and free.range > spec.floor_sigmas * free.noise


def _bright_edge(plane: Plane, norm: Normalisation, found: Counted, channel: str) -> bool:
    """Whether a border of the image is clearly brighter than its objects over a longer stretch than objects reach."""
    usual = found.diameter_px
    if norm.inverted or found.count < _FEW or usual is None:
        return False
    mean = float(np.median(found.table.mean_intensity[channel]))
    level = mean - norm.background
    longest, side = longest_edge(plane, norm.background + _BRIGHT_EDGE * level, round(usual / 2))
    return longest >= max(_LONG_EDGE * usual, _EDGE_SHARE * side)


def _half_saturated(quality: Quality, objects: float) -> bool:
    """Whether saturated pixels make up much of the part of the image that is `objects`, or of the whole of it."""
    return quality.saturation >= _SATURATED_PIXELS and quality.saturation >= _SATURATED * (objects or 1.0)


def _shows(plane: Plane, norm: Normalisation) -> int:
    """How many pieces reach half of the way from the background to full scale."""
    half = norm.background + norm.range / 2
    return View(-plane.astype(np.float32)).pieces(-half) if norm.inverted else View(plane).pieces(half)


def _absurd(diameter_px: float | None, shorter: int) -> bool:
    return diameter_px is not None and not _SMALLEST_PX <= diameter_px <= _LARGEST_SHARE * shorter


def _unlike_size(scale: FieldScale, found: Counted, shorter: int, package: Package) -> bool:
    """Whether the median object is not of the size the package is for, at the scale it was counted at."""
    if found.count < _FEW or found.sizes is not None:
        return False
    median = found.diameter_px or 0.0
    wanted = package.input.diameter_px
    if wanted is None:
        return not _SMALLEST_SEEN_PX <= median <= _LARGEST_SHARE * shorter
    # Small objects may have led to a larger scale than the typical one's.
    sized = scale.diameter_px if scale.diameter_px is not None else wanted / scale.factor
    return not 1 / _APART <= median / sized <= _APART
