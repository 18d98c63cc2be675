"""Separation for networks with two heads: foreground, and normalised distance to the object's boundary.

Where the distance is high lies an object's *core*. Cores are found at rising levels, as branches of a tree: a core that
falls into two or more prominent ones at a higher level is replaced by them. Then every foreground pixel goes to the nearest
core of its own connected piece of foreground. Linear in pixels; the labels of one piece depend on that piece alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import cv2
import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.errors import ModelFault, nearest
from cellcount_core.objects.labels import drop_small

_LEVEL_STEP = 0.12
_LEVEL_END = 0.86


@dataclass(frozen=True, slots=True)
class CoreParams:
    """What is fitted when a network was trained.

    `foreground`: probability above which a pixel belongs to an object. `core`: distance (0..1) above which it belongs to a
    core. `prominence`: by how much a branch must rise above the level where it parts from its sibling. `core_area` (px): the
    smallest branch. `peak`: a piece of foreground whose distance nowhere reaches it is no object. `min_area` (px): the
    smallest object.
    """

    foreground: float = 0.5
    core: float = 0.4
    prominence: float = 0.08
    core_area: float = 3.0
    peak: float = 0.3
    min_area: float = 12.0


def separate(maps: NDArray[np.float32], params: Mapping[str, object]) -> NDArray[np.int32]:
    """Label image (H, W) int32 of maps (H, W, K), map 0 the foreground and map 1 the distance, both in 0..1.

    Objects are numbered 1..n in raster order of their first pixel. Raises ModelFault for parameters that `CoreParams` does
    not have or that are no numbers, and for maps with fewer than two channels.
    """
    fitted = parse_params(params)
    if maps.ndim != 3 or maps.shape[-1] < 2:
        raise ModelFault(
            f"separator 'cores' needs the maps (H, W, 2): foreground and distance (got {maps.shape})"
        )
    if maps.size == 0:
        return np.zeros(maps.shape[:2], np.int32)
    mask = (maps[..., 0] > fitted.foreground).view(np.uint8)
    distance = np.where(mask, maps[..., 1], np.float32(0))
    count, found = cv2.connectedComponents(mask, connectivity=4, ltype=cv2.CV_32S)
    if count == 1:
        return np.zeros(mask.shape, np.int32)
    pieces = np.asarray(found, np.int32)
    cores = _split_cores(distance, fitted)
    cores = _add_coreless(cores, pieces, distance, count, fitted)
    return drop_small(_grow(cores, pieces, count), fitted.min_area)


def parse_params(params: Mapping[str, object]) -> CoreParams:
    """Check a package's numbers. Raises ModelFault naming the parameter."""
    known = [field.name for field in fields(CoreParams)]
    numbers: dict[str, float] = {}
    for name, value in params.items():
        if name not in known:
            raise ModelFault(f"separator.{name}: no such parameter{nearest(name, known)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
            raise ModelFault(f"separator.{name}: expected a number (got {value!r})")
        numbers[name] = float(value)
    return CoreParams(**numbers)


def _levels(first: float) -> list[float]:
    return [
        first + _LEVEL_STEP * step for step in range(1, 1 + int(max(0.0, _LEVEL_END - first) / _LEVEL_STEP))
    ]


def _components(distance: NDArray[np.float32], level: float) -> tuple[int, NDArray[np.int32]]:
    mask = (distance > level).view(np.uint8)
    count, labels = cv2.connectedComponents(mask, connectivity=4, ltype=cv2.CV_32S)
    return count, np.asarray(labels, np.int32)


def _split_cores(distance: NDArray[np.float32], params: CoreParams) -> NDArray[np.int32]:
    count, cores = _components(distance, params.core)
    # All higher levels lie within the lowest: only its pixels are looked at, as flat lists.
    places = np.flatnonzero(cores)
    core_of, heights = cores.ravel()[places], distance.ravel()[places]
    for level in _levels(params.core):
        branches, labels = _components(distance, level)
        if branches == 1:
            break
        branch_of = labels.ravel()[places]
        areas = np.bincount(branch_of, minlength=branches)
        rises = np.zeros(branches, np.bool_)
        rises[branch_of[heights >= level + params.prominence]] = True
        parent = np.zeros(branches, np.int64)
        # Every pixel of a branch lies in one core, or in what a split left over (0).
        parent[branch_of] = core_of
        prominent = (parent > 0) & (areas >= params.core_area) & rises
        prominent[0] = False
        children = np.bincount(parent[prominent], minlength=count)
        chosen = prominent & (children[parent] >= 2)
        if chosen.any():
            core_of = _replace(core_of, branch_of, children >= 2, chosen, count)
            count += int(chosen.sum())
    cores.ravel()[places] = core_of
    return cores


def _replace(
    core_of: NDArray[np.int32],
    branch_of: NDArray[np.int32],
    parents: NDArray[np.bool_],
    chosen: NDArray[np.bool_],
    count: int,
) -> NDArray[np.int32]:
    """Cores of the pixels after the cores `parents` gave way to the branches `chosen`, which are numbered from `count` on."""
    kept = np.where(parents, 0, np.arange(parents.size)).astype(np.int32)
    numbers = np.zeros(chosen.size, np.int32)
    numbers[chosen] = np.arange(count, count + int(chosen.sum()), dtype=np.int32)
    new = numbers[branch_of]
    return np.where(new > 0, new, kept[core_of])


def _add_coreless(
    cores: NDArray[np.int32],
    pieces: NDArray[np.int32],
    distance: NDArray[np.float32],
    count: int,
    params: CoreParams,
) -> NDArray[np.int32]:
    """Pieces of foreground that hold no core are one object each, if their distance rises far enough."""
    rises = np.zeros(count, np.bool_)
    rises[pieces[distance >= params.peak]] = True
    has_core = np.zeros(count, np.bool_)
    has_core[pieces[cores > 0]] = True
    wanted = ~has_core & rises
    wanted[0] = False
    numbers = np.zeros(count, np.int32)
    first = int(cores.max(initial=0)) + 1
    numbers[wanted] = np.arange(first, first + int(wanted.sum()), dtype=np.int32)
    return np.where(cores > 0, cores, numbers[pieces])


def _grow(cores: NDArray[np.int32], pieces: NDArray[np.int32], count: int) -> NDArray[np.int32]:
    """Every pixel of a piece gets its nearest core; a piece without any core stays background."""
    if not cores.any():
        return np.zeros(cores.shape, np.int32)
    places = np.flatnonzero(cores)
    core_of, piece_of = cores.ravel()[places], pieces.ravel()[places]
    piece_of_core = np.zeros(int(core_of.max()) + 1, np.int32)
    piece_of_core[core_of] = piece_of
    core_of_piece = np.zeros(count, np.int32)
    core_of_piece[piece_of] = core_of
    shared = np.bincount(piece_of_core, minlength=count) > 1
    shared[0] = False
    grown = core_of_piece[pieces]
    if shared.any():
        divided = shared[pieces]
        nearest_core = _nearest_core(cores)
        grown[divided] = nearest_core[divided]
        strayed = divided & (piece_of_core[grown] != pieces)
        if strayed.any():
            _bring_back(grown, cores, pieces, np.unique(pieces[strayed]))
    return grown


def _nearest_core(cores: NDArray[np.int32]) -> NDArray[np.int32]:
    outside = (cores == 0).astype(np.uint8)
    _, index = cv2.distanceTransformWithLabels(outside, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    # OpenCV numbers the zero pixels in an order of its own; each zero pixel's index leads to the core it lies in.
    lookup = np.zeros(int(index.max()) + 1, np.int32)
    zero = outside == 0
    lookup[index[zero]] = cores[zero]
    return lookup[index]


def _bring_back(
    grown: NDArray[np.int32], cores: NDArray[np.int32], pieces: NDArray[np.int32], numbers: NDArray[np.int32]
) -> None:
    """Grow again, in place, in the pieces where a neighbouring piece's core was nearer than the piece's own."""
    from scipy import ndimage

    boxes = ndimage.find_objects(pieces, max_label=int(numbers.max()))
    for number in numbers:
        box = boxes[number - 1]
        if box is None:
            continue
        mine = pieces[box] == number
        grown[box][mine] = _nearest_core(np.where(mine, cores[box], 0).astype(np.int32))[mine]
