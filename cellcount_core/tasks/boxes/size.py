"""How large the objects of one image are, by a network that finds boxes: of each object it says how high and wide it is.

The image is looked at in a few sizes, each half the one before. Every object has about the model's own size in one of these looks, and
is taken from that look alone, so each is counted once. The estimate is the median by number; one or two more looks near the scale that
it leads to make it sure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellcount_core.images.imagefile import Plane
from cellcount_core.images.pixels import LARGEST_FACTOR, SMALLEST_FACTOR
from cellcount_core.models.package import Package
from cellcount_core.tasks.boxes.decode import decode
from cellcount_core.tasks.boxes.section import BoxesSection
from cellcount_core.tasks.object_size.estimate import Onlooker, seen_by
from cellcount_core.tasks.object_size.looks import tells_sizes, weighted_quantile
from cellcount_core.tasks.task import NO_ESTIMATE, CanvasMaps, SizeEstimate

_BAND = 2**0.5
"""Looks are a factor of 2 apart, so every size lies within this factor of the model's own in one of them."""

_WIDE = 2.0
"""Within this factor of the model's own size objects are believed in the last look."""

_NEAR = 1.19
"""A look within this factor of the scale that the estimate leads to needs no further one."""

_REFINEMENTS = 2
_FEWEST = 3
_AT_EDGE = 1.0
"""Px, in a look: a box that ends so near to its edge may be a part of an object, and tells no size."""


@dataclass(frozen=True, slots=True, eq=False)
class _Glance:
    """The objects of one look, n of them: their sizes (the root of the box's area) in px of the image, scores, and weights."""

    factor: float
    sizes: NDArray[np.float64]
    scores: NDArray[np.float64]
    weight: float

    def within(self, wanted: float, times: float) -> _Glance:
        """Those whose size in the look lies within a factor of the wanted one."""
        shown = self.sizes * self.factor
        near = (shown >= wanted / times) & (shown < wanted * times)
        return _Glance(self.factor, self.sizes[near], self.scores[near], self.weight)


def estimate_boxes(
    planes: Sequence[Plane], package: Package, section: BoxesSection, maps: CanvasMaps
) -> SizeEstimate:
    """Estimate the size of the objects of one image from its raw planes (H, W), one for each of the package's roles.

    `NO_ESTIMATE` if the package has no scale, or the image shows fewer than three objects.
    """
    if not tells_sizes(package):
        return NO_ESTIMATE
    wanted = float(package.input.diameter_px or 0)
    onlooker = seen_by(planes, package, maps)
    glances = [_glance(onlooker, section, factor) for factor in onlooker.factors()]
    typical = _typical([glance.within(wanted, _BAND) for glance in glances])
    if typical is None:
        return NO_ESTIMATE
    middle = typical
    for _ in range(_REFINEMENTS):
        factor = float(np.clip(wanted / middle, SMALLEST_FACTOR, LARGEST_FACTOR))
        near = [glance for glance in glances if 1 / _NEAR < glance.factor / factor < _NEAR]
        if not near:
            near = [_glance(onlooker, section, factor)]
            glances += near
        last = near[0].within(wanted, _WIDE)
        if last.sizes.size < _FEWEST:
            return NO_ESTIMATE
        before, middle = middle, float(np.median(last.sizes))
        if 1 / _NEAR < middle / before < _NEAR:
            break
    agreed = float(np.exp(-2 * abs(np.log2(middle / typical))))
    # As exact as a plan states it: what one image says is the same whether it was sampled or not. No range of sizes is told: classes
    # may differ in size by much, and images are brought to the size of the median object all the same.
    return SizeEstimate(
        round(middle, 2), last.sizes.size, agreed, factors=tuple(glance.factor for glance in glances)
    )


def _glance(onlooker: Onlooker, section: BoxesSection, factor: float) -> _Glance:
    glimpse = onlooker.glimpse(factor)
    found = decode(glimpse.maps, section)
    height, width = glimpse.maps.shape[:2]
    low, high = found.boxes[:, :2], found.boxes[:, 2:]
    whole = (low > _AT_EDGE).all(axis=1) & (high < np.array([height, width]) - _AT_EDGE).all(axis=1)
    sizes = np.sqrt(found.sides.prod(axis=1)) / factor
    kept = whole & (sizes <= onlooker.largest)
    return _Glance(factor, sizes[kept], found.scores[kept], factor / float(height * width) ** 0.5)


def _typical(glances: Sequence[_Glance]) -> float | None:
    """The median size of the objects of all looks, each object weighed by its score and by how many of the image it stands for."""
    sizes = np.concatenate([glance.sizes for glance in glances])
    weights = np.concatenate([glance.scores * glance.weight for glance in glances])
    return weighted_quantile(sizes, weights, 0.5) if sizes.size else None
