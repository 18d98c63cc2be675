"""The object sizes of a run: which fields are sampled, and how the sizes found in single images become one size for each pool.

A pool is all images of one plate that have the same size in px. The sample is bounded, and does not depend on the order of the listing
or on how fields are cut into shards.
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from hashlib import blake2b
from itertools import groupby
from typing import TypeVar

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.domain.fields import PlannedField
from cellcount_core.domain.plates import parse_well
from cellcount_core.domain.scales import PlateSize, ShownSize

PLATES = 64
"""How many plates are sampled at most. They are chosen by the hash of their names."""

FIELDS_A_PLATE = 16
FIELDS = 256
"""How many fields are sampled at most, in all plates together."""

_FEWEST = 3

_Entry = tuple[int, str, PlannedField]
_Item = TypeVar("_Item")


class Sampler:
    """Chooses a sample of fields that pass in key order. At most a few hundred fields are in memory.

    With `wells` it chooses among the fields of these wells.
    """

    def __init__(self, wells: frozenset[str] = frozenset()) -> None:
        self._wells = wells
        self._plates: list[tuple[int, str, list[_Entry]]] = []
        self._plate: str | None = None
        self._held: list[_Entry] = []

    def watch(self, fields: Iterable[PlannedField]) -> Iterator[PlannedField]:
        """Pass `fields` on, and sample those without a reason not to count them."""
        for planned in fields:
            if planned.key.plate != self._plate:
                self._close_plate()
                self._plate = planned.key.plate
            if planned.reason is None and (not self._wells or planned.key.well in self._wells):
                # The heap's smallest is what leaves: the entry of the largest hash.
                entry = (-int(planned.key.field_id, 16), planned.key.field_id, planned)
                push = heapq.heappush if len(self._held) < FIELDS_A_PLATE else heapq.heappushpop
                push(self._held, entry)
            yield planned
        self._close_plate()

    def fields(self) -> list[PlannedField]:
        """The sample, in key order. The more plates there are, the fewer fields of each are in it."""
        share = max(_FEWEST, FIELDS // max(1, len(self._plates)))
        kept = [entry for _, _, held in self._plates for entry in sorted(held, reverse=True)[:share]]
        return sorted((planned for _, _, planned in kept), key=lambda planned: planned.key)

    def _close_plate(self) -> None:
        if self._plate is not None and self._held:
            number = int.from_bytes(blake2b(self._plate.encode(), digest_size=8).digest(), "big")
            push = heapq.heappush if len(self._plates) < PLATES else heapq.heappushpop
            push(self._plates, (-number, self._plate, self._held))
        self._held = []


def spread(items: Sequence[_Item], most: int) -> list[_Item]:
    """At most so many of the items, evenly spread, in their order; [] if `most` is 0.

    >>> spread("abcdefgh", 3)
    ['a', 'd', 'g']
    """
    return list(items[:: max(1, -(-len(items) // most))]) if most else []


_NEAREST = 3


class WantedWells:
    """Looks out for wells that settings name, in fields that pass in any order. Of wells that are not there it knows the nearest that are."""

    def __init__(self, wells: Iterable[str]) -> None:
        self.names = frozenset(wells)
        self._missing = set(self.names)
        self._near: dict[str, list[tuple[int, str]]] = {well: [] for well in self._missing}
        self._well: str | None = None

    def watch(self, fields: Iterable[PlannedField]) -> Iterator[PlannedField]:
        """Pass `fields` on, and note their wells."""
        for planned in fields:
            if planned.key.well != self._well:
                self._well = planned.key.well
                self._note(self._well)
            yield planned

    def missing(self) -> dict[str, tuple[str, ...]]:
        """The wells that no field is of, in order, each with the nearest wells that there are."""
        return {well: tuple(name for _, name in self._near[well]) for well in sorted(self._missing)}

    def _note(self, well: str) -> None:
        self._missing.discard(well)
        for wanted in self._missing:
            near = self._near[wanted]
            if all(name != well for _, name in near):
                insort(near, (_steps(wanted, well), well))
                del near[_NEAREST:]


def _steps(one: str, other: str) -> int:
    """Rows and columns between two wells; for names that are not wells, all are equally far."""
    first, second = parse_well(one), parse_well(other)
    if first is None or second is None:
        return 0
    return abs(first.row - second.row) + abs(first.column - second.column)


_DISAGREE = 1.6
"""Images of one pool disagree if their sizes differ by more than this factor."""

_OUTLIERS = 0.1
"""Share of a pool's objects, at either end of the sizes, whose images may disagree."""

_FEW = 5
"""In a pool of fewer images than this all must agree: among so few, one odd image is not an outlier."""

_FEW_OBJECTS = 10
"""A size that rests on fewer objects than this is reported with a warning."""

_CONTRADICTING = 5
"""Objects that must contradict a diameter at least."""

_SHOWN = 3

SMALLEST_PX = 4.0
LARGEST_SHARE = 1 / 3
"""A size below so many px, or above this share of an image's shorter side, cannot be that of objects."""

_IN_A_CROP_PX = 40.0
"""Px. Up to this size an object may take any share of an image, because people count crops of one nucleus."""


@dataclass(frozen=True, slots=True)
class ImageSize:
    """What was found in one sampled image: the median diameter of its objects in px, None if it shows too few to tell.

    A tenth of the objects is smaller than `small_px` and a tenth larger than `large_px`. `factor` is the scale at which the image would
    be counted if it were the only one.
    """

    plate: str
    height_px: int
    width_px: int
    diameter_px: float | None
    objects: int
    small_px: float | None = None
    large_px: float | None = None
    factor: float | None = None


def pool_sizes(images: Sequence[ImageSize]) -> tuple[PlateSize, ...]:
    """The object size of each pool (plate and image size), sorted: the median over images, each weighed by its objects.

    A pool has no size if its images disagree by more than a factor of 1.6 (leaving out, from five images on, the outermost
    tenth of the objects), or if they show nothing. Raises ConfigFault with the ways out if every size is absurd: below 4 px,
    or more than a third of the image.
    """
    ordered = sorted(images, key=_pool)
    pools = tuple(_pooled(pool, list(members)) for pool, members in groupby(ordered, key=_pool))
    told = [pool for pool in pools if pool.diameter_px is not None]
    if told and all(map(is_absurd, told)):
        raise ConfigFault(
            f"run.diameter is auto, and the objects found in a sample are {told[0].diameter_px:.3g} px in images of"
            f" {told[0].width_px} x {told[0].height_px} px ({_rests_on(told[0])}): cells do not have that size. Give the objects' median"
            " diameter in px (--diameter 25), count the images as they are (--diameter model), or check whether the right channel"
            " is counted"
        )
    return pools


def contradicting(images: Sequence[ImageSize], given_px: float) -> tuple[ShownSize, ...]:
    """The plates whose images contradict the diameter given, sorted, with the size of their objects: the median over images, each weighed by
    its objects.

    A plate contradicts it if every image that tells a size has objects more than 1.6 times larger, or every one objects more than 1.6 times
    smaller, and these are five objects at least.
    """
    found = []
    for plate, members in groupby(sorted(images, key=_pool), key=lambda image: image.plate):
        told = sorted(
            (image.diameter_px, max(1, image.objects)) for image in members if image.diameter_px is not None
        )
        objects = sum(number for _, number in told)
        if objects < _CONTRADICTING:
            continue
        if told[0][0] > given_px * _DISAGREE or told[-1][0] < given_px / _DISAGREE:
            found.append(ShownSize(plate, round(_weighted_quantile(told, 0.5), 2), len(told), objects))
    return tuple(found)


def says_hardly_anything(images: Sequence[ImageSize], plates: AbstractSet[str]) -> set[str]:
    """Those of the plates whose images show too few objects to contradict a diameter."""
    objects = Counter[str]()
    for image in images:
        objects[image.plate] += image.objects if image.diameter_px is not None else 0
    return {plate for plate in plates if objects[plate] < _CONTRADICTING}


def is_absurd(pool: PlateSize) -> bool:
    """Whether the pool's size cannot be that of cells."""
    largest = max(_IN_A_CROP_PX, LARGEST_SHARE * min(pool.height_px, pool.width_px))
    return pool.diameter_px is not None and not SMALLEST_PX <= pool.diameter_px <= largest


def _pool(image: ImageSize) -> tuple[str, int, int]:
    return image.plate, image.height_px, image.width_px


def _pooled(pool: tuple[str, int, int], members: list[ImageSize]) -> PlateSize:
    told = sorted(
        (image.diameter_px, max(1, image.objects)) for image in members if image.diameter_px is not None
    )
    if not told:
        return PlateSize(*pool, None, 0, 0, None, None)
    outliers = _OUTLIERS if len(told) >= _FEW else 0.0
    low, middle, high = (_weighted_quantile(told, share) for share in (outliers, 0.5, 1 - outliers))
    objects = sum(weight for _, weight in told)
    agreed = round(middle, 2) if high <= _DISAGREE * low else None
    small, large = (
        _median_of(members, lambda image: image.small_px),
        _median_of(members, lambda image: image.large_px),
    )
    alone = next(image.factor for image in members if image.diameter_px is not None)
    factor = alone if len(told) == 1 else None
    return PlateSize(
        *pool, agreed, len(told), objects, round(told[0][0], 2), round(told[-1][0], 2), small, large, factor
    )


def _median_of(members: Sequence[ImageSize], of: Callable[[ImageSize], float | None]) -> float | None:
    known = sorted((value, max(1, m.objects)) for m in members if (value := of(m)) is not None)
    return round(_weighted_quantile(known, 0.5), 2) if known else None


def _weighted_quantile(ordered: Sequence[tuple[float, int]], share: float) -> float:
    wanted = share * sum(weight for _, weight in ordered)
    below = 0
    for value, weight in ordered:
        below += weight
        if below >= wanted:
            return value
    return ordered[-1][0]


def scale_warnings(scales: Sequence[PlateSize]) -> list[str]:
    """Warnings about the object sizes that were found."""
    if scales and all(scale.low_px is None for scale in scales):
        return [
            "no object size can be told from a sample of the images: they are empty, or hold nothing the model knows. Images are"
            " counted at the model's scale, and one that shows objects at its own size (--diameter PX gives one for all); look"
            " whether the right channel is counted"
        ]
    warnings = []
    for scale in scales:
        where = f"plate {scale.plate!r}, images of {scale.width_px} x {scale.height_px} px"
        if scale.low_px is None or scale.high_px is None:
            warnings.append(f"{where}: no object size found in the sample; each image is counted at its own")
        elif scale.diameter_px is None:
            warnings.append(
                f"{where}: object sizes disagree ({scale.low_px:.0f} to {scale.high_px:.0f} px in {scale.images} images); each"
                " image is counted at its own (--diameter PX gives one for all)"
            )
        elif is_absurd(scale):
            warnings.append(
                f"{where}: objects of {scale.diameter_px:.3g} px ({_rests_on(scale)}) do not look like cells: give --diameter PX, or"
                " check whether the right channel is counted"
            )
        elif scale.objects < _FEW_OBJECTS:
            warnings.append(
                f"{where}: the object size of {scale.diameter_px:.1f} px rests on {_rests_on(scale)}: give --diameter PX if it is"
                " wrong"
            )
    return warnings


def contradictions(shown: Sequence[ShownSize], given_px: float) -> list[str]:
    """Warnings about plates that contradict the diameter given: one line, with the first few plates by name."""
    if not shown:
        return []
    sizes = ", ".join(
        f"{one.diameter_px:.3g} px in plate {one.plate!r} ({_rests_on(one)})" for one in shown[:_SHOWN]
    )
    more = f" … and {len(shown) - _SHOWN} more plates" if len(shown) > _SHOWN else ""
    return [
        f"--diameter {given_px:g} is more than {_DISAGREE:g} times off what a sample of the images shows: {sizes}{more}. Objects may be missed, or"
        " counted in pieces: leave it out (the size is found then), or look at some images and give what the objects have"
    ]


def _rests_on(pool: PlateSize | ShownSize) -> str:
    objects = "1 object" if pool.objects == 1 else f"{pool.objects} objects"
    return f"{objects} in {'1 image' if pool.images == 1 else f'{pool.images} images'}"
