"""Mergeable moments of a measurement: n, mean, sum of squared deviations, minimum, maximum.

Merging is the pairwise update of Chan, Golub and LeVeque (1979), so that wells and plates are computed from fields without
reading objects again. Merging in key order gives the same bits whatever the cut into parts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Moments:
    """n values with their mean, sum of squared deviations `m2`, minimum and maximum (nan where n is 0)."""

    n: int = 0
    mean: float = math.nan
    m2: float = math.nan
    low: float = math.nan
    high: float = math.nan

    @property
    def sd(self) -> float:
        """Sample standard deviation (n - 1); nan below two values."""
        return math.sqrt(self.m2 / (self.n - 1)) if self.n > 1 else math.nan

    def merge(self, other: Moments) -> Moments:
        """The moments of both samples together."""
        if other.n == 0:
            return self
        if self.n == 0:
            return other
        n = self.n + other.n
        delta = other.mean - self.mean
        return Moments(
            n,
            self.mean + delta * (other.n / n),
            self.m2 + other.m2 + delta * delta * (self.n * other.n / n),
            min(self.low, other.low),
            max(self.high, other.high),
        )
