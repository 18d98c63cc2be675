"""What a package says about finding boxes, and boxes as values.

A box network gives maps of the prepared field, each 0..1: `centre_<class>` for every class, with a peak of height 1 at the centre of
each object, then `height` and `width`, the sides of the object's box in px at the model's scale as `encode_diameter` writes sizes
(tasks/object_size/looks.py). The model's scale is the one at which the median object, the root of its box's area, has `input.diameter_px`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from cellcount_core.models.package import Package
from cellcount_core.tasks.task import TaskSection, read_section

CENTRE, HEIGHT, WIDTH = "centre_", "height", "width"

Corners = NDArray[np.float64]
"""Boxes (n, 4): y0 x0 y1 x1, half-open, in px; pixel (y, x) is the square from (y, x) to (y + 1, x + 1)."""


def maps_of(classes: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the maps of a network that tells these classes, in their order.

    >>> maps_of(("RBC", "WBC"))
    ('centre_RBC', 'centre_WBC', 'height', 'width')
    """
    return (*(CENTRE + name for name in classes), HEIGHT, WIDTH)


class BoxesSection(TaskSection):
    """The section `boxes` of a package's manifest.

    `maps` are the network's output channels, as `maps_of` names them for `classes`. A canvas is padded to multiples of `stride` (px), and a
    tile's maps are valid at least `receptive_radius` px away from a cut edge. `thresholds` holds the least score at which an object of a
    class is counted. Of two peaks whose centres lie nearer than `apart` times the sides of the smaller box, one is an object (the
    distance is measured in heights down and in widths across).
    """

    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    maps: Annotated[tuple[str, ...], Field(min_length=3)]
    stride: Annotated[int, Field(ge=1)]
    receptive_radius: Annotated[int, Field(ge=0)]
    thresholds: dict[str, Annotated[float, Field(gt=0, le=1)]]
    apart: Annotated[float, Field(ge=0, le=1)] = 0.2

    @model_validator(mode="after")
    def _of_its_classes(self) -> BoxesSection:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes: each once expected (got {list(self.classes)})")
        check_names(self.classes)
        if self.maps != maps_of(self.classes):
            raise ValueError(f"maps: {list(maps_of(self.classes))} expected (got {list(self.maps)})")
        if set(self.thresholds) != set(self.classes):
            raise ValueError(f"thresholds: one a class expected (got {sorted(self.thresholds)})")
        return self


_RESERVED = {"", "low", "high", "border", "per_field_mean", "per_field_sd", "per_mm2"}
"""Classes `count_<class>` of which would be another column."""


def check_names(classes: tuple[str, ...]) -> None:
    """Raise ValueError if a class cannot have this name, because another column has the name of its count."""
    if reserved := sorted(set(classes) & _RESERVED):
        raise ValueError(
            f"classes: {reserved[0]!r} would give a column that there is (count_{reserved[0]}): another name expected"
        )


def boxes_section(package: Package) -> BoxesSection:
    """The section of a package. Raises ModelFault naming the key that is wrong."""
    return read_section(BoxesSection, package)


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """Boxes of objects, n of them.

    `boxes` (n, 4) float64 are y0 x0 y1 x1, half-open. `classes` (n,) int64 are places in the section's `classes`, `scores` (n,) float64 say
    how sure the network is of each (0..1).
    """

    boxes: Corners
    classes: NDArray[np.int64]
    scores: NDArray[np.float64]

    @property
    def count(self) -> int:
        """Number of boxes (n)."""
        return len(self.boxes)

    @property
    def centres(self) -> NDArray[np.float64]:
        """(n, 2): y and x of the middle of each box."""
        return np.asarray((self.boxes[:, :2] + self.boxes[:, 2:]) / 2, np.float64)

    @property
    def sides(self) -> NDArray[np.float64]:
        """(n, 2): height and width of each box."""
        return np.asarray(self.boxes[:, 2:] - self.boxes[:, :2], np.float64)

    def taken(self, which: NDArray[np.bool_] | NDArray[np.intp]) -> Boxes:
        """Those chosen by a mask or by their places."""
        return Boxes(self.boxes[which], self.classes[which], self.scores[which])

    def moved(self, y: float, x: float) -> Boxes:
        """The same boxes, moved by (y, x) px."""
        return Boxes(self.boxes + np.array([y, x, y, x], np.float64), self.classes, self.scores)


def no_boxes() -> Boxes:
    """None at all."""
    return Boxes(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0))


def joined(parts: list[Boxes]) -> Boxes:
    """All boxes of some parts, in their order."""
    parts = [no_boxes(), *parts]
    return Boxes(
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.classes for part in parts]),
        np.concatenate([part.scores for part in parts]),
    )
