"""IdentifyPrimaryObjects of CellProfiler 5 (its library without the program: CellProfiler 4 needs wxPython and MySQL to install).

It runs in an environment of its own: this file imports nothing of cellcount.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.manifest import Plane

if TYPE_CHECKING:
    from benchmarks.peers.systems import Count

REQUIREMENTS = (
    "cellprofiler-library-nightly==5.0.0.dev784",
    "centriole-nightly==5.0.0.dev784",
    "numpy==1.26.4",
    "opencv-python-headless==4.10.0.84",
)
"""What pip installs into its environment."""

SMOOTHING = 1.3488
"""The program's default for the threshold; the library's own is none."""


def load() -> Count:
    """The module as a counter, with its defaults but for what the labels and the `fit` images ask for.

    Objects at the edge and of any size stay, as in the labels. Touching objects are told apart by shape: of the four ways to
    find and to divide them, the best on the `fit` images.
    """
    from cellprofiler_library.modules import (  # type: ignore[import-not-found]
        identifyprimaryobjects,
    )
    from cellprofiler_library.opts.identifyprimaryobjects import (  # type: ignore[import-not-found]
        UnclumpMethod,
        WatershedMethod,
    )

    def count(plane: Plane) -> NDArray[np.int32]:
        labels = identifyprimaryobjects(
            unit(plane),
            threshold_smoothing=SMOOTHING,
            exclude_size=False,
            exclude_border_objects=False,
            unclump_method=UnclumpMethod.SHAPE,
            watershed_method=WatershedMethod.SHAPE,
        )
        return np.asarray(labels, np.int32)

    return count


def unit(plane: Plane) -> NDArray[np.float32]:
    """A plane (H, W) over the largest value of its type, as CellProfiler reads images."""
    return plane.astype(np.float32) / np.float32(np.iinfo(plane.dtype).max)
