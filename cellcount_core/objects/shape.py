"""Perimeter and convex hull of every object of a label image, from its border pixels alone.

Everything is counted in integers, relative to the object, so that an object measures the same in a block as in the field.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cellcount_core.objects.labels import strips

_STRAIGHT, _DIAGONAL, _CORNER = (5, 7, 15, 17, 25, 27), (21, 33), (13, 23)


@dataclass(frozen=True, slots=True, eq=False)
class Outlines:
    """Per object (n,): `perimeter` in px (float64) and `hull_area`, the pixels of its convex hull (int64)."""

    perimeter: NDArray[np.float64]
    hull_area: NDArray[np.int64]


def outlines(labels: NDArray[np.int32], count: int) -> Outlines:
    """Outlines of the objects 1..`count` of a label image (H, W).

    The perimeter is that of K. Benkrid and D. Crookes ("Design and FPGA Implementation of a Perimeter Estimator", 2000) as
    scikit-image and CellProfiler compute it; it is 0 for objects of one or two pixels. The hull area is
    scikit-image's: the number of pixel centres in the convex hull of the middles of the pixels' sides.
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
    straight, diagonal, corner = steps.astype(np.float64).T
    perimeter = straight + diagonal * np.sqrt(2.0) + corner * ((1.0 + np.sqrt(2.0)) / 2.0)
    return Outlines(perimeter, _hull_areas(np.concatenate(numbers), np.concatenate(points), count))


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
    order = np.argsort(numbers, kind="stable")
    points = points[order]
    ends = np.cumsum(np.bincount(numbers, minlength=count + 1)[1:])
    starts = np.concatenate([[0], ends[:-1]])
    hulls = [
        cv2.convexHull(points[start:end])[:, 0].astype(np.int32, copy=False)
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
    ]
    return _pixels_in_hulls(hulls)


def _pixels_in_hulls(hulls: list[NDArray[np.int32]]) -> NDArray[np.int64]:
    """Pixel centres in or on the hull of the middles of the sides of each convex polygon's pixels.

    Corners (m, 2) are pixel centres (x, y), in either order around. That hull is the polygon, widened by half a pixel to each side, up
    and down: each of its edges is one of the polygon's, shifted outwards by that, or crosses a row of centres at a corner alone.
    """
    sizes = np.array([len(hull) for hull in hulls])
    corners = np.concatenate(hulls).astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    following = np.arange(1, len(corners) + 1)
    following[starts + sizes - 1] = starts
    owner = np.repeat(np.arange(len(hulls)), sizes)
    top, rows = np.minimum.reduceat(corners[:, 1], starts), np.maximum.reduceat(corners[:, 1], starts)
    rows = rows - top + 1
    first_slot = np.concatenate([[0], np.cumsum(rows)[:-1]])
    at_corner = first_slot[owner] + corners[:, 1] - top[owner]

    # From here on in half pixels.
    steps = corners[following] - corners
    # Twice the area is above 0 where corners go around from x to y. A line has two edges, one for each of its sides.
    turn = np.add.reduceat(corners[:, 0] * steps[:, 1] - corners[:, 1] * steps[:, 0], starts)
    around = np.where(turn < 0, -1, 1)[owner]
    outwards = np.stack([steps[:, 1] * around, -steps[:, 0] * around], axis=1)
    sideways = np.abs(outwards[:, 0]) > np.abs(outwards[:, 1])
    outwards = np.sign(outwards)
    outwards[sideways, 1] = 0
    outwards[~sideways, 0] = 0
    one = 2 * corners + outwards
    other = one + 2 * steps
    sloped = one[:, 1] != other[:, 1]
    one, other, owner = one[sloped], other[sloped], owner[sloped]
    upper = np.where((one[:, 1] < other[:, 1])[:, None], one, other)
    lower = np.where((one[:, 1] < other[:, 1])[:, None], other, one)
    begin = (upper[:, 1] + 1) // 2
    crossed = np.maximum(lower[:, 1] // 2 - begin + 1, 0)
    edge = np.repeat(np.arange(crossed.size), crossed)
    row = begin[edge] + np.arange(edge.size) - np.repeat(np.cumsum(crossed) - crossed, crossed)
    rise = (lower - upper)[edge]
    # Twice the rise times the x (px) at which the edge crosses the row: integers, so that no pixel depends on rounding.
    across = upper[edge, 0] * rise[:, 1] + rise[:, 0] * (2 * row - upper[edge, 1])
    slot = first_slot[owner[edge]] + row - top[owner[edge]]
    left = np.full(int(rows.sum()), np.iinfo(np.int64).max)
    right = np.full(left.size, np.iinfo(np.int64).min)
    np.minimum.at(left, slot, -(-across // (2 * rise[:, 1])))
    np.maximum.at(right, slot, across // (2 * rise[:, 1]))
    np.minimum.at(left, at_corner, corners[:, 0])
    np.maximum.at(right, at_corner, corners[:, 0])
    return np.add.reduceat(np.maximum(right - left + 1, 0), first_slot)
