"""Warning codes of a field that was counted though something about it is unlike what the model is made for."""

from __future__ import annotations

import numpy as np

from cellcount_core.images.imagefile import Plane
from cellcount_core.images.quality import Quality
from cellcount_core.models.package import Package

BRIGHT_BACKGROUND = "bright_background"
"""What differs from the background is darker than it: bright-field or inverted contrast, and the model is for fluorescence."""

OBJECTS_IN_EMPTY = "objects_in_empty_field"
"""The signal does not rise above the noise floor, and objects were counted all the same."""

_FLUORESCENCE = "fluorescence"
_SAMPLE = 512
_LOW_PERCENT = 0.5


def doubts(plane: Plane, quality: Quality, count: int, package: Package) -> tuple[str, ...]:
    """Codes for one counted channel (H, W) in raw units; () where nothing is odd.

    A background counts as bright where the darkest half percent lies further below it than the signal rises above it, and
    further than the package's noise floor. About a quarter of a million pixels are looked at.
    """
    found: list[str] = []
    down, across = (max(1, side // _SAMPLE) for side in plane.shape)
    sample = plane[::down, ::across].astype(np.float64)
    below = quality.background - float(np.percentile(sample, _LOW_PERCENT))
    floor = package.input.floor_sigmas * quality.noise
    if _FLUORESCENCE in package.modality and below > max(quality.signal, floor):
        found.append(BRIGHT_BACKGROUND)
    if quality.empty and count:
        found.append(OBJECTS_IN_EMPTY)
    return tuple(found)
