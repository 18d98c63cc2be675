"""Bring labels and maps from the model's scale to the original image, by nearest neighbour.

Pixel Y of an axis of N original pixels shows pixel floor((2 Y + 1) n / (2 N)) of the n pixels at the model's scale: the one
under its centre. Integers only, so a window maps exactly as it does within the whole image. Objects that have an outline are
drawn to it at the original pixels (outline.py).
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cellcount_core.objects.labels import Pixels, strips
from cellcount_core.objects.outline import Outline, grown

_Pixel = TypeVar("_Pixel", bound=np.generic)


def labels_to_original(labels: NDArray[np.int32], shape: tuple[int, int]) -> NDArray[np.int32]:
    """The label image (h, w) at the original `shape` (H, W), numbered in raster order.

    No object is lost: one that falls between pixels keeps one pixel, as long as there are as many pixels as objects.
    """
    if labels.shape == shape:
        objects = Pixels.of(labels)
        whole = objects.in_one_piece()
        return labels if whole is objects else whole.painted()
    return window_to_original(labels, (0, 0), (labels.shape[0], labels.shape[1]), shape)[0].painted()


def objects_to_original(
    labels: NDArray[np.int32], first_map: NDArray[np.float32], level: float, shape: tuple[int, int]
) -> Pixels:
    """A whole image's separated objects (h, w) at the original `shape` (H, W), drawn to where map 0 (h, w) crosses `level`."""
    model_shape = (labels.shape[0], labels.shape[1])
    outline = Outline(first_map, (0, 0), model_shape, level)
    return window_to_original(grown(labels), (0, 0), model_shape, shape, outline)[0]


def map_to_original(values: NDArray[_Pixel], shape: tuple[int, int]) -> NDArray[_Pixel]:
    """A map (h, w) of any type, such as a score, at the original `shape` (H, W)."""
    if values.shape == shape:
        return values
    rows, columns = _sources(values.shape[0], shape[0]), _sources(values.shape[1], shape[1])
    return values[rows][:, columns]


def window_to_original(
    labels: NDArray[np.int32],
    origin: tuple[int, int],
    model_shape: tuple[int, int],
    shape: tuple[int, int],
    outline: Outline | None = None,
) -> tuple[Pixels, tuple[int, int]]:
    """The objects of a window (h, w) of a field at the model's scale, at the original scale, with their new origin.

    `origin` is the window's (y, x) in the field of `model_shape`; `shape` is the field's original shape (H, W). The result
    covers every original pixel that shows the window, keeps every object and its number, as `labels_to_original` does, and of each the
    largest connected piece. With an outline the labels are those of `grown` objects, which are cut to it; one that would have no pixel left
    is not cut.
    """
    if labels.size == 0:
        return Pixels.of(np.zeros((0, 0), np.int32)), origin if model_shape == shape else (0, 0)
    if model_shape == shape:
        objects = Pixels.of(labels) if outline is None else _cut_in_place(labels, outline, origin)
        return objects.in_one_piece(), origin
    top, rows = _axis(origin[0], labels.shape[0], model_shape[0], shape[0])
    left, columns = _axis(origin[1], labels.shape[1], model_shape[1], shape[1])
    objects = Pixels.of(_shown(labels, rows, columns))
    if outline is not None:
        objects = _cut(objects, outline, (top, left), shape)
    objects = _completed(objects, labels, origin, (top, left), model_shape, shape)
    return objects.in_one_piece(), (top, left)


def _shown(
    labels: NDArray[np.int32], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.int32]:
    """The label image whose pixels show the given rows and columns of a window; what lies beside it is background."""
    if min(rows[0], columns[0]) < 0 or rows[-1] >= labels.shape[0] or columns[-1] >= labels.shape[1]:
        # A ring of background around the window, for pixels of the result that show what lies beside it.
        rows, columns = (
            np.clip(at + 1, 0, side + 1) for at, side in zip((rows, columns), labels.shape, strict=True)
        )
        labels = np.pad(labels, 1)
    out = np.empty((rows.size, columns.size), np.int32)
    for strip in strips((rows.size, columns.size)):
        # `take` copies whole pixels where indexing goes one by one.
        np.take(labels[rows[strip]], columns, axis=1, out=out[strip])
    return out


def _cut(objects: Pixels, outline: Outline, start: tuple[int, int], shape: tuple[int, int]) -> Pixels:
    """Objects without the pixels that are not inside the outline, but for objects that have none inside.

    `start` is the (y, x) of the pixels' image in a field of `shape`.
    """
    inside = outline.inside(objects.places, objects.shape[1], start, shape)
    left = np.bincount(objects.numbers[inside], minlength=int(objects.numbers.max(initial=0)) + 1) > 0
    return objects.taken(inside if left[1:].all() else inside | ~left[objects.numbers])


def _cut_in_place(labels: NDArray[np.int32], outline: Outline, origin: tuple[int, int]) -> Pixels:
    """The same of a label image (h, w) from `origin` (y, x), which has the pixels of the map."""
    inside = outline.above(origin, (labels.shape[0], labels.shape[1]))
    objects = Pixels.of(labels, inside)
    left = np.zeros(int(labels.max(initial=0)) + 1, np.bool_)
    left[objects.runs.owners] = True
    return objects if left[1:].all() else Pixels.of(labels, inside | ~left[labels])


def _completed(
    objects: Pixels,
    labels: NDArray[np.int32],
    origin: tuple[int, int],
    start: tuple[int, int],
    model_shape: tuple[int, int],
    shape: tuple[int, int],
) -> Pixels:
    """With one pixel for every object of a window's labels (h, w) at `origin` that has none at the original scale."""
    area = np.bincount(objects.numbers, minlength=int(labels.max(initial=0)) + 1)
    gone = _middles(labels, area == 0)
    if not gone:
        return objects
    out = objects.image()
    for number, (y, x) in gone.items():
        wanted = (
            _covering(y + origin[0], model_shape[0], shape[0]) - start[0],
            _covering(x + origin[1], model_shape[1], shape[1]) - start[1],
        )
        place = _nearest_free(out, area, wanted)
        if place is not None:
            area[out[place]] -= 1
            out[place] = number
            area[number] = 1
    return Pixels.of(out)


def _axis(start: int, length: int, n: int, full: int) -> tuple[int, NDArray[np.int64]]:
    """First original pixel that a window touches, and from there on the window's pixel shown at each one."""
    first = max(0, -((n - 2 * full * start) // (2 * n)))
    end = min(full, max(0, -((n - 2 * full * (start + length)) // (2 * n))))
    low = min(first, _covering(start, n, full))
    high = max(end, _covering(start + length - 1, n, full) + 1)
    return low, (2 * np.arange(low, high, dtype=np.int64) + 1) * n // (2 * full) - start


def _sources(n: int, full: int) -> NDArray[np.int64]:
    return (2 * np.arange(full, dtype=np.int64) + 1) * n // (2 * full)


def _covering(pixel: int, n: int, full: int) -> int:
    """The original pixel that holds the centre of a pixel at the model's scale."""
    return min(full - 1, (2 * pixel + 1) * full // (2 * n))


def _middles(labels: NDArray[np.int32], which: NDArray[np.bool_]) -> dict[int, tuple[int, int]]:
    """The middle pixel (in raster order) of those of some numbers that occur in a label image."""
    which[0] = False
    if not which.any():
        return {}
    inside = np.flatnonzero(which[labels])
    numbers = labels.ravel()[inside]
    middles: dict[int, tuple[int, int]] = {}
    for number in np.unique(numbers).tolist():
        own = inside[numbers == number]
        y, x = divmod(int(own[own.size // 2]), labels.shape[1])
        middles[number] = (y, x)
    return middles


def _nearest_free(
    out: NDArray[np.int32], area: NDArray[np.int64], wanted: tuple[int, int]
) -> tuple[int, int] | None:
    """The pixel nearest to `wanted` that is background or of an object with other pixels left; None in a full image."""
    height, width = out.shape
    radius = 0
    while radius <= max(height, width):
        ys = np.arange(max(0, wanted[0] - radius), min(height, wanted[0] + radius + 1))
        xs = np.arange(max(0, wanted[1] - radius), min(width, wanted[1] + radius + 1))
        found = out[np.ix_(ys, xs)]
        free = (found == 0) | (area[found] > 1)
        if free.any():
            far = (ys[:, None] - wanted[0]) ** 2 + (xs[None, :] - wanted[1]) ** 2
            far = np.where(free, far, far.max() + 1)
            row, column = np.unravel_index(int(far.argmin()), far.shape)
            return int(ys[row]), int(xs[column])
        radius += 1
    return None
