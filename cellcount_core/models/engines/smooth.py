"""The engine of the `threshold` family: a Gaussian of the package's sigma in fixed-point arithmetic.

OpenCV's Gaussian on 16-bit integers is exact, so a pixel's value does not depend on where a tile begins.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from cellcount_core.models.package import Package

_LOW, _STEPS = -1.0, 4096.0
"""Normalised values from -1 to 15 are held in steps of 1/4096."""


class SmoothEngine:
    """Gives the smoothed normalised intensity as its only map. Raises TypeError if the package's `sigma_px` is no number."""

    name = "smooth"
    batch = 1

    def __init__(self, package: Package) -> None:
        sigma = package.network["sigma_px"]
        if not isinstance(sigma, int | float):
            raise TypeError(f"network.sigma_px must be a number (got {sigma!r})")
        self._sigma = float(sigma)
        self._size = 2 * package.radius + 1

    def run(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Maps (B, h, w, 1) of tiles (B, h, w, 1)."""
        maps = np.empty_like(tiles)
        for tile, out in zip(tiles, maps, strict=True):
            fixed = np.clip((tile[..., 0] - _LOW) * _STEPS + 0.5, 0, 65535).astype(np.uint16)
            smooth = cv2.GaussianBlur(
                fixed, (self._size, self._size), self._sigma, borderType=cv2.BORDER_REFLECT_101
            )
            out[..., 0] = smooth.astype(np.float32) / np.float32(_STEPS) + np.float32(_LOW)
        return maps
