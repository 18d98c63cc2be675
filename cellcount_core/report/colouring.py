"""Colours for objects so that no two neighbours share one.

Objects are neighbours where the regions nearest to each meet. These regions are a map in the plane, so its graph has always an
object with at most five neighbours; giving colours in the reverse of taking such objects away (Matula and Beck 1983,
smallest-last) needs six at most.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

PALETTE = ((86, 180, 233), (230, 159, 0), (0, 200, 140), (240, 228, 66), (235, 110, 60), (220, 140, 190))
"""Six colours (R, G, B) that differ for readers with any colour vision (after Okabe and Ito 2008), brightened for dark images."""


def neighbour_colours(labels: NDArray[np.int32]) -> NDArray[np.int64]:
    """A colour number for each label: (max label + 1,), 0 for the background and for labels not in use.

    `labels` is (H, W). Labels whose regions touch have different numbers; 0 to 5 suffice where each region is one piece.
    """
    number = int(labels.max(initial=0))
    colours = np.full(number + 1, -1, np.int64)
    graph = _neighbours(_regions(labels), number)
    for label in reversed(_smallest_last(graph)):
        taken = {int(colours[other]) for other in graph[label] if colours[other] >= 0}
        colours[label] = next(colour for colour in range(len(graph) + 1) if colour not in taken)
    return np.maximum(colours, 0)


def _regions(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Every pixel given to its nearest object."""
    background = (labels == 0).astype(np.uint8)
    if background.all() or not background.any():
        return labels
    _, nearest = cv2.distanceTransformWithLabels(background, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    owner_of = np.zeros(int(nearest.max()) + 1, np.int32)
    inside = background == 0
    owner_of[nearest[inside]] = labels[inside]
    return np.asarray(owner_of[nearest], np.int32)


def _neighbours(regions: NDArray[np.int32], number: int) -> dict[int, set[int]]:
    pairs = []
    for one, two in ((regions[:, :-1], regions[:, 1:]), (regions[:-1], regions[1:])):
        differ = one != two
        low, high = np.minimum(one[differ], two[differ]), np.maximum(one[differ], two[differ])
        pairs.append(np.unique(low.astype(np.int64) * (number + 1) + high))
    graph: dict[int, set[int]] = {int(label): set() for label in np.unique(regions) if label > 0}
    for code in np.unique(np.concatenate(pairs)):
        one_label, two_label = divmod(int(code), number + 1)
        if one_label:
            graph[one_label].add(two_label)
            graph[two_label].add(one_label)
    return graph


def _smallest_last(graph: dict[int, set[int]]) -> list[int]:
    """The labels in the order of taking away one with fewest neighbours left (of equals: the one found first)."""
    left = {label: len(others) for label, others in graph.items()}
    by_degree: dict[int, dict[int, None]] = {}
    for label, degree in left.items():
        by_degree.setdefault(degree, {})[label] = None
    order: list[int] = []
    while left:
        degree = min(each for each, members in by_degree.items() if members)
        label = next(iter(by_degree[degree]))
        del by_degree[degree][label]
        del left[label]
        order.append(label)
        for other in graph[label]:
            if other in left:
                del by_degree[left[other]][other]
                left[other] -= 1
                by_degree.setdefault(left[other], {})[other] = None
    return order
