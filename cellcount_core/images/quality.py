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
"""Pixels looked at together: what a strip needs beside the plane stays within a few MB."""

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
"""What is clipped to black has its one value among the objects too: this part of the pixels away from padding may have padding's value."""

_ONE_IMAGE = 0.8
"""Of what is not padding, at least: one piece, the image that was padded."""

_LIGHT_SAMPLE = 1 << 16
_LIGHT_TILES = 8
_LIGHT_QUANTILE = 0.2
_LIGHT_FIT = 0.7


_LEAST_TAIL = 0.005
"""Of a plane: fewer zeros at its end are no tail, and hardly lose an object."""

_MOST_ZEROS = 0.01
"""Of the pixels before a tail: where more are 0, zeros are what the image holds."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Quality of one plane.

    `focus` (1/px, about 0.05 to 1) is the inverse width of edges, None where there is no structure to judge; `saturation`
    the part of pixels at the largest value; `background`, `noise` (one sigma) and `signal` (how far the objects' level lies
    from the background) in raw units; `empty` says that the signal does not rise above the noise.
    """

    focus: float | None
    saturation: float
    background: float
    noise: float
    signal: float
    empty: bool


def assess(plane: Plane, bit_max: int, norm: Normalisation) -> Quality:
    """Quality of a plane (H, W) of uint8, uint16 or float32.

    `bit_max` is the largest value a pixel can hold (0 where there is none), `norm` the plane's levels. Linear in pixels,
    the same result every time.
    """
    signal = _signal(plane, norm)
    floor = max(norm.noise, _ROUNDING_SIGMA) if plane.dtype.kind in "iu" else norm.noise
    empty = signal <= _SIGNAL_SIGMAS * floor
    focus = None if empty else _focus(plane)
    saturation = _saturation(plane, bit_max, norm.background)
    return Quality(focus, saturation, float(norm.background), float(norm.noise), signal, bool(empty))


def _signal(plane: Plane, norm: Normalisation) -> float:
    """The second-brightest 4 x 4 block of the 3 x 3 median, above the background; the second-darkest where objects are dark.

    A percentile would not see three nuclei in a large field; the median drops hot pixels, the block mean the noise.
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
    """sqrt(energy of the Laplacian / energy of the gradient) after a 3 x 3 binomial filter, less the noise's part in each.

    Both energies are classic focus measures (Laplacian and Tenengrad; Pertuz et al., Pattern Recognition 46, 2013). Their
    ratio cancels brightness, offset, slow illumination and the number of objects; for an edge blurred by a Gaussian of
    sigma s it falls as 1 / s. The noise's part is the squared robust sigma (1.4826 MAD) of each derivative over the plane,
    of which objects are the lesser part.
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
    """Laplacian and forward differences along x and y, over the inner columns of the rows `own`."""
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
    """The median of n > 0 values, as NumPy's: what lies beside two values that a sample puts around it is only counted."""
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
    """Part of the pixels at `bit_max`; below it, part at the image's largest value where that is a plateau.

    Where values exceed `bit_max`, what the file declares is wrong and the plateau decides. A plateau (12 bits in 16, an
    offset added) holds at least 16 pixels and more than the 64th of the range just below it:
    light falls off towards its largest value, clipping piles it up there.
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
    """Part of a plane (H, W) that is padding: blocks of 8 x 8 px of one and the same value, which what lies apart from them hardly has.

    So a background that was clipped to black is none, for it has that value between the objects too; nor is one that JPEG smoothed to one
    value, for what it leaves are islands. Of a large plane every n-th pixel is looked at.
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
    """Part of the pixels of (H, W) that have the value of the one before them in their row."""
    equal = sample[:, 1:] == sample[:, :-1]
    return int(np.count_nonzero(equal)) / equal.size if equal.size else 0.0


def unevenness(plane: Plane, norm: Normalisation) -> float:
    """How far the background rises across a plane (H, W), as a part of the range from background to full scale.

    The dark fifth of each of 8 x 8 tiles (the bright fifth, where objects are dark) is fitted by a surface of second degree, which is how
    light falls off. 0 where the surface does not explain seven tenths of what differs: then it is objects.
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
    """Whether a plane (H, W) ends in zeros as a file does that is not written to its end, though it has its full size.

    Its last rows are zeros, and of the row before (of a tiled image, of the last tiles' rows) what is written last; hardly a pixel is 0
    elsewhere. Where the background is clipped at 0, or parts of the image are black, its end may well be. A plane of zeros alone is empty.
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
    """Whether a stack of planes (H, W) ends so, in its last plane or with it: planes that are joined hide that."""
    if last.any():
        return zero_tail(last)
    return int(np.count_nonzero(first)) >= (1 - _MOST_ZEROS) * first.size


_WINDOW = 1024
_FLAT_PAIRS = 0.9
_FLAT_VALUES = 0.8

_ROWS_APART = 16
_EQUAL_NEIGHBOURS = 0.5
"""Of a mask more pixels than this have the value of the one before them; of an image with noise in it hardly any."""

_EDGES = 1.5
"""Pairs of pixels that differ, for one pixel of a piece, at most: discs of 4 px have 1.3, single pixels 4."""


def is_label_map(pixels: NDArray[np.generic]) -> bool | None:
    """Whether the pixels (H, W), or (H, W, 3) of colours, are pieces of one value each on a background of one value; None for one value alone.

    Looked at is the middle (1024 px). A mask and the outlines of a mask are label maps too; a photograph is not, however dark or
    overexposed: values between those of pieces and background stand at its edges.
    """
    return _flat(_codes(pixels))


def looks_like_mask(plane: Plane) -> bool:
    """Whether a plane (H, W) that is to be counted is a label image or a mask: a label map whose pieces are solid.

    Most images are told by every sixteenth row; grains of two values, as dim images of 8 bits have, are no pieces.
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
    """Whether equal values lie together, away from the background; None where there is nothing but background, or single pixels."""
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
    """The middle of the pixels, each value replaced by its rank."""
    top, left = (max(0, (side - _WINDOW) // 2) for side in pixels.shape[:2])
    middle = pixels[top : top + _WINDOW, left : left + _WINDOW]
    if middle.ndim == 3:
        red, green, blue = (middle[:, :, number].astype(np.int64) for number in range(3))
        middle = red << 40 | green << 20 | blue
    _, ranks = np.unique(middle, return_inverse=True)
    return np.asarray(ranks, np.int64).reshape(middle.shape[:2])
