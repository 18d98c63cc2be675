"""Objects too large for the scale at which a field is counted: the field is looked at a second time, made smaller.

A network sees objects over a range of sizes. A larger object falls to pieces, or is found with pieces beside it, but of each piece the
network says how large the whole is. If it predicts objects beyond its range, the field is made so small that the largest of them
have the model's own size, and is separated again. Each object is then taken from the look that shows it best, by the rule of
`looks.from_farther`, and is counted once. The second look costs less than the first, in proportion to its pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cellcount_core.images.pixels import SMALLEST_FACTOR
from cellcount_core.models.package import Package
from cellcount_core.objects.labels import number_in_raster_order
from cellcount_core.objects.outline import labels_to_original, objects_to_original
from cellcount_core.objects.separators import Separator
from cellcount_core.tasks.object_size.looks import (
    SIZE,
    Look,
    encode_diameter,
    from_farther,
    look_at,
    tells_sizes,
    weighted_quantile,
)
from cellcount_core.tasks.task import MapArray, Maps

_BEYOND = 2.5
"""Times the model's own size above which objects are looked at again."""

_LARGE = 2.0
"""Times the model's own size below which nothing is taken from the second look."""

_LARGEST = 0.9
"""Share of the area of too large objects: the second look is taken at the size of the largest of them."""

_LEAST_AREA = 0.1
"""Share of the area of an object just beyond the range: fewer pixels that predict large objects are no reason to look again."""

_RIM = 2
"""Px of the second look within which pieces beside an object belong to it."""

_SHORTEST = 16
"""Least length in px of a field's shorter side in the second look."""


@dataclass(frozen=True, slots=True, eq=False)
class TwoLooks:
    """A field's objects from both looks.

    `labels` (H, W) int32 are those of the original field, numbered in raster order. `near` (h, w) are the labels at the scale at which the
    field is counted, without the objects taken from the second look. `sizes` says in words how many objects of which size came from each.
    """

    labels: NDArray[np.int32]
    near: NDArray[np.int32]
    sizes: str


def speaks_of_larger(maps: MapArray, package: Package) -> bool:
    """Whether the network predicts, in maps (h, w, K), objects beyond its range."""
    if not tells_sizes(package):
        return False
    limit = _BEYOND * float(package.input.diameter_px or 0)
    level = encode_diameter(np.array([limit], np.float32))[0]
    large = (maps[..., package.maps.index(SIZE)] > level) & (maps[..., 0] > np.float32(0.5))
    return int(np.count_nonzero(large)) > _LEAST_AREA * np.pi / 4 * limit**2


def look_from_farther(
    maps: Maps,
    near: MapArray,
    labels: NDArray[np.int32],
    separator: Separator,
    package: Package,
    shape: tuple[int, int],
) -> TwoLooks | None:
    """What a second look changes in a field of `shape` (H, W); None if there is no reason for one, or it changes nothing.

    `near` (h, w, K) are the maps at the scale at which the field is counted, `labels` (h, w) the objects separated in them.
    """
    if not speaks_of_larger(near, package):
        return None
    wanted = float(package.input.diameter_px or 0)
    close = look_at(labels, near, package, 1.0, (0, 0))
    factor = _farther(close, wanted, min(labels.shape))
    if factor is None:
        return None
    small = maps.resized(factor)
    far_maps = small.whole()
    far_labels = separator.separate(far_maps, separator.fit([far_maps]))
    far = look_at(far_labels, far_maps, package, factor, (0, 0))
    large = np.maximum(far.objects.found, far.objects.said) > _LARGE * wanted
    taken = from_farther(close.objects.taken(close.certain), far) & large
    if not taken.any():
        return None
    gone = _gone(close, far, taken)
    kept_near = _only(labels, ~gone)
    kept_far = _only(far_labels, taken)
    drawn, giants = (
        labels_to_original(kept, shape)
        if separator.outline is None
        else objects_to_original(kept, seen[..., 0], separator.outline, shape).painted()
        for kept, seen in ((kept_near, near), (kept_far, far_maps))
    )
    free = (drawn == 0) & (giants > 0)
    before = int(drawn.max(initial=0))
    together = np.where(free, giants + np.int32(before), drawn)
    if maps.norm.debris is not None:
        together = np.where(maps.norm.debris.owning(together, (0, 0))[together], np.int32(0), together)
    return TwoLooks(number_in_raster_order(together), kept_near, _in_words(together, before))


def _farther(close: Look, wanted: float, shorter: int) -> float | None:
    """The factor of the second look; None if nothing that was separated is too large, or the field would become too small."""
    size = np.maximum(close.objects.found, close.objects.said)
    beyond = size > _BEYOND * wanted
    if not beyond.any():
        return None
    area = close.objects.found[beyond] ** 2
    factor = wanted / weighted_quantile(size[beyond], area, _LARGEST)
    return factor if factor >= SMALLEST_FACTOR and shorter * factor >= _SHORTEST else None


def _gone(close: Look, far: Look, taken: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which objects (n,) of the close look lie in those `taken` from farther, or are pieces at their rim."""
    chosen = np.concatenate([[False], taken])
    inside = chosen[far.owners(close.objects)]
    reached = cv2.dilate(chosen[far.labels].astype(np.uint8), np.ones((2 * _RIM + 1, 2 * _RIM + 1), np.uint8))
    around = Look(far.factor, far.origin, reached.astype(np.int32), far.objects, far.certain)
    return np.asarray(inside | (~close.certain & (around.owners(close.objects) > 0)))


def _only(labels: NDArray[np.int32], which: NDArray[np.bool_]) -> NDArray[np.int32]:
    """The label image (h, w) with only the chosen objects (n,), numbered in raster order."""
    kept = np.concatenate([[False], which])[labels]
    return number_in_raster_order(np.where(kept, labels, np.int32(0)))


def _in_words(labels: NDArray[np.int32], near: int) -> str:
    """ "40 of 20.0 px, 8 of 79.1 px": number and median diameter of the objects up to number `near`, then of the others."""
    area = np.bincount(labels.ravel())[1:]
    parts = []
    for some in (area[:near], area[near:]):
        there = some[some > 0]
        if there.size:
            parts.append(f"{there.size} of {2 * float(np.sqrt(np.median(there) / np.pi)):.1f} px")
    return ", ".join(parts)
