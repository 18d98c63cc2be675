"""Small plates with known counts for end-to-end tests: discs on a noisy background, 16-bit TIFF, ImageXpress names."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray


@dataclass(frozen=True)
class Plate:
    """Folder of images and the true count by (well, site)."""

    folder: Path
    truth: dict[tuple[str, int], int]

    def file(self, well: str, site: int, channel: int = 1) -> Path:
        """Path of one image."""
        return self.folder / "TimePoint_1" / f"P1_{well}_s{site}_w{channel}.TIF"


def discs(count: int, size: int, seed: int, radius: int = 6) -> NDArray[np.uint16]:
    """An image (size, size) with `count` discs, apart from each other and from the edge."""
    rng = np.random.default_rng(seed)
    image = rng.normal(300.0, 12.0, (size, size))
    step = 2 * radius + 6
    places = [(y, x) for y in range(step, size - step, step) for x in range(step, size - step, step)]
    if count > len(places):
        raise ValueError(f"{count} discs do not fit: {len(places)} places")
    for index in rng.permutation(len(places))[:count]:
        y, x = places[index]
        y, x = y + rng.integers(-2, 3), x + rng.integers(-2, 3)
        yy, xx = np.ogrid[-radius : radius + 1, -radius : radius + 1]
        window = image[y - radius : y + radius + 1, x - radius : x + radius + 1]
        window += 1800.0 * (yy**2 + xx**2 <= radius**2)
    return np.clip(image, 0, 65535).astype(np.uint16)


def nuclear_field(diameter: float, count: int, seed: int, side: int = 0) -> NDArray[np.uint16]:
    """Bright soft ellipses with some grain that do not touch, on a dark noisy background."""
    rng = np.random.default_rng(seed)
    side = side or int(max(96, diameter * 2.2 * np.sqrt(count)))
    image = np.zeros((side, side), np.float32)
    cells = max(1, int(np.ceil(np.sqrt(count))))
    pitch = side / cells
    for number in range(count):
        y, x = divmod(number, cells)
        centre = ((np.array([x, y]) + 0.5) * pitch + rng.uniform(-0.1, 0.1, 2) * pitch).tolist()
        axes = (diameter / 2 * 1.12, diameter / 2 / 1.12)
        whole = [round(16 * value) for value in centre]
        half = [round(16 * value) for value in axes]
        cv2.ellipse(
            image,
            whole,
            half,
            float(rng.uniform(0, 180)),
            0,
            360,
            float(rng.uniform(0.6, 1)),
            -1,
            cv2.LINE_AA,
            4,
        )
    grain = cv2.GaussianBlur(rng.standard_normal(image.shape, dtype=np.float32), (0, 0), diameter / 10)
    image = cv2.GaussianBlur(image, (0, 0), max(0.7, diameter / 14)) * (1 + 0.18 * grain / grain.std())
    return np.clip(300 + 3000 * image + rng.normal(0, 40, image.shape), 0, 65535).astype(np.uint16)


def crowded(seed: int) -> NDArray[np.uint16]:
    """A field so full of dim objects that what differs between them passes for noise."""
    rng = np.random.default_rng(seed)
    image = np.zeros((300, 300))
    for place_y, place_x in rng.uniform(0, 300, (1100, 2)):
        # Farther off than 30 px an object is less than the rounding of the noise.
        top, left = max(0, int(place_y) - 30), max(0, int(place_x) - 30)
        window = image[top : int(place_y) + 30, left : int(place_x) + 30]
        y, x = np.ogrid[: window.shape[0], : window.shape[1]]
        apart = (y + top - place_y) ** 2 + (x + left - place_x) ** 2
        np.maximum(window, 300 * np.exp(-apart / 18), out=window)
    return np.clip(image + rng.normal(2, 90, image.shape), 0, 65535).astype(np.uint16)


def wells(count: int) -> Iterator[str]:
    """Names of the first wells of a 96-well plate, row by row."""
    for index in range(count):
        yield f"{chr(65 + index // 12)}{index % 12 + 1:02d}"


def write_plate(folder: Path, *, well_count: int, sites: int = 2, size: int = 96, channels: int = 1) -> Plate:
    """Write a plate; the number of discs of a field follows from its name (0 to 8, the first well is empty)."""
    (folder / "TimePoint_1").mkdir(parents=True)
    plate = Plate(folder, {})
    for index, well in enumerate(wells(well_count)):
        for site in range(1, sites + 1):
            count = 0 if index == 0 else (3 * index + site) % 9
            plate.truth[well, site] = count
            for channel in range(1, channels + 1):
                seed = zlib.crc32(f"{well}{site}{channel}".encode())
                tifffile.imwrite(
                    plate.file(well, site, channel), discs(count, size, seed), compression="zlib"
                )
    return plate
