"""Thresholds of the separator, fitted on images of the training split: coordinate descent over small grids."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cellcount_core.evaluation.evaluate import ImageScore, Report, score_image
from cellcount_core.images.normalise import estimate
from cellcount_core.labelled.image import LabelledImage
from cellcount_core.objects.separators import Separator, build_separator
from cellcount_core.tasks.instances.task import label_whole

GRIDS: Mapping[str, Sequence[float]] = {
    "foreground": (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85),
    "core": (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6),
    "prominence": (0.02, 0.05, 0.08, 0.12, 0.16, 0.22, 0.3, 0.38, 0.46),
    "core_area": (1.0, 3.0, 6.0, 10.0),
    "peak": (0.0, 0.2, 0.3, 0.4, 0.5, 0.6),
    "min_area": (6.0, 12.0, 16.0, 20.0, 26.0, 34.0, 44.0, 58.0),
    "certain": (0.0, 0.9, 0.95, 0.97, 0.98, 0.99),
    "edge_area": (8.0, 12.0, 16.0, 20.0, 26.0, 34.0, 44.0),
    "edge_peak": (0.9, 0.95, 0.97, 0.98, 0.99),
    "outline": (0.35, 0.4, 0.45, 0.5, 0.55, 0.6),
}
"""Two end where images of this collection would have more, for others' sake. `certain` at 0.99: one nucleus in a hundred is not surer than
0.997, and dim ones are not. The foreground's at 0.85: in a blurred image what is surer than that lies further from the outline than objects are drawn
beyond it."""

START: Mapping[str, float] = {
    "foreground": 0.5,
    "core": 0.4,
    "prominence": 0.08,
    "core_area": 3.0,
    "peak": 0.3,
    "min_area": 12.0,
    "certain": 0.0,
    "edge_area": 12.0,
    "edge_peak": 0.98,
    "outline": 0.5,
}
_REACHES = (12, 1)
"""Grid steps from the best value so far that each round looks at: all of the grid, then the neighbours."""


_LARGEST_ERROR = 0.3
"""Count error above which an image counts no more: its labels are of a part of its objects, say, and would steer the fit."""


def objective(report: Report) -> float:
    """What is maximised: mean F1 at IoU 0.5 plus half the mean AP over IoU 0.5-0.9, less half the mean count error and a
    fifth of the bias of the count (over images, each weighed by the root of its number of objects)."""
    true = np.array([score.true for score in report.images if score.true], np.float64)
    counted = np.array([score.counted for score in report.images if score.true], np.float64)
    if not true.size:
        return report.f1() + 0.5 * report.mean_ap()
    errors = np.clip((counted - true) / true, -_LARGEST_ERROR, _LARGEST_ERROR)
    bias = float(np.average(errors, weights=np.sqrt(true)))
    return report.f1() + 0.5 * report.mean_ap() - 0.5 * float(np.abs(errors).mean()) - 0.2 * abs(bias)


def fit_cores(
    images: Sequence[LabelledImage],
    maps: Sequence[NDArray[np.float32]],
    report: Callable[[str], None],
    *,
    start: Mapping[str, float] = START,
    names: Sequence[str] = tuple(GRIDS),
) -> dict[str, float]:
    """Parameters of `objects/cores.py` that count `images` best, given their maps (h, w, K) at the model's scale.

    As when counting, labels are brought back to the image's own scale, and compared there. Only `names` are fitted; the
    others stay as they are in `start`, which lies on the grids.
    """
    best = dict(start)
    best_value = objective(score(images, maps, best))
    for reach in _REACHES:
        for name in names:
            grid = GRIDS[name]
            at = grid.index(best[name])
            for value in grid[max(0, at - reach) : at + reach + 1]:
                tried = {**best, name: value}
                found = objective(score(images, maps, tried))
                if found > best_value:
                    best, best_value = tried, found
    final = score(images, maps, best)
    report(f"separator fitted on {len(images)} images: {best}; F1 {final.f1():.4f}, AP {final.ap():.4f}")
    return best


def score(
    images: Sequence[LabelledImage], maps: Sequence[NDArray[np.float32]], params: Mapping[str, float]
) -> Report:
    """Scores of images separated with `params`, given their maps (h, w, K) at the model's scale."""
    separator = build_separator({"kind": "cores", **params})
    return Report(tuple(_score_one(image, m, separator) for image, m in zip(images, maps, strict=True)))


def _score_one(image: LabelledImage, maps: NDArray[np.float32], separator: Separator) -> ImageScore:
    return score_image(
        image, label_whole(separator, maps, image.plane, estimate(image.plane, polarity="auto"))
    )
