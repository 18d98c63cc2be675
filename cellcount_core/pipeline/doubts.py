"""Warning codes of a field that was counted though something about it is unlike what the model is made for."""

from __future__ import annotations

from cellcount_core.images.normalise import Normalisation
from cellcount_core.images.quality import Quality
from cellcount_core.models.package import Package

BRIGHT_BACKGROUND = "bright_background"
"""What differs from the background is darker than it: bright-field or inverted contrast, and the model is for fluorescence.

The image was counted upside down."""

OBJECTS_IN_EMPTY = "objects_in_empty_field"
"""The signal does not rise above the noise floor, and objects were counted all the same."""

_FLUORESCENCE = "fluorescence"


OUT_OF_DOMAIN = "out_of_domain"
"""The field is less like the training images than all but a fortieth of them are; its count has no interval."""

_TYPICAL = 0.5


def doubts(
    norm: Normalisation, quality: Quality, count: int, unlike: float | None, package: Package
) -> tuple[str, ...]:
    """Codes for one counted channel, given its levels, quality and `out_of_domain` score; () where nothing is odd."""
    found: list[str] = []
    if _FLUORESCENCE in package.modality and norm.inverted:
        found.append(BRIGHT_BACKGROUND)
    if quality.empty and count:
        found.append(OBJECTS_IN_EMPTY)
    if unlike is not None and unlike > _TYPICAL:
        found.append(OUT_OF_DOMAIN)
    return tuple(found)
