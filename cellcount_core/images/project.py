"""Joining the z planes of a field into the one plane that is counted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np

from cellcount_core.domain.errors import FieldFault, Reason
from cellcount_core.images.imagefile import Plane

ZMode = Literal["max", "mean", "first"] | int
"""How planes are joined: largest value, mean, the first plane, or the plane of that position (from 0)."""


def project(planes: Iterable[Plane], mode: ZMode) -> Plane:
    """One plane (H, W) from planes of one shape and type; the type is kept (a mean of integers is rounded half to even).

    `planes` may be a generator: one plane and one running plane are held at a time, and a single plane is given back as
    it is. Raises FieldFault WRONG_SHAPE where planes differ in shape or type, or where the one asked for is not there.
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
