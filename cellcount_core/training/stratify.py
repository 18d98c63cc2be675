"""Splitting images of which each shows several of many patterns, so that every part has its share of each pattern.

The iterative stratification of Sechidis et al. (2011) gives the images of the rarest pattern out first. A group of images is given out as
one, and shows what any of its images shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.errors import ConfigFault

Shown = NDArray[np.bool_]


def stratified_parts(
    shown: Shown, groups: Sequence[str], shares: Sequence[float], seed: int = 0
) -> NDArray[np.int64]:
    """The part (N,) of each image, from 0: parts hold about these `shares` of the images, and of the images of each pattern.

    `shown` (N, K) says which image shows which pattern; images of one group are in one part. The same arguments give the same parts.
    Raises ConfigFault if there are fewer groups than parts, or if the library that stratifies is not installed.
    """
    try:
        from iterstrat.ml_stratifiers import IterativeStratification
    except ImportError as error:
        raise ConfigFault(
            "iterative-stratification is not installed, which splits images of patterns: pip install 'cellcount[train]'"
        ) from error

    names, places = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < len(shares):
        raise ConfigFault(
            f"data: {len(names)} groups of images for {len(shares)} parts; at least one a part expected"
        )
    of_group = np.zeros((len(names), shown.shape[1]), bool)
    np.logical_or.at(of_group, places, shown)
    # Groups of several images are given out like a pattern, so that no part gets all of them; the last column is every group.
    several = np.bincount(places, minlength=len(names)) > 1
    labels = np.column_stack([of_group, several, np.ones(len(names), bool)])
    wanted = np.asarray(shares, np.float64) / sum(shares)
    # Of booleans alone: the library indexes columns by the labels themselves.
    part = IterativeStratification(labels, wanted, np.random.RandomState(seed))
    return np.asarray(part, np.int64)[places]


def stratified_folds(shown: Shown, groups: Sequence[str], folds: int, seed: int = 0) -> NDArray[np.int64]:
    """The fold (N,) of each image, from 0; see `stratified_parts`."""
    return stratified_parts(shown, groups, [1 / folds] * folds, seed)


@dataclass(frozen=True, slots=True)
class PatternShares:
    """How a pattern is spread: the number of images that show it, how many of them each part has, and by how much the part farthest off differs.

    `off` is the largest relative difference between the share of the pattern among a part's images and that among all images.
    """

    name: str
    images: int
    parts: tuple[int, ...]
    off: float


def pattern_shares(
    shown: Shown, part: NDArray[np.int64], names: Sequence[str], count: int
) -> list[PatternShares]:
    """How each pattern is spread over `count` parts."""
    sizes = np.bincount(part, minlength=count)
    found = []
    for number, name in enumerate(names):
        own = shown[:, number]
        held = np.bincount(part[own], minlength=count)
        total = int(own.sum())
        shares = held / np.maximum(1, sizes)
        off = float(np.abs(shares / (total / len(shown)) - 1).max()) if total else 0.0
        found.append(PatternShares(name, total, tuple(int(each) for each in held), off))
    return found
