"""Normalisation by the noise floor: background to 0, the bright end of the objects to 1, noise never to full scale.

Percentile stretching turns the noise of an empty image into objects and loses the few objects of a sparse one. Here the
range of an image is at least `floor_sigmas` times its own noise, and what is brighter than the range is compressed, not cut.
Where objects are darker than the background (inverted contrast, stains on white) the range is negative: they come out bright.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.scales import Polarity
from cellcount_core.images.debris import RUNG, Debris, View

_SAMPLE = 1 << 20
"""Pixels an estimate looks at, at most."""

_NOISE_SAMPLE = 1 << 15
"""Pairs of pixels that noise is measured on, at most, for each distance and direction."""

_LAGS = (1, 2, 4)
"""Distances (px) over which noise is measured: blurred or compressed noise shows only at the longer ones."""

_QUANTILES = (0.5, 0.7, 0.85, 0.95, 0.99)
"""Of the differences; the first that is above 0 tells the noise, since most pixels of a quantised image may be equal."""

_MOST_NOISE = 0.5
"""Sigma of noise, of the distance from the dark end to the bright end, at most: 0.18 for Gaussian noise, 0.29 for a uniform one."""

_LOW_SHARE = 0.6
"""The background is looked for among this share of the pixels, the darkest."""

_MODE_SHARE = 0.1
"""Share of the pixels whose narrowest range of values is the background."""

_SIGNAL_SHARE = 0.9
"""Quantile, of the pixels above the noise floor, that is full scale where objects are few."""

_TAKEN_APART = 12
"""How often what is brightest may be set aside: each time full scale falls, from 65,535 to noise in eleven thirds."""

_PROVEN = 2.0
"""Times by which full scale must fall for what was set aside to be debris; nearer, it stays as it was."""

_Raw = TypeVar("_Raw", bound=np.generic)

_LOWEST = -1.0

_BYTES = np.arange(256, dtype=np.uint8)
"""Every value of 8 bits: what is worked out for them is worked out for each of an image's pixels."""

_DARK_SHARE = 0.005
"""Quantile that tells how far an image reaches below its background."""


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Levels of one plane in raw units: `background`, `range` and `noise` (one sigma).

    `range` leads from the background to full scale: above 0 where objects are brighter than the background, below 0 where
    they are darker. `debris` is what was set aside since it is far brighter than the objects; None in most planes.
    """

    background: float
    range: float
    noise: float
    debris: Debris | None = None

    @property
    def inverted(self) -> bool:
        """Whether objects are darker than the background."""
        return self.range < 0


def estimate(
    plane: NDArray[np.generic],
    *,
    percentile: float = 99.8,
    floor_sigmas: float = 12.0,
    polarity: Polarity = "bright",
) -> Normalisation:
    """Levels of a whole plane (H, W) of any integer or float type, finite values.

    The plane is looked at on a regular grid of about a million pixels at most, so time and memory are bounded and the
    result is the same every time. `background` is the centre of the densest tenth of the lower pixels, `noise` the robust
    sigma of differences between near pixels of the darker half, and `range` the `percentile` above the background, or the
    level of what rises above the noise floor where that is less than the percentile leaves, but no less than
    `floor_sigmas` * `noise`. For dark objects all of that is done on the negative. With `polarity` "auto" an image counts as
    dark where its darkest half percent lies further below the background than its bright end lies above it, and further
    than the noise floor.

    Raises ValueError where the plane has not two axes or has no pixel.
    """
    if plane.ndim != 2 or plane.size == 0:
        raise ValueError(f"a plane of shape (H, W) with at least one pixel is expected (got {plane.shape})")
    values = _ordered_sample(plane)
    if polarity != "dark":
        bright = _levels(plane, values, percentile, floor_sigmas)
        below = bright.background - _quantile(values, _DARK_SHARE)
        if polarity == "bright" or below <= _quantile(values, percentile / 100.0) - bright.background:
            return bright
    dark = _levels(-plane.astype(np.float32), -values[::-1], percentile, floor_sigmas)
    # The noise is that of the background, which is the brighter half if objects are dark.
    if polarity == "auto" and below <= floor_sigmas * dark.noise:
        return bright
    return Normalisation(-dark.background, -dark.range, dark.noise, dark.debris)


def _levels(
    plane: NDArray[np.generic], values: NDArray[np.float64], percentile: float, floor_sigmas: float
) -> Normalisation:
    reach = _quantile(values, percentile / 100.0) - _quantile(values, _DARK_SHARE)
    noise = _noise(plane, float(values[len(values) // 2]), reach)
    floor = floor_sigmas * noise
    background, span = _scale(values, percentile, floor)
    first = Normalisation(background, span if span > 0 else 1.0, noise)
    view = View(plane)
    aside: NDArray[np.bool_] | None = None
    for _ in range(_TAKEN_APART):
        found = view.apart(background, span, floor)
        if found is None:
            break
        aside = found
        background, span = _scale(_rest(plane, view, aside, background + span / RUNG), percentile, floor)
    if aside is None or first.range < _PROVEN * span:
        return first
    return Normalisation(background, span, noise, view.debris(background, span))


def _scale(values: NDArray[np.float64], percentile: float, floor: float) -> tuple[float, float]:
    """Background and full scale above it, of values in ascending order, given how far above it noise reaches."""
    background = _background(values)
    bright = _quantile(values, percentile / 100.0) - background
    signal = values[np.searchsorted(values, background + floor, side="right") :]
    if signal.size:
        # Few objects in a large field all lie above the percentile: their own level is the scale then.
        bright = max(bright, _quantile(signal, _SIGNAL_SHARE) - background)
    return background, max(bright, floor)


def _rest(
    plane: NDArray[np.generic], view: View, aside: NDArray[np.bool_], level: float
) -> NDArray[np.float64]:
    """The ordered sample without what is set aside and its halo, and without the hot pixels above the level."""
    down, across = _steps(plane.shape, _SAMPLE)
    sample = plane[::down, ::across]
    kept = np.less_equal(sample, level)
    kept &= ~view.near(aside, down, across, sample.shape)
    return _ascending(sample[kept]).astype(np.float64)


def apply(tile: NDArray[np.generic], norm: Normalisation) -> NDArray[np.float32]:
    """Normalised copy of a tile of any shape: float32, 0 at the background, linear from -1 to 1, then 1 + log(x).

    What the objects are is above 0, whether they are brighter than the background or darker.
    """
    if tile.dtype == np.uint8 and tile.size > _BYTES.size:
        found = cv2.LUT(tile.view(np.uint8), apply(_BYTES, norm))
        return np.asarray(found, np.float32).reshape(tile.shape)
    linear = (tile.astype(np.float64) - norm.background) / norm.range
    return compress(linear.astype(np.float32))


def without_debris(plane: NDArray[_Raw], norm: Normalisation) -> NDArray[_Raw]:
    """The plane (H, W) as objects are looked for in it: hot pixels taken for their neighbours' median, all else that is far
    brighter than objects no brighter than `RUNG` times full scale. The plane itself where its levels tell of no debris.

    A pixel depends on its eight neighbours alone.
    """
    if norm.debris is None:
        return plane
    top = norm.background + RUNG * norm.range
    limit, dark = np.asarray(top).astype(plane.dtype), norm.inverted
    calm = np.empty_like(plane)
    rows = max(1, _SAMPLE // plane.shape[1])
    for start in range(0, plane.shape[0], rows):
        low, end = max(0, start - 1), min(start + rows, plane.shape[0])
        strip = np.ascontiguousarray(plane[low : end + 1])
        median = cv2.medianBlur(strip, 3)[start - low : end - low]
        own = strip[start - low : end - low]
        far = own < top if dark else own > top
        calm[start:end] = np.where(far, np.maximum(median, limit) if dark else np.minimum(median, limit), own)
    return calm


def compress(linear: NDArray[np.float32]) -> NDArray[np.float32]:
    """The compression of `apply` on values that are already 0 at the background and 1 at full scale (in place)."""
    np.maximum(linear, np.float32(_LOWEST), out=linear)
    bright = linear > 1
    linear[bright] = 1 + np.log(linear[bright])
    return linear


def _steps(shape: tuple[int, ...], count: int) -> tuple[int, int]:
    step = int(np.ceil(np.sqrt(max(1.0, shape[0] * shape[1] / count))))
    return min(step, shape[0]), min(step, shape[1])


def _quantile(ordered: NDArray[np.float64], share: float) -> float:
    return float(ordered[min(len(ordered) - 1, int(len(ordered) * share))])


def _ordered_sample(plane: NDArray[np.generic]) -> NDArray[np.float64]:
    down, across = _steps(plane.shape, _SAMPLE)
    sample = plane[::down, ::across]
    if sample.dtype == np.uint8:
        return np.repeat(_BYTES.astype(np.float64), _held(np.ascontiguousarray(sample)))
    return _ascending(sample).astype(np.float64)


def _ascending(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """All values in ascending order, in their own type: integers of 8 and 16 bits in linear time, which "stable" is for them."""
    small = values.dtype.kind in "iu" and values.dtype.itemsize <= 2
    return np.sort(values, axis=None, kind="stable" if small else None)


def _held(values: NDArray[np.uint8]) -> NDArray[np.intp]:
    """How often each value of 8 bits occurs in (H, W): (256,)."""
    # OpenCV counts in float32, which holds every number up to 2^24: more than a sample has pixels.
    return cv2.calcHist([values], [0], None, [256], [0, 256]).ravel().astype(np.intp)


def _background(ordered: NDArray[np.float64]) -> float:
    low = ordered[: max(1, int(len(ordered) * _LOW_SHARE))]
    width = max(1, int(len(ordered) * _MODE_SHARE))
    if width >= len(low):
        return _middle(low)
    spans = low[width:] - low[:-width]
    start = int(np.argmin(spans))
    return _middle(low[start : start + width + 1])


def _middle(ordered: NDArray[np.float64]) -> float:
    return float(ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def _noise(plane: NDArray[np.generic], median: float, reach: float) -> float:
    by_lag = [
        max(_sigma_of_differences(plane, lag, axis, median) for axis in (0, 1) if plane.shape[axis] > lag)
        for lag in _LAGS
        if lag < max(plane.shape)
    ]
    found = max(by_lag, default=0.0)
    if found > _MOST_NOISE * reach and by_lag[0] < found / 2:
        # No noise is wider than the image's own reach. These are the edges of objects that lie as close as the pixels compared,
        # and neighbours are alike within them.
        found = by_lag[0]
    # Where most of the background is cut off at 0, no two dark pixels differ: what stands out of its neighbours tells.
    return found if found > 0 else max(_sigma_of_spikes(plane), _sigma_of_spikes(plane.T))


def _sigma_of_spikes(plane: NDArray[np.generic]) -> float:
    """Sigma of what a median of three pixels in a row takes away; edges and plateaus of objects pass it unchanged."""
    if plane.shape[1] < 3:
        return 0.0
    down, across = _steps(plane.shape, _NOISE_SAMPLE)
    left, middle, right = (
        plane[::down, at : plane.shape[1] - 2 + at : across].astype(np.float64) for at in range(3)
    )
    median = np.maximum(np.minimum(left, middle), np.minimum(np.maximum(left, middle), right))
    spikes = np.sort(np.abs(middle - median), axis=None)
    return max(_quantile(spikes, share) / NormalDist().inv_cdf((1 + share) / 2) for share in _QUANTILES)


def _sigma_of_differences(plane: NDArray[np.generic], lag: int, axis: int, median: float) -> float:
    down, across = _steps(plane.shape, _NOISE_SAMPLE)
    first, second = (plane[:-lag], plane[lag:]) if axis == 0 else (plane[:, :-lag], plane[:, lag:])
    one, two = first[::down, ::across], second[::down, ::across]
    at = _differences_of_bytes if plane.dtype == np.uint8 else _differences
    for share, value in zip(_QUANTILES, at(one, two, median), strict=False):
        if value > 0:
            return float(value) / (math.sqrt(2.0) * NormalDist().inv_cdf((1 + share) / 2))
    return 0.0


def _differences(
    first: NDArray[np.generic], second: NDArray[np.generic], median: float
) -> NDArray[np.generic]:
    """The `_QUANTILES` of how far two values lie apart, over the pairs of (H, W) whose mean is no more than `median`; none
    where there is no such pair."""
    one, two = _wide(first), _wide(second)
    # Of two Gaussian values sum and difference are independent: choosing dark pairs by their sum leaves sigma unbiased.
    # Taken by their indices: by truth values it takes several times as long.
    apart = np.abs(one - two).ravel()[np.flatnonzero(one + two <= 2 * median)]
    ordered = _ascending(apart if apart.dtype.kind == "f" else apart.astype(np.uint16))
    return ordered[[int(share * ordered.size) for share in _QUANTILES]] if ordered.size else ordered


def _differences_of_bytes(
    first: NDArray[np.generic], second: NDArray[np.generic], median: float
) -> NDArray[np.generic]:
    """The same of values of 8 bits, without sorting them."""
    one, two = np.ascontiguousarray(first), np.ascontiguousarray(second)
    bright = np.add(one, two, dtype=np.uint16) > int(2 * median)
    # Counting among some takes five times as long as counting all: the others go to the last value, and are taken off there.
    below = np.cumsum(_held(cv2.absdiff(one, two) | np.negative(bright.view(np.uint8))))
    below[-1] -= np.count_nonzero(bright)
    ranks = [int(share * below[-1]) for share in _QUANTILES] if below[-1] else []
    return np.searchsorted(below, ranks, side="right")


def _wide(values: NDArray[np.generic]) -> NDArray[np.int32] | NDArray[np.float64]:
    """A type in which sums and differences are exact: int32 for integers of 8 and 16 bits, float64 for the rest."""
    small = values.dtype.kind in "iu" and values.dtype.itemsize <= 2
    return values.astype(np.int32) if small else values.astype(np.float64)
