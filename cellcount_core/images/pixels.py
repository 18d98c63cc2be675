"""What is done to the pixels of a plane before it is counted: type, colour, z planes, size.

- `countable` converts what a file holds to uint8, uint16 or float32; `colour_channel` takes one channel of a colour image.
- `project` joins the z planes of a field into the one plane that is counted.
- `resize` brings a plane to the model's scale. A field is always resized whole, so that every tile sees the same pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Literal, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.errors import ConfigFault, FieldFault, Reason
from cellcount_core.images.imagefile import COLOURS, Plane

_ROWS_AT_ONCE = 1 << 22
"""Pixels that are checked at a time. It bounds the memory needed beside the image."""

_RISING = 15 / 16
"""The sum of a palette's colours rises in at least this share of its steps if the palette only tints grey values."""

_LARGEST = float(1 << 60)
"""Larger pixel values are refused: their squares do not fit into 32-bit floats, and no instrument writes them."""

_VIEW = 512
"""Side (px) of the reduced image in which colours are compared."""
_CARRIES = 0.02
"""A colour carries a signal only if its spread is at least this share of the widest colour's spread."""

_OVER_NOISE = 1.5
"""A colour carries a signal only if it spreads more than this many times its own noise: the noise of two colours
never correlates."""

_TOGETHER = 0.9
"""Two colours with a lower correlation show different things."""

_COUNTABLE = frozenset({"uint8", "uint16", "float32"})


def bit_max_of(dtype: np.dtype[np.generic]) -> int:
    """Largest value of an integer type; 1 for bool, 0 for float types."""
    if dtype.kind == "b":
        return 1
    return int(np.iinfo(dtype.name).max) if dtype.kind in "iu" else 0


def check_dtype(dtype: np.dtype[np.generic], key: str) -> None:
    """Raises FieldFault(WRONG_DTYPE) unless the type is bool, an integer of 8 to 64 bits or a float of 16 to 64 bits."""
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        expected = "8 to 64-bit integers, 16 to 64-bit floats or bool are expected"
        raise FieldFault(Reason.WRONG_DTYPE, f"pixels are of type {dtype.name}; {expected}", key)


def countable(plane: Plane, key: str) -> Plane:
    """The plane (H, W) as uint8, uint16 or float32, in native byte order, C-contiguous and aligned.

    It is copied only if something has to change. Integers that are negative or above 65535 become float32 (the
    nearest value: relative error below 6e-8). Raises FieldFault(WRONG_DTYPE) for other types and for values too large
    to compute with, FieldFault(NON_FINITE) for NaN and infinity.
    """
    check_dtype(plane.dtype, key)
    if plane.dtype.kind == "b":
        plane = plane.astype(np.uint8)
    elif plane.dtype.kind in "iu" and plane.dtype.name not in _COUNTABLE:
        plane = plane.astype(_integer_target(plane, key))
    elif plane.dtype.kind == "f":
        plane = _as_float32(plane, key)
    native = plane.dtype.newbyteorder("=")
    return np.require(plane, dtype=native, requirements=["C", "A"])


def _integer_target(plane: Plane, key: str) -> type[np.generic]:
    low, high = int(plane.min()), int(plane.max())
    _check_largest(max(abs(low), abs(high)), key)
    if low < 0 or high > 65535:
        return np.float32
    return np.uint8 if plane.dtype.itemsize == 1 else np.uint16


def _as_float32(plane: Plane, key: str) -> Plane:
    rows = max(1, _ROWS_AT_ONCE // plane.shape[1])
    for start in range(0, plane.shape[0], rows):
        _check_finite(plane, start, rows, key)
    _check_largest(max(abs(float(plane.min())), abs(float(plane.max()))), key)
    return plane if plane.dtype.name == "float32" else plane.astype(np.float32)


def _check_largest(value: float, key: str) -> None:
    if value > _LARGEST:
        raise FieldFault(
            Reason.WRONG_DTYPE, f"pixels reach {value:g}; values up to {_LARGEST:g} can be computed with", key
        )


def _check_finite(plane: Plane, start: int, rows: int, key: str) -> None:
    finite = np.isfinite(plane[start : start + rows].astype(plane.dtype.newbyteorder("="), copy=False))
    if finite.all():
        return
    y, x = (int(v) for v in np.argwhere(~finite)[0])
    total = sum(
        int(np.count_nonzero(~np.isfinite(plane[row : row + rows]))) for row in range(0, plane.shape[0], rows)
    )
    value = float(plane[start + y, x])
    raise FieldFault(
        Reason.NON_FINITE,
        f"{total} of {plane.size} pixels are not finite; the first, {value}, at x={x}, y={start + y}",
        key,
    )


def colour_channel(rgb: Plane, number: int, key: str) -> Plane:
    """One channel (H, W) of a colour image (H, W, 3) in the order red, green, blue.

    `number` is 0, 1 or 2; -1 is the luminance 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601), which is rounded and keeps
    its type for uint8 and uint16. Raises what `countable` raises.
    """
    if number >= 0:
        return countable(np.ascontiguousarray(rgb[:, :, number]), key)
    if rgb.dtype.name in _COUNTABLE:
        three: NDArray[np.generic] = np.ascontiguousarray(rgb[:, :, :3])
    else:
        three = np.dstack([countable(rgb[:, :, c], key).astype(np.float32) for c in range(len(COLOURS))])
    return countable(np.asarray(cv2.cvtColor(cast("NDArray[np.float32]", three), cv2.COLOR_RGB2GRAY)), key)


def is_grey(planes: Sequence[Plane]) -> bool:
    """Whether the colours of an image (H, W) are all equal, and it shows something: a grey image saved in colours.

    >>> grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    >>> is_grey([grey, grey, grey]), is_grey([grey, grey, grey + 1])
    (True, False)
    """
    first, *others = planes
    return all(np.array_equal(first, other) for other in others) and bool((first != first.flat[0]).any())


def colours_differ(planes: Iterable[Plane]) -> bool:
    """Whether the red, green and blue planes (H, W) show different things, as in an overlay of several stains.

    They do if two colours that carry a signal correlate by less than 0.9. A grey image saved in colour, or tinted in
    one colour, does not. The planes are compared at most 512 px a side, where noise hardly matters, and only one
    plane is held in full at a time.
    """
    small = []
    least = 0.0
    for plane in planes:
        small.append(_view(plane))
        least = 0.5 if plane.dtype.kind == "u" else 0.0
    spreads = [float(plane.std()) for plane in small]
    least = max(least, _CARRIES * max(spreads))
    carrying = [
        plane.ravel()
        for plane, spread in zip(small, spreads, strict=True)
        if spread > max(least, _OVER_NOISE * _noise(plane))
    ]
    return any(np.corrcoef(one, other)[0, 1] < _TOGETHER for one, other in combinations(carrying, 2))


def _view(plane: Plane) -> NDArray[np.float32]:
    """The plane reduced to at most `_VIEW` px a side: of a large plane every nth pixel is taken, then pixels are
    averaged."""
    step = max(1, max(plane.shape) // (4 * _VIEW))
    thin = np.asarray(plane[::step, ::step], np.float32)
    share = min(1.0, _VIEW / max(thin.shape))
    height, width = (max(1, round(side * share)) for side in thin.shape)
    return np.asarray(cv2.resize(thin, (width, height), interpolation=cv2.INTER_AREA), np.float32)


def _noise(plane: Plane) -> float:
    """Standard deviation of the noise, from the median difference of neighbours, which the signal hardly changes."""
    return (
        float(np.median(np.abs(np.diff(np.asarray(plane, np.float32), axis=1)))) / (0.6745 * 2**0.5)
        if plane.shape[1] > 1
        else 0.0
    )


def is_ramp(palette: NDArray[np.generic]) -> bool:
    """Whether a palette (n, 3) only tints grey values: no colour ever falls, and their sum rises with few repeats.

    Microscopes save grey planes with such palettes (grey, green, "fire"; Leica repeats an entry). The palette indices
    are then the pixel values.
    """
    steps = np.diff(palette.astype(np.int64), axis=0)
    rising = int(np.count_nonzero(steps.sum(axis=1)))
    return bool(len(palette) > 1 and (steps >= 0).all() and rising >= _RISING * len(steps))


ZMode = Literal["max", "mean", "first"] | int
"""How z planes are joined: the largest value, the mean, the first plane, or the plane at that position (from 0)."""


def project(planes: Iterable[Plane], mode: ZMode) -> Plane:
    """Join the z planes of a field into one plane (H, W). The planes must have one shape and type; the type is kept,
    and a mean of integers is rounded half to even.

    `planes` may be a generator: at most one plane and one running result are held. A single plane is given back as it
    is. Raises FieldFault(WRONG_SHAPE) if the planes differ in shape or type, or if there is no plane at the position
    asked for.
    """
    if mode == "max":
        return _largest(planes)
    if mode == "mean":
        return _mean(planes)
    wanted = 0 if mode == "first" else int(mode)
    seen = 0
    for position, plane in enumerate(planes):
        if position == wanted:
            return plane
        seen = position + 1
    raise FieldFault(Reason.WRONG_SHAPE, f"plane {wanted} was asked for (run.z) and there are {seen}, from 0")


def _largest(planes: Iterable[Plane]) -> Plane:
    first: Plane | None = None
    largest: Plane | None = None
    for number, plane in enumerate(planes):
        if first is None:
            first = plane
            continue
        _check_same(first, plane, number)
        largest = np.maximum(first if largest is None else largest, plane, out=largest)
    return _some(first if largest is None else largest)


def _mean(planes: Iterable[Plane]) -> Plane:
    first: Plane | None = None
    total: np.ndarray | None = None
    count = 0
    for plane in planes:
        if first is None:
            first = plane
        _check_same(first, plane, count)
        count += 1
        if count == 2:
            # Sums of 65535-valued planes stay exact in uint64; float planes are summed in double precision.
            total = first.astype(np.float64 if first.dtype.kind == "f" else np.uint64)
        if total is not None:
            np.add(total, plane, out=total, casting="unsafe")
    if total is None:
        return _some(first)
    mean = total / count
    return (np.rint(mean) if _some(first).dtype.kind in "iu" else mean).astype(_some(first).dtype)


def _some(plane: Plane | None) -> Plane:
    if plane is None:
        raise FieldFault(Reason.WRONG_SHAPE, "the field has no plane")
    return plane


def _check_same(first: Plane, plane: Plane, number: int) -> None:
    if plane.shape != first.shape or plane.dtype != first.dtype:
        detail = f"plane {number} is {plane.shape} {plane.dtype} and plane 0 is {first.shape} {first.dtype}"
        raise FieldFault(Reason.WRONG_SHAPE, f"{detail}; planes of a field must be alike")


SMALLEST_FACTOR = 1 / 32
"""An image is never resized by a smaller factor."""
LARGEST_FACTOR = 16.0
"""An image is never resized by a larger factor."""


def resized_shape(shape: tuple[int, int], factor: float) -> tuple[int, int]:
    """The shape (H, W) that `resize` gives: max(1, round(side * factor)) for each side. Raises ConfigFault if the
    factor is not within 1/32 to 16."""
    if not SMALLEST_FACTOR <= factor <= LARGEST_FACTOR:
        raise ConfigFault(
            f"an image would have to be resized by {factor:g}; {SMALLEST_FACTOR:g} to {LARGEST_FACTOR:g} are possible"
            " (run.diameter is the diameter of the objects in px of the image)"
        )
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def resize(plane: Plane, factor: float) -> Plane:
    """The plane (H, W) of uint8, uint16 or float32 resized by `factor`; the type is kept. Smaller by averaging pixel
    areas, larger by bilinear interpolation.

    Factor 1 gives the array itself. Raises ConfigFault if the factor is not within 1/32 to 16.
    """
    height, width = resized_shape((plane.shape[0], plane.shape[1]), factor)
    if factor == 1:
        return plane
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    pixels = cast("NDArray[np.float32]", plane)
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=method))


def resize_to(plane: Plane, shape: tuple[int, int]) -> Plane:
    """The plane (H, W) of uint8, uint16 or float32 resized to `shape` (h, w), also if the ratio of the sides changes;
    the type is kept.

    Pixel areas are averaged if it gets fewer pixels; otherwise the interpolation is bilinear.
    """
    if plane.shape == shape:
        return plane
    method = cv2.INTER_AREA if shape[0] * shape[1] < plane.size else cv2.INTER_LINEAR
    pixels = cast("NDArray[np.float32]", plane)
    return np.asarray(cv2.resize(pixels, (shape[1], shape[0]), interpolation=method))
