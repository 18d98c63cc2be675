"""Otsu's threshold and a distance watershed with SciPy and scikit-image: what a script of twenty lines counts.

Smoothing and distance of the centres are the best of twelve pairs on the `fit` images.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.manifest import Plane

SIGMA_PX, SMALLEST_PX2, APART_PX = 1.0, 20, 7


def count(plane: Plane) -> NDArray[np.int32]:
    """Label image (H, W) of a plane (H, W): smoothed by 1 px, objects of 20 px² and more, centres at least 7 px apart."""
    from scipy import ndimage
    from skimage.feature import peak_local_max
    from skimage.filters import threshold_otsu
    from skimage.segmentation import watershed

    smooth = ndimage.gaussian_filter(plane.astype(np.float32), SIGMA_PX)
    if smooth.min() == smooth.max():
        return np.zeros(plane.shape, np.int32)
    mask = ndimage.binary_fill_holes(smooth > threshold_otsu(smooth))  # type: ignore[no-untyped-call]
    parts, _ = ndimage.label(mask)
    areas = np.bincount(parts.ravel())
    mask &= areas[parts] >= SMALLEST_PX2
    distance = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask), SIGMA_PX)
    peaks = peak_local_max(distance, min_distance=APART_PX, labels=parts * mask, exclude_border=False)  # type: ignore[no-untyped-call]
    seeds = np.zeros(plane.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return np.asarray(watershed(-distance, seeds, mask=mask), np.int32)  # type: ignore[no-untyped-call]
