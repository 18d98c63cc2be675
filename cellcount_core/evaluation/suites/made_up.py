"""Drawn images with known counts: nuclei of 8 to 120 px, 1 to 3,000 of them, apart and touching, on three
backgrounds.

Every nucleus is drawn at its own size (nothing is resized) and lies wholly in the image and below no other nucleus,
so the true count is beyond doubt. Combinations of more than 15 megapixels are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.scales import ScaleSource
from cellcount_core.evaluation.suites.base import (
    Asked,
    SuiteCell,
    SuiteColumn,
    SuiteResult,
    SuiteTable,
    cell,
    image_without_objects,
    met,
)
from cellcount_core.images.imagefile import Plane
from cellcount_core.pipeline.rows import Examined

DIAMETERS = (8, 12, 20, 40, 80, 120)
NUMBERS = (1, 3, 10, 100, 1000, 3000)
SPACINGS = {"sparse": 2.2, "confluent": 1.2}
"""Distance between neighbouring places of the lattice, in diameters. Nuclei are shifted about their place."""

BACKGROUNDS = ("dark", "noisy", "uneven")
LARGEST_ERROR = 0.05
MAX_PIXELS = 15_000_000
SMALLEST_SIDE = 256
_CORNERS = 48


@dataclass(frozen=True, slots=True)
class MadeUp:
    """A 16-bit image, its labels 1..n (H, W) int32, and the median equivalent diameter (px) of what was drawn."""

    plane: Plane
    labels: NDArray[np.int32]
    diameter_px: float

    @property
    def count(self) -> int:
        """The true count."""
        return int(self.labels.max(initial=0))


def shape_for(diameter: float, number: int, arrangement: str) -> tuple[int, int]:
    """The shape (H, W), about 4:5, of an image that holds `number` nuclei in this arrangement. No side is below
    `SMALLEST_SIDE`."""
    cell = (SPACINGS[arrangement] * diameter) ** 2 * np.sqrt(3) / 2
    area = 1.15 * number * cell + 4 * diameter * np.sqrt(number * cell) + (2 * diameter) ** 2
    height = max(SMALLEST_SIDE, int(np.ceil(np.sqrt(area * 0.8))))
    return height, max(SMALLEST_SIDE, int(np.ceil(height / 0.8)))


def make(diameter: float, number: int, arrangement: str, background: str, seed: int = 0) -> MadeUp:
    """Draw the image with these properties, always the same one. Raises ValueError if the nuclei do not fit."""
    rng = np.random.default_rng([seed, round(diameter), number, sorted(SPACINGS).index(arrangement)])
    shape = shape_for(diameter, number, arrangement)
    places = _places(rng, shape, diameter, number, arrangement)
    labels, stain = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
    for label, (y, x) in enumerate(places, 1):
        _draw(rng, labels, stain, label, (y, x), diameter)
    areas = np.bincount(labels.ravel(), minlength=len(places) + 1)[1:]
    stain *= _texture(rng, shape, diameter)
    plane = _photograph(rng, stain, background)
    return MadeUp(plane, labels, float(np.median(2 * np.sqrt(areas / np.pi))))


def _places(
    rng: np.random.Generator, shape: tuple[int, int], diameter: float, number: int, arrangement: str
) -> NDArray[np.float64]:
    """Centres (n, 2) of neighbours in one patch of a shaken hexagonal lattice, in an order that leaves clumps whole."""
    step = SPACINGS[arrangement] * diameter
    margin = 0.72 * diameter
    rows = np.arange(margin, shape[0] - margin, step * np.sqrt(3) / 2)
    columns = np.arange(margin, shape[1] - margin, step)
    lattice = np.array([(y, x + (step / 2) * (i % 2)) for i, y in enumerate(rows) for x in columns])
    lattice = lattice[lattice[:, 1] < shape[1] - margin]
    if len(lattice) < number:
        raise ValueError(f"{number} nuclei of {diameter} px do not fit into {shape} ({len(lattice)} do)")
    # Touching nuclei lie around one point, as a colony does; sparse ones anywhere.
    focus = rng.uniform(0.3, 0.7, 2) * shape
    far = np.hypot(*(lattice - focus).T)
    order = np.argsort(far) if arrangement == "confluent" else rng.permutation(len(lattice))
    shaken = rng.uniform(-1, 1, (number, 2)) * (step - diameter) * (0.35 if arrangement == "sparse" else 0.5)
    return np.asarray(lattice[order[:number]] + shaken)


def _draw(
    rng: np.random.Generator,
    labels: NDArray[np.int32],
    stain: NDArray[np.float32],
    label: int,
    place: tuple[float, float],
    diameter: float,
) -> None:
    """Draw one outline, an ellipse with a few harmonics, on pixels that no other nucleus covers yet."""
    angle = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)
    radius = diameter / 2 * float(np.clip(rng.lognormal(0, 0.1), 0.8, 1.2))
    stretch = np.sqrt(rng.uniform(1.0, 1.35))
    wobble = np.ones_like(angle)
    for order, strength in ((2, 0.02), (3, 0.025), (4, 0.012)):
        wobble += rng.normal(0, strength) * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
    along, across = radius * stretch * wobble * np.cos(angle), radius / stretch * wobble * np.sin(angle)
    turn = rng.uniform(0, np.pi)
    ys = place[0] + along * np.sin(turn) + across * np.cos(turn)
    xs = place[1] + along * np.cos(turn) - across * np.sin(turn)
    top, left = max(0, int(ys.min()) - 1), max(0, int(xs.min()) - 1)
    box = (slice(top, int(ys.max()) + 3), slice(left, int(xs.max()) + 3))
    mask = np.zeros(labels[box].shape, np.uint8)
    corners = np.stack([xs - left, ys - top], axis=1)
    cv2.fillPoly(mask, [np.round(corners * 16).astype(np.int32)], 1, shift=4)
    free = (mask > 0) & (labels[box] == 0)
    labels[box][free] = label
    stain[box][free] = float(np.clip(rng.lognormal(0, 0.25), 0.5, 2.0))


def _texture(rng: np.random.Generator, shape: tuple[int, int], diameter: float) -> NDArray[np.float32]:
    """Chromatin, about 1: grain of a tenth of a nucleus, and hollows of a fifth that look like nucleoli."""
    texture = np.ones(shape, np.float32)
    for part, strength in ((0.1, 0.12), (0.2, 0.1)):
        sigma = part * diameter / 2
        # Coarse grain is drawn small and enlarged: a wide blur of a large image would take long.
        shrink = max(1, int(sigma))
        small = rng.standard_normal((shape[0] // shrink + 2, shape[1] // shrink + 2), dtype=np.float32)
        grain = np.asarray(cv2.GaussianBlur(small, (0, 0), max(0.5, sigma / shrink)), np.float32)
        grain /= np.float32(max(float(grain.std()), 1e-6))
        texture += np.float32(strength) * cv2.resize(
            grain, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC
        )
    return np.maximum(texture, np.float32(0.3))


def _photograph(rng: np.random.Generator, stain: NDArray[np.float32], background: str) -> NDArray[np.uint16]:
    """16 bits: optics of sigma 0.8 px, then photons. dark: 600 a nucleus on 20; noisy: 25 on 5; uneven: light down to
    35 %."""
    sharp = np.asarray(cv2.GaussianBlur(stain, (0, 0), 0.8), np.float32)
    photons, dark = (25.0, 5.0) if background == "noisy" else (600.0, 20.0)
    if background == "uneven":
        # Light of the medium on top, so that the background itself is seen to fall off.
        dark = 120.0
    light = _light(stain.shape[0], stain.shape[1]) if background == "uneven" else np.float32(1)
    seen = rng.poisson((dark + photons * sharp) * light).astype(np.float32)
    seen += rng.normal(0, 2, stain.shape).astype(np.float32)
    return np.clip(np.rint(300 + 8 * seen), 0, 65_535).astype(np.uint16)


def _light(height: int, width: int) -> NDArray[np.float32]:
    down, across = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)[None]
    return np.asarray(1 - 0.65 * np.sqrt(0.6 * down**2 + 0.4 * across**2), np.float32)


def combinations(diameters: Sequence[int], numbers: Sequence[int]) -> Iterator[tuple[int, str, int]]:
    """Diameter, arrangement and number of every row of the table."""
    for diameter in diameters:
        for arrangement in SPACINGS:
            for number in numbers:
                if number == 1 and arrangement == "confluent":
                    continue
                height, width = shape_for(diameter, number, arrangement)
                if height * width <= MAX_PIXELS:
                    yield diameter, arrangement, number


def made_up(
    asked: Asked, diameters: Sequence[int] = DIAMETERS, numbers: Sequence[int] = NUMBERS
) -> SuiteResult:
    """Count one image of every combination on every background. A limit takes so many combinations, evenly spread."""
    wanted = list(combinations(diameters, numbers))
    if asked.limit is not None and asked.limit < len(wanted):
        wanted = [wanted[at * len(wanted) // asked.limit] for at in range(asked.limit)]
    images = [(*each, background) for each in wanted for background in BACKGROUNDS]
    counted = list(asked.in_turn(lambda each: _counted(asked, each), images, len(images)))
    rows = [
        _row(counted[at : at + len(BACKGROUNDS)], wanted[at // len(BACKGROUNDS)][1])
        for at in range(0, len(counted), len(BACKGROUNDS))
    ]
    columns = [
        SuiteColumn("diameter_px", "diameter"),
        SuiteColumn("arrangement", ""),
        SuiteColumn("image", "image"),
        SuiteColumn("true", "true"),
    ]
    for background in BACKGROUNDS:
        columns += [
            SuiteColumn(background, background), SuiteColumn(f"{background}_error", "error"), SuiteColumn(f"{background}_told_px", "told, px"),
        ]  # fmt: skip
    columns.append(SuiteColumn("met", "within 5 %", "bars"))
    return SuiteResult(
        asked.caption(f"{len(images)} made-up images"),
        (SuiteTable("combinations", tuple(columns), tuple(rows)),),
    )


@dataclass(frozen=True, slots=True)
class _CountedDrawing:
    """A drawn image that was counted: its width and height, what was drawn in it, and what was found."""

    width: int
    height: int
    true: int
    diameter_px: float
    counted: int
    told_px: float | None

    @property
    def within(self) -> bool:
        """Whether the count meets the bar, which for few objects allows no error."""
        return abs(self.counted - self.true) <= int(LARGEST_ERROR * self.true)


def _counted(asked: Asked, wanted: tuple[int, str, int, str]) -> _CountedDrawing:
    diameter, arrangement, number, background = wanted
    image = make(diameter, number, arrangement, background)
    seen = asked.counter.count(image_without_objects("made up", image.plane))
    height, width = image.plane.shape
    return _CountedDrawing(width, height, image.count, image.diameter_px, seen.found.count, _told(seen))


def _row(images: Sequence[_CountedDrawing], arrangement: str) -> tuple[SuiteCell, ...]:
    first = images[0]
    cells = [
        cell(first.diameter_px, ".1f"),
        cell(arrangement),
        cell(f"{first.width} x {first.height}"),
        cell(first.true),
    ]
    for image in images:
        cells += [
            cell(image.counted),
            cell(image.counted / image.true - 1, "+.0%"),
            cell(image.told_px, ".1f"),
        ]
    return (*cells, met(*(image.within for image in images)))


def _told(seen: Examined) -> float | None:
    return seen.scale.diameter_px if seen.scale.source in (ScaleSource.IMAGE, ScaleSource.UNKNOWN) else None
