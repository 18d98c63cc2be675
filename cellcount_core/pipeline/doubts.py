"""Reasons to doubt the count of a field: in its image, in the size of its objects, or because it is unlike the training images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cellcount_core.domain.doubts import Doubt
from cellcount_core.domain.scales import FieldScale
from cellcount_core.domain.statistics import is_out_of_domain
from cellcount_core.images.debris import DebrisView, longest_edge
from cellcount_core.images.imagefile import COLOURS, Plane
from cellcount_core.images.normalise import Normalisation, estimate
from cellcount_core.images.pixels import is_grey
from cellcount_core.images.quality import Quality, looks_like_mask, padding, unevenness, zero_tail
from cellcount_core.models.package import Package
from cellcount_core.pipeline.pixels import Pixels
from cellcount_core.pipeline.rows import FieldView
from cellcount_core.tasks.task import Found, Objects

_FLUORESCENCE, _BRIGHT_FIELD = "fluorescence", "brightfield"

_BELOW = 0.055
"""Share of the way from the background up to the bright end that an image reaches down below it at most, if its objects are brighter
than the background everywhere. Fluorescence reaches 0.04. Cells in bright field, whose bright middle has a dark rim, reach 0.07 and more."""

_DARKEST = 0.5
_SAMPLED = 1 << 16

_PADDED = 0.1
_UNEVEN = 0.25
_SATURATED = 0.4
_SATURATED_PIXELS = 0.01
"""Below this share of the image, saturated pixels are specks, however large a part of the objects they make up."""

_SMALLEST_PX = 4.0
_LARGEST_SHARE = 1 / 3
_APART = 1.6
_FEW = 5
_BRIGHT_EDGE = 1.5
"""A border counts as bright from this many times the objects' own level above the background."""

_LONG_EDGE = 3.0
"""Median diameters that one object, or a few in a row, may extend along a border."""

_EDGE_SHARE = 0.2

_PIECES = 3
"""Fewer pieces than this that stand out of an image are a grain or a fibre in an empty field."""

_CROWD_SHARE = 0.05
"""Share of an image that lies above half its peak, from which on that is no noise: the peaks of noise are few."""

_MANY = 20
"""Pieces that stand out of an image, at a quarter of full scale."""

_FOUND_OF_MANY = 15
"""If fewer than one object is found for so many pieces, the model does not know what is there. Smears have 4 pieces for each cell found and
at most 10, because red cells have a rim and a middle; nuclei have one."""

_COVERED = 0.1
"""Objects that cover more than this share of an image are not few."""

_SMALLEST_SEEN_PX = 6.0
"""For packages without a scale: smaller objects than this are what smoothing leaves of noise."""


def doubts(view: FieldView, found: Found, package: Package) -> tuple[Doubt, ...]:
    """The doubts about a field that was looked at, in the order of `Doubt`; () if nothing is odd.

    Every counted plane is checked. If an image's signal does not rise above its noise, only the kind of its background, masks
    and the size of its objects are checked.
    """
    told = {Doubt.OUT_OF_DOMAIN} if is_out_of_domain(found.unlike) else set()
    planes = [
        _of_plane(view.planes[name], norm, quality, package, found)
        for name, norm, quality in zip(view.counted, view.norms, view.qualities, strict=True)
    ]
    told = told.union(*planes)
    if package.input.channels == COLOURS and not all(Doubt.DARK_BACKGROUND in each for each in planes):
        # One colour of a stain may be darker around objects than in them, where these fill the image.
        told.discard(Doubt.DARK_BACKGROUND)
    if package.input.channels == COLOURS and is_grey([view.planes[name] for name in view.counted]):
        told.add(Doubt.GREY_AS_COLOURS)
    if found.objects is not None:
        told |= _of_objects(view, found, found.objects, package)
    return tuple(doubt for doubt in Doubt if doubt in told)


def _of_plane(
    plane: Plane, norm: Normalisation, quality: Quality, package: Package, found: Found
) -> set[Doubt]:
    """What is odd about one image (H, W), whatever was found in it."""
    told = {
        Doubt.BRIGHT_BACKGROUND: _FLUORESCENCE in package.modality and norm.inverted,
        Doubt.DARK_BACKGROUND: _is_dark(plane, package, found),
        Doubt.LOOKS_LIKE_MASK: looks_like_mask(plane),
        Doubt.PADDED: not quality.empty and padding(plane) > _PADDED,
        Doubt.BRIGHT_DEBRIS: norm.debris is not None,
        Doubt.ZERO_TAIL: zero_tail(plane),
    }
    # Light is not looked at where padding would pass for its shadow.
    told[Doubt.UNEVEN_LIGHT] = (
        not quality.empty and not told[Doubt.PADDED] and unevenness(plane, norm) > _UNEVEN
    )
    return {doubt for doubt, odd in told.items() if odd}


def _of_objects(view: FieldView, found: Found, objects: Objects, package: Package) -> set[Doubt]:
    """What is odd about the objects of a field, given its counted planes."""
    planes = [view.planes[name] for name in view.counted]
    plane, norm = planes[0], view.norms[0]
    shorter = min(plane.shape)
    told = {
        Doubt.HALF_SATURATED: any(
            _half_saturated(each, objects.area_px / plane.size) for each in view.qualities
        ),
        Doubt.OBJECTS_IN_EMPTY: view.empty and objects.count > 0,
        Doubt.BRIGHT_DEBRIS: _bright_edge(plane, norm, objects),
        Doubt.SIZE_ABSURD: _absurd(view.scale.diameter_px, shorter),
        Doubt.SIZE_UNLIKE: _unlike_size(view.scale, found, objects, shorter, package),
    }
    return {doubt for doubt, odd in told.items() if odd} | _missed(view, planes, objects)


def _missed(view: FieldView, planes: Sequence[Plane], objects: Objects) -> set[Doubt]:
    """The doubt that things stand out of the counted planes of which none, or hardly any, was found. What gates left out was found."""
    found = objects.count + objects.left_out
    if objects.area_px > _COVERED * planes[0].size or (found and not objects.count):
        return set()
    shown = [
        _Shown.of(plane, norm, quality)
        for plane, norm, quality in zip(planes, view.norms, view.qualities, strict=True)
        if not quality.empty
    ]
    if any(each.small_pieces >= max(_MANY, _FOUND_OF_MANY * found + 1) for each in shown):
        return {Doubt.FEW_FOUND if found else Doubt.NOTHING_FOUND}
    return {Doubt.NOTHING_FOUND} if not found and any(each.stands_out for each in shown) else set()


def colour_doubts(pixels: Pixels, norm: Normalisation, package: Package) -> tuple[Doubt, ...]:
    """The doubt that a luminance mixes stains that show different things; () if there is none.

    Not for packages of stained tissue, whose images are luminance anyway. Nor for a package for fluorescence if `norm` says that the
    background is brighter than the objects: that is stained tissue, and `BRIGHT_BACKGROUND` says so.
    """
    fluorescence = _FLUORESCENCE in package.modality and not norm.inverted
    told = pixels.colours_differ and (fluorescence or _BRIGHT_FIELD in package.modality)
    return (Doubt.COLOURS_DIFFER,) if told else ()


def _is_dark(plane: Plane, package: Package, found: Found) -> bool:
    """Whether the objects are brighter than the background, and nothing is darker, though the package is for dark ones.

    An image without objects, in which nothing stands out either, has none that could be brighter.
    """
    spec = package.input
    if spec.polarity != "dark":
        return False
    free = estimate(plane, percentile=spec.percentile, floor_sigmas=spec.floor_sigmas, polarity="auto")
    if free.inverted or free.range <= spec.floor_sigmas * free.noise:
        return False
    least = 1 if found.objects is None else _PIECES
    if not found.count and DebrisView(plane).pieces(free.background + free.range / 2) < least:
        return False
    step = max(1, int(np.sqrt(plane.size / _SAMPLED)))
    below = free.background - float(np.percentile(plane[::step, ::step].astype(np.float64), _DARKEST))
    return below <= _BELOW * free.range


def _bright_edge(plane: Plane, norm: Normalisation, objects: Objects) -> bool:
    """Whether the image has a border clearly brighter than its objects, over a longer stretch than objects extend."""
    usual, mean = objects.diameter_px, objects.level
    if norm.inverted or objects.count < _FEW or usual is None or mean is None:
        return False
    level = mean - norm.background
    longest, side = longest_edge(plane, norm.background + _BRIGHT_EDGE * level, round(usual / 2))
    return longest >= max(_LONG_EDGE * usual, _EDGE_SHARE * side)


def _half_saturated(quality: Quality, objects: float) -> bool:
    """Whether saturated pixels of one channel amount to a large part of the objects.

    `objects` is the share of the image that the objects cover; if it is 0, saturated pixels are compared with the whole image.
    """
    return quality.saturation >= _SATURATED_PIXELS and quality.saturation >= _SATURATED * (objects or 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class _Shown:
    """What stands out of a plane above `background`, full scale being `full` above that and the brightest of the image `signal`."""

    view: DebrisView
    background: float
    full: float
    signal: float

    @classmethod
    def of(cls, plane: Plane, norm: Normalisation, quality: Quality) -> _Shown:
        """What stands out of a plane (H, W), upside down if objects are dark."""
        sign = -1 if norm.inverted else 1
        view = DebrisView(-plane.astype(np.float32) if norm.inverted else plane)
        return cls(view, sign * norm.background, abs(norm.range), quality.signal)

    @property
    def small_pieces(self) -> int:
        """Pieces that reach a quarter of full scale, so those too that are weak beside something large and strong."""
        return self.view.pieces(self.background + self.full / 4)

    @property
    def stands_out(self) -> bool:
        """Whether some pieces reach halfway to full scale, or many halfway to the brightest of the image.

        The second holds where objects lie so densely that what differs between them passes for noise: full scale, which noise never
        reaches, is then far above all of them.
        """
        if self.view.pieces(self.background + self.full / 2) >= _PIECES:
            return True
        pieces, share = self.view.crowd(self.background, self.signal / 2)
        return pieces >= _PIECES and share >= _CROWD_SHARE


def _absurd(diameter_px: float | None, shorter: int) -> bool:
    return diameter_px is not None and not _SMALLEST_PX <= diameter_px <= _LARGEST_SHARE * shorter


def _unlike_size(scale: FieldScale, found: Found, objects: Objects, shorter: int, package: Package) -> bool:
    """Whether the median object, at the scale the field was counted at, is not of the size that the package is for."""
    if objects.count < _FEW or Doubt.TWO_SIZES in found.warnings:
        return False
    median = objects.diameter_px or 0.0
    wanted = package.input.diameter_px
    if wanted is None:
        return not _SMALLEST_SEEN_PX <= median <= _LARGEST_SHARE * shorter
    # Small objects may have led to a larger scale than the typical one's.
    sized = scale.diameter_px if scale.diameter_px is not None else wanted / scale.factor
    return not 1 / _APART <= median / sized <= _APART
