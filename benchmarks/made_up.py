"""Made-up images of known counts: nuclei of 8 to 120 px, 1 to 3,000 of them, apart and touching, on three backgrounds.

    python benchmarks/made_up.py [--package nuclei] [--diameters 8 40] [--numbers 1 100] [--picture FILE.png] [--record]

Every nucleus is drawn at its own size (nothing is resized), lies wholly in the image and below no other, so its number is
no matter of opinion. Each image is counted by itself with `diameter: auto`. Combinations of more than 15 megapixels are left
out. A cell of the table gives the count, its error and the diameter told; a row is met where every count is within 5 %.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.predict import Counter, add_counter, passed
from benchmarks.record import record
from cellcount_core.domain.scales import ScaleSource
from cellcount_core.evaluation.evaluate import labels_of
from cellcount_core.images.imagefile import Plane
from cellcount_core.pipeline.field import Examined
from cellcount_core.pipeline.process import prepare_process

DIAMETERS = (8, 12, 20, 40, 80, 120)
NUMBERS = (1, 3, 10, 100, 1000, 3000)
SPACINGS = {"sparse": 2.2, "confluent": 1.2}
"""Distance between neighbouring places of the lattice, in diameters; outlines wander about their place."""

BACKGROUNDS = ("dark", "noisy", "uneven")
LARGEST_ERROR = 0.05
MAX_PIXELS = 15_000_000
SMALLEST_SIDE = 256
_CORNERS = 48


@dataclass(frozen=True, slots=True)
class MadeUp:
    """A 16-bit image with its labels 1..n (H, W) and the median equivalent diameter (px) of what was drawn."""

    plane: Plane
    labels: NDArray[np.int32]
    diameter_px: float

    @property
    def count(self) -> int:
        """The true count."""
        return int(self.labels.max(initial=0))


def shape_for(diameter: float, number: int, arrangement: str) -> tuple[int, int]:
    """(H, W) of an image in which `number` nuclei lie as the arrangement says: never less than `SMALLEST_SIDE`, 4:5."""
    cell = (SPACINGS[arrangement] * diameter) ** 2 * np.sqrt(3) / 2
    area = 1.15 * number * cell + 4 * diameter * np.sqrt(number * cell) + (2 * diameter) ** 2
    height = max(SMALLEST_SIDE, int(np.ceil(np.sqrt(area * 0.8))))
    return height, max(SMALLEST_SIDE, int(np.ceil(height / 0.8)))


def make(diameter: float, number: int, arrangement: str, background: str, seed: int = 0) -> MadeUp:
    """The image of these properties, the same every time. Raises ValueError where the nuclei do not fit."""
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
    """Centres (n, 2): neighbours of one patch of a hexagonal lattice that was shaken, in an order that leaves clumps whole."""
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
    """One outline: an ellipse with a few harmonics, where no other nucleus lies yet."""
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
    """Chromatin: grain of a tenth of a nucleus, and nucleoli-like hollows of a fifth, about 1."""
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
    """16 bits: optics of sigma 0.8 px, then photons. dark: 600 a nucleus on 20; noisy: 25 on 5; uneven: light down to 35 %."""
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


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_counter(made)
    made.add_argument("--diameters", nargs="+", type=int, default=list(DIAMETERS))
    made.add_argument("--numbers", nargs="+", type=int, default=list(NUMBERS))
    made.add_argument(
        "--picture", type=Path, help="write a sheet of the images, with what was counted, here (PNG)"
    )
    arguments = made.parse_args()
    prepare_process()
    counter = Counter(arguments.package, arguments.engine, arguments.diameter)
    table = [
        f"`{counter.package.name}` on {counter.engine_name}, diameter {arguments.diameter}. Cells: counted (error), diameter told.",
        "",
        f"| diameter | | image | true | {' | '.join(BACKGROUNDS)} | within 5 % |",
        "|---|---|---|---|" + "---|" * len(BACKGROUNDS) + "---|",
    ]
    cells: list[NDArray[np.uint8]] = []
    for diameter, arrangement, number in combinations(arguments.diameters, arguments.numbers):
        shown, held = [], []
        for background in BACKGROUNDS:
            image = make(diameter, number, arrangement, background)
            seen = counter.count(image.plane)
            found = seen.found
            error = found.count / image.count - 1
            held.append(abs(found.count - image.count) <= int(LARGEST_ERROR * image.count))
            shown.append(f"{found.count} ({error:+.0%}){_told(seen)}")
            if arguments.picture is not None:
                cells.append(_cell(image, seen))
        height, width = image.plane.shape
        table.append(
            f"| {image.diameter_px:.1f} | {arrangement} | {width} x {height} | {image.count} | {' | '.join(shown)} | {passed(*held)} |"
        )
        print(table[-1], flush=True)
    if arguments.picture is not None:
        cv2.imwrite(str(arguments.picture), sheet(cells))
    print("\n".join(table))
    record("made-up", table)


def _told(seen: Examined) -> str:
    if seen.scale.source not in (ScaleSource.IMAGE, ScaleSource.UNKNOWN):
        return ""
    size = seen.scale.diameter_px
    return ", none" if size is None else f", {size:.1f}"


def _cell(image: MadeUp, seen: Examined, side: int = 240) -> NDArray[np.uint8]:
    """The image at `side` px, its middle if it is larger than 2.5 times that, with the outlines of what was counted."""
    height, width = image.plane.shape
    part = min(1.0, 2.5 * side / max(height, width))
    window = tuple(slice(int(n * (1 - part) / 2), int(n * (1 + part) / 2)) for n in (height, width))
    pixels = image.plane[window].astype(np.float32)
    low = float(np.quantile(pixels, 0.01))
    top = max(float(np.quantile(pixels, 0.998)), float(pixels.max()) * 0.5)
    grey = (np.clip((pixels - low) / max(top - low, 1.0), 0, 1) * 255).astype(np.uint8)
    labels = labels_of(seen)[window]
    edge = cv2.morphologyEx(labels.astype(np.float32), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    colour = np.repeat(grey[..., None], 3, axis=2)
    colour[edge] = (0, 220, 255)
    scale = side / max(colour.shape[:2])
    small = cv2.resize(
        colour, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    )
    canvas = np.full((side + 22, side + 4, 3), 40, np.uint8)
    canvas[20 : 20 + small.shape[0], 2 : 2 + small.shape[1]] = small
    text = f"{image.diameter_px:.0f} px: {seen.found.count} of {image.count}"
    cv2.putText(canvas, text, (4, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
    return canvas


def sheet(cells: Sequence[NDArray[np.uint8]], across: int = 9) -> NDArray[np.uint8]:
    """Cells of one shape side by side, `across` in a row."""
    empty = np.zeros_like(cells[0])
    filled = [*cells, *[empty] * (-len(cells) % across)]
    return np.vstack([np.hstack(filled[start : start + across]) for start in range(0, len(filled), across)])


if __name__ == "__main__":
    main()
