"""Pixels that were drawn, not taken: label images, masks and their outlines. An image is told from them by what lies between its values."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellcount_core.images.imagefile import Plane

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
