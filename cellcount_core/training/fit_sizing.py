"""The separator's numbers for the estimate of the object size, fitted on images whose sizes are known.

Other numbers than those that count best: objects that cling together make the estimate too large, and what finds them surely
sees them too small.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from cellcount_core.labelled.image import LabelledImage
from cellcount_core.models.package import Package
from cellcount_core.tasks.instances.task import section_of
from cellcount_core.tasks.object_size.estimate import estimate_with
from cellcount_core.tasks.object_size.looks import tells_sizes
from cellcount_core.tasks.task import CanvasMaps

GRIDS: Mapping[str, Sequence[float]] = {
    "foreground": (0.45, 0.6),
    "prominence": (0.12, 0.22, 0.3),
    "min_area": (26.0, 44.0),
}
START: Mapping[str, float] = {
    "foreground": 0.6,
    "core": 0.2,
    "prominence": 0.22,
    "min_area": 44.0,
    "certain": 0.0,
}
_LARGEST_ERROR = 1.0
"""Octaves above which an error counts no more, and what an image without an estimate counts: in an image of fragments and whole
objects the median is of neither."""


def fit_sizing(
    package: Package, images: Sequence[LabelledImage], maps: CanvasMaps, report: Callable[[str], None]
) -> dict[str, float]:
    """The numbers of `START` that tell the images' median diameters best; none where the network tells no sizes.

    `maps` makes the maps (h, w, K) of a normalised canvas (h, w, 1). Each of `GRIDS` is tried in turn.
    """
    if not tells_sizes(package):
        return {}
    best = dict(START)
    least = size_error(package, images, maps, best)
    for name, grid in GRIDS.items():
        for value in grid:
            tried = {**best, name: value}
            if tried == best:
                continue
            error = size_error(package, images, maps, tried)
            if error < least:
                best, least = tried, error
    report(
        f"sizes fitted on {len(images)} images: {best}; {least:.3f} octaves from the true ones in the mean"
    )
    return best


def size_error(
    package: Package, images: Sequence[LabelledImage], maps: CanvasMaps, sizing: Mapping[str, float]
) -> float:
    """Mean distance, in octaves, of the estimates from the true median diameters of those images that hold objects."""
    section = section_of(package).model_copy(update={"sizing": dict(sizing)})
    errors = []
    for image in images:
        if image.diameter_px <= 0:
            continue
        told = estimate_with([image.plane], package, section, maps).diameter_px
        error = _LARGEST_ERROR if told is None else abs(float(np.log2(told / image.diameter_px)))
        errors.append(min(error, _LARGEST_ERROR))
    return float(np.mean(errors)) if errors else 0.0
