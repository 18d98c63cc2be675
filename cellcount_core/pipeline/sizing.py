"""How large the objects of an image are, told by the network itself before anything is counted.

The network says of every object how large it takes it to be (map `size`), over a wide range of scales. The image is looked at in
a few sizes, each half the one before; the one whose objects come nearest to the model's own size is brought to that
size exactly, and the objects separated there are what the estimate is taken from. It is enlarged only for objects that
were seen at its own size: enlarged noise and specks look like nuclei. What is larger than most of the image is its
illumination.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellcount_core.images.imagefile import Plane
from cellcount_core.images.normalise import Normalisation, estimate
from cellcount_core.images.scale import LARGEST_FACTOR, SMALLEST_FACTOR, resize
from cellcount_core.images.tiles import cut, plan_tiles
from cellcount_core.models.engines import Engine
from cellcount_core.models.package import Package
from cellcount_core.objects.separators import Separator, build_separator, of_whole_objects
from cellcount_core.objects.size_map import decode_diameter

SIZE = "size"
"""Name of the map that tells how large an object is."""

_LEVELS = (1.0, 0.5, 0.25, 0.125)
_SIDE = 512
"""Px of a side of what is looked at, at each scale: of a larger image the part with most in it."""

_SMALLEST = 24
_LARGEST_SHARE = 0.6
"""Of the image's shorter side: nothing larger is taken for an object."""

_REFINEMENTS = 3
_SETTLED = 1.08
_OCTAVES = 0.75
_WEIGHT_OF_DOUBT = 5.0
_SEVERAL = 10
_FEW = 0.75
"""Power of the number of objects, below `_SEVERAL`, that a look is trusted with."""

_STRAY = 1.35
_MANY = 10
"""Objects from which on an estimate stands, whatever the network says of each."""

_LEAST_CERTAINTY = 0.1
_CERTAIN = 0.6
_DOUBTFUL = 0.15
"""Mean of p (1 - p) over the mean of p, p the foreground: above it the network wavers, as it does at haze and fibres."""

Maps = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Maps (h, w, K) of a normalised canvas (h, w, 1) whose sides are multiples of the package's stride."""


@dataclass(frozen=True, slots=True)
class SizeEstimate:
    """What one image says of the size of its objects.

    `diameter_px` is their median equivalent diameter in px of the image, None where the image shows too little to tell;
    `objects` the number it rests on; `certainty` (0..1) how well what the network says of the objects' size agrees with the
    size they are found to have.
    """

    diameter_px: float | None
    objects: int
    certainty: float


NOTHING = SizeEstimate(None, 0, 0.0)


@dataclass(frozen=True, slots=True)
class _Look:
    """Objects seen at one scale: their median diameter as said by the network and as found, both in px there.

    `evidence` is the root of the share of the view that they cover, `doubt` how much the network wavers.
    """

    factor: float
    objects: int
    said: float
    found: float
    evidence: float
    doubt: float


def tells_sizes(package: Package) -> bool:
    """Whether the network says how large objects are, and the package at which size it counts them best."""
    return package.input.diameter_px is not None and SIZE in package.maps


def estimate_size(plane: Plane, package: Package, engine: Engine) -> SizeEstimate:
    """Estimate from one raw plane (H, W). A package without a scale, or whose network tells no sizes, gives no estimate."""

    def run(canvas: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(engine.run(canvas[None].repeat(engine.batch, axis=0))[0])

    return estimate_with(plane, package, run)


def estimate_with(plane: Plane, package: Package, maps: Maps) -> SizeEstimate:
    """`estimate_size` with whatever makes the maps."""
    if not tells_sizes(package):
        return NOTHING
    spec = package.input
    wanted = float(spec.diameter_px or 0)
    norm = estimate(plane, percentile=spec.percentile, floor_sigmas=spec.floor_sigmas, polarity=spec.polarity)
    # Small parts of objects at the edge, which counting keeps, tell no size.
    separator = build_separator(of_whole_objects({**package.separator, **package.sizing}))
    viewer = _Viewer(plane, norm, package, separator, maps)
    largest = _LARGEST_SHARE * min(plane.shape)
    looks = [look for look in viewer.levels() if look.objects and look.said <= largest * look.factor]
    if not looks:
        return NOTHING
    best = max(looks, key=lambda look: _trust(look, wanted))
    found = _refined(viewer, best, wanted)
    return found if found.diameter_px is not None and found.diameter_px <= largest else NOTHING


def _trust(look: _Look, wanted: float) -> float:
    """How far a look at one scale is to be followed: much in it, objects of about the model's size, as large as the network
    says, little doubt of them, and many of them: a whole colony, made small, looks like a nucleus."""
    octaves, apart = abs(np.log2(look.said / wanted)), abs(np.log2(look.found / look.said))
    likely = np.exp(-0.5 * (octaves / _OCTAVES) ** 2 - _WEIGHT_OF_DOUBT * look.doubt - apart)
    return float(look.evidence * likely * min(1.0, look.objects / _SEVERAL) ** _FEW)


def _refined(viewer: _Viewer, look: _Look, wanted: float) -> SizeEstimate:
    for _ in range(_REFINEMENTS):
        factor = float(np.clip(look.factor * wanted / look.said, SMALLEST_FACTOR, LARGEST_FACTOR))
        if max(factor / look.factor, look.factor / factor) < _SETTLED:
            break
        closer = viewer.look(factor)
        if not closer.objects:
            break
        look = closer
    # What is found counts as truth; the network's word bounds it, where objects cling together or fall apart.
    found = float(np.clip(look.found, look.said / _STRAY, look.said * _STRAY))
    certainty = float(np.exp(-2 * abs(np.log2(look.found / look.said))))
    if look.objects < _MANY and (
        certainty < _LEAST_CERTAINTY or (look.doubt > _DOUBTFUL and certainty < _CERTAIN)
    ):
        return NOTHING
    return SizeEstimate(found / look.factor, look.objects, certainty)


class _Viewer:
    """Looks at one image at any scale, at a bounded cost."""

    def __init__(
        self, plane: Plane, norm: Normalisation, package: Package, separator: Separator, maps: Maps
    ) -> None:
        self._plane, self._norm, self._package = plane, norm, package
        self._separator, self._maps = separator, maps
        self._busiest = _busiest_point(plane, norm)

    def levels(self) -> Iterator[_Look]:
        """Looks at the image in its own size, then smaller."""
        for factor in _LEVELS:
            if min(self._plane.shape) * factor >= _SMALLEST or factor == 1:
                yield self.look(factor)

    def look(self, factor: float) -> _Look:
        scaled = resize(self._window(factor), factor)
        height, width = scaled.shape
        package = self._package
        grid = plan_tiles(
            (height, width), stride=package.stride, radius=0, max_tile=max(height, width) + package.stride
        )
        seen = self._maps(cut([scaled], [self._norm], grid, grid.tiles[0]))[:height, :width]
        seen = np.ascontiguousarray(seen)
        labels = self._separator.separate(seen, self._separator.fit([seen]))
        return _look_at(labels, seen, package.maps.index(SIZE), factor)

    def _window(self, factor: float) -> Plane:
        side = max(1, int(_SIDE / factor))
        places = []
        for length, centre in zip(self._plane.shape, self._busiest, strict=True):
            start = int(np.clip(centre - side // 2, 0, max(0, length - side)))
            places.append(slice(start, start + side))
        return np.ascontiguousarray(self._plane[places[0], places[1]])


def _busiest_point(plane: Plane, norm: Normalisation) -> tuple[int, int]:
    """The point (y, x) around which the plane holds most above its noise floor."""
    import cv2

    from cellcount_core.images.normalise import apply

    step = max(1, min(plane.shape) // 128)
    small = np.clip(apply(plane[::step, ::step], norm), 0, 1)
    side = max(3, _SIDE // step // 2 * 2 + 1)
    if side >= max(small.shape):
        return plane.shape[0] // 2, plane.shape[1] // 2
    held = cv2.boxFilter(small, -1, (side, side), borderType=cv2.BORDER_CONSTANT)
    y, x = np.unravel_index(int(np.argmax(held)), held.shape)
    return int(y) * step, int(x) * step


def _look_at(labels: NDArray[np.int32], maps: NDArray[np.float32], channel: int, factor: float) -> _Look:
    count = int(labels.max(initial=0))
    if not count:
        return _Look(factor, 0, 0.0, 0.0, 0.0, 0.0)
    flat, chance = labels.ravel(), np.ascontiguousarray(maps[..., 0])
    area = np.bincount(flat, minlength=count + 1)[1:].astype(np.float64)
    certain = np.bincount(flat, chance.ravel(), minlength=count + 1)[1:] / area
    said = np.bincount(flat, maps[..., channel].ravel(), minlength=count + 1)[1:] / area
    found = 2 * np.sqrt(area / np.pi)
    # By area: whatever is large in the image decides which scale is right, not the number of fragments.
    weight = area * np.clip(2 * certain - 1, 0, 1)
    return _Look(
        factor,
        count,
        float(_weighted_median(decode_diameter(said.astype(np.float32)), weight)),
        # Objects that the edge cuts count too, as they do in the diameter that a network was trained at.
        float(np.median(found)),
        float(weight.sum() / flat.size) ** 0.5,
        float((chance * (1 - chance)).mean() / chance.mean()),
    )


def _weighted_median(values: NDArray[np.float32], weights: NDArray[np.float64]) -> float:
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(reached, reached[-1] / 2)])
