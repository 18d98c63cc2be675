"""Separators: how the maps of a network become objects.

A package names the kind of its separator and its numbers in its manifest; `build_separator` makes it. There are three kinds:
`components` (connected foreground), `watershed` (clumps parted at their necks, for maps of intensity) and `cores` (for networks
that also predict the distance to each object's boundary).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.errors import ModelFault, nearest
from cellcount_core.objects.cores import CoreParams, separate
from cellcount_core.objects.labels import drop_small
from cellcount_core.objects.watershed import histogram, part_at_necks, reach_of, signal_threshold


@dataclass(frozen=True, slots=True)
class FieldParams:
    """What a separator learned from a whole field before any window of it is separated.

    Pixels at which map 0 is above `threshold` are foreground; None if the field holds no signal.
    """

    threshold: float | None


class Separator(Protocol):
    """Turns maps into objects.

    `reach` (px) says how far a label looks: the objects at a pixel depend on the maps within `reach` of it and on the objects that
    touch its own. `blocks.py` widens a window until everything it owns is out of reach of the window's edge.
    """

    @property
    def reach(self) -> int:
        """Distance (px) within which the end of a window can still change a label."""
        ...

    @property
    def outline(self) -> float | None:
        """Level of map 0 at which the objects' outlines are drawn (outline.py); None: objects stay as they are separated."""
        ...

    def fit(self, tiles: Iterable[NDArray[np.float32]]) -> FieldParams:
        """Learn from the maps (h, w, K) of a whole field, given in pieces of any shape, each pixel once."""
        ...

    def separate(self, maps: NDArray[np.float32], params: FieldParams) -> NDArray[np.int32]:
        """Label image (H, W) int32 of maps (H, W, K): 0 is background, 1..n are objects in raster order of their first pixel."""
        ...


@dataclass(frozen=True, slots=True)
class ComponentsSeparator:
    """Objects are the 8-connected components in which map 0 is above `threshold`; those below `min_area` px are dropped.

    Raises ValueError if the threshold is outside 0..1 or the area is negative.
    """

    threshold: float = 0.5
    min_area: float = 0

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold: expected a probability from 0 to 1 (got {self.threshold})")
        if self.min_area < 0:
            raise ValueError(f"min_area: expected 0 px or more (got {self.min_area})")

    @property
    def reach(self) -> int:
        """One pixel: a component ends where background surrounds it."""
        return 1

    @property
    def outline(self) -> None:
        """None: objects stay as they are separated."""

    def fit(self, tiles: Iterable[NDArray[np.float32]]) -> FieldParams:
        """The package's own threshold; nothing is learned from the field."""
        return FieldParams(self.threshold)

    def separate(self, maps: NDArray[np.float32], params: FieldParams) -> NDArray[np.int32]:
        """Label image (H, W) int32 of maps (H, W, K)."""
        if params.threshold is None or maps.size == 0:
            return np.zeros(maps.shape[:2], np.int32)
        foreground = (maps[..., 0] > params.threshold).astype(np.uint8)
        _, labels = cv2.connectedComponents(foreground, connectivity=8, ltype=cv2.CV_32S)
        return drop_small(labels.astype(np.int32, copy=False), self.min_area)


_REACH = 64
"""Px at the model's scale, where objects are some 8 to 50 px wide: the nearest core of a pixel is nearer than this."""


@dataclass(frozen=True, slots=True)
class CoresSeparator:
    """Objects are grown over the foreground from cores that the network's maps show (cores.py)."""

    fitted: CoreParams

    @classmethod
    def from_spec(cls, given: Mapping[str, object]) -> CoresSeparator:
        """Make it from a package's numbers. Raises ModelFault if one is unknown or no finite number."""
        return cls(_build(CoreParams, given))

    @property
    def reach(self) -> int:
        """How far (px) the end of a window can change a label."""
        return _REACH

    @property
    def outline(self) -> float | None:
        """Probability at which outlines are drawn."""
        return self.fitted.outline

    def fit(self, tiles: Iterable[NDArray[np.float32]]) -> FieldParams:
        """The package's own foreground level; nothing is learned from the field."""
        return FieldParams(self.fitted.foreground)

    def separate(self, maps: NDArray[np.float32], params: FieldParams) -> NDArray[np.int32]:
        """Label image (H, W) int32 of maps (H, W, K)."""
        if params.threshold is None:
            return np.zeros(maps.shape[:2], np.int32)
        return separate(maps, self.fitted)


@dataclass(frozen=True, slots=True)
class WatershedSeparator:
    """Separator of the `threshold` family: foreground above one threshold a field, clumps parted at their necks (watershed.py).

    Map 0 is the smoothed normalised intensity. `floor`, `valley` and `correction` are those of `signal_threshold`. Two peaks are two
    objects if the pass between them lies lower than the lower peak by at least the share `depth` of it. Necks wider than `max_radius`
    (px) are never parted. Objects below `min_area` px are dropped. Raises ValueError for a value out of its range.
    """

    floor: float = 0.1
    valley: float = 0.35
    correction: float = 0.5
    depth: float = 0.05
    max_radius: float = 64
    min_area: float = 20

    def __post_init__(self) -> None:
        ranges = {
            "floor": (self.floor, 0.01, 1.0),
            "valley": (self.valley, 0.0, 1.0),
            "correction": (self.correction, 0.1, 2.0),
            "depth": (self.depth, 0.0, 1.0),
            "max_radius": (self.max_radius, 1.0, 500.0),
            "min_area": (self.min_area, 0.0, float("inf")),
        }
        for name, (value, least, most) in ranges.items():
            if not least <= value <= most:
                raise ValueError(f"{name}: expected {least:g} to {most:g} (got {value})")

    @property
    def reach(self) -> int:
        """See `reach_of`."""
        return reach_of(self.max_radius)

    @property
    def outline(self) -> None:
        """None: objects stay as they are separated."""

    def fit(self, tiles: Iterable[NDArray[np.float32]]) -> FieldParams:
        """The field's threshold; None if it holds no signal."""
        level = signal_threshold(
            histogram(tiles), floor=self.floor, valley=self.valley, correction=self.correction
        )
        return FieldParams(level)

    def separate(self, maps: NDArray[np.float32], params: FieldParams) -> NDArray[np.int32]:
        """Label image (H, W) int32 of maps (H, W, K)."""
        if params.threshold is None or maps.size == 0:
            return np.zeros(maps.shape[:2], np.int32)
        foreground = (maps[..., 0] > params.threshold).astype(np.uint8)
        return drop_small(part_at_necks(foreground, self.depth, self.max_radius), self.min_area)


_Kind = TypeVar("_Kind", ComponentsSeparator, CoreParams, WatershedSeparator)

KINDS = ("components", "cores", "watershed")
"""The values of `separator.kind`."""


def build_separator(spec: Mapping[str, object]) -> Separator:
    """The separator that a package's `separator` section asks for.

    Raises ModelFault for an unknown kind or parameter, naming the nearest known one, and for a value out of its range.
    """
    kind = spec.get("kind")
    given = {name: value for name, value in spec.items() if name != "kind"}
    if kind == "components":
        return _build(ComponentsSeparator, given)
    if kind == "watershed":
        return _build(WatershedSeparator, given)
    if kind == "cores":
        return CoresSeparator.from_spec(given)
    raise ModelFault(f"separator.kind: no separator is called {kind!r}{nearest(str(kind), KINDS)}")


def of_whole_objects(spec: Mapping[str, object]) -> dict[str, object]:
    """A package's `separator` section, changed so that small parts of objects at the image's edge are dropped."""
    return {name: value for name, value in spec.items() if name != "edge_area"}


def _build(separator: type[_Kind], given: Mapping[str, object]) -> _Kind:
    """The class with the numbers given; None is left out where it is the default. Raises ModelFault naming what is wrong."""
    known = {field.name: field.default for field in fields(separator)}
    numbers: dict[str, float] = {}
    for name, value in given.items():
        if name not in known:
            raise ModelFault(f"separator.{name}: no such parameter{nearest(name, list(known))}")
        if value is None and known[name] is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ModelFault(f"separator.{name}: expected a number (got {value!r})")
        numbers[name] = value
    try:
        return separator(**numbers)
    except ValueError as error:
        raise ModelFault(f"separator.{error}") from error
