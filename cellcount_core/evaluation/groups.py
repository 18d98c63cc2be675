"""Groups of images: by modality, by the size of their objects and by how many there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

SIZE_EDGES_PX = (8, 12, 16, 24, 32, 48)
"""Median diameters (px) that the bins of size meet at; a diameter at an edge is of the upper bin."""

DENSITY_EDGES = (5, 20, 50, 100)
"""The most objects an image of each bin of density has, but the last."""

_EMPTY = "no object"
_UNNAMED = "not stated"


class Scored(Protocol):
    """What decides the groups of an image."""

    @property
    def modality(self) -> str:
        """Its modality, "" where it is not stated."""
        ...

    @property
    def true(self) -> int:
        """Its true objects."""
        ...

    @property
    def diameter_px(self) -> float:
        """Their median diameter in px."""
        ...


@dataclass(frozen=True, slots=True)
class Grouping:
    """One way to group: `title` of its table, `names` in the order shown, and the name of an image's group."""

    title: str
    names: tuple[str, ...]
    of: Callable[[Scored], str]


def groupings(images: Sequence[Scored]) -> dict[str, Grouping]:
    """The three groupings of these images, by the name they have in evaluation.json."""
    modalities = sorted({modality_of(image) for image in images})
    return {
        "modality": Grouping("modality", tuple(modalities), modality_of),
        "size": Grouping("median object diameter, px", (_EMPTY, *size_names()), size_of),
        "density": Grouping("objects an image", (_EMPTY, *density_names()), density_of),
    }


def modality_of(image: Scored) -> str:
    """The image's modality in words."""
    return image.modality or _UNNAMED


def size_names() -> tuple[str, ...]:
    """The bins of size, small to large."""
    inner = [f"{low} to {high}" for low, high in pairwise(SIZE_EDGES_PX)]
    return (f"below {SIZE_EDGES_PX[0]}", *inner, f"{SIZE_EDGES_PX[-1]} and more")


def size_of(image: Scored) -> str:
    """The image's bin of size."""
    if not image.true:
        return _EMPTY
    return size_names()[sum(image.diameter_px >= edge for edge in SIZE_EDGES_PX)]


def density_names() -> tuple[str, ...]:
    """The bins of density, few to many."""
    edges = (0, *DENSITY_EDGES)
    return (*(f"{low + 1} to {high}" for low, high in pairwise(edges)), f"above {DENSITY_EDGES[-1]}")


def density_of(image: Scored) -> str:
    """The image's bin of density."""
    if not image.true:
        return _EMPTY
    return density_names()[sum(image.true > edge for edge in DENSITY_EDGES)]


def grouped(images: Sequence[Scored], grouping: Grouping) -> Mapping[str, list[int]]:
    """The places of the images of each group that has any, in the order of the grouping's names."""
    places: dict[str, list[int]] = {name: [] for name in grouping.names}
    for at, image in enumerate(images):
        places[grouping.of(image)].append(at)
    return {name: members for name, members in places.items() if members}
