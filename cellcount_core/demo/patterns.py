"""Made-up images of four channels that show some of 28 patterns, whose truth is known: to try multi-label training with.

A pattern is a shape of the green channel (dots, rings, bars, discs) and what it lies on: nothing, or signal of the red, blue or yellow
channel, or of two of them. So the patterns share shapes and places, and none is told by one channel alone. Some are common and some
rare, and a pattern is found more often where the one before it in the list is.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

CHANNELS = ("red", "green", "blue", "yellow")
SHAPES = ("dots", "rings", "bars", "discs")
PLACES: tuple[tuple[str, ...], ...] = (
    (), ("red",), ("blue",), ("yellow",), ("red", "blue"), ("red", "yellow"), ("blue", "yellow"),
)  # fmt: skip
PATTERNS = tuple(
    f"{shape} {'on ' + ' and '.join(place) if place else 'alone'}" for place in PLACES for shape in SHAPES
)
"""The 28 patterns, in the order of their numbers."""

TABLE, NAMES = "patterns.csv", "names.csv"

_LEVEL, _NOISE = 24.0, 4.0
_SLOT = 9
_TOGETHER = 4.0
"""So many times likelier is a pattern in an image that shows the one before it."""


@dataclass(frozen=True, slots=True)
class PatternScene:
    """How images of patterns are made.

    The most common pattern is in a share `common` of the images, the rarest in `rarest` of them, the others in between by equal factors.
    Each pattern that is there is planted `copies` times (from, to), each copy with an amplitude drawn between the two of
    `amplitude`, in grey levels; the noise has a standard deviation of 4. `side_px` is the side of an image.
    """

    common: float = 0.3
    rarest: int = 20
    copies: tuple[int, int] = (2, 3)
    amplitude: tuple[float, float] = (70.0, 150.0)
    side_px: int = 48

    def of_images(self, images: int) -> PatternScene:
        """The same with a rarest pattern that is not more common among few images than among 4,000: one in 200 shows it, two at least do."""
        return replace(self, rarest=min(self.rarest, max(_FEWEST, images // _RAREST_OF)))


_FEWEST, _RAREST_OF = 2, 200

STRONG = PatternScene(copies=(3, 4))
"""Every pattern that is there can be seen."""
WEAK = PatternScene(copies=(1, 2), amplitude=(6.0, 42.0))
"""Many copies drown in the noise, so that no network can be sure."""


def planted(images: int, scene: PatternScene, seed: int) -> NDArray[np.bool_]:
    """Which image shows which pattern, (images, 28). Raises ValueError for fewer images than the rarest pattern asks for."""
    if images < 2 * scene.rarest:
        raise ValueError(f"{images} images; at least {2 * scene.rarest} expected")
    rng = np.random.default_rng([seed, 0])
    numbers = np.geomspace(scene.common * images, scene.rarest, len(PATTERNS)).round().astype(int)
    shown = np.zeros((images, len(PATTERNS)), bool)
    order = rng.permutation(len(PATTERNS))
    for place, pattern in enumerate(order):
        weights = np.ones(images)
        if place:
            weights[shown[:, order[place - 1]]] = _TOGETHER
        chosen = rng.choice(images, numbers[place], replace=False, p=weights / weights.sum())
        shown[chosen, pattern] = True
    return shown


def render_patterns(
    rng: np.random.Generator, shown: NDArray[np.bool_], scene: PatternScene = STRONG
) -> dict[str, NDArray[np.uint8]]:
    """One image that shows these patterns (28,): its channels (H, W) uint8 by name."""
    side = scene.side_px
    channels = {name: _cells(rng, side) for name in CHANNELS}
    slots = [
        (_SLOT * y + _SLOT // 2, _SLOT * x + _SLOT // 2)
        for y in range(side // _SLOT) for x in range(side // _SLOT)
    ]  # fmt: skip
    free = [slots[at] for at in rng.permutation(len(slots))]
    for pattern in np.flatnonzero(shown):
        place, shape = PLACES[pattern // len(SHAPES)], SHAPES[pattern % len(SHAPES)]
        for _ in range(int(rng.integers(scene.copies[0], scene.copies[1] + 1))):
            if not free:
                break
            y, x = free.pop()
            amplitude = rng.uniform(*scene.amplitude)
            drawn = _shape(rng, shape)
            half = len(drawn) // 2
            for name in ("green", *place):
                own = drawn if name == "green" else _spot(2.6, len(drawn))
                channels[name][y - half : y + half + 1, x - half : x + half + 1] += amplitude * own
    return {
        name: np.clip(plane + rng.normal(0, _NOISE, plane.shape), 0, 255).round().astype(np.uint8)
        for name, plane in channels.items()
    }


def _cells(rng: np.random.Generator, side: int) -> NDArray[np.float64]:
    """A smooth, faint background that says nothing."""
    coarse = rng.random((5, 5)).astype(np.float32)
    return _LEVEL + 8.0 * cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC).astype(np.float64)


def _spot(sigma: float, side: int) -> NDArray[np.float64]:
    at = np.arange(side) - side // 2
    spot: NDArray[np.float64] = np.exp(-(at[:, None] ** 2 + at[None, :] ** 2) / (2 * sigma**2))
    return spot


def _shape(rng: np.random.Generator, shape: str) -> NDArray[np.float64]:
    """A shape (9, 9), about 1 where it is brightest."""
    at = np.arange(_SLOT) - _SLOT // 2
    distance = np.hypot(at[:, None], at[None, :])
    if shape == "dots":
        return 1.3 * _spot(1.3, _SLOT)
    if shape == "rings":
        ring: NDArray[np.float64] = np.exp(-((distance - 2.9) ** 2) / 0.6)
        return ring
    if shape == "discs":
        disc: NDArray[np.float64] = 1 / (1 + np.exp(3 * (distance - 3.2)))
        return disc
    angle = rng.uniform(0, np.pi)
    along = at[None, :] * np.cos(angle) + at[:, None] * np.sin(angle)
    across = -at[None, :] * np.sin(angle) + at[:, None] * np.cos(angle)
    bar: NDArray[np.float64] = np.exp(-(across**2) / 1.6) / (1 + np.exp(4 * (np.abs(along) - 3.9)))
    return bar


def write_patterns(folder: Path, images: int, scene: PatternScene = STRONG, seed: int = 0) -> Path:
    """Write images `<Id>_<channel>.png`, the table of their patterns and that of the patterns' names; gives the path of the first table.

    The same arguments give the same files.
    """
    shown = planted(images, scene, seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for number, own in enumerate(shown):
        name = f"made-up-{number:05d}"
        drawn = render_patterns(np.random.default_rng([seed, 1, number]), own, scene)
        for channel, plane in drawn.items():
            cv2.imwrite(str(folder / "images" / f"{name}_{channel}.png"), plane)
        rows.append((name, " ".join(map(str, np.flatnonzero(own))) or "none"))
    for file, header, body in (
        (TABLE, ("Id", "Target"), rows),
        (NAMES, ("number", "name"), [(str(at), name) for at, name in enumerate(PATTERNS)]),
    ):
        with (folder / file).open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream, lineterminator="\n").writerows([header, *body])
    return folder / TABLE
