"""How unlike the images that a model was trained on a field is: a distance in a few features, from 0 to 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

TYPICAL = 0.5
"""The unlikeness of an image at the edge of what is typical of the training images."""


def is_out_of_domain(unlike: float | None) -> bool:
    """Whether an image is less like the training images than all but a fortieth of them are; not so where that is not known."""
    return unlike is not None and unlike > TYPICAL


@dataclass(frozen=True, slots=True)
class Domain:
    """The training images in feature space: their mean (F,), the inverse of their covariance (F, F).

    `typical` is the squared distance that all but a fortieth of held-out training images stay below.
    """

    features: tuple[str, ...]
    mean: tuple[float, ...]
    precision: tuple[tuple[float, ...], ...]
    typical: float

    def unlikeness(self, values: Sequence[float]) -> float:
        """d / (d + typical) with d the squared Mahalanobis distance: 0 at the mean, 0.5 at the edge of what is typical."""
        apart = [value - mean for value, mean in zip(values, self.mean, strict=True)]
        distance = sum(
            a * sum(p * b for p, b in zip(row, apart, strict=True))
            for a, row in zip(apart, self.precision, strict=True)
        )
        distance = max(0.0, distance)
        return distance / (distance + self.typical)
