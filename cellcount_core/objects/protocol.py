"""What every separator promises: whole-field parameters first, then label images of any window of the field."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


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
