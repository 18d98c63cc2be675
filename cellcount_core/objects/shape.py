"""Perimeter and convex hull of every object of a label image, from its border pixels alone.

Everything is counted in integers, relative to the object, so that an object measures the same in a block as in the field.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cellcount_core.objects.labels import strips

_STEP_LENGTHS = np.array([1.0, np.sqrt(2.0), (1.0 + np.sqrt(2.0)) / 2.0])
_STRAIGHT, _DIAGONAL, _CORNER = (5, 7, 15, 17, 25, 27), (21, 33), (13, 23)


@dataclass(frozen=True, slots=True, eq=False)
class Outlines:
    """Per object (n,): `perimeter` in px (float64) and `hull_area`, the pixels of its convex hull (int64)."""

    perimeter: NDArray[np.float64]
    hull_area: NDArray[np.int64]


def outlines(labels: NDArray[np.int32], count: int) -> Outlines:
    """Outlines of the objects 1..`count` of a label image (H, W).

    The perimeter is that of K. Benkrid and D. Crookes ("Design and FPGA Implementation of a Perimeter Estimator", 2000) as
    scikit-image and CellProfiler compute it; it is 0 for objects of one or two pixels. The hull area is the number of pixel
    centres in the convex hull of the object's pixel centres, by Pick's theorem.
    """
    if count == 0:
        return Outlines(np.zeros(0), np.zeros(0, np.int64))
    steps = np.zeros((count, 3), np.int64)
    numbers: list[NDArray[np.int32]] = []
    points: list[NDArray[np.int32]] = []
    for rows in strips((labels.shape[0], labels.shape[1])):
        piece = _with_margin(labels, rows)
        border = _border(piece)
        _add_steps(piece, border, steps)
        found, ends = _row_ends(piece, border)
        ends[:, 1] += rows.start
        numbers.append(found)
        points.append(ends)
    return Outlines(
        steps @ _STEP_LENGTHS, _hull_areas(np.concatenate(numbers), np.concatenate(points), count)
    )


def _with_margin(labels: NDArray[np.int32], rows: slice) -> NDArray[np.int32]:
    """Rows of the image with two more rows and columns on each side, background where the image ends."""
    top, bottom = max(0, rows.start - 2), min(labels.shape[0], rows.stop + 2)
    return np.pad(labels[top:bottom], ((2 - (rows.start - top), 2 - (bottom - rows.stop)), (2, 2)))


def _border(piece: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Object pixels with a side neighbour that is not of the object; False in the outermost ring."""
    centre = piece[1:-1, 1:-1]
    border = np.zeros(piece.shape, np.bool_)
    inner = border[1:-1, 1:-1]
    for neighbour in (piece[:-2, 1:-1], piece[2:, 1:-1], piece[1:-1, :-2], piece[1:-1, 2:]):
        inner |= neighbour != centre
    inner &= centre > 0
    return border


def _own_rows(piece: NDArray[np.int32], border: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Flat indices of the border pixels of the strip itself, its margin left out."""
    pixels: NDArray[np.int64] = np.flatnonzero(border[2:-2]) + 2 * piece.shape[1]
    return pixels


def _add_steps(piece: NDArray[np.int32], border: NDArray[np.bool_], steps: NDArray[np.int64]) -> None:
    width = piece.shape[1]
    flat, on_border = piece.ravel(), border.ravel()
    pixels = _own_rows(piece, border)
    own = flat[pixels]
    code = np.ones(pixels.size, np.int32)
    for weight, offsets in (
        (2, (-width, -1, 1, width)),
        (10, (-width - 1, -width + 1, width - 1, width + 1)),
    ):
        for offset in offsets:
            neighbour = pixels + offset
            code += weight * (on_border[neighbour] & (flat[neighbour] == own))
    kind = np.full(50, -1, np.int32)
    for index, codes in enumerate((_STRAIGHT, _DIAGONAL, _CORNER)):
        kind[list(codes)] = index
    step = kind[code]
    counted = step >= 0
    slots = (own[counted].astype(np.int64) - 1) * 3 + step[counted]
    steps += np.bincount(slots, minlength=steps.size).reshape(steps.shape)


def _row_ends(
    piece: NDArray[np.int32], border: NDArray[np.bool_]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Numbers (m,) and points (m, 2) as (x, y) of the pixels at which an object begins or ends within a row."""
    width = piece.shape[1]
    flat = piece.ravel()
    pixels = _own_rows(piece, border)
    own = flat[pixels]
    pixels = pixels[(flat[pixels - 1] != own) | (flat[pixels + 1] != own)]
    y, x = np.divmod(pixels, width)
    return flat[pixels], np.stack([x - 2, y - 2], axis=1).astype(np.int32)


def _hull_areas(numbers: NDArray[np.int32], points: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    if count == 0:
        return np.zeros(0, np.int64)
    order = np.argsort(numbers, kind="stable")
    points = points[order]
    ends = np.cumsum(np.bincount(numbers, minlength=count + 1)[1:])
    hulls = [
        cv2.convexHull(points[start:end])[:, 0]
        for start, end in zip(np.concatenate([[0], ends[:-1]]).tolist(), ends.tolist(), strict=True)
    ]
    sizes = np.array([len(hull) for hull in hulls])
    corners = np.concatenate(hulls).astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    following = np.arange(1, len(corners) + 1)
    following[starts + sizes - 1] = starts
    edges = corners[following] - corners
    relative = corners - np.repeat(corners[starts], sizes, axis=0)
    twice_area = np.abs(np.add.reduceat(relative[:, 0] * edges[:, 1] - relative[:, 1] * edges[:, 0], starts))
    on_edges = np.add.reduceat(np.gcd(np.abs(edges[:, 0]), np.abs(edges[:, 1])), starts)
    return (twice_area + on_edges) // 2 + 1
