"""Intervals: of a count, by how far the truth lay from counts of images that did not train, and of a share."""

from __future__ import annotations

import math
from dataclasses import dataclass

_Z95 = 1.959963984540054
"""Standard deviations that hold 95 % of a normal distribution."""


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


def wilson(hits: int, trials: int) -> tuple[float, float] | None:
    """The 95 % interval of a share (Wilson 1927), which stays within 0..1 and is wide where trials are few; None without trials."""
    if trials <= 0:
        return None
    share, z2 = hits / trials, _Z95**2
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z95 * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2)) / (1 + z2 / trials)
    return max(0.0, middle - half), min(1.0, middle + half)
