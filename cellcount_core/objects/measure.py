"""Measurements of the objects of a label image: one row an object, linear in pixels.

Sums run over an object's own pixels in raster order, coordinates relative to its bounding box, so an object's row is the same
to the last bit whether it was measured in a block or in the whole field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellcount_core.objects.labels import anchors, strips
from cellcount_core.objects.shape import outlines

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ObjectTable:
    """Objects in raster order of their anchors; every array has n values. Positions are px in the field.

    `number` is 1..n. `center_*` is the centroid, 0 at the centre of the field's first pixel (CellProfiler's convention).
    `min_*` is the first, `max_*` the one after the last row or column. `area` in px^2, `perimeter` in px,
    `equivalent_diameter` in px. `eccentricity` is that of the ellipse of equal second moments. `form_factor` is
    4 pi area / perimeter^2 as CellProfiler has it: not capped, so small round objects exceed 1; it is 1 where the perimeter
    is 0 (one or two pixels). `solidity` is area / pixels of the convex hull. Intensities are raw units by channel.
    `score` is the mean of the score map, nan without one.
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
    """Measure the objects of a label image (H, W) or of a block of one.

    `planes` are the channels' raw values (H, W), cut as `labels` is; `score_map` (H, W) likewise. `origin` is the (y, x) of
    the first pixel in the field of `field_shape` (default: `labels` ends where the field does).

    Raises ValueError where a plane has another shape than `labels`, or the objects are not numbered 1..n in raster order.
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
    """The objects of several blocks as one table in raster order of their anchors, numbered 1..n.

    The second value (n + 1,) gives the new number of the k-th object of the tables one after the other (k from 1; 0 stays
    0): the lookup that `labels.renumber` takes. Raises ValueError where there is no table.
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
    """The rows of `order`, numbered anew."""
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
    """Sums over each object's pixels; x and y are relative to its bounding box. All float64 (n,), exact for integers."""

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
    """sqrt(1 - l2 / l1) of the eigenvalues l1 >= l2 of the covariance of the pixels' coordinates, as scikit-image has it."""
    area = sums.area.astype(np.float64)
    yy = sums.yy / area - (sums.y / area) ** 2
    xx = sums.xx / area - (sums.x / area) ** 2
    xy = sums.xy / area - (sums.y / area) * (sums.x / area)
    middle, spread = (xx + yy) / 2.0, np.sqrt(((xx - yy) / 2.0) ** 2 + xy**2)
    large, small = middle + spread, np.maximum(middle - spread, 0.0)
    share = np.divide(small, large, out=np.ones_like(large), where=large > 0)
    return np.sqrt(1.0 - np.minimum(share, 1.0))
