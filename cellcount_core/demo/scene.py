"""Nuclei in a field, planted one by one so that their number is known.

What is planted is geometry and amount of stain; light, optics and camera come in `optics.py`. A nucleus is a smooth
closed outline, an ellipse with a few harmonics. It is planted only if it leaves every nucleus, itself included, at
least `MIN_VISIBLE` of its area in view: inside the field and not below a later nucleus. So the true number of nuclei
is beyond doubt.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import cv2
import numpy as np
from numpy.typing import NDArray

MIN_VISIBLE = 0.7
"""The share of its area that each planted nucleus keeps in view."""

_MARGIN = 40
"""Pixels around the field in which outlines may lie; more than half the length of the largest nucleus."""

_RADIUS_PX, _RADIUS_SPREAD = 9.3, 0.15
_RADIUS_LIMITS = (6.0, 13.5)
_CLUMPED = 0.32
_CLUMP_OVERLAP = 0.12
_MITOTIC = 0.03
_TRIES = 60
_CORNERS = 28


class Phase(Enum):
    """The cell cycle phase, which decides what a nucleus looks like."""

    INTERPHASE = "interphase"
    MITOTIC = "mitotic"


@dataclass(frozen=True, slots=True)
class Nucleus:
    """One planted nucleus: its label in `Scene.owners`, its centre and mean radius in px, its phase, and its relative
    brightness."""

    label: int
    y: float
    x: float
    radius: float
    phase: Phase
    brightness: float


@dataclass(frozen=True, slots=True)
class Scene:
    """What lies in one field.

    `owners` (H, W) int32 holds the label of the topmost nucleus, 0 where there is none. `stain` (H, W) float32 is the
    amount of nuclear stain, about 1 in a usual nucleus. `areas` are the whole areas (px) of the nuclei in label
    order, including parts that are hidden or outside.
    """

    owners: NDArray[np.int32]
    stain: NDArray[np.float32]
    nuclei: tuple[Nucleus, ...]
    areas: tuple[int, ...]

    @property
    def count(self) -> int:
        """The true count."""
        return len(self.nuclei)


@dataclass(slots=True)
class _Canvas:
    owners: NDArray[np.int32]
    stain: NDArray[np.float32]
    field: tuple[slice, slice]
    nuclei: list[Nucleus]
    areas: list[int]
    in_view: list[int]


@dataclass(frozen=True, slots=True)
class _Shape:
    """The pixels of an outline: `mask` (h, w) bool, with its upper left corner at (top, left) of the canvas."""

    top: int
    left: int
    mask: NDArray[np.bool_]

    @property
    def box(self) -> tuple[slice, slice]:
        height, width = self.mask.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


def plant(rng: np.random.Generator, shape: tuple[int, int], count: int) -> Scene:
    """Plant `count` nuclei in a field (H, W) px, or as many as there is room for.

    About a third are set against an existing nucleus, which makes clumps; the others are set on free ground.
    """
    canvas = _empty_canvas(shape)
    for _ in range(count):
        if not _plant_one(rng, canvas, shape):
            break
    inner = canvas.field
    return Scene(
        owners=np.ascontiguousarray(canvas.owners[inner]),
        stain=np.ascontiguousarray(canvas.stain[inner]),
        nuclei=tuple(canvas.nuclei),
        areas=tuple(canvas.areas),
    )


def _empty_canvas(shape: tuple[int, int]) -> _Canvas:
    height, width = shape
    size = (height + 2 * _MARGIN, width + 2 * _MARGIN)
    field = (slice(_MARGIN, _MARGIN + height), slice(_MARGIN, _MARGIN + width))
    return _Canvas(np.zeros(size, np.int32), np.zeros(size, np.float32), field, [], [], [])


def _plant_one(rng: np.random.Generator, canvas: _Canvas, shape: tuple[int, int]) -> bool:
    phase = Phase.MITOTIC if rng.random() < _MITOTIC else Phase.INTERPHASE
    radius = float(np.clip(_RADIUS_PX * rng.lognormal(0.0, _RADIUS_SPREAD), *_RADIUS_LIMITS))
    outline = _outline(rng, radius, phase)
    brightness = float(rng.lognormal(0.0, 0.22)) * (2.1 if phase is Phase.MITOTIC else 1.0)
    for _ in range(_TRIES):
        clumped = bool(canvas.nuclei) and rng.random() < _CLUMPED
        y, x = _beside(rng, canvas, radius) if clumped else _anywhere(rng, shape)
        placed = _rasterise(outline, y, x)
        overlap = _CLUMP_OVERLAP if clumped else 0.0
        if _fits(canvas, placed, overlap):
            nucleus = Nucleus(len(canvas.nuclei) + 1, y - _MARGIN, x - _MARGIN, radius, phase, brightness)
            _paint(rng, canvas, placed, nucleus)
            return True
    return False


def _outline(rng: np.random.Generator, radius: float, phase: Phase) -> NDArray[np.float64]:
    """Corners (n, 2) of an outline around (0, 0), as y and x."""
    angle = np.linspace(0.0, 2 * np.pi, _CORNERS, endpoint=False)
    # A chromosome plate seen from the side is a bar; an interphase nucleus is close to round.
    stretch = float(rng.uniform(1.7, 2.2) if phase is Phase.MITOTIC else rng.uniform(1.0, 1.5))
    size = radius * (0.8 if phase is Phase.MITOTIC else 1.0)
    long, short = size * np.sqrt(stretch), size / np.sqrt(stretch)
    wobble = np.ones_like(angle)
    for order, strength in ((2, 0.03), (3, 0.035), (4, 0.02), (5, 0.012)):
        wobble += rng.normal(0.0, strength) * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
    along, across = long * wobble * np.cos(angle), short * wobble * np.sin(angle)
    turn = rng.uniform(0.0, np.pi)
    return np.stack(
        [along * np.sin(turn) + across * np.cos(turn), along * np.cos(turn) - across * np.sin(turn)], axis=1
    )


def _anywhere(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[float, float]:
    return float(rng.uniform(0, shape[0])) + _MARGIN, float(rng.uniform(0, shape[1])) + _MARGIN


def _beside(rng: np.random.Generator, canvas: _Canvas, radius: float) -> tuple[float, float]:
    host = canvas.nuclei[int(rng.integers(len(canvas.nuclei)))]
    angle, distance = rng.uniform(0.0, 2 * np.pi), (host.radius + radius) * rng.uniform(0.92, 1.12)
    return (
        host.y + _MARGIN + float(distance * np.sin(angle)),
        host.x + _MARGIN + float(distance * np.cos(angle)),
    )


def _rasterise(outline: NDArray[np.float64], y: float, x: float) -> _Shape:
    """The pixels of the outline with its centre at (y, x) of the canvas."""
    corners = outline + np.array([y, x])
    top, left = np.floor(corners.min(axis=0)).astype(int)
    bottom, right = np.ceil(corners.max(axis=0)).astype(int) + 1
    mask = np.zeros((bottom - top, right - left), np.uint8)
    points = np.round((corners[:, ::-1] - (left, top)) * 16).astype(np.int32)
    cv2.fillPoly(mask, [points], 1, shift=4)
    return _Shape(int(top), int(left), mask.astype(bool))


def _in_view(canvas: _Canvas, shape: _Shape) -> int:
    """The number of pixels of the shape that lie in the field."""
    rows, columns = shape.box
    inner_rows, inner_columns = canvas.field
    top, bottom = max(rows.start, inner_rows.start), min(rows.stop, inner_rows.stop)
    left, right = max(columns.start, inner_columns.start), min(columns.stop, inner_columns.stop)
    if top >= bottom or left >= right:
        return 0
    return int(
        shape.mask[top - rows.start : bottom - rows.start, left - columns.start : right - columns.start].sum()
    )


def _fits(canvas: _Canvas, shape: _Shape, overlap: float) -> bool:
    """Whether all nuclei stay in view with the new one on top, and the new one covers at most `overlap` of any other."""
    rows, columns = shape.box
    height, width = canvas.owners.shape
    if rows.start < 0 or columns.start < 0 or rows.stop > height or columns.stop > width:
        return False
    area = int(shape.mask.sum())
    if _in_view(canvas, shape) < MIN_VISIBLE * area:
        return False
    below = canvas.owners[shape.box][shape.mask]
    below = below[below > 0]
    if below.size == 0:
        return True
    if below.size > overlap * area:
        return False
    labels, covered = np.unique(below, return_counts=True)
    return all(
        hidden <= overlap * canvas.areas[label - 1]
        and canvas.in_view[label - 1] - hidden >= MIN_VISIBLE * canvas.areas[label - 1]
        for label, hidden in zip(labels, covered, strict=True)
    )


def _paint(rng: np.random.Generator, canvas: _Canvas, shape: _Shape, nucleus: Nucleus) -> None:
    owners = canvas.owners[shape.box]
    labels, covered = np.unique(owners[shape.mask], return_counts=True)
    for label, hidden in zip(labels, covered, strict=True):
        if label:
            canvas.in_view[label - 1] -= int(hidden)
    owners[shape.mask] = nucleus.label
    # Stain adds up where nuclei overlap: they are transparent.
    canvas.stain[shape.box] += nucleus.brightness * _thickness(rng, shape.mask, nucleus.phase)
    canvas.nuclei.append(nucleus)
    canvas.areas.append(int(shape.mask.sum()))
    canvas.in_view.append(_in_view(canvas, shape))


def _thickness(rng: np.random.Generator, mask: NDArray[np.bool_], phase: Phase) -> NDArray[np.float32]:
    """Stain per pixel of a nucleus of brightness 1: more in the middle, and less in the nucleoli unless it is
    mitotic."""
    padded = np.pad(mask.astype(np.uint8), 1)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1]
    top = float(depth.max()) or 1.0
    stain = np.where(mask, 0.62 + 0.38 * np.sqrt(depth / top), 0.0).astype(np.float32)
    if phase is Phase.INTERPHASE:
        inside = np.argwhere(depth > 0.35 * top)
        for _ in range(int(rng.integers(1, 4))):
            y, x = inside[int(rng.integers(len(inside)))]
            spot = np.zeros(mask.shape, np.uint8)
            cv2.circle(spot, (int(x), int(y)), int(rng.integers(1, 3)), 1, -1)
            stain[spot.astype(bool)] *= np.float32(rng.uniform(0.62, 0.8))
    return stain
