"""Images without a nucleus: noise, nothing, gradients, debris. How many of them count 0.

    python benchmarks/empty_fields.py [--package nuclei] [--images 500] [--picture FILE.png] [--record]

Made-up images of 256 to 1,024 px, of 8, 12 and 16 bits, each counted by itself with `diameter: auto`. Bar: 0 objects in at
least 99 % of 500.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.predict import Counter, add_counter, passed
from benchmarks.record import record
from cellcount_core.images.imagefile import Plane
from cellcount_core.pipeline.process import prepare_process

LEAST_EMPTY = 0.99
SIDES = (256, 384, 512, 768, 1024)
BITS = (8, 12, 16)

Shape = tuple[int, int]
Pixels = NDArray[np.float32]
Make = Callable[[np.random.Generator, Shape], Pixels]
"""Makes an image (H, W) float32 in units of the full range, 0..1; what lies outside is clipped by the camera."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of image without nuclei: `group` is what the bar calls it."""

    group: str
    name: str
    make: Make


def _level(rng: np.random.Generator) -> float:
    return float(rng.uniform(0.02, 0.4))


def _sigma(rng: np.random.Generator) -> float:
    """Noise from 0.2 % to 8 % of the range."""
    return float(np.exp(rng.uniform(np.log(0.002), np.log(0.08))))


def _white(rng: np.random.Generator, shape: Shape) -> Pixels:
    return rng.standard_normal(shape, dtype=np.float32)


def gaussian_noise(rng: np.random.Generator, shape: Shape) -> Pixels:
    """White noise on an offset well above 0."""
    sigma = _sigma(rng)
    return np.float32(_level(rng) + 4 * sigma) + np.float32(sigma) * _white(rng, shape)


def poisson_noise(rng: np.random.Generator, shape: Shape) -> Pixels:
    """Shot noise of 0.3 to 100 photons a pixel, with a gain that leaves the mean where it is seen."""
    photons = float(np.exp(rng.uniform(np.log(0.3), np.log(100))))
    return (rng.poisson(photons, shape) * (_level(rng) / max(photons, 1.0))).astype(np.float32)


def blurred_noise(rng: np.random.Generator, shape: Shape) -> Pixels:
    """Noise smoothed by optics, interpolation or compression: sigma 0.5 to 1.5 px, as strong as before."""
    smooth = _blurred(_white(rng, shape), float(rng.uniform(0.5, 1.5)))
    smooth /= smooth.std()
    sigma = _sigma(rng)
    return np.asarray(_level(rng) + 4 * sigma + sigma * smooth, np.float32)


def clipped_noise(rng: np.random.Generator, shape: Shape) -> Pixels:
    """Noise whose mean lies between 2 sigma below 0 and 1 above: most or much of it is cut off at 0."""
    sigma = _sigma(rng)
    return np.float32(sigma * rng.uniform(-2, 1)) + np.float32(sigma) * _white(rng, shape)


def pattern_noise(rng: np.random.Generator, shape: Shape) -> Pixels:
    """The camera's fixed pattern: rows and columns of their own offset, hot pixels, and white noise."""
    sigma = _sigma(rng)
    rows = rng.normal(0, rng.uniform(0.3, 1.5), (shape[0], 1))
    columns = rng.normal(0, rng.uniform(0.0, 1.0), (1, shape[1]))
    hot = (rng.random(shape) < 2e-4) * rng.uniform(3, 40)
    return np.asarray(
        _level(rng) + 5 * sigma + sigma * (_white(rng, shape) + rows + columns + hot), np.float32
    )


def constant(rng: np.random.Generator, shape: Shape) -> Pixels:
    """One value everywhere: 0, full scale or any between."""
    return np.full(shape, rng.choice([0.0, 1.0, rng.random()]), np.float32)


def _axes(shape: Shape) -> tuple[Pixels, Pixels]:
    down, across = (np.linspace(-1, 1, side, dtype=np.float32) for side in shape)
    return down[:, None], across[None]


def linear(rng: np.random.Generator, shape: Shape) -> Pixels:
    """A ramp in any direction."""
    down, across = _axes(shape)
    angle = rng.uniform(0, 2 * np.pi)
    ramp = (np.sin(angle) * down + np.cos(angle) * across + 1.5) / 3
    return np.asarray(rng.uniform(0.05, 0.3) + rng.uniform(0.05, 0.6) * ramp, np.float32)


def vignette(rng: np.random.Generator, shape: Shape) -> Pixels:
    """Light that falls off with the fourth power of the cosine, towards corners at 20 % to 90 %."""
    down, across = _axes(shape)
    squared = (down - rng.uniform(-0.2, 0.2)) ** 2 + (across - rng.uniform(-0.2, 0.2)) ** 2
    return np.asarray(rng.uniform(0.1, 0.8) / (1 + rng.uniform(0.03, 0.6) * squared) ** 2, np.float32)


def radial(rng: np.random.Generator, shape: Shape) -> Pixels:
    """A glow much wider than any nucleus: sigma of 0.6 to 1.2 of the image's half side."""
    down, across = _axes(shape)
    squared = (down - rng.uniform(-1, 1)) ** 2 + (across - rng.uniform(-1, 1)) ** 2
    glow = np.exp(-squared / (2 * rng.uniform(0.6, 1.2) ** 2))
    return np.asarray(0.05 + rng.uniform(0.05, 0.6) * glow, np.float32)


def noisy(make: Make) -> Make:
    """The same with shot noise of 10 to 1,000 photons at full scale."""

    def made(rng: np.random.Generator, shape: Shape) -> Pixels:
        photons = float(np.exp(rng.uniform(np.log(10), np.log(1000))))
        return (rng.poisson(make(rng, shape) * photons) / photons).astype(np.float32)

    return made


def specks(rng: np.random.Generator, shape: Shape) -> Pixels:
    """Bright dots of 1 to 3 px on a noisy background, 1 to 60 in 256 x 256 px."""
    dirt = np.zeros(shape, np.float32)
    for _ in range(int(rng.integers(1, 61) * shape[0] * shape[1] / 65_536)):
        y, x, size = (int(rng.integers(end)) for end in (shape[0], shape[1], 3))
        dirt[y : y + size + 1, x : x + size + 1] = rng.uniform(0.1, 0.6)
    return _on_background(rng, _blurred(dirt, 0.5))


def fibres(rng: np.random.Generator, shape: Shape) -> Pixels:
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


def haze(rng: np.random.Generator, shape: Shape) -> Pixels:
    """Light from far out of focus: soft clouds of no size that a nucleus has (sigma 60 px and more)."""
    cloud = _blurred(_white(rng, shape), float(rng.uniform(60, 120)))
    cloud = (cloud - cloud.min()) / np.ptp(cloud)
    return _on_background(rng, np.float32(rng.uniform(0.02, 0.3)) * cloud)


def _blurred(pixels: Pixels, sigma: float) -> Pixels:
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma), np.float32)


def _on_background(rng: np.random.Generator, dirt: Pixels) -> Pixels:
    sigma = float(rng.uniform(0.003, 0.02))
    return np.asarray(0.06 + 4 * sigma + sigma * _white(rng, dirt.shape) + dirt, np.float32)


KINDS = (
    Kind("noise", "Gaussian", gaussian_noise),
    Kind("noise", "Poisson", poisson_noise),
    Kind("noise", "blurred", blurred_noise),
    Kind("noise", "clipped at 0", clipped_noise),
    Kind("noise", "rows, columns, hot pixels", pattern_noise),
    Kind("empty", "constant", constant),
    Kind("gradient", "linear", linear),
    Kind("gradient", "linear, noisy", noisy(linear)),
    Kind("gradient", "vignette", vignette),
    Kind("gradient", "vignette, noisy", noisy(vignette)),
    Kind("gradient", "radial", radial),
    Kind("gradient", "radial, noisy", noisy(radial)),
    Kind("debris", "specks up to 3 px", specks),
    Kind("debris", "fibres", fibres),
    Kind("debris", "haze out of focus", haze),
)


def photograph(pixels: Pixels, bits: int) -> Plane:
    """What a camera of `bits` bits stores of an image in units of its full range."""
    top = 2**bits - 1
    return np.asarray(np.rint(np.clip(pixels, 0, 1) * top).astype(np.uint8 if bits == 8 else np.uint16))


def empty_image(number: int) -> tuple[Kind, Plane]:
    """The image of that number, the same every time: its kind in turn, size and bits by chance."""
    rng = np.random.default_rng([7, number])
    kind = KINDS[number % len(KINDS)]
    shape = (int(rng.choice(SIDES)), int(rng.choice(SIDES)))
    return kind, photograph(kind.make(rng, shape), int(rng.choice(BITS)))


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_counter(made)
    made.add_argument("--images", type=int, default=500)
    made.add_argument("--picture", type=Path, help="write a sheet of examples here (PNG)")
    arguments = made.parse_args()
    prepare_process()
    if arguments.picture is not None:
        cv2.imwrite(str(arguments.picture), _sheet())
    counter = Counter(arguments.package, arguments.engine, arguments.diameter)
    counts: dict[Kind, list[int]] = {kind: [] for kind in KINDS}
    for number in range(arguments.images):
        kind, plane = empty_image(number)
        counts[kind].append(counter.count(plane).found.count)
        if counts[kind][-1]:
            print(f"image {number}: {kind.name}, {plane.shape} {plane.dtype}: {counts[kind][-1]}", flush=True)
    table = [
        f"{arguments.images} images, `{counter.package.name}` on {counter.engine_name}, diameter {arguments.diameter}.",
        "",
        "| kind | images | of 0 objects | most objects in one | bar | met |",
        "|---|---|---|---|---|---|",
    ]
    for kind, found in counts.items():
        table.append(
            f"| {kind.group}: {kind.name} | {len(found)} | {_share(found)} | {max(found, default=0)} | | |"
        )
    everything = [count for found in counts.values() for count in found]
    share = sum(count == 0 for count in everything) / len(everything)
    table.append(
        f"| all | {len(everything)} | {share:.1%} | {max(everything)} | ≥ {LEAST_EMPTY:.0%} | {passed(share >= LEAST_EMPTY)} |"
    )
    print("\n".join(table))
    record("empty-fields", table)


def _share(found: list[int]) -> str:
    return f"{sum(count == 0 for count in found) / len(found):.1%}" if found else ""


def _sheet() -> NDArray[np.uint8]:
    """Two examples of each kind, each from its darkest to its brightest pixel."""
    cells = []
    for number in range(2 * len(KINDS)):
        plane = empty_image(number)[1][:256, :256].astype(np.float32)
        span = max(float(np.ptp(plane)), 1.0)
        cells.append(np.pad(((plane - plane.min()) / span * 255).astype(np.uint8), 2, constant_values=255))
    rows = [np.hstack(cells[start : start + 6]) for start in range(0, len(cells), 6)]
    return np.asarray(np.vstack(rows), np.uint8)


if __name__ == "__main__":
    main()
