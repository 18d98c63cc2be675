"""Fitted after training, whatever the task: the interval of a count, and the domain of the training images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.statistics import CountInterval, TrainingDomain, spread

LEVEL = 0.9

_FEWEST = 20
"""With fewer images than this no interval is stated: its ends would be the extremes."""

_RELATIVE = (0.0, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3)
_SHRINKAGE = 0.1
_TYPICAL = 0.975


def fit_interval(true: Sequence[int], counted: Sequence[int], level: float = LEVEL) -> CountInterval | None:
    """Fit the interval of counts on held-out images. None for fewer than 20 of them.

    The growing part of the spread is the one that makes the residuals most alike (Gaussian likelihood). The ends are
    the conformal quantiles of rank floor((n + 1) a / 2) and ceil((n + 1) (1 - a / 2)) with a = 1 - level.
    """
    if len(true) < _FEWEST:
        return None
    errors = np.asarray(true, np.float64) - np.asarray(counted, np.float64)
    relative = min(_RELATIVE, key=lambda share: _disorder(errors, counted, share))
    residuals = np.sort(errors / _spreads(counted, relative))
    n, tail = len(residuals), (1 - level) / 2
    low = max(1, math.floor((n + 1) * tail))
    high = min(n, math.ceil((n + 1) * (1 - tail)))
    return CountInterval(
        level, relative, round(float(residuals[low - 1]), 4), round(float(residuals[high - 1]), 4), n
    )


def _spreads(counted: Sequence[int], relative: float) -> NDArray[np.float64]:
    return np.array([spread(count, relative) for count in counted])


def _disorder(errors: NDArray[np.float64], counted: Sequence[int], relative: float) -> float:
    spreads = _spreads(counted, relative)
    variance = float(np.mean((errors / spreads) ** 2)) + 1e-9
    return float(np.log(spreads).mean() + 0.5 * np.log(variance))


def fit_domain(
    features: tuple[str, ...], training: Sequence[tuple[float, ...]], held_out: Sequence[tuple[float, ...]]
) -> TrainingDomain | None:
    """Fit the training domain to the values that images have of the named features. None for fewer than 20 images in all.

    Mean and covariance are those of all the images, with each feature's variance raised by a tenth. What is typical
    is judged by the held-out images alone.
    """
    values = np.array([*training, *held_out], np.float64)
    if len(values) < _FEWEST:
        return None
    covariance = np.cov(values, rowvar=False)
    precision = np.linalg.inv(
        covariance + _SHRINKAGE * np.diag(np.diag(covariance)) + 1e-9 * np.eye(len(features))
    )
    mean = values.mean(axis=0)
    apart = np.array(held_out or training, np.float64) - mean
    distances = np.einsum("ij,jk,ik->i", apart, precision, apart)
    return TrainingDomain(
        features,
        tuple(round(float(value), 6) for value in mean),
        tuple(tuple(round(float(value), 6) for value in row) for row in precision),
        round(float(np.quantile(distances, _TYPICAL)), 4),
    )
