"""How counted objects are compared with labelled ones: by the pixels that they share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.columns import Value
from cellcount_core.tasks.matching import THRESHOLDS, ImageScore, match_with_iou
from cellcount_core.tasks.task import Compared, Found, Truth, TruthKind


class LabelScoring:
    """Compares label images. Fields must have been counted with their label images kept."""

    truth = TruthKind.LABELS
    names = ()
    headline = "f1_50"

    def score(self, truth: Truth, found: Found) -> Compared:
        """Compare the objects of one image. Raises ValueError if the label images (H, W) differ in shape."""
        assert truth.labels is not None
        assert found.labels is not None
        return Compared(objects=score_labels(truth, np.asarray(found.labels, np.int32)))

    def figures(self, _: Sequence[Compared]) -> dict[str, Value]:
        """None beside those that follow from the objects."""
        return {}


def score_labels(truth: Truth, counted: NDArray[np.int32]) -> ImageScore:
    """Compare an image's true labels with counted ones (H, W) int32. Raises ValueError if they differ in shape."""
    assert truth.labels is not None
    shared = shared_pixels(truth.labels, counted)
    iou = intersection_over_union(shared)
    found = [match_with_iou(iou, threshold) for threshold in THRESHOLDS]
    return ImageScore(
        truth.id,
        truth.modality,
        iou.shape[0],
        iou.shape[1],
        tuple(match for match, _ in found),
        found[0][1],
        splits(shared),
        merges(shared),
        truth.diameter_px,
    )


def overlap(true: NDArray[np.integer], counted: NDArray[np.integer]) -> NDArray[np.float64]:
    """Intersection over union (n, m) of the objects of `true` with those of `counted`, both label images (H, W).

    Objects are in ascending order of their numbers; numbers that do not occur have no row or column.
    """
    return intersection_over_union(shared_pixels(true, counted))


def shared_pixels(true: NDArray[np.integer], counted: NDArray[np.integer]) -> NDArray[np.int64]:
    """Number of pixels (n + 1, m + 1) that each true object shares with each counted one; row and column 0 are background.

    Raises ValueError if the label images (H, W) differ in shape.
    """
    if true.shape != counted.shape:
        raise ValueError(f"label images of one shape expected (got {true.shape} and {counted.shape})")
    rows, height = _compact(true)
    columns, width = _compact(counted)
    flat = np.bincount(rows * width + columns, minlength=height * width)
    return np.asarray(flat.reshape(height, width), np.int64)


def intersection_over_union(shared: NDArray[np.int64]) -> NDArray[np.float64]:
    """IoU (n, m) of the objects, from the table (n + 1, m + 1) of `shared_pixels`."""
    both = shared[1:, 1:].astype(np.float64)
    union = shared.sum(axis=1)[1:, None] + shared.sum(axis=0)[None, 1:] - both
    return np.asarray(both / np.maximum(union, 1), np.float64)


def _compact(labels: NDArray[np.integer]) -> tuple[NDArray[np.int64], int]:
    """Flat labels without gaps in their numbers, and how many numbers there are, background (0) included even if no pixel has it."""
    flat = labels.ravel().astype(np.int64)
    present = np.bincount(flat, minlength=1) > 0
    present[0] = True
    return (np.cumsum(present) - 1)[flat], int(present.sum())


def splits(shared: NDArray[np.int64]) -> int:
    """Number of true objects that hold two or more counted objects.

    A counted object lies in a true one that has more than half of its pixels. `shared` is the table (n + 1, m + 1) of `shared_pixels`.
    """
    inside = 2 * shared[1:, 1:] > shared.sum(axis=0)[None, 1:]
    return int((inside.sum(axis=1) >= 2).sum())


def merges(shared: NDArray[np.int64]) -> int:
    """Number of counted objects that hold two or more true objects, in the sense of `splits`."""
    return splits(shared.T)


def without_ignored(labels: NDArray[np.int32], ignored: NDArray[np.bool_]) -> NDArray[np.int32]:
    """The labels without objects of which more than half is ignored; what is ignored of the others stays theirs."""
    count = int(labels.max(initial=0)) + 1
    areas = np.bincount(labels.ravel(), minlength=count)
    hidden = np.bincount(labels[ignored], minlength=count)
    gone = hidden * 2 > areas
    gone[0] = False
    return np.where(gone[labels], 0, labels).astype(np.int32)
