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
from cellcount_core.objects.cores import CoreParams, parse_params, separate
from cellcount_core.objects.labels import drop_small
from cellcount_core.objects.watershed import histogram, part_at_necks, reach_of, signal_threshold


@dataclass(frozen=True, slots=True)
class FieldParams:
    """What a separator learned from a whole field before any window of it is separated.

    `threshold` is the level of map 0 above which a pixel is foreground; None where the field holds no signal.
    """

    threshold: float | None


class Separator(Protocol):
    """Turns maps into objects.

    `reach` (px) says how far a label looks: the partition at a pixel depends on the maps within `reach` of it and on the
    objects that touch its own. `blocks.py` widens a window until everything it owns is out of reach of the window's edge.
    """

    @property
    def reach(self) -> int:
        """Distance in px at which the end of a window can still change a label."""
        ...

    @property
    def outline(self) -> float | None:
        """Level of map 0 that separated objects are drawn to (see outline.py); None: they are drawn as they are separated."""
        ...

    def fit(self, tiles: Iterable[NDArray[np.float32]]) -> FieldParams:
        """Statistics of a whole field from its maps (h, w, K), each pixel given once, cut in any way."""
        ...

    def separate(self, maps: NDArray[np.float32], params: FieldParams) -> NDArray[np.int32]:
        """Label image (H, W) of maps (H, W, K): 0 is background, 1..n are objects in raster order of their first pixel."""
        ...


@dataclass(frozen=True, slots=True)
class ComponentsSeparator:
    """8-connected components of map 0 above `threshold`; those below `min_area` px are dropped. Background is not counted.

    Raises ValueError for a threshold outside 0..1 or a negative area.
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
        """Objects are drawn as they are separated."""

    def fit(self, tiles: Iterable[NDArray[np.float32]]) -> FieldParams:
        """The package's threshold: nothing is learned from the field."""
        return FieldParams(self.threshold)

    def separate(self, maps: NDArray[np.float32], params: FieldParams) -> NDArray[np.int32]:
        """Label image (H, W) int32 of maps (H, W, K)."""
        if params.threshold is None or maps.size == 0:
            return np.zeros(maps.shape[:2], np.int32)
        foreground = (maps[..., 0] > params.threshold).astype(np.uint8)
        _, labels = cv2.connectedComponents(foreground, connectivity=8, ltype=cv2.CV_32S)
        return drop_small(labels.astype(np.int32, copy=False), self.min_area)


_REACH = 64
"""Px at the model's scale, where objects are some 8 to 50 px wide: a pixel's nearest core is nearer than that."""


@dataclass(frozen=True, slots=True)
class CoresSeparator:
    """Cores found by the network, grown over the foreground."""

    fitted: CoreParams

    @classmethod
    def from_spec(cls, given: Mapping[str, object]) -> CoresSeparator:
        """Take the fitted numbers from a package. Raises ModelFault for what is unknown or not a finite number."""
        return cls(parse_params(given))

    @property
    def reach(self) -> int:
        """How far the end of a window can change a label."""
        return _REACH

    @property
    def outline(self) -> float | None:
        """Probability that objects are drawn to."""
        return self.fitted.outline

    def fit(self, tiles: Iterable[NDArray[np.float32]]) -> FieldParams:
        """The foreground level: nothing is learned from the field, the rest was fitted when the network was trained."""
        return FieldParams(self.fitted.foreground)

    def separate(self, maps: NDArray[np.float32], params: FieldParams) -> NDArray[np.int32]:
        """Label image (H, W) int32 of maps (H, W, K)."""
        if params.threshold is None:
            return np.zeros(maps.shape[:2], np.int32)
        return separate(maps, self.fitted)


@dataclass(frozen=True, slots=True)
class WatershedSeparator:
    """Separator of the `threshold` family; map 0 is the smoothed normalised intensity.

    `floor`, `valley`, `correction`: see `signal_threshold`. `depth` is how far below the lower of two peaks, relative to
    it, the pass must lie for the two to be two objects. `max_radius` (px): wider necks are never parted. `min_area` in px.
    Raises ValueError for a value out of its range.
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
        """The longest distance measured, plus the smoothing and one ring of neighbours."""
        return reach_of(self.max_radius)

    @property
    def outline(self) -> None:
        """Objects are drawn as they are separated."""

    def fit(self, tiles: Iterable[NDArray[np.float32]]) -> FieldParams:
        """The field's threshold; None where it holds no signal."""
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


_Kind = TypeVar("_Kind", ComponentsSeparator, WatershedSeparator)

KINDS = ("components", "cores", "watershed")
"""What `separator.kind` may say."""


def build_separator(spec: Mapping[str, object]) -> Separator:
    """The separator that a package's `separator` section asks for.

    Raises ModelFault for an unknown kind or parameter (with the nearest known one) and for a value out of its range.
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
    """A package's `separator` section that keeps no small parts of objects at the edge of an image."""
    return {name: value for name, value in spec.items() if name != "edge_area"}


def _build(separator: type[_Kind], given: Mapping[str, object]) -> _Kind:
    known = [field.name for field in fields(separator)]
    numbers: dict[str, float] = {}
    for name, value in given.items():
        if name not in known:
            raise ModelFault(f"separator.{name}: no such parameter{nearest(name, known)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ModelFault(f"separator.{name}: expected a number (got {value!r})")
        numbers[name] = value
    try:
        return separator(**numbers)
    except ValueError as error:
        raise ModelFault(f"separator.{error}") from error
