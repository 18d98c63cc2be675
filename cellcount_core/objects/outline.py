"""Objects brought from the model's scale to the original image, and drawn to their outline there.

Pixel Y of an axis of N original pixels shows pixel floor((2 Y + 1) n / (2 N)) of the n pixels at the model's scale: the one
under its centre. These are integers, so a window is brought back exactly as it is within the whole image.

Objects are found where the network is certain of them. Their outline lies further out, and between the pixels of the model's
scale: a nucleus of 47 px is separated with a diameter of 20. So a separator may state a level for outlines. Found objects are then
grown by a pixel, and of the result the original pixels are kept at which the map, interpolated between its pixels, is above the
level. Growth depends on neighbouring objects only and interpolation on the nearest pixels only, so again windows agree with the whole.

Last, the image's light is asked (`bounded_by_light`). People draw a nucleus to where it has some two fifths of its own brightness, but
the network, to which a small nucleus is shown enlarged and blurred, draws further out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from cellcount_core.objects.labels import Indices, ObjectPixels, number_in_raster_order, strips
from cellcount_core.objects.separators import FieldParams, Separator

MARGIN = 1
"""Px by which objects are grown to all eight sides."""

_LIGHT = 0.4
"""Of an object's own brightness: annotators of fluorescent nuclei draw at 0.39 to 0.42 of it."""

_BRIGHTEST = 3.0
"""Times full scale: what is brighter, such as a hot pixel, counts as this."""

_RIM = 2
"""Px of an object's edge that are asked: what is darker further in is its texture."""

_PIXELS_AT_ONCE = 1 << 19
_NEIGHBOURS = np.ones((2 * MARGIN + 1, 2 * MARGIN + 1), np.uint8)


def grown(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """The label image (H, W) with each object grown into the background by `MARGIN` px; numbers stay as they are.

    A pixel that two objects reach goes to the one with the larger number.
    """
    # OpenCV dilates no int32; both types hold every number that occurs.
    exact: NDArray[np.uint16] | NDArray[np.float64] = (
        labels.astype(np.uint16)
        if labels.max(initial=0) <= np.iinfo(np.uint16).max
        else labels.astype(np.float64)
    )
    spread = cv2.dilate(exact, _NEIGHBOURS, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    spread = cv2.copyTo(exact, (exact > 0).view(np.uint8), spread)
    return np.asarray(spread.astype(np.int32), np.int32)


@dataclass(frozen=True, slots=True)
class GrownSeparator:
    """A separator whose objects are `grown`, each as it would be in the whole field."""

    separator: Separator

    @property
    def reach(self) -> int:
        """How far the end of a window can change a label: that of the separator, and what objects and neighbours grow by."""
        return self.separator.reach + 2 * MARGIN

    @property
    def outline(self) -> float | None:
        """That of the separator."""
        return self.separator.outline

    def fit(self, tiles: Iterable[NDArray[np.float32]]) -> FieldParams:
        """That of the separator."""
        return self.separator.fit(tiles)

    def separate(self, maps: NDArray[np.float32], params: FieldParams) -> NDArray[np.int32]:
        """Label image (H, W) int32 of maps (H, W, K)."""
        return number_in_raster_order(grown(self.separator.separate(maps, params)))


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """A map at the model's scale, and the level at which outlines are drawn.

    `values` (h, w) is a window of the map of a field of `model_shape`; its first pixel is at `origin` (y, x). Around every object it
    shows one pixel more than `MARGIN`, as far as the field goes.
    """

    values: NDArray[np.float32]
    origin: tuple[int, int]
    model_shape: tuple[int, int]
    level: float

    def above(self, start: tuple[int, int], shape: tuple[int, int]) -> NDArray[np.bool_]:
        """Whether the map, at its own pixels, is above the level in a window of `shape` (H, W) from `start` (y, x)."""
        top, left = start[0] - self.origin[0], start[1] - self.origin[1]
        return self.values[top : top + shape[0], left : left + shape[1]] > np.float32(self.level)

    def inside(
        self, places: Indices, width: int, start: tuple[int, int], shape: tuple[int, int]
    ) -> NDArray[np.bool_]:
        """Whether the map is above the level at some original pixels (n,) of a field of `shape`.

        `places` are flat indices in an image `width` wide that begins at `start` (y, x). The map is interpolated at each pixel's
        centre, linearly between the four pixels around it, as float32.
        """
        y = places // width
        x = places - y * width
        height = int(y[-1]) + 1 if y.size else 0
        rows, columns = (
            _Taps.of(start[axis], size, self.model_shape[axis], shape[axis]).seen_from(
                self.origin[axis], self.values.shape[axis]
            )
            for axis, size in ((0, height), (1, width))
        )
        values = np.ascontiguousarray(self.values)
        inside = np.empty(places.size, np.bool_)
        for begin in range(0, places.size, _PIXELS_AT_ONCE):
            some = slice(begin, begin + _PIXELS_AT_ONCE)
            inside[some] = _read(values, rows, columns, y[some], x[some]) > np.float32(self.level)
        return inside


@dataclass(frozen=True, slots=True, eq=False)
class _Taps:
    """For pixels of an axis: the pixels (n,) of the map before and after their centres, and how far (0..1) they lie between them."""

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    share: NDArray[np.float32]

    @staticmethod
    def of(start: int, length: int, n: int, full: int) -> _Taps:
        """For `length` of the `full` original pixels of an axis, from `start`; the map has `n` pixels along it.

        Everything but the share is computed in integers, so a pixel's share is the same in any window.
        """
        place = (2 * np.arange(start, start + length, dtype=np.int64) + 1) * n - full
        low, rest = np.divmod(place, 2 * full)
        share = (rest.astype(np.float64) / (2 * full)).astype(np.float32)
        return _Taps(np.clip(low, 0, n - 1), np.clip(low + 1, 0, n - 1), share)

    def seen_from(self, origin: int, length: int) -> _Taps:
        """The same for a window of the map of `length` px from `origin`; beyond it its last pixel is repeated."""
        low, high = (np.clip(side - origin, 0, length - 1) for side in (self.low, self.high))
        return _Taps(low, high, self.share)


def _read(
    values: NDArray[np.float32], rows: _Taps, columns: _Taps, y: Indices, x: Indices
) -> NDArray[np.float32]:
    """The map interpolated at rows and columns (n,)."""
    flat, width = values.ravel(), values.shape[1]
    top, bottom = (rows.low * width)[y], (rows.high * width)[y]
    down, across = rows.share[y], columns.share[x]

    def column(at: Indices) -> NDArray[np.float32]:
        above, below = flat[top + at], flat[bottom + at]
        return np.asarray(above + (below - above) * down, np.float32)

    left, right = column(columns.low[x]), column(columns.high[x])
    return np.asarray(left + (right - left) * across, np.float32)


def bounded_by_light(
    objects: ObjectPixels, plane: NDArray[np.generic], background: float, full: float
) -> ObjectPixels:
    """The objects, each in one piece, without the pixels of their rims in which `plane` (h, w) is dark.

    `background` is the plane's background and `full` its full scale above that (negative if objects are darker). A pixel of the rim
    is dropped if it is less than `_LIGHT` times as far from the background as the object's brighter part, the pixels above its mean, is
    on average. Of what is left, an object keeps its largest piece. The result depends on the object alone, and on where others begin.
    """
    if not objects.places.size:
        return objects
    owners = objects.numbers.astype(np.intp)
    light = (plane.ravel()[objects.places].astype(np.float32) - np.float32(background)) / np.float32(full)
    np.clip(light, 0, _BRIGHTEST, out=light)
    area = np.bincount(objects.runs.owners, objects.runs.lengths)
    mean = np.bincount(owners, light) / np.maximum(area, 1)
    bright = light >= mean[owners]
    # Nothing is added for what is not bright: much cheaper than to take what is.
    count = np.bincount(owners, bright)
    own = np.bincount(owners, light * bright) / np.maximum(count, 1)
    dark = np.flatnonzero(light < (_LIGHT * own)[owners])
    gone = dark[_on_rim(objects, dark)] if dark.size else dark
    if not gone.size:
        return objects
    kept = np.ones(owners.size, np.bool_)
    kept[gone] = False
    return objects.taken(kept).in_one_piece()


def _on_rim(objects: ObjectPixels, which: Indices) -> NDArray[np.bool_]:
    """Which of some pixels have a pixel outside their object at most `_RIM` px to a side, up or down; beyond the image is outside."""
    places, owners = objects.places[which], objects.numbers[which]
    height, width = objects.shape
    # A frame of background: the columns to the right of a row stand to the left of the next one.
    framed = np.zeros((height + 2 * _RIM, width + _RIM), np.int32)
    first, across, flat = _RIM * framed.shape[1], framed.shape[1], framed.ravel()
    flat[first + objects.places + objects.places // width * _RIM] = objects.numbers
    at = first + places + places // width * _RIM
    rim = np.zeros(places.size, np.bool_)
    for step in range(1, _RIM + 1):
        for offset in (-step, step, -step * across, step * across):
            rim |= flat[at + offset] != owners
    return rim


_Pixel = TypeVar("_Pixel", bound=np.generic)


def labels_to_original(labels: NDArray[np.int32], shape: tuple[int, int]) -> NDArray[np.int32]:
    """The label image (h, w) at the original `shape` (H, W), numbered in raster order.

    No object is lost: one that falls between pixels keeps one pixel, as long as there are as many pixels as objects.
    """
    if labels.shape == shape:
        objects = ObjectPixels.of(labels)
        whole = objects.in_one_piece()
        return labels if whole is objects else whole.painted()
    return window_to_original(labels, (0, 0), (labels.shape[0], labels.shape[1]), shape)[0].painted()


def objects_to_original(
    labels: NDArray[np.int32], first_map: NDArray[np.float32], level: float, shape: tuple[int, int]
) -> ObjectPixels:
    """Separated objects (h, w) of a whole image at the original `shape` (H, W), drawn to where map 0 (h, w) crosses `level`."""
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
) -> tuple[ObjectPixels, tuple[int, int]]:
    """The objects of a window (h, w) of a field at the model's scale, at the original scale, and the (y, x) at which they begin there.

    `origin` is the window's (y, x) in the field of `model_shape`; `shape` is the field's original shape (H, W). The result covers every
    original pixel that shows the window. It keeps every object with its number, as `labels_to_original` does, and of each its largest
    connected piece. With an outline, the labels are `grown` objects; they are cut to it, unless no pixel would be left.
    """
    if labels.size == 0:
        return ObjectPixels.of(np.zeros((0, 0), np.int32)), origin if model_shape == shape else (0, 0)
    if model_shape == shape:
        objects = ObjectPixels.of(labels) if outline is None else _cut_in_place(labels, outline, origin)
        return objects.in_one_piece(), origin
    top, rows = _axis(origin[0], labels.shape[0], model_shape[0], shape[0])
    left, columns = _axis(origin[1], labels.shape[1], model_shape[1], shape[1])
    objects = ObjectPixels.of(_shown(labels, rows, columns))
    if outline is not None:
        objects = _cut(objects, outline, (top, left), shape)
    objects = _completed(objects, labels, origin, (top, left), model_shape, shape)
    return objects.in_one_piece(), (top, left)


def _shown(
    labels: NDArray[np.int32], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.int32]:
    """The label image made of the given rows and columns of a window; beyond the window is background."""
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


def _cut(
    objects: ObjectPixels, outline: Outline, start: tuple[int, int], shape: tuple[int, int]
) -> ObjectPixels:
    """Objects without their pixels outside the outline; an object with none inside keeps all.

    `start` is the (y, x) in a field of `shape` at which the pixels' image begins.
    """
    inside = outline.inside(objects.places, objects.shape[1], start, shape)
    left = np.bincount(objects.numbers[inside], minlength=int(objects.numbers.max(initial=0)) + 1) > 0
    return objects.taken(inside if left[1:].all() else inside | ~left[objects.numbers])


def _cut_in_place(labels: NDArray[np.int32], outline: Outline, origin: tuple[int, int]) -> ObjectPixels:
    """As `_cut`, for a label image (h, w) from `origin` (y, x) whose pixels are those of the map."""
    inside = outline.above(origin, (labels.shape[0], labels.shape[1]))
    objects = ObjectPixels.of(labels, inside)
    left = np.zeros(int(labels.max(initial=0)) + 1, np.bool_)
    left[objects.runs.owners] = True
    return objects if left[1:].all() else ObjectPixels.of(labels, inside | ~left[labels])


def _completed(
    objects: ObjectPixels,
    labels: NDArray[np.int32],
    origin: tuple[int, int],
    start: tuple[int, int],
    model_shape: tuple[int, int],
    shape: tuple[int, int],
) -> ObjectPixels:
    """Give one pixel to every object of a window's labels (h, w) at `origin` that has none at the original scale."""
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
    return ObjectPixels.of(out)


def _axis(start: int, length: int, n: int, full: int) -> tuple[int, NDArray[np.int64]]:
    """The first original pixel that a window touches and, from there on, the pixel of the window shown at each."""
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
    """The middle pixel, in raster order, of each of the chosen numbers that occur in a label image."""
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
    """The pixel nearest to `wanted` that is background, or of an object with further pixels; None if there is none."""
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
