"""What a look at an image shows: its objects, how large each was found, and how large the network says that it is.

A network with the map `size` predicts, wherever an object is, the object's diameter on a logarithmic scale from 0 to 1. A `Look`
is an image (or a window of it) resized by one factor, with the objects that were separated in it. Several looks at the same image
show the same objects; `from_farther` decides which look each object is taken from.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from cellcount_core.models.package import Package

_REFERENCE_PX = 20.0
_OCTAVES = 2.5
"""The map spans 2.5 octaves to either side of 20 px: 3.5 to 113 px."""


def encode_diameter(px: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values 0..1 (float32) of the map `size` for diameters in px, of any shape; clipped at the ends of the span."""
    octaves = np.log2(np.maximum(px, 1e-3) / _REFERENCE_PX)
    return np.clip((octaves + _OCTAVES) / (2 * _OCTAVES), 0, 1).astype(np.float32)


def decode_diameter(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Diameters in px (float32) for values 0..1 of the map `size`: the inverse of `encode_diameter` within its span."""
    octaves = values.astype(np.float64) * (2 * _OCTAVES) - _OCTAVES
    return np.asarray(_REFERENCE_PX * 2.0**octaves, np.float32)


Column = NDArray[np.float64]


SIZE = "size"
"""Name of the map that predicts how large an object is."""

SIDES = ("height", "width")
"""Names of the maps that predict it of a network that finds boxes."""


_CERTAIN_OBJECT = 0.65
"""Mean foreground of an object below which a look does not count as having seen it."""


FRAGMENT, PIECE = 1.0, 0.5
"""Octaves by which an object is smaller than the network says. From the first on, a look does not count as having seen the
object; from the second on, the object is a piece of a larger one and tells no size.
"""


_SAME = 0.5
"""An object within another one that covers at least this share of its area is the same one, seen in two looks."""


_MARGIN = 0.3
"""Octaves by which what lies within an object must fit worse than the object itself does, to give way to it.

Twice as many if it is ten objects: a colony, made small, looks like a nucleus.
"""


_STRAINED = 1.0
"""Octaves above the model's own size from which on the network's word for a single object counts less."""


_UNCOVERED = 0.5
"""Octaves that count as misfit if nothing of an object is covered by what lies within it."""


@dataclass(frozen=True, slots=True, eq=False)
class SeenObjects:
    """Objects of an image, n of them, all in px of the image: centres, diameters as found, and diameters as the network says.

    `octaves` is how far above the model's own size each was seen (negative: below), `doubt` how much the network wavered in that look.
    `weight` says, relatively, for how many of the image's objects each stands: 1 / the root of the area that its look showed (not 1 / the
    area, because small objects are seen in other looks too).
    """

    y: Column
    x: Column
    found: Column
    said: Column
    octaves: Column
    doubt: Column
    weight: Column

    @property
    def misfit(self) -> Column:
        """Octaves between the size found and the size said; more for an object seen too large, which may be in pieces."""
        strain = np.maximum(0, self.octaves - _STRAINED)
        return np.asarray(np.abs(np.log2(self.said / self.found)) + strain)

    def taken(self, which: NDArray[np.bool_]) -> SeenObjects:
        """Those chosen by a mask (n,)."""
        return SeenObjects(*(getattr(self, field.name)[which] for field in fields(self)))

    def joined(self, other: SeenObjects) -> SeenObjects:
        """These and the others."""
        return SeenObjects(
            *(np.concatenate([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self))
        )


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What was seen at one scale.

    `labels` (h, w), 1..n, are those of a window whose corner is `origin` (px of the image), resized by `factor`; `objects` are its
    objects, and `certain` (n,) says of which of them the network was sure.
    """

    factor: float
    origin: tuple[int, int]
    labels: NDArray[np.int32]
    objects: SeenObjects
    certain: NDArray[np.bool_]

    @property
    def doubt(self) -> float:
        """How much the network wavers in this look; 0 if it shows nothing."""
        return float(self.objects.doubt[0]) if self.objects.doubt.size else 0.0

    def owners(self, others: SeenObjects) -> NDArray[np.intp]:
        """The label that each centre of `others` lies in; 0 for none."""
        places = []
        for centre, origin in zip((others.y, others.x), self.origin, strict=True):
            places.append(np.floor((centre - origin + 0.5) * self.factor).astype(np.intp))
        inside = np.all([(p >= 0) & (p < n) for p, n in zip(places, self.labels.shape, strict=True)], axis=0)
        owner = np.zeros(others.y.size, np.intp)
        owner[inside] = self.labels[places[0][inside], places[1][inside]]
        return owner


def tells_sizes(package: Package) -> bool:
    """Whether the network predicts how large objects are, and the package states the size that it counts best."""
    return package.input.diameter_px is not None and (SIZE in package.maps or {*SIDES} <= {*package.maps})


def from_farther(seen: SeenObjects, look: Look) -> NDArray[np.bool_]:
    """Which objects (n,) of a look from farther replace what was seen closer.

    An object that holds nothing seen closer does. One that holds only itself does if it is nearer to the model's size here. One
    that holds several, or much smaller ones, does if they fit worse to what the network says about them.
    """
    new = look.objects
    count = new.found.size
    owner = look.owners(seen)
    held = np.bincount(owner, minlength=count + 1)[1:]
    area = np.bincount(owner, seen.found**2, minlength=count + 1)[1:]
    covered = area / new.found**2
    misfit = np.bincount(owner, seen.found**2 * seen.misfit, minlength=count + 1)[1:] / np.maximum(area, 1e-9)
    octaves = np.bincount(owner, np.abs(seen.octaves), minlength=count + 1)[1:]
    same = (held == 1) & (covered > _SAME)
    margin = _MARGIN * (1 + np.log10(np.maximum(held, 1)))
    worse = misfit + _UNCOVERED * np.maximum(0, 1 - covered) > new.misfit + margin
    better = np.where(same, np.abs(new.octaves) < octaves, worse)
    return np.asarray(look.certain & ((held == 0) | better))


def look_at(
    labels: NDArray[np.int32],
    maps: NDArray[np.float32],
    package: Package,
    factor: float,
    origin: tuple[int, int],
) -> Look:
    """The look at what was separated in maps (h, w, K) of an image that was resized by `factor`.

    `labels` (h, w) are 1..n; the maps begin at `origin` (y, x), in px of the image.
    """
    flat = np.flatnonzero(labels)
    owner = labels.ravel()[flat]
    count = int(owner.max(initial=0))
    area = np.bincount(owner, minlength=count + 1)[1:].astype(np.float64)
    chance = np.ascontiguousarray(maps[..., 0])

    def mean(values: NDArray[np.generic]) -> Column:
        return np.asarray(np.bincount(owner, values, minlength=count + 1)[1:] / area)

    y, x = np.divmod(flat, labels.shape[1])
    said = mean(maps[..., package.maps.index(SIZE)].ravel()[flat])
    said = decode_diameter(said.astype(np.float32)).astype(np.float64)
    found = 2 * np.sqrt(area / np.pi)
    doubt = float((chance * (1 - chance)).mean() / max(float(chance.mean()), 1e-9))
    objects = SeenObjects(
        origin[0] + mean(y) / factor,
        origin[1] + mean(x) / factor,
        found / factor,
        said / factor,
        np.log2(said / float(package.input.diameter_px or 1)),
        np.full(count, doubt),
        np.full(count, factor / labels.size**0.5),
    )
    certain = (mean(chance.ravel()[flat]) > _CERTAIN_OBJECT) & (np.log2(said / found) < FRAGMENT)
    return Look(factor, origin, labels, objects, certain)


def weighted_quantile(values: Column, weights: Column, share: float) -> float:
    """The smallest of n > 0 values at which the given share of the total weight is reached."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    return float(values[order][min(np.searchsorted(reached, share * reached[-1]), values.size - 1)])
