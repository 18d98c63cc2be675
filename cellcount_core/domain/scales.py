"""What a run found out before it counts: how large objects are, and numbers that its task needs of a whole plate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

SMALLEST_UM_PER_PX, LARGEST_UM_PER_PX = 0.01, 100.0
"""An image from a microscope has so many µm per px, whoever states it: a file, an instrument's metadata, a package or the user."""


class ScaleSource(StrEnum):
    """What decided the scale of a field. The value stands in the table's `diameter_source` column."""

    MODEL = "model"
    GIVEN = "given"
    CALIBRATION = "calibration"
    POOL = "pool"
    IMAGE = "image"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class PlateSize:
    """The object size of images that belong together, because they are of one plate and have one size.

    `diameter_px` is the median object diameter (by number of objects) in px of the image. It is None if the images disagree or show too
    little; each is then counted at its own size. It rests on `objects` objects in `images` images, whose own estimates lie between `low_px`
    and `high_px`. A tenth of the objects of an image is smaller than `small_px`, and a tenth larger than `large_px`. If the size rests on
    one image, `factor` is the factor to the model's scale at which that image is counted by itself.

    >>> size = PlateSize("P1", height_px=1024, width_px=1024, diameter_px=18.5, images=12, objects=840, low_px=17.9, high_px=19.2)
    >>> size.diameter_px, size.images
    (18.5, 12)
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
class ShownSize:
    """What a sample of a plate's images shows where it contradicts the diameter that was given: objects of `diameter_px` px (their median, by
    number of objects). It rests on `objects` objects in `images` images.
    """

    plate: str
    diameter_px: float
    images: int
    objects: int


ALL_PLATES = ""
"""Stands for a plate's name where something holds for all plates together."""


@dataclass(frozen=True, slots=True)
class PlateNumbers:
    """What a task found out about a plate when the run was planned: `numbers`, by name. They rest on `objects` objects in `fields` fields.

    The plate `ALL_PLATES` stands for every plate that was not sampled by itself.
    """

    plate: str
    numbers: Mapping[str, float]
    fields: int
    objects: int


@dataclass(frozen=True, slots=True)
class FieldScale:
    """The scale that one field is counted at: the factor to the model's scale, the object diameter (px) it stands for, and the images and objects it rests on."""

    factor: float
    source: ScaleSource
    diameter_px: float | None = None
    images: int | None = None
    objects: int | None = None


Polarity = Literal["bright", "dark", "auto"]
"""Objects are brighter than the background, or darker; "auto": whichever way the image departs further from it."""
