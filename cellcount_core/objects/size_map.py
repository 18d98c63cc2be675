"""The map `size`: what diameter an object has, on a logarithmic scale from 0 to 1, wherever the object is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_REFERENCE_PX = 20.0
_OCTAVES = 2.5
"""The map spans 2.5 octaves to either side of 20 px: 3.5 to 113 px."""


def encode_diameter(px: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values 0..1 (float32) of diameters in px, any shape; those beyond the span are taken to its end."""
    octaves = np.log2(np.maximum(px, 1e-3) / _REFERENCE_PX)
    return np.clip((octaves + _OCTAVES) / (2 * _OCTAVES), 0, 1).astype(np.float32)


def decode_diameter(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Diameters in px (float32) of values 0..1: the inverse of `encode_diameter` within its span."""
    octaves = values.astype(np.float64) * (2 * _OCTAVES) - _OCTAVES
    return np.asarray(_REFERENCE_PX * 2.0**octaves, np.float32)
