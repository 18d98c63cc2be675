"""COCO's ways to write one object: polygons, and run lengths, plain or compressed (pycocotools, common/maskApi.c)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def decode_counts(text: str) -> list[int]:
    """Run lengths of COCO's compressed text: five bits a character, the sign extended, from the fourth on as differences.

    Raises ValueError where the text ends inside a number or holds another character.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            raise ValueError(f"character {character!r} in compressed run lengths")
        value |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:
            continue
        if code & 0x10:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("compressed run lengths end inside a number")
    return counts


def mask_of_runs(counts: Sequence[int], shape: tuple[int, int]) -> Mask:
    """Mask (H, W) of run lengths that go down the columns and begin with background. Raises ValueError where they do not fit."""
    height, width = shape
    if min(counts, default=0) < 0 or sum(counts) != height * width:
        raise ValueError(
            f"run lengths of {sum(counts)} pixels; {height} x {width} = {height * width} expected"
        )
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(width, height).T


def mask_of_polygon(points: Sequence[float], shape: tuple[int, int]) -> Mask:
    """Mask (H, W) of the pixels whose centres lie inside a polygon [x0, y0, x1, y1, …] in px from the image's corner.

    Raises ValueError for less than three points.
    """
    if len(points) < 6 or len(points) % 2:
        raise ValueError(
            f"a polygon of {len(points)} numbers; an x and a y of at least three points expected"
        )
    corners = np.asarray(points, np.float64).reshape(-1, 2)
    height, width = shape
    left, top = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, (width, height))
    right, bottom = np.clip(np.ceil(corners.max(axis=0)).astype(int), 0, (width, height))
    x, y = np.arange(left, right) + 0.5, np.arange(top, bottom) + 0.5
    inside = np.zeros((bottom - top, right - left), bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        rows = np.flatnonzero((y0 <= y) != (y1 <= y))
        crossing = x0 + (y[rows] - y0) * ((x1 - x0) / (y1 - y0)) if rows.size else y[rows]
        inside[rows] ^= x[None, :] > crossing[:, None]
    mask = np.zeros(shape, bool)
    mask[top:bottom, left:right] = inside
    return mask
