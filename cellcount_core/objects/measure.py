"""Measurements of the objects of a label image: one row for each object, in time linear in pixels.

Sums run over an object's own pixels in raster order with coordinates relative to its bounding box, and outlines are counted in
integers relative to the object. So an object's row is the same to the last bit whether it is measured in a block or in the whole field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellcount_core.objects.labels import anchors, strips

_STRAIGHT, _DIAGONAL, _CORNER = (5, 7, 15, 17, 25, 27), (21, 33), (13, 23)


@dataclass(frozen=True, slots=True, eq=False)
class Outlines:
    """For each object (n,): `perimeter` in px (float64), and `hull_area`, the number of pixels in its convex hull (int64)."""

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
    """Rows of the image with two more rows and columns on each side; beyond the image they are background."""
    top, bottom = max(0, rows.start - 2), min(labels.shape[0], rows.stop + 2)
    return np.pad(labels[top:bottom], ((2 - (rows.start - top), 2 - (bottom - rows.stop)), (2, 2)))


def _border(piece: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Object pixels with a side neighbour outside their object; False in the outermost ring."""
    centre = piece[1:-1, 1:-1]
    border = np.zeros(piece.shape, np.bool_)
    inner = border[1:-1, 1:-1]
    for neighbour in (piece[:-2, 1:-1], piece[2:, 1:-1], piece[1:-1, :-2], piece[1:-1, 2:]):
        inner |= neighbour != centre
    inner &= centre > 0
    return border


def _own_rows(piece: NDArray[np.int32], border: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Flat indices of the border pixels in the strip itself, without its margin."""
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
    """Numbers (m,) and points (m, 2), as (x, y), of the pixels at which an object begins or ends within a row."""
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
    """Number of pixel centres in or on the hull of the side midpoints of each convex polygon's pixels.

    Corners (m, 2) are pixel centres (x, y), in either direction around. The hull is the polygon widened by half a pixel to each side, up
    and down: each of its edges is an edge of the polygon shifted outwards by that, or crosses a row of centres only at a corner.
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


Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ObjectTable:
    """Objects in raster order of their anchors; every array has n values. Positions are px in the field.

    `number` is 1..n. `center_*` is the centroid, 0 at the centre of the field's first pixel (CellProfiler's convention).
    `min_*` is the first row or column, `max_*` the one after the last. `area` is in px^2, `perimeter` and `equivalent_diameter` in px.
    `eccentricity` is that of the ellipse of equal second moments. `form_factor` is 4 pi area / perimeter^2 as in CellProfiler: not
    capped, so small round objects exceed 1; it is 1 if the perimeter is 0 (one or two pixels). `solidity` is area / pixels of the
    convex hull. Intensities are in raw units, by channel. `score` is the mean of the score map, nan without one.
    """

    number: Ints
    anchor_y: Ints
    anchor_x: Ints
    center_y: Floats
    center_x: Floats
    min_y: Ints
    min_x: Ints
    max_y: Ints
    max_x: Ints
    area: Ints
    perimeter: Floats
    equivalent_diameter: Floats
    eccentricity: Floats
    form_factor: Floats
    solidity: Floats
    mean_intensity: Mapping[str, Floats]
    integrated_intensity: Mapping[str, Floats]
    score: Floats
    touches_border: NDArray[np.bool_]

    @property
    def count(self) -> int:
        """Number of objects."""
        return int(self.number.size)


def measure(
    labels: NDArray[np.int32],
    planes: Mapping[str, NDArray[np.generic]],
    *,
    score_map: NDArray[np.floating] | None = None,
    origin: tuple[int, int] = (0, 0),
    field_shape: tuple[int, int] | None = None,
) -> ObjectTable:
    """Measure the objects of a label image (H, W), or of a block of one.

    `planes` are the channels' raw values (H, W) and `score_map` (H, W) is optional, both cut as `labels` is. `origin` is the (y, x) of
    the first pixel in the field of `field_shape` (default: the field ends where `labels` does).

    Raises ValueError if a plane has another shape than `labels`, or the objects are not numbered 1..n in raster order.

    >>> labels = np.array([[1, 1, 0], [0, 0, 2]], np.int32)
    >>> measure(labels, {}).area.tolist()
    [2, 1]
    """
    shape = (labels.shape[0], labels.shape[1])
    _check_shapes(shape, planes, score_map)
    numbers, first = anchors(labels)
    count = int(numbers.size)
    if not np.array_equal(numbers, np.arange(1, count + 1)):
        raise ValueError("objects must be numbered 1..n in raster order (see number_in_raster_order)")
    boxes = _boxes(labels, count)
    sums = _sum_pixels(labels, boxes, planes, score_map)
    outline = outlines(labels, count)
    area = sums.area.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        form_factor = np.where(outline.perimeter > 0, 4.0 * np.pi * area / outline.perimeter**2, 1.0)
    anchor_y, anchor_x = np.divmod(first, max(1, shape[1]))
    y, x = origin
    height, width = field_shape or (y + shape[0], x + shape[1])
    min_y, min_x, max_y, max_x = (boxes + np.array([y, x, y, x], np.int64)).T
    return ObjectTable(
        number=numbers.astype(np.int64),
        anchor_y=anchor_y + y,
        anchor_x=anchor_x + x,
        center_y=min_y + sums.y / area,
        center_x=min_x + sums.x / area,
        min_y=min_y,
        min_x=min_x,
        max_y=max_y,
        max_x=max_x,
        area=sums.area,
        perimeter=outline.perimeter,
        equivalent_diameter=np.sqrt(4.0 * area / np.pi),
        eccentricity=_eccentricity(sums),
        form_factor=form_factor,
        solidity=area / outline.hull_area,
        mean_intensity={name: total / area for name, total in sums.intensity.items()},
        integrated_intensity=sums.intensity,
        score=sums.score / area,
        touches_border=(min_y == 0) | (min_x == 0) | (max_y == height) | (max_x == width),
    )


def join_tables(tables: Sequence[ObjectTable]) -> tuple[ObjectTable, NDArray[np.int64]]:
    """The objects of several blocks as one table, in raster order of their anchors and numbered 1..n.

    The second value (n + 1,) is the new number of the k-th object of all tables in turn (k from 1; 0 stays 0): the lookup that
    `labels.renumber` takes. Raises ValueError without a table.
    """
    if not tables:
        raise ValueError("at least one table is needed (an empty one where there is no object)")
    joined: dict[str, object] = {}
    for field in fields(ObjectTable):
        columns = [getattr(table, field.name) for table in tables]
        if isinstance(columns[0], np.ndarray):
            joined[field.name] = np.concatenate(columns)
        else:
            joined[field.name] = {
                name: np.concatenate([column[name] for column in columns]) for name in columns[0]
            }
    table = replace(tables[0], **joined)  # type: ignore[arg-type]
    order = np.lexsort((table.anchor_x, table.anchor_y))
    lookup = np.zeros(order.size + 1, np.int64)
    lookup[order + 1] = np.arange(1, order.size + 1)
    return _taken(table, order), lookup


def _taken(table: ObjectTable, order: NDArray[np.intp]) -> ObjectTable:
    """The rows of `order`, renumbered."""
    rows: dict[str, object] = {}
    for field in fields(ObjectTable):
        column = getattr(table, field.name)
        taken = (
            column[order]
            if isinstance(column, np.ndarray)
            else {name: c[order] for name, c in column.items()}
        )
        rows[field.name] = taken
    rows["number"] = np.arange(1, order.size + 1, dtype=np.int64)
    return replace(table, **rows)  # type: ignore[arg-type]


def _check_shapes(
    shape: tuple[int, int], planes: Mapping[str, NDArray[np.generic]], score_map: NDArray[np.floating] | None
) -> None:
    for name, plane in planes.items():
        if plane.shape != shape:
            raise ValueError(f"channel {name!r} has shape {plane.shape}, the label image {shape}")
    if score_map is not None and score_map.shape != shape:
        raise ValueError(f"the score map has shape {score_map.shape}, the label image {shape}")


def _boxes(labels: NDArray[np.int32], count: int) -> Ints:
    """Bounding boxes (n, 4) as min y, min x, max y, max x, half-open, relative to the label image."""
    if count == 0:
        return np.zeros((0, 4), np.int64)
    slices = ndimage.find_objects(labels, max_label=count)
    return np.array([(y.start, x.start, y.stop, x.stop) for y, x in slices], np.int64)


@dataclass(slots=True, eq=False)
class _Sums:
    """Sums over the pixels of each object, (n,); x and y are relative to its bounding box. Exact for integers."""

    area: Ints
    y: Floats
    x: Floats
    yy: Floats
    xx: Floats
    xy: Floats
    intensity: dict[str, Floats]
    score: Floats


def _sum_pixels(
    labels: NDArray[np.int32],
    boxes: Ints,
    planes: Mapping[str, NDArray[np.generic]],
    score_map: NDArray[np.floating] | None,
) -> _Sums:
    count, width = len(boxes), labels.shape[1]
    zero = np.zeros(count)
    score = zero.copy() if score_map is not None else np.full(count, np.nan)
    sums = _Sums(
        np.zeros(count, np.int64), zero.copy(), zero.copy(), zero.copy(), zero.copy(), zero.copy(),
        {name: zero.copy() for name in planes}, score,
    )  # fmt: skip
    top, left = boxes[:, 0], boxes[:, 1]
    for rows in strips((labels.shape[0], width)):
        flat = labels[rows].ravel()
        # Of booleans this is several times as fast as of numbers.
        found = np.flatnonzero(flat > 0)
        rank = flat[found].astype(np.intp) - 1
        line = found // width
        y = (line + rows.start - top[rank]).astype(np.float64)
        x = (found - line * width - left[rank]).astype(np.float64)
        sums.area += np.bincount(rank, minlength=count)
        sums.y += np.bincount(rank, y, minlength=count)
        sums.x += np.bincount(rank, x, minlength=count)
        sums.yy += np.bincount(rank, y * y, minlength=count)
        sums.xx += np.bincount(rank, x * x, minlength=count)
        sums.xy += np.bincount(rank, x * y, minlength=count)
        for name, plane in planes.items():
            _add(sums.intensity[name], rank, plane[rows].ravel()[found])
        if score_map is not None:
            _add(sums.score, rank, score_map[rows].ravel()[found])
    return sums


def _add(total: Floats, rank: NDArray[np.intp], values: NDArray[np.generic]) -> None:
    if values.dtype.kind == "f":
        # One by one in raster order: sums of strips would round differently.
        np.add.at(total, rank, values.astype(np.float64))
    else:
        total += np.bincount(rank, values.astype(np.float64), minlength=total.size)


def _eccentricity(sums: _Sums) -> Floats:
    """sqrt(1 - l2 / l1) of the eigenvalues l1 >= l2 of the covariance of the pixels' coordinates, as in scikit-image."""
    area = sums.area.astype(np.float64)
    yy = sums.yy / area - (sums.y / area) ** 2
    xx = sums.xx / area - (sums.x / area) ** 2
    xy = sums.xy / area - (sums.y / area) * (sums.x / area)
    middle, spread = (xx + yy) / 2.0, np.sqrt(((xx - yy) / 2.0) ** 2 + xy**2)
    large, small = middle + spread, np.maximum(middle - spread, 0.0)
    share = np.divide(small, large, out=np.ones_like(large), where=large > 0)
    return np.sqrt(1.0 - np.minimum(share, 1.0))
