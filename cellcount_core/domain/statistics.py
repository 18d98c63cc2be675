"""Small statistics in plain Python: moments that can be merged, the intervals of counts and shares, and distance from the training images.

Moments are merged by the pairwise update of Chan, Golub and LeVeque (1979), so wells and plates are computed from fields without reading
objects again. Merging in key order gives the same bits however a run is cut into parts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Moments:
    """n values: their mean, sum of squared deviations `m2`, minimum and maximum (nan if n is 0)."""

    n: int = 0
    mean: float = math.nan
    m2: float = math.nan
    low: float = math.nan
    high: float = math.nan

    @property
    def sd(self) -> float:
        """Sample standard deviation (n - 1); nan for less than two values."""
        return math.sqrt(self.m2 / (self.n - 1)) if self.n > 1 else math.nan

    def merge(self, other: Moments) -> Moments:
        """The moments of both samples taken together."""
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


_Z95 = 1.959963984540054
"""Standard deviations that hold 95 % of a normal distribution."""


@dataclass(frozen=True, slots=True)
class CountInterval:
    """Split-conformal interval (Vovk et al. 2005; Lei et al. 2018) around a count.

    A residual is (true - counted) / spread(counted). `low` and `high` are quantiles of the residuals of `images` held-out images, chosen so
    that a share `level` of images like them lies between. `relative` is the part of the spread that grows with the count.
    """

    level: float
    relative: float
    low: float
    high: float
    images: int

    def around(self, count: int) -> tuple[float, float]:
        """Both ends of the interval around a field's `count` of objects, neither below 0.

        >>> low, high = CountInterval(level=0.9, relative=0.1, low=-1.0, high=1.5, images=40).around(3)
        >>> round(low, 2), round(high, 2)
        (0.98, 6.03)
        """
        unit = spread(count, self.relative)
        return max(0.0, count + self.low * unit), max(0.0, count + self.high * unit)


def spread(count: float, relative: float) -> float:
    """sqrt(1 + n + (relative n)^2). The error of a small count grows with its root, the error of a large one with the count itself."""
    return math.sqrt(1.0 + count + (relative * count) ** 2)


def wilson(hits: int, trials: int) -> tuple[float, float] | None:
    """The 95 % interval of the share hits / trials (Wilson 1927); None without trials. It stays within 0 to 1 and is wide for few trials.

    >>> low, high = wilson(90, 100)
    >>> round(low, 3), round(high, 3)
    (0.826, 0.945)
    """
    if trials <= 0:
        return None
    share, z2 = hits / trials, _Z95**2
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z95 * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2)) / (1 + z2 / trials)
    # Of none and of all the end is known exactly; computed, it would miss it by rounding.
    return (0.0 if hits == 0 else middle - half), (1.0 if hits == trials else middle + half)


TYPICAL = 0.5
"""The unlikeness of an image at the edge of what is typical of the training images."""


def is_out_of_domain(unlike: float | None) -> bool:
    """Whether an image is less like the training images than all but a fortieth of them are; not so where that is not known."""
    return unlike is not None and unlike > TYPICAL


@dataclass(frozen=True, slots=True)
class TrainingDomain:
    """The training images in feature space: their mean (F,) and the inverse of their covariance (F, F).

    `typical` is the squared distance below which all but a fortieth of held-out training images lie.
    """

    features: tuple[str, ...]
    mean: tuple[float, ...]
    precision: tuple[tuple[float, ...], ...]
    typical: float

    def unlikeness(self, values: Sequence[float]) -> float:
        """d / (d + typical), where d is the squared Mahalanobis distance of `values` (F,) from the mean.

        It is 0 at the mean, 0.5 at the edge of what is typical, and approaches 1 far from it. Raises ValueError if there are not F values.
        """
        apart = [value - mean for value, mean in zip(values, self.mean, strict=True)]
        distance = sum(
            a * sum(p * b for p, b in zip(row, apart, strict=True))
            for a, row in zip(apart, self.precision, strict=True)
        )
        distance = max(0.0, distance)
        return distance / (distance + self.typical)
