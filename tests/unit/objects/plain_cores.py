"""The rules of `objects/cores.py` written down plainly, object by object, to compare with. Slow."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellcount_core.objects.cores import CoreParams

LEVEL_STEP, LEVEL_END = 0.12, 0.86

Mask = NDArray[np.bool_]


def separate_plainly(maps: NDArray[np.float32], params: CoreParams) -> NDArray[np.int32]:
    """Label image (H, W) of maps (H, W, K)."""
    distance = np.where(maps[..., 0] > params.foreground, maps[..., 1], np.float32(0))
    objects = [
        found
        for piece in _parts(maps[..., 0] > params.foreground)
        for found in _objects(piece, distance, params)
        if found.sum() >= params.min_area or _part_at_edge(found, maps[..., 0], params)
    ]
    labels = np.zeros(distance.shape, np.int32)
    for number, found in enumerate(sorted(objects, key=lambda found: int(np.flatnonzero(found)[0])), 1):
        labels[found] = number
    return labels


def _part_at_edge(found: Mask, foreground: NDArray[np.float32], params: CoreParams) -> bool:
    inner = np.zeros(found.shape, np.bool_)
    inner[1:-1, 1:-1] = True
    return (
        params.edge_area is not None
        and bool((found & ~inner).any())
        and found.sum() >= params.edge_area
        and bool(foreground[found].max() >= params.edge_peak)
    )


def _parts(mask: Mask) -> list[Mask]:
    labels, count = ndimage.label(mask)
    return [labels == number for number in range(1, count + 1)]


def _objects(piece: Mask, distance: NDArray[np.float32], params: CoreParams) -> list[Mask]:
    steps = int((LEVEL_END - params.core) / LEVEL_STEP) if params.core < LEVEL_END else 0
    levels = [params.core + LEVEL_STEP * step for step in range(1, steps + 1)]
    cores = [
        core
        for root in _parts(piece & (distance > params.core))
        for core in _split(root, distance, levels, params)
    ]
    if not cores:
        return [piece] if (distance[piece] >= params.peak).any() else []
    nearest = _nearest(cores)
    return [piece & (nearest == number) for number in range(len(cores))]


def _split(core: Mask, distance: NDArray[np.float32], levels: list[float], params: CoreParams) -> list[Mask]:
    """The cores that a core falls into: at the lowest level where it parts, and each of those in its turn."""
    for index, level in enumerate(levels):
        branches = [
            branch
            for branch in _parts(core & (distance > level))
            if branch.sum() >= params.core_area and (distance[branch] >= level + params.prominence).any()
        ]
        if len(branches) >= 2:
            return [
                one for branch in branches for one in _split(branch, distance, levels[index + 1 :], params)
            ]
    return [core]


def _nearest(cores: list[Mask]) -> NDArray[np.intp]:
    """Which core is nearest to each pixel; where two are equally near OpenCV's choice among their pixels stands."""
    owner = np.full(cores[0].shape, -1)
    for number, core in enumerate(cores):
        owner[core] = number
    _, index = cv2.distanceTransformWithLabels(
        (owner < 0).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    lookup = np.zeros(int(index.max()) + 1, np.intp)
    lookup[index[owner >= 0]] = owner[owner >= 0]
    return lookup[index]
