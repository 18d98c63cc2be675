"""How large the objects of an image are, told by the network itself before anything is counted.

The network says of every object how large it takes it to be (map `size`), over a wide range of scales. The image is looked at in
a few sizes, each half the one before, and each object is taken from the look that shows it best: a large nucleus falls to
pieces in a look that is too close, but of each piece the network says how large the whole is; nuclei of a colony melt together
in a look from too far, but were seen one by one in the closer one. What is found so are objects of every size, each once; the
size told is that of the typical one *by number*, so that a few giants, a clump or some debris do not decide it, and how far
the sizes reach is told beside it.

An image is enlarged only for objects that were seen at its own size: enlarged noise and specks look like nuclei. What is larger than
most of the image is its illumination.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cellcount_core.images.imagefile import Plane
from cellcount_core.images.normalise import Normalisation, estimate, without_debris
from cellcount_core.images.scale import LARGEST_FACTOR, SMALLEST_FACTOR, resize
from cellcount_core.images.tiles import cut, plan_tiles
from cellcount_core.models.package import Package
from cellcount_core.objects.separators import Separator, build_separator, of_whole_objects
from cellcount_core.objects.size_map import decode_diameter
from cellcount_core.tasks.task import NOTHING, CanvasMaps, SizeEstimate

Column = NDArray[np.float64]

SIZE = "size"
"""Name of the map that tells how large an object is."""

_LEVELS = (1.0, 0.5, 0.25, 0.125)
_SIDE = 512
"""Px of a side of what is looked at, at each scale: of a larger image the part with most in it."""

_SMALLEST = 24
_LARGEST_SHARE = 0.6
"""Of the image's shorter side: nothing larger is taken for an object."""

_REFINEMENTS = 2
_NEAR_FROM_FAR = 1.2
_NEAR_FROM_CLOSE = 1.42
"""A look is near enough to the scale at which its objects have the model's size: it may be smaller by the first factor, which
loses small objects, or larger by the second, which those of `_LEVELS` are within of each other."""

_LARGEST_IN_LOOK = 60.0
"""Px in a look: an image whose largest object would have no more there is looked at no smaller."""

_CERTAIN_OBJECT = 0.65
"""Mean foreground of an object: below it the look does not count as having seen it."""

_FRAGMENT, _PIECE = 1.0, 0.5
"""Octaves by which an object is smaller than the network says: from the first on a look does not count as having seen it, from
the second on it is a piece of a larger one and tells no size."""

_SAME = 0.5
"""Share of the area: an object that holds one of at least so much is the same one, seen in two looks."""

_MARGIN = 0.3
"""Octaves by which what lies within an object must fit worse to what the network says than the object itself does, to give way;
twice as many where it is ten objects: a colony, made small, looks like a nucleus."""

_STRAINED = 1.0
"""Octaves above the model's own size from which on the network's word for what it sees as one object counts less."""

_UNCOVERED = 0.5
"""Octaves that count as misfit where nothing of an object is covered by what lies within it."""

_STRAY = 1.35
"""What is found counts as truth; the network's word bounds it within this factor, where objects cling together, fall apart or
are so long that they are seen as well as their width is."""

_MANY = 10
"""Objects from which on an estimate stands, whatever the network says of each."""

_LEAST_CERTAINTY = 0.1
_CERTAIN = 0.6
_DOUBTFUL, _HOPELESS = 0.15, 0.4
"""Mean of p (1 - p) over the mean of p, p the foreground: above the first the network wavers, as it does at haze and fibres, and above
the second it does so whatever it says, as at hot pixels and noise."""

_TAIL = 0.1
"""Share of the objects, at either end, that does not tell how far the sizes reach; giants are told by a smaller one."""

_WAVERING = 2.0
"""Times by which the network may waver more in a look than in the surest one that shows many objects, once it is doubtful."""


class Separation(Protocol):
    """What a task's section says of how objects are separated."""

    @property
    def separator(self) -> Mapping[str, object]:
        """The kind of separator, with its numbers."""
        ...

    @property
    def sizing(self) -> Mapping[str, object]:
        """Those of its numbers that differ where objects are looked at for their size alone."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class SeenObjects:
    """Objects of an image, n of them: centres (px of the image), diameters as found and as the network says (px of the image).

    `octaves` is how far above the model's own size each was seen (below 0: below it), `doubt` how much the network wavered in that look, and
    `weight` for how many of the image each stands: the root of what its look saw less of it, as small ones are seen in others too.
    """

    y: Column
    x: Column
    found: Column
    said: Column
    octaves: Column
    doubt: Column
    weight: Column

    @property
    def misfit(self) -> Column:
        """How far what was found lies from what the network says, in octaves; seen too large, an object may be in pieces."""
        strain = np.maximum(0, self.octaves - _STRAINED)
        return np.asarray(np.abs(np.log2(self.said / self.found)) + strain)

    def taken(self, which: NDArray[np.bool_]) -> SeenObjects:
        """Those of a mask (n,)."""
        return SeenObjects(*(getattr(self, field.name)[which] for field in fields(self)))

    def joined(self, other: SeenObjects) -> SeenObjects:
        """These and others."""
        return SeenObjects(
            *(np.concatenate([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self))
        )


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What was seen at one scale: labels 1..n (h, w) of the window whose corner is `origin` (px of the image), and its objects.

    `certain` (n,) are those that the network was sure of.
    """

    factor: float
    origin: tuple[int, int]
    labels: NDArray[np.int32]
    objects: SeenObjects
    certain: NDArray[np.bool_]

    @property
    def doubt(self) -> float:
        """How much the network wavers in it; 0 where it shows nothing."""
        return float(self.objects.doubt[0]) if self.objects.doubt.size else 0.0

    def owners(self, others: SeenObjects) -> NDArray[np.intp]:
        """The label that each centre of `others` lies in, 0 for none."""
        places = []
        for centre, origin in zip((others.y, others.x), self.origin, strict=True):
            places.append(np.floor((centre - origin + 0.5) * self.factor).astype(np.intp))
        inside = np.all([(p >= 0) & (p < n) for p, n in zip(places, self.labels.shape, strict=True)], axis=0)
        owner = np.zeros(others.y.size, np.intp)
        owner[inside] = self.labels[places[0][inside], places[1][inside]]
        return owner


def tells_sizes(package: Package) -> bool:
    """Whether the network says how large objects are, and the package at which size it counts them best."""
    return package.input.diameter_px is not None and SIZE in package.maps


def estimate_with(
    planes: Sequence[Plane], package: Package, section: Separation, maps: CanvasMaps
) -> SizeEstimate:
    """The size of the objects of one image, from its raw planes (H, W), one a role of the package. A package without a scale, or whose
    network tells no sizes, gives no estimate."""
    if not tells_sizes(package):
        return NOTHING
    spec = package.input
    wanted = float(spec.diameter_px or 0)
    norms = [
        estimate(plane, percentile=spec.percentile, floor_sigmas=spec.floor_sigmas, polarity=spec.polarity)
        for plane in planes
    ]
    planes = [without_debris(plane, norm) for plane, norm in zip(planes, norms, strict=True)]
    # Small parts of objects at the edge, which counting keeps, tell no size.
    separator = build_separator(of_whole_objects({**section.separator, **section.sizing}))
    viewer = _Viewer(planes, norms, package, separator, maps)
    looks = viewer.levels()
    seen = _merged(looks, viewer.largest)
    for _ in range(_REFINEMENTS):
        if not seen.found.size:
            return NOTHING
        factor = float(np.clip(wanted / _typical(seen), SMALLEST_FACTOR, LARGEST_FACTOR))
        if any(1 / _NEAR_FROM_FAR < look.factor / factor < _NEAR_FROM_CLOSE for look in looks):
            break
        looks.append(viewer.look(factor))
        seen = _merged(looks, viewer.largest)
    return _told(seen, tuple(look.factor for look in looks))


def _merged(looks: Sequence[Look], largest: float) -> SeenObjects:
    """The objects of all looks, each once, from the closest look to the one from farthest."""
    surest = min((look.doubt for look in looks if np.count_nonzero(look.certain) >= _MANY), default=np.inf)
    # Grain, seen too close, looks like many small objects.
    sure = [look for look in looks if look.doubt <= max(_DOUBTFUL, _WAVERING * surest)]
    closest, *others = sorted(sure, key=lambda look: -look.factor)
    seen = closest.objects.taken(closest.certain)
    for look in others:
        seen = _with_look(seen, look)
    seen = seen.taken(seen.found <= largest)
    whole = np.log2(seen.said / seen.found) < _PIECE
    return seen.taken(whole) if whole.any() else seen


def _with_look(seen: SeenObjects, look: Look) -> SeenObjects:
    """What was seen closer, and what a look from farther adds to it or replaces."""
    taken = from_farther(seen, look)
    gone = np.concatenate([[False], taken])[look.owners(seen)]
    return seen.taken(~gone).joined(look.objects.taken(taken))


def from_farther(seen: SeenObjects, look: Look) -> NDArray[np.bool_]:
    """Which objects (n,) of a look from farther are to be taken instead of what was seen closer.

    One that holds nothing is. One that holds itself, seen closer, is where it is nearer to the model's size. One that
    holds several or much smaller ones is where they fit worse to what the network says of them.
    """
    new = look.objects
    count = new.found.size
    owner = look.owners(seen)
    held = np.bincount(owner, minlength=count + 1)[1:]
    area = np.bincount(owner, seen.found**2, minlength=count + 1)[1:]
    covered = area / new.found**2
    misfit = np.bincount(owner, seen.found**2 * seen.misfit, minlength=count + 1)[1:] / np.maximum(area, 1e-9)
    octaves = np.bincount(owner, np.abs(seen.octaves), minlength=count + 1)[1:]
    same = (held == 1) & (covered > _SAME)
    margin = _MARGIN * (1 + np.log10(np.maximum(held, 1)))
    worse = misfit + _UNCOVERED * np.maximum(0, 1 - covered) > new.misfit + margin
    better = np.where(same, np.abs(new.octaves) < octaves, worse)
    return np.asarray(look.certain & ((held == 0) | better))


def _typical(seen: SeenObjects) -> float:
    return weighted_quantile(seen.found, seen.weight, 0.5)


def _told(seen: SeenObjects, factors: tuple[float, ...]) -> SizeEstimate:
    found, said = _typical(seen), weighted_quantile(seen.said, seen.weight, 0.5)
    diameter = float(np.clip(found, said / _STRAY, said * _STRAY))
    certainty = float(np.exp(-2 * abs(np.log2(said / found))))
    doubt = float(np.median(seen.doubt))
    hopeless = certainty < _LEAST_CERTAINTY or doubt > _HOPELESS
    if seen.found.size < _MANY and (hopeless or (doubt > _DOUBTFUL and certainty < _CERTAIN)):
        return NOTHING
    low = weighted_quantile(seen.found, seen.weight, _TAIL)
    high = weighted_quantile(seen.found, seen.weight, 1 - _TAIL)
    # As exact as a plan states them: what one image says is the same whether it was sampled or not.
    diameter, low, high = (round(value, 2) for value in (diameter, low, high))
    return SizeEstimate(diameter, seen.found.size, certainty, low, high, factors)


class _Viewer:
    """Looks at one image at any scale, at a bounded cost."""

    def __init__(
        self,
        planes: Sequence[Plane],
        norms: Sequence[Normalisation],
        package: Package,
        separator: Separator,
        maps: CanvasMaps,
    ) -> None:
        self._planes, self._norms, self._package = planes, norms, package
        self._separator, self._maps = separator, maps
        self._shape = planes[0].shape
        self._busiest = _busiest_point(planes, norms)
        self.largest = _LARGEST_SHARE * min(self._shape)

    def levels(self) -> list[Look]:
        """Looks at the image in its own size, then smaller."""
        looks: list[Look] = []
        for factor in _LEVELS:
            if looks and (
                min(self._shape) * factor < _SMALLEST or self.largest * looks[-1].factor <= _LARGEST_IN_LOOK
            ):
                break
            looks.append(self.look(factor))
        return looks

    def look(self, factor: float) -> Look:
        """What is seen of the image, resized by `factor`."""
        windows, origin = self._windows(factor)
        scaled = [resize(window, factor) for window in windows]
        height, width = scaled[0].shape
        package = self._package
        grid = plan_tiles(
            (height, width), stride=package.stride, radius=0, max_tile=max(height, width) + package.stride
        )
        seen = self._maps(cut(scaled, self._norms, grid, grid.tiles[0]))[:height, :width]
        seen = np.ascontiguousarray(seen)
        labels = self._separator.separate(seen, self._separator.fit([seen]))
        found = look_at(labels, seen, package, factor, origin)
        return replace(found, certain=found.certain & ~self._cut_by_window(labels, origin, windows[0].shape))

    def _cut_by_window(
        self, labels: NDArray[np.int32], origin: tuple[int, int], shape: tuple[int, ...]
    ) -> NDArray[np.bool_]:
        """Which objects (n,) of a window from `origin` (y, x) the window cuts: not those that the image's own edge does."""
        (height, width), (y, x) = self._shape, origin
        sides = (
            (labels[0], y > 0), (labels[-1], y + shape[0] < height),
            (labels[:, 0], x > 0), (labels[:, -1], x + shape[1] < width),
        )  # fmt: skip
        cut_off = np.zeros(int(labels.max(initial=0)) + 1, np.bool_)
        for side, inside in sides:
            if inside:
                cut_off[side] = True
        return cut_off[1:]

    def _windows(self, factor: float) -> tuple[list[Plane], tuple[int, int]]:
        side = max(1, int(_SIDE / factor))
        places = []
        for length, centre in zip(self._shape, self._busiest, strict=True):
            start = int(np.clip(centre - side // 2, 0, max(0, length - side)))
            places.append(slice(start, start + side))
        windows = [np.ascontiguousarray(plane[places[0], places[1]]) for plane in self._planes]
        return windows, (places[0].start, places[1].start)


def _busiest_point(planes: Sequence[Plane], norms: Sequence[Normalisation]) -> tuple[int, int]:
    """The point (y, x) around which the planes hold most above their noise floors."""
    import cv2

    from cellcount_core.images.normalise import apply

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


def look_at(
    labels: NDArray[np.int32],
    maps: NDArray[np.float32],
    package: Package,
    factor: float,
    origin: tuple[int, int],
) -> Look:
    """What was separated in maps (h, w, K) of an image resized by `factor`: labels 1..n (h, w), from `origin` (y, x) px on."""
    flat = np.flatnonzero(labels)
    owner = labels.ravel()[flat]
    count = int(owner.max(initial=0))
    area = np.bincount(owner, minlength=count + 1)[1:].astype(np.float64)
    chance = np.ascontiguousarray(maps[..., 0])

    def mean(values: NDArray[np.generic]) -> Column:
        return np.asarray(np.bincount(owner, values, minlength=count + 1)[1:] / area)

    y, x = np.divmod(flat, labels.shape[1])
    said = mean(maps[..., package.maps.index(SIZE)].ravel()[flat])
    said = decode_diameter(said.astype(np.float32)).astype(np.float64)
    found = 2 * np.sqrt(area / np.pi)
    doubt = float((chance * (1 - chance)).mean() / max(float(chance.mean()), 1e-9))
    objects = SeenObjects(
        origin[0] + mean(y) / factor,
        origin[1] + mean(x) / factor,
        found / factor,
        said / factor,
        np.log2(said / float(package.input.diameter_px or 1)),
        np.full(count, doubt),
        np.full(count, factor / labels.size**0.5),
    )
    certain = (mean(chance.ravel()[flat]) > _CERTAIN_OBJECT) & (np.log2(said / found) < _FRAGMENT)
    return Look(factor, origin, labels, objects, certain)


def weighted_quantile(values: Column, weights: Column, share: float) -> float:
    """The smallest of n > 0 values at which a share of the weight is reached."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    return float(values[order][min(np.searchsorted(reached, share * reached[-1]), values.size - 1)])
