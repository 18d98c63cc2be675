"""By which factor a field is resized before it is counted, and what that rests on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cellcount_core.config import RunConfig
from cellcount_core.domain.scales import FieldScale, PlateSize, ScaleSource
from cellcount_core.models.package import Package
from cellcount_core.tasks.object_size.looks import tells_sizes
from cellcount_core.tasks.task import SizeEstimate

_SMALLEST_SEEN, _LARGEST_SEEN = 0.65, 4.0
"""Sizes, of the one that a network counts best: smaller objects are brought up to the first as long as the largest stay below the
second, which a second look takes care of (second_look.py)."""

_AS_WELL = 1.08
"""If a look at the field was taken within this factor, the field is counted at the look's scale, whose maps exist already."""

_ANOTHER_SIZE = 1.6
_FEWEST_OBJECTS = 3
"""Times by which a field's objects must differ from its plate's, and how many there must be, for it to be counted at its own size."""

PlateSizes = Mapping[tuple[str, int, int], PlateSize]
"""Object sizes found when the run was planned, by plate, height and width."""

OWN_SIZE = "size_of_this_image"
"""Warning: the images of its plate and shape disagree, or were not sampled; the field was counted at its own object size."""

UNKNOWN_SIZE = "size_unknown"
"""Warning: neither this field nor others told an object size; the field was counted as it is."""


def field_scale(
    run: RunConfig,
    package: Package,
    plate_sizes: PlateSizes,
    plate: str,
    shape: tuple[int, int],
    um_per_px: float | None,
    size: Callable[[], SizeEstimate],
) -> tuple[FieldScale, tuple[str, ...]]:
    """The scale of a field of `shape` (H, W), and warning codes. `size` makes the field's own estimate; it is called only if needed.

    The first of these that is known decides: the diameter given; with "auto", the file's calibration (if the package is made for a
    pixel size), the size found for the images of the same plate and shape, the field's own estimate; else the image is counted as it is.
    A package whose network tells no sizes counts images as they are. The result depends only on the field's pixels and on the plan.
    """
    wanted = package.input.diameter_px
    if run.diameter == "model" or wanted is None:
        return FieldScale(1.0, ScaleSource.MODEL), ()
    if run.diameter != "auto":
        return FieldScale(wanted / run.diameter, ScaleSource.GIVEN, run.diameter), ()
    if um_per_px is not None and package.input.um_per_px is not None:
        factor = um_per_px / package.input.um_per_px
        return FieldScale(factor, ScaleSource.CALIBRATION, wanted / factor), ()
    if not tells_sizes(package):
        return FieldScale(1.0, ScaleSource.MODEL), ()
    pool = plate_sizes.get((plate, *shape))
    if pool is not None and pool.diameter_px is not None:
        found = pool.diameter_px
        factor = pool.factor or counting_factor(wanted, found, pool.small_px, pool.large_px)
        return FieldScale(factor, ScaleSource.POOL, found, pool.images, pool.objects), ()
    own = size()
    alone = own_factor(wanted, own)
    if alone is None:
        return FieldScale(1.0, ScaleSource.UNKNOWN), (UNKNOWN_SIZE,)
    return FieldScale(alone, ScaleSource.IMAGE, own.diameter_px, 1, own.objects), (OWN_SIZE,)


def own_factor(wanted: float, own: SizeEstimate) -> float | None:
    """The factor for an image that is counted by its own estimate; None if the estimate tells no size.

    If only one sampled image of a plate tells a size, the plan keeps this factor, so that image is counted alike, sampled or not.
    """
    if own.diameter_px is None:
        return None
    factor = counting_factor(wanted, own.diameter_px, own.low_px, own.high_px)
    return min([f for f in own.factors if 1 / _AS_WELL <= f / factor <= _AS_WELL], default=factor)


def counting_factor(wanted: float, typical: float, small: float | None, large: float | None) -> float:
    """The factor that brings objects of `typical` px to the `wanted` size, or more if that would leave many too small.

    A network sees objects over a range of sizes around the one that it counts best. A tenth of the objects is smaller than `small` px and
    a tenth larger than `large` px: the small ones are brought into that range as far as the large ones stay inside.
    """
    factor = wanted / typical
    if small is None or large is None:
        return factor
    return max(factor, min(_SMALLEST_SEEN * wanted / small, _LARGEST_SEEN * wanted / large))


def is_another_size(pooled: FieldScale, own: FieldScale) -> bool:
    """Whether a field's own objects differ so much in size from its plate's that it is counted at its own size."""
    if pooled.diameter_px is None or own.source is not ScaleSource.IMAGE or own.diameter_px is None:
        return False
    apart = max(own.diameter_px / pooled.diameter_px, pooled.diameter_px / own.diameter_px)
    return apart > _ANOTHER_SIZE and (own.objects or 0) >= _FEWEST_OBJECTS
