"""Empty fields: the share of images with nothing to count for which 0 is counted.

The images are drawn (noise, nothing, gradients, debris; 256 to 1,024 px a side; 8, 12 and 16 bits). If labelled
images are given, those without an object are counted too, as is the largest square without an object of each of the
others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cellcount_core.evaluation.suites.base import (
    Asked,
    SuiteCell,
    SuiteColumn,
    SuiteResult,
    SuiteTable,
    cell,
    image_without_objects,
    labelled,
    met,
)
from cellcount_core.images.imagefile import Plane
from cellcount_core.labelled.image import ImageEntry, LabelledImage, Pictured

LEAST_EMPTY = 0.99
"""The share of the drawn images that must count 0."""

IMAGES = 500
"""The number of drawn images that are counted, unless a limit is lower."""

SMALLEST_PART = 64
"""Shorter side (px) of the smallest part without objects that is counted."""

SIDES = (256, 384, 512, 768, 1024)
BITS = (8, 12, 16)

PlaneShape = tuple[int, int]
FloatPlane = NDArray[np.float32]
Make = Callable[[np.random.Generator, PlaneShape], FloatPlane]
"""Draws an image (H, W) float32 in units of the full range, 0..1; the camera clips what lies outside."""


@dataclass(frozen=True, slots=True)
class EmptyKind:
    """A kind of image without nuclei; `group` is what the bar calls it."""

    group: str
    name: str
    make: Make


def _level(rng: np.random.Generator) -> float:
    return float(rng.uniform(0.02, 0.4))


def _sigma(rng: np.random.Generator) -> float:
    """A noise level from 0.2 % to 8 % of the range."""
    return float(np.exp(rng.uniform(np.log(0.002), np.log(0.08))))


def _white(rng: np.random.Generator, shape: PlaneShape) -> FloatPlane:
    return rng.standard_normal(shape, dtype=np.float32)


def gaussian_noise(rng: np.random.Generator, shape: PlaneShape) -> FloatPlane:
    """White noise on an offset well above 0."""
    sigma = _sigma(rng)
    return np.float32(_level(rng) + 4 * sigma) + np.float32(sigma) * _white(rng, shape)


def poisson_noise(rng: np.random.Generator, shape: PlaneShape) -> FloatPlane:
    """Shot noise of 0.3 to 100 photons a pixel, with a gain that puts the mean at a visible level."""
    photons = float(np.exp(rng.uniform(np.log(0.3), np.log(100))))
    return (rng.poisson(photons, shape) * (_level(rng) / max(photons, 1.0))).astype(np.float32)


def blurred_noise(rng: np.random.Generator, shape: PlaneShape) -> FloatPlane:
    """Noise smoothed by optics, interpolation or compression (sigma 0.5 to 1.5 px), brought back to its former
    strength."""
    smooth = _blurred(_white(rng, shape), float(rng.uniform(0.5, 1.5)))
    smooth /= smooth.std()
    sigma = _sigma(rng)
    return np.asarray(_level(rng) + 4 * sigma + sigma * smooth, np.float32)


def clipped_noise(rng: np.random.Generator, shape: PlaneShape) -> FloatPlane:
    """Noise with a mean between 2 sigma below 0 and 1 sigma above, so that much or most of it is cut off at 0."""
    sigma = _sigma(rng)
    return np.float32(sigma * rng.uniform(-2, 1)) + np.float32(sigma) * _white(rng, shape)


def pattern_noise(rng: np.random.Generator, shape: PlaneShape) -> FloatPlane:
    """The camera's fixed pattern: rows and columns with offsets of their own, hot pixels, and white noise."""
    sigma = _sigma(rng)
    rows = rng.normal(0, rng.uniform(0.3, 1.5), (shape[0], 1))
    columns = rng.normal(0, rng.uniform(0.0, 1.0), (1, shape[1]))
    hot = (rng.random(shape) < 2e-4) * rng.uniform(3, 40)
    return np.asarray(
        _level(rng) + 5 * sigma + sigma * (_white(rng, shape) + rows + columns + hot), np.float32
    )


def constant(rng: np.random.Generator, shape: PlaneShape) -> FloatPlane:
    """One value everywhere: 0, full scale, or any value between."""
    return np.full(shape, rng.choice([0.0, 1.0, rng.random()]), np.float32)


def _axes(shape: PlaneShape) -> tuple[FloatPlane, FloatPlane]:
    down, across = (np.linspace(-1, 1, side, dtype=np.float32) for side in shape)
    return down[:, None], across[None]


def linear(rng: np.random.Generator, shape: PlaneShape) -> FloatPlane:
    """A ramp in any direction."""
    down, across = _axes(shape)
    angle = rng.uniform(0, 2 * np.pi)
    ramp = (np.sin(angle) * down + np.cos(angle) * across + 1.5) / 3
    return np.asarray(rng.uniform(0.05, 0.3) + rng.uniform(0.05, 0.6) * ramp, np.float32)


def vignette(rng: np.random.Generator, shape: PlaneShape) -> FloatPlane:
    """Light that falls off with the fourth power of the cosine, to 20 % to 90 % in the corners."""
    down, across = _axes(shape)
    squared = (down - rng.uniform(-0.2, 0.2)) ** 2 + (across - rng.uniform(-0.2, 0.2)) ** 2
    return np.asarray(rng.uniform(0.1, 0.8) / (1 + rng.uniform(0.03, 0.6) * squared) ** 2, np.float32)


def radial(rng: np.random.Generator, shape: PlaneShape) -> FloatPlane:
    """A glow much wider than any nucleus: sigma 0.6 to 1.2 times half the side of the image."""
    down, across = _axes(shape)
    squared = (down - rng.uniform(-1, 1)) ** 2 + (across - rng.uniform(-1, 1)) ** 2
    glow = np.exp(-squared / (2 * rng.uniform(0.6, 1.2) ** 2))
    return np.asarray(0.05 + rng.uniform(0.05, 0.6) * glow, np.float32)


def noisy(make: Make) -> Make:
    """The same image with shot noise of 10 to 1,000 photons at full scale."""

    def made(rng: np.random.Generator, shape: PlaneShape) -> FloatPlane:
        photons = float(np.exp(rng.uniform(np.log(10), np.log(1000))))
        return (rng.poisson(make(rng, shape) * photons) / photons).astype(np.float32)

    return made


def specks(rng: np.random.Generator, shape: PlaneShape) -> FloatPlane:
    """Bright dots of 1 to 3 px on a noisy background, 1 to 60 in 256 x 256 px."""
    dirt = np.zeros(shape, np.float32)
    for _ in range(int(rng.integers(1, 61) * shape[0] * shape[1] / 65_536)):
        y, x, size = (int(rng.integers(end)) for end in (shape[0], shape[1], 3))
        dirt[y : y + size + 1, x : x + size + 1] = rng.uniform(0.1, 0.6)
    return _on_background(rng, _blurred(dirt, 0.5))


def fibres(rng: np.random.Generator, shape: PlaneShape) -> FloatPlane:
    """One to six curled threads of 1 to 2 px."""
    dirt = np.zeros(shape, np.float32)
    for _ in range(int(rng.integers(1, 7))):
        steps = int(rng.integers(20, 120))
        heading = rng.uniform(0, 2 * np.pi) + np.cumsum(np.cumsum(rng.normal(0, 0.012, steps)))
        path = rng.uniform(0.05, 0.95, 2) * (shape[1], shape[0])
        path = path + np.cumsum(np.stack([np.cos(heading), np.sin(heading)], axis=1) * 4.0, axis=0)
        corners = np.round(path * 8).astype(np.int32)
        cv2.polylines(
            dirt, [corners], False, float(rng.uniform(0.1, 0.5)), int(rng.integers(1, 3)), cv2.LINE_8, 3
        )
    return _on_background(rng, _blurred(dirt, float(rng.uniform(0.6, 1.2))))


def haze(rng: np.random.Generator, shape: PlaneShape) -> FloatPlane:
    """Light from far out of focus: soft clouds much larger than a nucleus (sigma 60 px or more)."""
    cloud = _blurred(_white(rng, shape), float(rng.uniform(60, 120)))
    cloud = (cloud - cloud.min()) / np.ptp(cloud)
    return _on_background(rng, np.float32(rng.uniform(0.02, 0.3)) * cloud)


def _blurred(pixels: FloatPlane, sigma: float) -> FloatPlane:
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma), np.float32)


def _on_background(rng: np.random.Generator, dirt: FloatPlane) -> FloatPlane:
    sigma = float(rng.uniform(0.003, 0.02))
    return np.asarray(0.06 + 4 * sigma + sigma * _white(rng, dirt.shape) + dirt, np.float32)


KINDS = (
    EmptyKind("noise", "Gaussian", gaussian_noise),
    EmptyKind("noise", "Poisson", poisson_noise),
    EmptyKind("noise", "blurred", blurred_noise),
    EmptyKind("noise", "clipped at 0", clipped_noise),
    EmptyKind("noise", "rows, columns, hot pixels", pattern_noise),
    EmptyKind("empty", "constant", constant),
    EmptyKind("gradient", "linear", linear),
    EmptyKind("gradient", "linear, noisy", noisy(linear)),
    EmptyKind("gradient", "vignette", vignette),
    EmptyKind("gradient", "vignette, noisy", noisy(vignette)),
    EmptyKind("gradient", "radial", radial),
    EmptyKind("gradient", "radial, noisy", noisy(radial)),
    EmptyKind("debris", "specks up to 3 px", specks),
    EmptyKind("debris", "fibres", fibres),
    EmptyKind("debris", "haze out of focus", haze),
)


def photograph(pixels: FloatPlane, bits: int) -> Plane:
    """What a camera of `bits` bits stores of an image given in units of its full range."""
    top = 2**bits - 1
    return np.asarray(np.rint(np.clip(pixels, 0, 1) * top).astype(np.uint8 if bits == 8 else np.uint16))


def empty_image(number: int) -> tuple[EmptyKind, Plane]:
    """The image of that number, always the same: kinds take turns, size and bits are drawn."""
    rng = np.random.default_rng([7, number])
    kind = KINDS[number % len(KINDS)]
    shape = (int(rng.choice(SIDES)), int(rng.choice(SIDES)))
    return kind, photograph(kind.make(rng, shape), int(rng.choice(BITS)))


def part_without_objects(image: LabelledImage) -> Plane | None:
    """The largest square of an image that stays half an object's diameter away from every object. None if it is too
    small.

    It shows what the microscope sees where there is no cell: background, debris and dust of the very images that are
    counted.
    """
    free = np.pad((image.labels == 0).astype(np.uint8), 1)
    # The distance (in the larger of both directions) to the nearest object or edge is half a square that holds neither.
    reach = cv2.distanceTransform(free, cv2.DIST_C, 3)
    y, x = np.unravel_index(int(np.argmax(reach)), reach.shape)
    half = int(reach[y, x] - image.diameter_px / 2) - 1
    if 2 * half < SMALLEST_PART:
        return None
    top, left = int(y) - 1, int(x) - 1
    return np.ascontiguousarray(image.plane[top - half : top + half, left - half : left + half])


def empty(asked: Asked) -> SuiteResult:
    """Count images without objects: the drawn ones, then those that the data provides."""
    number = min(IMAGES, asked.limit or IMAGES)
    entries = asked.data.entries if asked.data is not None else ()
    total = number + len(entries)
    made: dict[EmptyKind, list[int]] = {kind: [] for kind in KINDS}
    for at, count in enumerate(
        asked.in_turn(lambda at: _count(asked, empty_image(at)[1]), range(number), total)
    ):
        made[KINDS[at % len(KINDS)]].append(count)
    given: dict[str, list[int]] = {"images without an object": [], "parts without an object": []}
    for found in asked.in_turn(lambda entry: _count_of(asked, entry), entries, total, number):
        if found is not None:
            given[found[0]].append(found[1])
    rows = [_row(f"{kind.group}: {kind.name}", counts) for kind, counts in made.items() if counts]
    rows.append(_row("all made up", [count for counts in made.values() for count in counts], LEAST_EMPTY))
    rows += [_row(f"data: {name}", counts) for name, counts in given.items() if counts]
    columns = (
        SuiteColumn("kind", "kind"), SuiteColumn("images", "images"), SuiteColumn("of_0", "of 0 objects"), SuiteColumn("most", "most objects in one"),
        SuiteColumn("bar", "bar", "bars"), SuiteColumn("met", "met", "bars"),
    )  # fmt: skip
    held = sum(map(len, given.values()))
    words = f"{number} made-up images" + (f" and {held} of the data" if held else "")
    notes = () if held or not entries else ("No image of the data is empty or has an empty square of 64 px.",)
    return SuiteResult(asked.caption(words), (SuiteTable("kinds", columns, tuple(rows)),), notes)


def _count(asked: Asked, plane: Plane) -> int:
    return asked.counter.count(image_without_objects("made up", plane)).found.count


def _count_of(asked: Asked, entry: ImageEntry[Pictured]) -> tuple[str, int] | None:
    image = labelled(entry)
    if image.diameter_px == 0:
        return "images without an object", asked.counter.count(image).found.count
    part = part_without_objects(image)
    return None if part is None else ("parts without an object", _count(asked, part))


def _row(name: str, counts: Sequence[int], bar: float | None = None) -> tuple[SuiteCell, ...]:
    share = sum(count == 0 for count in counts) / len(counts)
    return (
        cell(name), cell(len(counts)), cell(share, ".1%"), cell(max(counts)),
        cell(None) if bar is None else SuiteCell(bar, f"≥ {bar:.0%}"),
        cell(None) if bar is None else met(share >= bar),
    )  # fmt: skip
