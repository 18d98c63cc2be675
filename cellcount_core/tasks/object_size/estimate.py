"""How large the objects of one image are: an estimate by the network itself, before anything is counted.

The network says of every object how large it takes it to be (the map `size`), over a wide range of scales. The image is looked
at in a few sizes, each half the one before, and each object is taken from the look that shows it best. A large nucleus falls
to pieces in a look that is too close, but of each piece the network says how large the whole is; nuclei of a colony melt together
in a look from too far, but were seen one by one in the closer one. So objects of every size are found, each once. The estimate is
the median *by number*, so a few giants, a clump or some debris do not decide it; how far the sizes reach is stated beside it.

An image is enlarged only for objects that were already seen at its own size, because enlarged noise and specks look like nuclei.
Anything larger than most of the image is taken for uneven illumination.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from cellcount_core.images.imagefile import Plane
from cellcount_core.images.normalise import Normalisation, apply, estimate, without_debris
from cellcount_core.images.pixels import LARGEST_FACTOR, SMALLEST_FACTOR, resize
from cellcount_core.images.tiles import cut, plan_tiles
from cellcount_core.models.package import Package
from cellcount_core.objects.separators import Separator, build_separator, of_whole_objects
from cellcount_core.tasks.object_size.looks import (
    PIECE,
    Look,
    SeenObjects,
    from_farther,
    look_at,
    tells_sizes,
    weighted_quantile,
)
from cellcount_core.tasks.task import NO_ESTIMATE, CanvasMaps, SizeEstimate

_LEVELS = (1.0, 0.5, 0.25, 0.125)
_SIDE = 512
"""Largest side (px) of what is looked at, at each scale; of a larger image it is the part with most in it."""

_SMALLEST = 24
_LARGEST_SHARE = 0.6
"""Share of the image's shorter side: nothing larger is taken for an object."""

_REFINEMENTS = 2
_NEAR_FROM_FAR = 1.2
_NEAR_FROM_CLOSE = 1.42
"""A look is near enough to the scale at which its objects have the model's size if it is smaller by no more than the first
factor, beyond which small objects are lost, or larger by no more than the second, within which the looks of `_LEVELS` are of each other.
"""

_LARGEST_IN_LOOK = 60.0
"""Px in a look: once an image's largest possible object is no larger than this, no smaller look is taken."""


_STRAY = 1.35
"""What is found counts as truth, but the network's word bounds it within this factor: objects may cling together, fall apart, or
be so long that they look as large as their width.
"""

_MANY = 10
"""With at least this many objects an estimate stands, whatever the network says of each."""

_LEAST_CERTAINTY = 0.1
_CERTAIN = 0.6
_DOUBTFUL, _HOPELESS = 0.15, 0.4
"""Mean of p (1 - p) over mean of p, with p the foreground. Above the first the network wavers, as at haze and fibres; above the
second it does so whatever it says, as at hot pixels and noise.
"""

_TAIL = 0.1
"""Share of the objects at either end that is left out of the range of sizes; giants show from a smaller share (second_look.py)."""

_WAVERING = 2.0
"""A doubtful look may waver at most this many times as much as the surest look that shows many objects."""


class Separation(Protocol):
    """What a task's section of the manifest says about how objects are separated."""

    @property
    def separator(self) -> Mapping[str, object]:
        """The kind of separator, with its numbers."""
        ...

    @property
    def sizing(self) -> Mapping[str, object]:
        """The numbers that differ when objects are looked at only for their size."""
        ...


def estimate_with(
    planes: Sequence[Plane], package: Package, section: Separation, maps: CanvasMaps
) -> SizeEstimate:
    """Estimate the size of the objects of one image from its raw planes (H, W), one for each of the package's roles.

    `NO_ESTIMATE` if the package has no scale, its network tells no sizes, or the image shows too little.
    """
    if not tells_sizes(package):
        return NO_ESTIMATE
    wanted = float(package.input.diameter_px or 0)
    # Small parts of objects at the edge, which counting keeps, tell no size.
    separator = build_separator(of_whole_objects({**section.separator, **section.sizing}))
    viewer = _Viewer(seen_by(planes, package, maps), package, separator)
    looks = viewer.levels()
    seen = _merged(looks, viewer.largest)
    for _ in range(_REFINEMENTS):
        if not seen.found.size:
            return NO_ESTIMATE
        factor = float(np.clip(wanted / _typical(seen), SMALLEST_FACTOR, LARGEST_FACTOR))
        if any(1 / _NEAR_FROM_FAR < look.factor / factor < _NEAR_FROM_CLOSE for look in looks):
            break
        looks.append(viewer.look(factor))
        seen = _merged(looks, viewer.largest)
    return _told(seen, tuple(look.factor for look in looks))


def _merged(looks: Sequence[Look], largest: float) -> SeenObjects:
    """The objects of all looks, each once, from the closest look to the farthest."""
    surest = min((look.doubt for look in looks if np.count_nonzero(look.certain) >= _MANY), default=np.inf)
    # Grain, seen too close, looks like many small objects.
    sure = [look for look in looks if look.doubt <= max(_DOUBTFUL, _WAVERING * surest)]
    closest, *others = sorted(sure, key=lambda look: -look.factor)
    seen = closest.objects.taken(closest.certain)
    for look in others:
        seen = _with_look(seen, look)
    seen = seen.taken(seen.found <= largest)
    whole = np.log2(seen.said / seen.found) < PIECE
    return seen.taken(whole) if whole.any() else seen


def _with_look(seen: SeenObjects, look: Look) -> SeenObjects:
    """What was seen closer, with what a look from farther adds or replaces."""
    taken = from_farther(seen, look)
    gone = np.concatenate([[False], taken])[look.owners(seen)]
    return seen.taken(~gone).joined(look.objects.taken(taken))


def _typical(seen: SeenObjects) -> float:
    return weighted_quantile(seen.found, seen.weight, 0.5)


def _told(seen: SeenObjects, factors: tuple[float, ...]) -> SizeEstimate:
    found, said = _typical(seen), weighted_quantile(seen.said, seen.weight, 0.5)
    diameter = float(np.clip(found, said / _STRAY, said * _STRAY))
    certainty = float(np.exp(-2 * abs(np.log2(said / found))))
    doubt = float(np.median(seen.doubt))
    hopeless = certainty < _LEAST_CERTAINTY or doubt > _HOPELESS
    if seen.found.size < _MANY and (hopeless or (doubt > _DOUBTFUL and certainty < _CERTAIN)):
        return NO_ESTIMATE
    low = weighted_quantile(seen.found, seen.weight, _TAIL)
    high = weighted_quantile(seen.found, seen.weight, 1 - _TAIL)
    # As exact as a plan states them: what one image says is the same whether it was sampled or not.
    diameter, low, high = (round(value, 2) for value in (diameter, low, high))
    return SizeEstimate(diameter, seen.found.size, certainty, low, high, factors)


@dataclass(frozen=True, slots=True, eq=False)
class Glimpse:
    """What the network makes of a window of an image that was resized: its maps (h, w, K), the window's corner (y, x) in px of
    the image and its shape (H, W) there."""

    maps: NDArray[np.float32]
    origin: tuple[int, int]
    shape: tuple[int, int]


class Onlooker:
    """Lets the network look at one image at any scale, at a bounded cost. `planes` (H, W) are raw, debris already removed."""

    def __init__(
        self, planes: Sequence[Plane], norms: Sequence[Normalisation], package: Package, maps: CanvasMaps
    ) -> None:
        self._planes, self._norms, self._package, self._maps = planes, norms, package, maps
        height, width = planes[0].shape
        self.shape = (height, width)
        self._busiest = _busiest_point(planes, norms)
        self.largest = _LARGEST_SHARE * min(self.shape)

    def factors(self) -> list[float]:
        """The factors of the first looks: the image in its own size, then smaller ones."""
        found: list[float] = []
        for factor in _LEVELS:
            if found and (
                min(self.shape) * factor < _SMALLEST or self.largest * found[-1] <= _LARGEST_IN_LOOK
            ):
                break
            found.append(factor)
        return found

    def glimpse(self, factor: float) -> Glimpse:
        """What the network sees of the image when it is resized by `factor`."""
        windows, origin = self._windows(factor)
        scaled = [resize(window, factor) for window in windows]
        height, width = scaled[0].shape
        package = self._package
        grid = plan_tiles(
            (height, width), stride=package.stride, radius=0, max_tile=max(height, width) + package.stride
        )
        seen = self._maps(cut(scaled, self._norms, grid, grid.tiles[0]))[:height, :width]
        full_height, full_width = windows[0].shape
        return Glimpse(np.ascontiguousarray(seen), origin, (full_height, full_width))

    def _windows(self, factor: float) -> tuple[list[Plane], tuple[int, int]]:
        side = max(1, int(_SIDE / factor))
        places = []
        for length, centre in zip(self.shape, self._busiest, strict=True):
            start = int(np.clip(centre - side // 2, 0, max(0, length - side)))
            places.append(slice(start, start + side))
        windows = [np.ascontiguousarray(plane[places[0], places[1]]) for plane in self._planes]
        return windows, (places[0].start, places[1].start)


def seen_by(planes: Sequence[Plane], package: Package, maps: CanvasMaps) -> Onlooker:
    """An onlooker for raw planes (H, W), one for each of the package's roles."""
    spec = package.input
    norms = [
        estimate(plane, percentile=spec.percentile, floor_sigmas=spec.floor_sigmas, polarity=spec.polarity)
        for plane in planes
    ]
    return Onlooker(
        [without_debris(plane, norm) for plane, norm in zip(planes, norms, strict=True)], norms, package, maps
    )


class _Viewer:
    """Looks at one image, and separates what is seen into objects."""

    def __init__(self, onlooker: Onlooker, package: Package, separator: Separator) -> None:
        self._onlooker, self._package, self._separator = onlooker, package, separator
        self.largest = onlooker.largest

    def levels(self) -> list[Look]:
        """Looks at the image in its own size, then smaller ones."""
        return [self.look(factor) for factor in self._onlooker.factors()]

    def look(self, factor: float) -> Look:
        """What is seen of the image when it is resized by `factor`."""
        glimpse = self._onlooker.glimpse(factor)
        seen = glimpse.maps
        labels = self._separator.separate(seen, self._separator.fit([seen]))
        found = look_at(labels, seen, self._package, factor, glimpse.origin)
        return replace(
            found, certain=found.certain & ~self._cut_by_window(labels, glimpse.origin, glimpse.shape)
        )

    def _cut_by_window(
        self, labels: NDArray[np.int32], origin: tuple[int, int], shape: tuple[int, ...]
    ) -> NDArray[np.bool_]:
        """Which objects (n,) are cut by a window from `origin` (y, x); not those cut by the image's own edge."""
        (height, width), (y, x) = self._onlooker.shape, origin
        sides = (
            (labels[0], y > 0), (labels[-1], y + shape[0] < height),
            (labels[:, 0], x > 0), (labels[:, -1], x + shape[1] < width),
        )  # fmt: skip
        cut_off = np.zeros(int(labels.max(initial=0)) + 1, np.bool_)
        for side, inside in sides:
            if inside:
                cut_off[side] = True
        return cut_off[1:]


def _busiest_point(planes: Sequence[Plane], norms: Sequence[Normalisation]) -> tuple[int, int]:
    """The point (y, x) around which the planes hold most above their noise floors."""
    shape = planes[0].shape
    step = max(1, min(shape) // 128)
    each = [
        np.clip(apply(plane[::step, ::step], norm), 0, 1) for plane, norm in zip(planes, norms, strict=True)
    ]
    small = each[0] if len(each) == 1 else np.sum(each, axis=0)
    side = max(3, _SIDE // step // 2 * 2 + 1)
    if side >= max(small.shape):
        return shape[0] // 2, shape[1] // 2
    held = cv2.boxFilter(small, -1, (side, side), borderType=cv2.BORDER_CONSTANT)
    y, x = np.unravel_index(int(np.argmax(held)), held.shape)
    return int(y) * step, int(x) * step
