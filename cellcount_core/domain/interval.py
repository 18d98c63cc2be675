"""The interval of a count: how far the truth lay from counts of images that did not train."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CountInterval:
    """Split-conformal interval (Vovk et al. 2005; Lei et al. 2018) around a count.

    A residual is (true - counted) / spread(counted). `low` and `high` are its quantiles on `images` held-out images, such
    that a share `level` of images like them lies between. `relative` is the part of the spread that grows with the count.
    """

    level: float
    relative: float
    low: float
    high: float
    images: int

    def around(self, count: int) -> tuple[float, float]:
        """The interval of a field in which `count` objects were counted; its low end is not below 0."""
        unit = spread(count, self.relative)
        return max(0.0, count + self.low * unit), max(0.0, count + self.high * unit)


def spread(count: float, relative: float) -> float:
    """sqrt(1 + n + (relative n)^2): counting errors of few objects go with the root of their number, of many with it."""
    return math.sqrt(1.0 + count + (relative * count) ** 2)
