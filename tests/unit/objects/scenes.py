"""Random fields for the tests of separation: discs, clumps, large objects, and maps made of them."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Disc = tuple[int, int, int]


def draw(shape: tuple[int, int], discs: list[Disc]) -> NDArray[np.uint8]:
    """A foreground (H, W) of 0 and 1 with discs (y, x, radius)."""
    image = np.zeros(shape, np.uint8)
    for y, x, radius in discs:
        cv2.circle(image, (x, y), radius, 1, -1)
    return image


def random_discs(rng: np.random.Generator, shape: tuple[int, int], seam: int) -> list[Disc]:
    """Discs anywhere, one on seams and corners of blocks of `seam` px each, and sometimes one larger than any halo."""
    height, width = shape
    discs = [
        (int(rng.integers(height)), int(rng.integers(width)), int(rng.integers(2, 14)))
        for _ in range(int(rng.integers(1, 2 + height * width // 900)))
    ]
    for y in range(seam, height, seam):
        for x in range(seam, width, seam):
            discs += [(y, x, int(rng.integers(3, 12))), (y, x + seam // 2, 6), (y + seam // 2, x, 6)]
    if rng.random() < 0.15:
        discs.append((int(rng.integers(height)), int(rng.integers(width)), int(rng.integers(30, 75))))
    return discs


def maps_of(foreground: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
    """Maps (H, W, 2): soft foreground with noise, and distance to the outline relative to 12 px."""
    soft = cv2.GaussianBlur(foreground.astype(np.float32), (0, 0), 1.0)
    noisy = np.clip(soft + rng.normal(0, 0.02, soft.shape), 0, 1).astype(np.float32)
    distance = cv2.distanceTransform(foreground, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.stack([noisy, np.clip(distance / 12, 0, 1).astype(np.float32)], axis=-1)
