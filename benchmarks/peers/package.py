"""A shipped package as a peer: `NAME:ENGINE:DIAMETER`, counted as `cellcount evaluate` counts it, on one thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peers.manifest import Plane

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from benchmarks.peers.systems import Count


def load(variant: str) -> Count:
    """The counter of a variant. DIAMETER is "auto" (each image's own estimate) or "model" (each image as it is).

    Raises ValueError for any other variant.
    """
    from cellcount_core.evaluation.evaluate import count_plane, counting_of, labels_of
    from cellcount_core.models.engines import load_engine
    from cellcount_core.models.package import find_package
    from cellcount_core.pipeline.field import planes_kit

    parts = variant.split(":")
    if len(parts) != 3 or parts[2] not in ("auto", "model"):
        raise ValueError(f"package variant {variant!r}: NAME:ENGINE:auto or NAME:ENGINE:model expected")
    package = find_package(parts[0])
    kit = planes_kit(
        package, load_engine(package, parts[1], 1), counting_of("auto" if parts[2] == "auto" else "model")
    )

    def count(plane: Plane) -> NDArray[np.int32]:
        return labels_of(count_plane(kit, plane))

    return count
