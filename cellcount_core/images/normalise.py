"""Normalisation of a plane by its noise: the background becomes 0, the bright end of the objects 1, and noise never
reaches full scale.

Stretching between percentiles would turn the noise of an empty image into objects, and lose the few objects of a
sparse one. Here the range of an image is at least `floor_sigmas` times its own noise, and pixels brighter than the
range are compressed, not cut off. If objects are darker than the background (inverted contrast, stains on white) the
range is negative, so that they come out bright.
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
from cellcount_core.images.debris import RUNG, Debris, DebrisView

_SAMPLE = 1 << 20
"""Most pixels that an estimate uses."""

_NOISE_SAMPLE = 1 << 15
"""Most pairs of pixels from which noise is measured, for each distance and direction."""

_LAGS = (1, 2, 4)
"""Distances (px) over which noise is measured: blurred or compressed noise shows only at the longer ones."""

_QUANTILES = (0.5, 0.7, 0.85, 0.95, 0.99)
"""Quantiles of the differences. The first one above 0 gives the noise, since most pixels of an image with few grey
levels may be equal."""

_MOST_NOISE = 0.5
"""Largest possible sigma of noise, as a share of the distance from the dark end to the bright end: it is 0.18 for
Gaussian noise and 0.29 for uniform noise."""

_LOW_SHARE = 0.6
"""The background is searched for in this share of the pixels, the darkest ones."""

_MODE_SHARE = 0.1
"""The background is the narrowest range of values that holds this share of the pixels."""

_SIGNAL_SHARE = 0.9
"""If objects are few, full scale is this quantile of the pixels above the noise."""

_TAKEN_APART = 12
"""How often the brightest pieces may be set aside. Each time full scale falls to a third: eleven times lead from
65,535 down to noise."""

_PROVEN = 2.0
"""Pieces that were set aside are debris only if full scale falls by at least this factor; otherwise it stays as it
was."""

_Raw = TypeVar("_Raw", bound=np.generic)

_LOWEST = -1.0
"""The least normalised value."""

_BYTES = np.arange(256, dtype=np.uint8)
"""Every 8-bit value. What is computed once for these serves all pixels of an 8-bit image."""

_DARK_SHARE = 0.005
"""The quantile that tells how far an image reaches below its background."""


@dataclass(frozen=True, slots=True)
class Normalisation:
    """The levels of one plane, in its own units: `background`, `range` and `noise` (one sigma).

    `range` is the distance from the background to full scale: positive if objects are brighter than the background,
    negative if they are darker. `debris` is what was set aside because it is far brighter than the objects; None for
    most planes.
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
    """The levels of a whole plane (H, W) of any integer or float type with finite values.

    At most about a million pixels on a regular grid are used, so time and memory are bounded and the result is always
    the same.

    - `background` is the centre of the narrowest range of values that holds a tenth of the pixels, among the darker
      ones.
    - `noise` is the robust sigma of the differences between nearby pixels in the darker half.
    - `range` reaches from the background to the `percentile`, or to the level of what stands above the noise if that
      is higher; it is at least `floor_sigmas` * `noise`.

    For dark objects (`polarity` "dark") this is computed on the negative. With "auto" an image is dark if its darkest
    half percent lies further below the background than its bright end lies above it, and further than the noise
    reaches.

    Raises ValueError if the plane does not have two axes, or has no pixel.
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
    view = DebrisView(plane)
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
    """The background, and the distance from it to full scale. `values` are in ascending order; noise reaches up to
    `floor` above the background."""
    background = _background(values)
    bright = _quantile(values, percentile / 100.0) - background
    signal = values[np.searchsorted(values, background + floor, side="right") :]
    if signal.size:
        # Few objects in a large field all lie above the percentile: their own level is the scale then.
        bright = max(bright, _quantile(signal, _SIGNAL_SHARE) - background)
    return background, max(bright, floor)


def _rest(
    plane: NDArray[np.generic], view: DebrisView, aside: NDArray[np.bool_], level: float
) -> NDArray[np.float64]:
    """The pixels of the sample, in ascending order, without those set aside, those in their halo, and hot pixels
    above `level`."""
    down, across = _steps(plane.shape, _SAMPLE)
    sample = plane[::down, ::across]
    kept = np.less_equal(sample, level)
    kept &= ~view.near(aside, down, across, sample.shape)
    return _ascending(sample[kept]).astype(np.float64)


def apply(tile: NDArray[np.generic], norm: Normalisation) -> NDArray[np.float32]:
    """The normalised pixels of a tile of any shape, as a float32 copy: 0 at the background, linear from -1 to 1,
    above that 1 + log(x).

    Objects are above 0, whether they are brighter or darker than the background.
    """
    if tile.dtype == np.uint8 and tile.size > _BYTES.size:
        found = cv2.LUT(tile.view(np.uint8), apply(_BYTES, norm))
        return np.asarray(found, np.float32).reshape(tile.shape)
    linear = (tile.astype(np.float64) - norm.background) / norm.range
    return compress(linear.astype(np.float32))


def without_debris(plane: NDArray[_Raw], norm: Normalisation) -> NDArray[_Raw]:
    """The plane (H, W) in which objects are searched: hot pixels have the median of their neighbours, and whatever
    else is far brighter than the objects is limited to `RUNG` times full scale. If the levels tell of no debris, it
    is the plane itself.

    Each pixel depends only on its eight neighbours.
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
    """The compression that `apply` uses, in place, on values that are already 0 at the background and 1 at full
    scale."""
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
    """All values in ascending order, in their own type. Integers of 8 and 16 bits are sorted in linear time, which
    "stable" does for them."""
    small = values.dtype.kind in "iu" and values.dtype.itemsize <= 2
    return np.sort(values, axis=None, kind="stable" if small else None)


def _held(values: NDArray[np.uint8]) -> NDArray[np.intp]:
    """How often each 8-bit value occurs in (H, W), as an array (256,)."""
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
    """Sigma of what a median over three pixels in a row removes. Edges and plateaus of objects pass such a median
    unchanged."""
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
    """The `_QUANTILES` of the difference between two values, over those pairs of pixels (H, W) whose mean is at most
    `median`. Empty if there is no such pair."""
    one, two = _wide(first), _wide(second)
    # Of two Gaussian values sum and difference are independent: choosing dark pairs by their sum leaves sigma unbiased.
    # Taken by their indices: by truth values it takes several times as long.
    apart = np.abs(one - two).ravel()[np.flatnonzero(one + two <= 2 * median)]
    ordered = _ascending(apart if apart.dtype.kind == "f" else apart.astype(np.uint16))
    return ordered[[int(share * ordered.size) for share in _QUANTILES]] if ordered.size else ordered


def _differences_of_bytes(
    first: NDArray[np.generic], second: NDArray[np.generic], median: float
) -> NDArray[np.generic]:
    """The same as `_differences` for 8-bit values, without sorting them."""
    one, two = np.ascontiguousarray(first), np.ascontiguousarray(second)
    bright = np.add(one, two, dtype=np.uint16) > int(2 * median)
    # Counting among some takes five times as long as counting all: the others go to the last value, and are taken off there.
    below = np.cumsum(_held(cv2.absdiff(one, two) | np.negative(bright.view(np.uint8))))
    below[-1] -= np.count_nonzero(bright)
    ranks = [int(share * below[-1]) for share in _QUANTILES] if below[-1] else []
    return np.searchsorted(below, ranks, side="right")


def _wide(values: NDArray[np.generic]) -> NDArray[np.int32] | NDArray[np.float64]:
    """The values in a type in which sums and differences are exact: int32 for integers of 8 and 16 bits, otherwise
    float64."""
    small = values.dtype.kind in "iu" and values.dtype.itemsize <= 2
    return values.astype(np.int32) if small else values.astype(np.float64)
