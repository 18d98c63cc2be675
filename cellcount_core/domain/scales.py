"""How large objects are, as a run found out before it counts, and whether they are brighter or darker than the background."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class ScaleSource(StrEnum):
    """Where the scale of a field comes from. The value is what stands in the table's `diameter_source` column."""

    MODEL = "model"
    GIVEN = "given"
    CALIBRATION = "calibration"
    POOL = "pool"
    IMAGE = "image"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class PoolScale:
    """The object size of images that belong together: those of one plate and of one size.

    `diameter_px` is the median object diameter in px of the image, by number; None where the images disagree or show too little,
    so that each goes by its own. It rests on `objects` objects in `images` images, whose own estimates reach from `low_px` to
    `high_px`. A tenth of the objects of an image is smaller than `small_px`, and a tenth larger than `large_px`. `factor` is
    told where it rests on one image: the factor to the model's scale that this image is counted at by itself.
    """

    plate: str
    height_px: int
    width_px: int
    diameter_px: float | None
    images: int
    objects: int
    low_px: float | None
    high_px: float | None
    small_px: float | None = None
    large_px: float | None = None
    factor: float | None = None


@dataclass(frozen=True, slots=True)
class FieldScale:
    """The scale one field is counted at: factor to the model's scale, the diameter (px) it stands for, and its evidence."""

    factor: float
    source: ScaleSource
    diameter_px: float | None = None
    images: int | None = None
    objects: int | None = None


Polarity = Literal["bright", "dark", "auto"]
"""Objects are brighter than the background, or darker; "auto": whichever way the image departs further from it."""
