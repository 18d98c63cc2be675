"""Evaluation of a counter against labelled images: overlap of objects, and counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cellcount_core.evaluation.dataset import LabelledImage
from cellcount_core.evaluation.matching import Match, match, overlap
from cellcount_core.images.imagefile import Plane
from cellcount_core.images.normalise import estimate
from cellcount_core.images.scale import resize
from cellcount_core.images.tiles import cut, plan_tiles
from cellcount_core.models.engines import load_engine
from cellcount_core.models.package import InputSpec, Package
from cellcount_core.objects.scale import labels_to_original
from cellcount_core.objects.separators import Separator, build_separator

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)

Predict = Callable[[LabelledImage], NDArray[np.int32]]
Maps = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class ImageScore:
    """One image: objects labelled, objects counted, and the match at each of `THRESHOLDS`."""

    id: str
    modality: str
    true: int
    counted: int
    matches: tuple[Match, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """Scores of a set of images. Means are over images, as in the published comparisons on this kind of data."""

    images: tuple[ImageScore, ...]

    def f1(self, threshold: float = 0.5) -> float:
        """Mean F1 at an IoU threshold of `THRESHOLDS`."""
        return _mean([score.matches[THRESHOLDS.index(threshold)].f1 for score in self.images])

    def ap(self, threshold: float = 0.5) -> float:
        """Mean average precision, hits / (hits + misses + extras), at an IoU threshold of `THRESHOLDS`."""
        return _mean([score.matches[THRESHOLDS.index(threshold)].ap for score in self.images])

    def mean_ap(self) -> float:
        """Mean of `ap` over all `THRESHOLDS`."""
        return _mean([self.ap(threshold) for threshold in THRESHOLDS])

    def count_mape(self) -> float:
        """Mean over images with objects of |counted - true| / true, as a fraction."""
        return _mean([abs(s.counted - s.true) / s.true for s in self.images if s.true])

    def count_bias(self) -> float:
        """(counted - true) / true over all objects of all images, as a signed fraction."""
        true = sum(score.true for score in self.images)
        return (sum(score.counted for score in self.images) - true) / true if true else 0.0

    def summary(self) -> dict[str, float | int]:
        """The figures that a package states, rounded to four digits."""
        return {
            "images": len(self.images),
            "objects": sum(score.true for score in self.images),
            "f1_50": round(self.f1(), 4),
            "ap_50": round(self.ap(), 4),
            "ap_70": round(self.ap(0.7), 4),
            "ap_mean": round(self.mean_ap(), 4),
            "count_mape": round(self.count_mape(), 4),
            "count_bias": round(self.count_bias(), 4),
        }


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else 0.0


def evaluate(predict: Predict, dataset: Iterable[LabelledImage]) -> Report:
    """Count every image with `predict` (labels (H, W) int32 of the image's own size) and compare with its labels.

    Raises ValueError where a label image comes back in another size.
    """
    return Report(tuple(score_image(image, predict(image)) for image in dataset))


def score_image(image: LabelledImage, counted: NDArray[np.int32]) -> ImageScore:
    """Match one image's labels with counted ones of the same shape."""
    iou = overlap(image.labels, counted)
    matches = tuple(match(iou, threshold) for threshold in THRESHOLDS)
    return ImageScore(image.id, image.modality, iou.shape[0], iou.shape[1], matches)


def package_predictor(package: Package, engine: str, threads: int) -> Predict:
    """A counter that runs a package on whole images at the scale they have."""
    loaded = load_engine(package, engine, threads)

    def maps(canvas: NDArray[np.float32]) -> NDArray[np.float32]:
        tiles = canvas[None].repeat(loaded.batch, axis=0)
        return np.asarray(loaded.run(tiles)[0])

    separator = build_separator(package.separator)
    return lambda image: separate_whole(
        separator, whole_maps(image.plane, maps, package.input, package.stride)
    )


def separate_whole(separator: Separator, maps: NDArray[np.float32]) -> NDArray[np.int32]:
    """Label image (H, W) of the maps (H, W, K) of a whole image."""
    return separator.separate(maps, separator.fit([maps]))


def whole_maps(plane: Plane, maps: Maps, spec: InputSpec, stride: int) -> NDArray[np.float32]:
    """Maps (H, W, K) of a whole plane (H, W), given what makes the maps (h, w, K) of a normalised canvas (h, w, 1)."""
    height, width = plane.shape
    return np.ascontiguousarray(maps(whole_canvas(plane, spec, stride))[:height, :width])


def whole_canvas(plane: Plane, spec: InputSpec, stride: int) -> NDArray[np.float32]:
    """A whole plane (H, W) as the network's input (h, w, 1): normalised, its sides multiples of `stride`."""
    norm = estimate(plane, percentile=spec.percentile, floor_sigmas=spec.floor_sigmas)
    grid = plan_tiles(
        (plane.shape[0], plane.shape[1]), stride=stride, radius=0, max_tile=max(plane.shape) + stride
    )
    return cut([plane], [norm], grid, grid.tiles[0])


def at_true_diameter(predict: Predict, diameter_px: float) -> Predict:
    """A counter of images first brought to a median object of `diameter_px` by their labels: an upper bound, no method."""

    def counted(image: LabelledImage) -> NDArray[np.int32]:
        if image.diameter_px <= 0:
            return predict(image)
        scaled = replace(image, plane=resize(image.plane, diameter_px / image.diameter_px))
        height, width = image.labels.shape
        return labels_to_original(predict(scaled), (height, width))

    return counted


def group_scores(report: Report) -> Mapping[str, Report]:
    """The report of each modality by itself."""
    names = sorted({score.modality for score in report.images})
    return {name: Report(tuple(score for score in report.images if score.modality == name)) for name in names}
