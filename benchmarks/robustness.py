"""What bad images cost: F1@0.5 on the validation images degraded, against the same images as they are.

    python benchmarks/robustness.py DATA [--package nuclei] [--limit N] [--only NAME ...] [--record]

Each image is counted by itself, with `diameter: auto`. Bar for the named five: F1@0.5 falls by no more than 0.03.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.predict import Counter, how_many, parser, passed, validation_images
from benchmarks.record import record
from cellcount_core.evaluation.evaluate import Report, labels_of, score_image
from cellcount_core.images.imagefile import Plane
from cellcount_core.labelled.image import LabelledImage
from cellcount_core.pipeline.process import prepare_process

LARGEST_FALL = 0.03

Degrade = Callable[[Plane, np.random.Generator], Plane]


@dataclass(frozen=True, slots=True)
class Degradation:
    """One way to spoil an image; `in_bar` where the bar names it."""

    name: str
    degrade: Degrade
    in_bar: bool


def low_contrast(plane: Plane, rng: np.random.Generator) -> Plane:
    """16 bits, all of the image within 3 % of the range, on an offset of 20,000."""
    return np.rint(20_000 + _unit(plane) * 0.03 * 65_535).astype(np.uint16)


def inverted(plane: Plane, rng: np.random.Generator) -> Plane:
    """Dark objects on a bright background: the largest value of the type less the value."""
    top = 255 if plane.dtype == np.uint8 else 65_535
    return (top - plane.astype(np.int64)).astype(plane.dtype)


def offset(plane: Plane, rng: np.random.Generator) -> Plane:
    """16 bits, a background raised by twice the range of the image."""
    pixels = plane.astype(np.float64)
    return np.rint(pixels + 2 * np.ptp(pixels)).astype(np.uint16)


def saturated(plane: Plane, rng: np.random.Generator) -> Plane:
    """Exposed so long that the brightest 5 % of the pixels are at 255; the background keeps its level."""
    return _exposed(plane, _quantile(plane, 0.95))


def saturated_objects(plane: Plane, rng: np.random.Generator) -> Plane:
    """As `saturated`, with no more than half of the pixels above Otsu's threshold at 255.

    In an image whose objects cover less than 5 % of it the other one saturates background around them.
    """
    unit = np.rint(_unit(plane) * 255).astype(np.uint8)
    level, _ = cv2.threshold(unit, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    objects = plane[unit > level]
    half = _quantile(objects, 0.5) if objects.size else 0.0
    return _exposed(plane, max(half, _quantile(plane, 0.95)))


def _exposed(plane: Plane, top: float) -> NDArray[np.uint8]:
    """8 bits, the median where it was and `top` at 255."""
    pixels = plane.astype(np.float64)
    low = float(np.median(pixels))
    gain = (255.0 - low) / max(top - low, 1.0)
    return np.rint(np.clip(low + (pixels - low) * gain, 0, 255)).astype(np.uint8)


def poisson(photons: float) -> Degrade:
    """Shot noise: the 99.8th percentile is at `photons` photons above a background of a tenth of that; 16 bits."""

    def degrade(plane: Plane, rng: np.random.Generator) -> Plane:
        pixels = plane.astype(np.float64)
        low, top = _quantile(plane, 0.05), _quantile(plane, 0.998)
        expected = photons * (0.1 + np.maximum(pixels - low, 0) / max(top - low, 1.0))
        counts = np.rint(rng.poisson(expected) * (20_000 / photons))
        return np.asarray(np.minimum(counts, 65_535), np.uint16)

    return degrade


def blurred(plane: Plane, rng: np.random.Generator) -> Plane:
    """Out of focus: Gaussian blur of sigma 1.5 px."""
    return np.asarray(cv2.GaussianBlur(plane.astype(np.float32), (0, 0), 1.5))


def uneven(plane: Plane, rng: np.random.Generator) -> Plane:
    """Light, background included, that falls off to 30 % from one corner to the other; 16 bits."""
    height, width = plane.shape
    across, down = np.linspace(0, 1, width), np.linspace(0, 1, height)
    if rng.random() < 0.5:
        across = across[::-1]
    light = 1 - 0.7 * (across[None] + down[:, None]) / 2
    return np.asarray(np.rint(plane.astype(np.float64) * light * 256), np.uint16)


DEGRADATIONS = (
    Degradation("16 bits, signal in 3 % of the range, on an offset", low_contrast, True),
    Degradation("inverted", inverted, True),
    Degradation("background offset, twice the range of the image", offset, True),
    Degradation("5 % of the pixels saturated", saturated, True),
    Degradation("… but no more than half of the objects' pixels", saturated_objects, False),
    Degradation("Poisson noise, 100 photons at the 99.8th percentile", poisson(100), True),
    Degradation("Poisson noise, 30 photons at the 99.8th percentile", poisson(30), True),
    Degradation("Gaussian blur, sigma 1.5 px", blurred, False),
    Degradation("uneven light, down to 30 %", uneven, False),
)


def main() -> None:
    made = parser(__doc__)
    made.add_argument(
        "--only", nargs="+", default=[], help="degradations whose name holds one of these words"
    )
    arguments = made.parse_args()
    prepare_process()
    counter = Counter(arguments.package, arguments.engine, arguments.diameter)
    images = validation_images(arguments.data, arguments.limit)
    clean, near = _scored(counter, images, lambda plane, rng: plane)
    table = [
        f"{how_many(arguments.limit, images)}, `{counter.package.name}` on {counter.engine_name}, diameter {arguments.diameter}.",
        "",
        "| images | F1@0.5 | falls by | bar | count MAPE | count bias | size within 1.25x | met |",
        "|---|---|---|---|---|---|---|---|",
        _row("as they are", clean, 0.0, near, "", ""),
    ]
    for degradation in DEGRADATIONS:
        if arguments.only and not any(word in degradation.name for word in arguments.only):
            continue
        report, near = _scored(counter, images, degradation.degrade)
        fall = clean.f1() - report.f1()
        bar = f"≤ {LARGEST_FALL}" if degradation.in_bar else ""
        met = passed(fall <= LARGEST_FALL) if degradation.in_bar else ""
        table.append(_row(degradation.name, report, fall, near, bar, met))
        print(table[-1], flush=True)
    print("\n".join(table))
    record("robustness", table)


def _row(name: str, report: Report, fall: float, near: float, bar: str, met: str) -> str:
    found = f"{near:.0%}" if not np.isnan(near) else ""
    return (
        f"| {name} | {report.f1():.3f} | {fall:+.3f} | {bar} | {report.count_mape():.1%} | "
        f"{report.count_bias():+.1%} | {found} | {met} |"
    )


def _scored(counter: Counter, images: Sequence[LabelledImage], degrade: Degrade) -> tuple[Report, float]:
    """The scores of the degraded images, and the share of them whose size was found within 1.25x (nan: none was asked for)."""
    scores, near = [], []
    for number, image in enumerate(images):
        seen = counter.count(degrade(image.plane, np.random.default_rng(number)))
        scores.append(score_image(image, labels_of(seen)))
        if counter.diameter == "auto":
            size = seen.scale.diameter_px
            near.append(size is not None and 0.8 <= size / image.diameter_px <= 1.25)
    return Report(tuple(scores)), fmean(near) if near else float("nan")


def _quantile(plane: NDArray[np.generic], share: float) -> float:
    return float(np.quantile(plane.astype(np.float64), share))


def _unit(plane: NDArray[np.generic]) -> NDArray[np.float64]:
    pixels = plane.astype(np.float64)
    return np.asarray((pixels - pixels.min()) / max(float(np.ptp(pixels)), 1.0))


if __name__ == "__main__":
    main()
