"""Objects are the connected components of the foreground: the post-processor of the seed's network."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cellcount_core.objects.labels import drop_small
from cellcount_core.objects.protocol import FieldParams


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
