"""How well a plane can be counted: focus, saturation, noise, padding, light, and whether it is a photograph at all.

`assess` gives the values that stand in the tables; `padding`, `unevenness`, `zero_tail` and `looks_like_mask` are behind warnings.
Label images, masks and outlines are drawn, not taken: their pixels have a few values each, with nothing in between (`is_label_map`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from cellcount_core.images.imagefile import Plane
from cellcount_core.images.normalise import Normalisation

_ROWS_AT_ONCE = 1 << 19
"""Pixels that are processed together, so that a strip needs only a few MB beside the plane."""

_SMOOTH = np.array([0.25, 0.5, 0.25], np.float32)
_REACH = 2
_SAMPLE = 1 << 16
_SIGMA_OF_MEDIAN = 1.4826
_MEDIAN_SAMPLE = 1 << 10

_BLOCK = 4
_BRIGHT_BLOCKS = 2
_SIGNAL_SIGMAS = 3.0
_ROUNDING_SIGMA = 1 / math.sqrt(12)

_PLATEAU = 16
_PLATEAU_WINDOW = 64

_PADDING_SAMPLE = 1 << 18
_PADDING_BLOCK = 8
_EQUAL_IN_PADDING = 0.05
_OF_PADDING_INSIDE = 0.05
"""A background clipped to black also has its one value among the objects. Padding does not: away from it, at most
this share of the pixels has its value."""

_ONE_IMAGE = 0.8
"""What is not padding must be one image: its largest piece is at least this share of it."""

_LIGHT_SAMPLE = 1 << 16
_LIGHT_TILES = 8
_LIGHT_QUANTILE = 0.2
_LIGHT_FIT = 0.7


_LEAST_TAIL = 0.005
"""Share of a plane. Fewer zeros at the end hardly cost an object and are no tail."""

_MOST_ZEROS = 0.01
"""Share of the pixels before the tail. If more of them are 0, zeros are part of the image."""


@dataclass(frozen=True, slots=True)
class Quality:
    """The quality of one plane.

    - `focus` (1/px, about 0.05 to 1) is the inverse width of edges; None if there is no structure to judge by.
    - `saturation` is the share of pixels at the largest value.
    - `background`, `noise` (one sigma) and `signal` (the distance from the background to the level of the objects)
      are in the plane's own units.
    - `empty` means that the signal is not above the noise.
    """

    focus: float | None
    saturation: float
    background: float
    noise: float
    signal: float
    empty: bool


def assess(plane: Plane, bit_max: int, norm: Normalisation) -> Quality:
    """The quality of a plane (H, W) of uint8, uint16 or float32.

    `bit_max` is the largest value that a pixel can have (0 if there is none), `norm` holds the plane's levels. Takes
    time in proportion to the pixels and always gives the same result.
    """
    signal = _signal(plane, norm)
    empty = _is_noise(signal, plane, norm)
    focus = None if empty else _focus(plane)
    saturation = _saturation(plane, bit_max, norm.background)
    return Quality(focus, saturation, float(norm.background), float(norm.noise), signal, empty)


def shows_nothing(part: Plane, norm: Normalisation) -> bool:
    """Whether the signal of a part (h, w) of a plane is not above the noise, by the levels `norm` of the plane; so if all its pixels are equal."""
    return bool((part == part[0, 0]).all()) or _is_noise(_signal(part, norm), part, norm)


def _is_noise(signal: float, plane: Plane, norm: Normalisation) -> bool:
    floor = max(norm.noise, _ROUNDING_SIGMA) if plane.dtype.kind in "iu" else norm.noise
    return bool(signal <= _SIGNAL_SIGMAS * floor)


def _signal(plane: Plane, norm: Normalisation) -> float:
    """The height above the background of the second-brightest 4 x 4 block after a 3 x 3 median; for dark objects, the
    depth of the second-darkest.

    A percentile would miss three nuclei in a large field. The median removes hot pixels, the mean of a block removes
    noise.
    """
    rows = max(_BLOCK, _ROWS_AT_ONCE // plane.shape[1] // _BLOCK * _BLOCK)
    brightest: list[float] = []
    sign = np.float32(-1 if norm.inverted else 1)
    for start in range(0, plane.shape[0], rows):
        low = max(0, start - 1)
        strip = cv2.medianBlur(_contiguous(plane[low : start + rows + 1]), 3)
        strip = strip[start - low :][: min(rows, plane.shape[0] - start)]
        height, width = (max(1, round(side / _BLOCK)) for side in strip.shape)
        means = sign * cv2.resize(strip, (width, height), interpolation=cv2.INTER_AREA).ravel()
        kept = min(_BRIGHT_BLOCKS, means.size)
        brightest += [float(value) for value in np.partition(means, means.size - kept)[means.size - kept :]]
    brightest.sort()
    return brightest[-min(_BRIGHT_BLOCKS, len(brightest))] - float(sign) * norm.background


def _contiguous(plane: Plane) -> NDArray[np.float32]:
    return cast("NDArray[np.float32]", np.ascontiguousarray(plane))


def _focus(plane: Plane) -> float | None:
    """sqrt(energy of the Laplacian / energy of the gradient) after a 3 x 3 binomial filter, with the share of noise
    subtracted from each.

    Both energies are classic focus measures (Laplacian and Tenengrad; Pertuz et al., Pattern Recognition 46, 2013).
    Their ratio does not depend on brightness, offset, slow changes of illumination or the number of objects; for an
    edge blurred by a Gaussian of sigma s it falls as 1 / s. The share of noise is the squared robust sigma (1.4826
    MAD) of each derivative over the plane, of which objects are the smaller part.
    """
    sums = np.zeros(3)
    rows = max(8, _ROWS_AT_ONCE // plane.shape[1])
    step = max(1, math.isqrt(plane.size // _SAMPLE))
    sampled: list[list[NDArray[np.float32]]] = [[], [], []]
    for start in range(0, plane.shape[0], rows):
        low, high = max(0, start - _REACH), min(plane.shape[0], start + rows + _REACH)
        strip = plane[low:high].astype(np.float32)
        smooth = cv2.sepFilter2D(strip, cv2.CV_32F, _SMOOTH, _SMOOTH, borderType=cv2.BORDER_REFLECT_101)
        own = slice(max(1, start) - low, min(start + rows, plane.shape[0] - 1) - low)
        derivatives = _derivatives(cast("NDArray[np.float32]", smooth), own)
        if derivatives[0].size:
            sums += [_squares(values) / plane.size for values in derivatives]
            for values, kept in zip(derivatives, sampled, strict=True):
                kept.append(values[::step, ::step].ravel())
    if not sampled[0]:
        return None
    detail, across, down = sums - [_noise_energy(kept) for kept in sampled]
    return math.sqrt(max(0.0, detail) / (across + down)) if across + down > 0 else None


def _derivatives(smooth: NDArray[np.float32], own: slice) -> tuple[NDArray[np.float32], ...]:
    """The Laplacian and the forward differences along x and y, in the rows `own` and all but the outer columns."""
    centre = smooth[own, 1:-1]
    across = smooth[own, 2:] - centre
    down = smooth[own.start + 1 : own.stop + 1, 1:-1] - centre
    laplacian = across + down
    laplacian += smooth[own, :-2]
    laplacian += smooth[own.start - 1 : own.stop - 1, 1:-1]
    laplacian -= 2 * centre
    return laplacian, across, down


def _squares(values: NDArray[np.float32]) -> float:
    return float(cv2.norm(values, cv2.NORM_L2SQR))


def _noise_energy(kept: list[NDArray[np.float32]]) -> float:
    return float((_SIGMA_OF_MEDIAN * _median(np.abs(np.concatenate(kept)))) ** 2)


def _median(values: NDArray[np.float32]) -> np.float32:
    """The median of n > 0 values, the same as NumPy's. To be faster, only the values near it are sorted: a sample
    gives two bounds around it, and the values outside are merely counted."""
    low_rank, rank = (values.size - 1) // 2, values.size // 2
    while values.size > 4 * _MEDIAN_SAMPLE:
        guess = np.sort(values[:: values.size // _MEDIAN_SAMPLE])
        place, apart = guess.size * rank // values.size, int(1.5 * math.sqrt(guess.size))
        low, high = guess[max(0, place - apart)], guess[min(guess.size - 1, place + apart)]
        below = int(np.count_nonzero(values < low))
        # Taken by their indices: by truth values it takes ten times as long.
        between = np.flatnonzero((values >= low) & (values <= high))
        if below > low_rank or below + between.size <= rank or between.size > values.size // 2:
            break
        values, low_rank, rank = values[between], low_rank - below, rank - below
    ordered = np.partition(values, rank)
    lower = ordered[rank] if low_rank == rank else ordered[:rank].max()
    return np.float32(np.array([lower, ordered[rank]]).mean())


def _saturation(plane: Plane, bit_max: int, background: float) -> float:
    """Share of the pixels at `bit_max`, if the brightest pixel has that value; otherwise, of those at the largest
    value if it is a plateau.

    A value above `bit_max` means that the file declares it wrongly; then too a plateau decides. A plateau (12 bits
    stored in 16, an offset added) holds at least 16 pixels, and more than the 64th of the range just below it: light
    falls off towards its largest value, while clipping piles pixels up there.
    """
    largest = float(cast("NDArray[np.float32]", plane).max())
    if 0 < bit_max == largest:
        return _at_least(plane, bit_max) / plane.size
    if largest <= background:
        return 0.0
    at_top = _at_least(plane, largest)
    if at_top < _PLATEAU:
        return 0.0
    below = _at_least(plane, largest - (largest - background) / _PLATEAU_WINDOW) - at_top
    between = _at_least(plane, background + (largest - background) / _PLATEAU_WINDOW) - at_top
    return at_top / plane.size if at_top > below and between >= _PLATEAU else 0.0


def _at_least(plane: Plane, level: float) -> int:
    rows = max(1, _ROWS_AT_ONCE // plane.shape[1])
    values = cast("NDArray[np.float32]", plane)
    return sum(
        int(np.count_nonzero(values[row : row + rows] >= level)) for row in range(0, len(values), rows)
    )


def padding(plane: Plane) -> float:
    """Share of a plane (H, W) that is padding: blocks of 8 x 8 px that all have one value, which hardly occurs
    elsewhere.

    A background clipped to black is not padding, because it also has its value between the objects. A background that
    JPEG smoothed to one value is not either, because what it leaves are many islands. Of a large plane every nth
    pixel is used.
    """
    step = max(1, math.isqrt(plane.size // _PADDING_SAMPLE))
    side = _PADDING_BLOCK
    sample = plane[::step, ::step]
    rows, columns = sample.shape[0] // side, sample.shape[1] // side
    # Neighbours are hardly ever equal in what a camera of more than 8 bits wrote: that is seen at once.
    if not rows or not columns or _equal_neighbours(sample) < _EQUAL_IN_PADDING:
        return 0.0
    blocks = sample[: rows * side, : columns * side].reshape(rows, side, columns, side)
    # Whole rows first: over both axes at once it takes ten times as long.
    lowest = blocks.min(axis=1).min(axis=2)
    constant = lowest == blocks.max(axis=1).max(axis=2)
    values, times = np.unique(lowest[constant], return_counts=True)
    if not values.size:
        return 0.0
    value = values[times.argmax()]
    padded = constant & (lowest == value)
    _, _, stats, _ = cv2.connectedComponentsWithStats((~padded).astype(np.uint8), connectivity=8)
    islands = stats[1:, cv2.CC_STAT_AREA]
    if islands.max(initial=0) < _ONE_IMAGE * islands.sum():
        return 0.0
    apart = cv2.dilate(padded.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0
    if not apart.any():
        return 0.0
    inside = float((blocks == value).mean(axis=(1, 3))[apart].mean())
    return float(padded.mean()) if inside <= _OF_PADDING_INSIDE else 0.0


def _equal_neighbours(sample: Plane) -> float:
    """Share of the pixels of (H, W) that equal the pixel before them in their row."""
    equal = sample[:, 1:] == sample[:, :-1]
    return int(np.count_nonzero(equal)) / equal.size if equal.size else 0.0


def unevenness(plane: Plane, norm: Normalisation) -> float:
    """How much the background rises across a plane (H, W), as a share of the range from background to full scale.

    The darkest fifth of each of 8 x 8 tiles (the brightest, if objects are dark) is fitted with a surface of second
    degree, which is how illumination falls off. 0 if the surface explains less than seven tenths of the variance:
    then the differences come from objects.
    """
    step = max(1, math.isqrt(plane.size // _LIGHT_SAMPLE))
    sample = plane[::step, ::step]
    rows, columns = sample.shape[0] // _LIGHT_TILES, sample.shape[1] // _LIGHT_TILES
    if min(rows, columns) < 2:
        return 0.0
    tiles = cast("NDArray[np.float32]", sample[: rows * _LIGHT_TILES, : columns * _LIGHT_TILES])
    tiles = (
        tiles.reshape(_LIGHT_TILES, rows, _LIGHT_TILES, columns).swapaxes(1, 2).reshape(_LIGHT_TILES**2, -1)
    )
    share = 1 - _LIGHT_QUANTILE if norm.inverted else _LIGHT_QUANTILE
    place = round(share * (tiles.shape[1] - 1))
    # Integers are sorted in linear time.
    ordered = (
        np.sort(tiles, axis=1, kind="stable") if tiles.dtype.kind in "iu" else np.partition(tiles, place)
    )
    levels = ordered[:, place].astype(np.float64)
    across = np.tile(np.linspace(-1, 1, _LIGHT_TILES), _LIGHT_TILES)
    down = np.repeat(np.linspace(-1, 1, _LIGHT_TILES), _LIGHT_TILES)
    terms = np.stack([np.ones_like(across), across, down, across**2, down**2, across * down], axis=1)
    surface = terms @ np.linalg.lstsq(terms, levels, rcond=None)[0]
    spread = float(np.var(levels))
    if spread <= 0 or float(np.var(levels - surface)) > (1 - _LIGHT_FIT) * spread:
        return 0.0
    return float(np.ptp(surface)) / abs(norm.range)


def zero_tail(plane: Plane) -> bool:
    """Whether a plane (H, W) ends in zeros, as it does if its file has the full size but was not written to the end.

    The last rows are zeros, and so is the end of the row before them (in a tiled image, of the last row of tiles),
    while hardly a pixel is 0 elsewhere. If the background is clipped at 0 or parts of the image are black, zeros at
    the end prove nothing. A plane of zeros only is empty and has no tail.
    """
    if plane[-1, -1] != 0 or not plane.any():
        return False
    height, width = plane.shape
    full = height - 1 - int(np.flatnonzero(plane.any(axis=1))[-1])
    last = plane[: height - full]
    columns = width - 1 - int(np.flatnonzero(last[-1])[-1])
    high = int(np.argmax(last[::-1, width - columns :].any(axis=1))) if columns else 0
    tail = full * width + high * columns
    elsewhere = plane.size - int(np.count_nonzero(plane)) - tail
    return bool(tail >= _LEAST_TAIL * plane.size and elsewhere <= _MOST_ZEROS * (plane.size - tail))


def zero_tail_of_stack(first: Plane, last: Plane) -> bool:
    """Whether a stack of planes (H, W) ends in zeros, within its last plane or with that plane. Once planes are
    joined this can no longer be seen."""
    if last.any():
        return zero_tail(last)
    return int(np.count_nonzero(first)) >= (1 - _MOST_ZEROS) * first.size


_WINDOW = 1024
_FLAT_PAIRS = 0.9
_FLAT_VALUES = 0.8

_ROWS_APART = 16
_EQUAL_NEIGHBOURS = 0.5
"""In a mask, more than this share of the pixels equal the pixel before them; in an image with noise hardly any do."""

_EDGES = 1.5
"""In a mask, at most this many pairs of neighbours differ per pixel of its pieces: 1.3 for discs of 4 px, 4 for
single pixels."""


def is_label_map(pixels: NDArray[np.generic]) -> bool | None:
    """Whether the pixels, (H, W) or (H, W, 3) in colour, are pieces of one value each on a background of one value.
    None if there is only one value.

    Only the middle (1024 px) is used. Masks and their outlines are label maps too. A photograph is not, however dark
    or overexposed: at the edges of its objects it has values between theirs and the background's.
    """
    return _flat(_codes(pixels))


def looks_like_mask(plane: Plane) -> bool:
    """Whether a plane (H, W) that is to be counted is in truth a label image or a mask: a label map with solid
    pieces.

    For most images every sixteenth row suffices to say no. Grains of two values, as in dim 8-bit images, are no solid
    pieces.
    """
    rows = plane[::_ROWS_APART]
    if np.count_nonzero(rows[:, 1:] == rows[:, :-1]) < _EQUAL_NEIGHBOURS * rows[:, 1:].size:
        return False
    codes = _codes(plane)
    pieces = int(np.count_nonzero(codes != _background(codes)))
    edges = sum(
        int(np.count_nonzero(one != other))
        for one, other in ((codes[:, :-1], codes[:, 1:]), (codes[:-1], codes[1:]))
    )
    return edges <= _EDGES * pieces and _flat(codes) is True


def _flat(codes: NDArray[np.int64]) -> bool | None:
    """Whether equal values lie together, away from the background. None if there is only background, or only single
    pixels."""
    background = _background(codes)
    inside: list[NDArray[np.int64]] = []
    equal: list[NDArray[np.int64]] = []
    for one, other in ((codes[:, :-1], codes[:, 1:]), (codes[:-1], codes[1:])):
        both = (one != background) & (other != background)
        inside.append(one[both])
        equal.append(one[both & (one == other)])
    pairs, same = (np.bincount(np.concatenate(each), minlength=codes.max() + 1) for each in (inside, equal))
    if not pairs.any():
        return None
    shown = pairs > 0
    flat = same[shown] >= 0.5 * pairs[shown]
    return bool(same.sum() >= _FLAT_PAIRS * pairs.sum() and flat.mean() >= _FLAT_VALUES)


def _background(codes: NDArray[np.int64]) -> int:
    return int(np.bincount(codes.ravel()).argmax())


def _codes(pixels: NDArray[np.generic]) -> NDArray[np.int64]:
    """The middle of the pixels, with each value replaced by its rank."""
    top, left = (max(0, (side - _WINDOW) // 2) for side in pixels.shape[:2])
    middle = pixels[top : top + _WINDOW, left : left + _WINDOW]
    if middle.ndim == 3:
        red, green, blue = (middle[:, :, number].astype(np.int64) for number in range(3))
        middle = red << 40 | green << 20 | blue
    _, ranks = np.unique(middle, return_inverse=True)
    return np.asarray(ranks, np.int64).reshape(middle.shape[:2])
