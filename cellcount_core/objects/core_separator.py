"""The separator of networks with heads for touching nuclei: `cores.py` behind the common interface."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellcount_core.objects.cores import CoreParams, parse_params, separate
from cellcount_core.objects.protocol import FieldParams

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
