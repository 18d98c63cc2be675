"""From what single images say of their objects' size to one size for what belongs together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.domain.scales import PoolScale

_DISAGREE = 1.6
"""Images of one pool whose sizes differ by more than this factor do not belong together."""

_OUTLIERS = 0.1
"""Share of a pool's objects, at either end, whose images are not asked whether they agree."""

_FEW = 5
"""Images below which all of a pool must agree: one odd image among so few is no outlier."""


@dataclass(frozen=True, slots=True)
class ImageSize:
    """What one sampled image of `height_px` x `width_px` says: median object diameter (px; None: too little to tell)."""

    plate: str
    height_px: int
    width_px: int
    diameter_px: float | None
    objects: int


def pool_sizes(images: Sequence[ImageSize]) -> tuple[PoolScale, ...]:
    """The object size of each pool (plate and image size), sorted: the median over images, each weighed by its objects.

    A pool whose images disagree by more than a factor of 1.6 (but for the outermost tenth of the objects, from five images on)
    has none, and neither has one whose images show nothing. Raises ConfigFault with the ways out where no image shows anything.
    """
    if images and all(image.diameter_px is None for image in images):
        raise ConfigFault(
            f"run.diameter is auto, and no object size can be told from a sample of {len(images)} images: they are empty,"
            " or hold nothing the model knows. Give the objects' median diameter in px (--diameter 25), count the images as"
            " they are (--diameter model), or look whether the right channel is counted"
        )
    ordered = sorted(images, key=_pool)
    return tuple(_pooled(pool, list(members)) for pool, members in groupby(ordered, key=_pool))


def _pool(image: ImageSize) -> tuple[str, int, int]:
    return image.plate, image.height_px, image.width_px


def _pooled(pool: tuple[str, int, int], members: list[ImageSize]) -> PoolScale:
    told = sorted(
        (image.diameter_px, max(1, image.objects)) for image in members if image.diameter_px is not None
    )
    if not told:
        return PoolScale(*pool, None, 0, 0, None, None)
    outliers = _OUTLIERS if len(told) >= _FEW else 0.0
    low, middle, high = (_weighted_quantile(told, share) for share in (outliers, 0.5, 1 - outliers))
    objects = sum(weight for _, weight in told)
    agreed = round(middle, 2) if high <= _DISAGREE * low else None
    return PoolScale(*pool, agreed, len(told), objects, round(told[0][0], 2), round(told[-1][0], 2))


def _weighted_quantile(ordered: Sequence[tuple[float, int]], share: float) -> float:
    wanted = share * sum(weight for _, weight in ordered)
    below = 0
    for value, weight in ordered:
        below += weight
        if below >= wanted:
            return value
    return ordered[-1][0]


def scale_warnings(scales: Sequence[PoolScale]) -> list[str]:
    """What a reader should know of the object sizes that were found."""
    warnings = []
    for scale in scales:
        where = f"plate {scale.plate!r}, images of {scale.width_px} x {scale.height_px} px"
        if scale.low_px is None or scale.high_px is None:
            warnings.append(f"{where}: no object size found in the sample; each image goes by its own")
        elif scale.diameter_px is None:
            warnings.append(
                f"{where}: object sizes disagree ({scale.low_px:.0f} to {scale.high_px:.0f} px in {scale.images} images); each"
                " image goes by its own (--diameter PX gives one for all)"
            )
    return warnings
