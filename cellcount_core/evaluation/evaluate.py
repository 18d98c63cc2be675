"""Evaluation of a counter against labelled images: overlap of objects, and counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cellcount_core.evaluation.dataset import LabelledImage
from cellcount_core.evaluation.matching import (
    Match,
    intersection_over_union,
    match_with_iou,
    merges,
    shared_pixels,
    splits,
)
from cellcount_core.images.imagefile import Plane
from cellcount_core.images.normalise import estimate
from cellcount_core.images.scale import LARGEST_FACTOR, SMALLEST_FACTOR, resize
from cellcount_core.images.tiles import cut, plan_tiles
from cellcount_core.models.engines import Engine, load_engine
from cellcount_core.models.package import InputSpec, Package
from cellcount_core.objects.scale import objects_to_original
from cellcount_core.objects.separators import Separator, build_separator
from cellcount_core.pipeline.sizing import estimate_size

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)

MAX_CANVAS_PX = 1 << 24
"""Pixels an image is enlarged to, at most: a size told far too small must not ask for all memory."""

Predict = Callable[[LabelledImage], NDArray[np.int32]]
Maps = Callable[[NDArray[np.float32]], NDArray[np.float32]]
Diameter = float | Literal["auto", "model"]
"""Median object diameter of the images in px; "auto": each image's own estimate; "model": every image as it is."""

Size = Callable[[Plane], float | None]
"""The median object diameter (px) that a raw plane (H, W) is counted at; None: as it is."""


@dataclass(frozen=True, slots=True)
class ImageScore:
    """One image: objects labelled, objects counted, and the match at each of `THRESHOLDS`.

    `matched_iou` is the summed IoU of the pairs at IoU 0.5; `splits` and `merges` are objects (matching.py); `diameter_px` is
    the median diameter of the true objects, 0.0 where there is none.
    """

    id: str
    modality: str
    true: int
    counted: int
    matches: tuple[Match, ...]
    matched_iou: float = 0.0
    splits: int = 0
    merges: int = 0
    diameter_px: float = 0.0

    @property
    def panoptic_quality(self) -> float:
        """PQ at IoU 0.5; 1.0 where there is nothing and nothing was counted."""
        return self.matches[0].panoptic_quality(self.matched_iou)


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
    shared = shared_pixels(image.labels, counted)
    iou = intersection_over_union(shared)
    found = [match_with_iou(iou, threshold) for threshold in THRESHOLDS]
    return ImageScore(
        image.id,
        image.modality,
        iou.shape[0],
        iou.shape[1],
        tuple(match for match, _ in found),
        found[0][1],
        splits(shared),
        merges(shared),
        image.diameter_px,
    )


def package_predictor(package: Package, engine: str, threads: int, diameter: Diameter = "model") -> Predict:
    """A counter that runs a package on whole images, brought to the model's scale by `diameter`."""
    counter = PackageCounter(package, load_engine(package, engine, threads), diameter)
    return lambda image: counter.count(image.plane).labels


@dataclass(frozen=True, slots=True)
class Counted:
    """What was counted in one image: `labels` (H, W) int32 of the image's own size, and the diameter (px) it was brought to
    the model's scale by (None: counted as it is)."""

    labels: NDArray[np.int32]
    diameter_px: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Separated:
    """Objects as they are separated, `labels` (h, w) int32, and what they are drawn to: map 0 (h, w) and its level."""

    labels: NDArray[np.int32]
    first_map: NDArray[np.float32]
    outline: float | None

    def drawn(self, shape: tuple[int, int]) -> NDArray[np.int32]:
        """The label image of an original image of `shape` (H, W)."""
        return objects_to_original(self.labels, self.first_map, self.outline, shape)


class PackageCounter:
    """Counts whole planes with a package on a loaded engine.

    `size` replaces the package's own estimate of the object size, which "auto" stands for.
    """

    def __init__(
        self, package: Package, engine: Engine, diameter: Diameter, *, size: Size | None = None
    ) -> None:
        self._package = package
        self._engine = engine
        self._separator = build_separator(package.separator)
        self._size = size or self._own_size(diameter)

    def count(self, plane: Plane) -> Counted:
        """Count a raw plane (H, W) at the model's scale. A plane whose size is not known is counted as it is."""
        own = self._package.input.diameter_px
        diameter = self._size(plane) if own is not None else None
        shape = (plane.shape[0], plane.shape[1])
        if own is None or diameter is None:
            return Counted(self.separated(plane).drawn(shape), None)
        factor = _possible_factor(own / diameter, plane.size)
        return Counted(self.separated(resize(plane, factor)).drawn(shape), own / factor)

    def separated(self, plane: Plane) -> Separated:
        """The objects of a raw plane (H, W) as it is, at its own scale."""
        maps = whole_maps(plane, self._maps, self._package.input, self._package.stride)
        labels = separate_whole(self._separator, maps)
        return Separated(labels, np.ascontiguousarray(maps[..., 0]), self._separator.outline)

    def _own_size(self, diameter: Diameter) -> Size:
        if diameter == "auto":
            return lambda plane: estimate_size(plane, self._package, self._engine).diameter_px
        fixed = None if diameter == "model" else float(diameter)
        return lambda plane: fixed

    def _maps(self, canvas: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(self._engine.run(canvas[None].repeat(self._engine.batch, axis=0))[0])


def _possible_factor(factor: float, pixels: int) -> float:
    largest = min(LARGEST_FACTOR, max(1.0, (MAX_CANVAS_PX / pixels) ** 0.5))
    return float(min(max(factor, SMALLEST_FACTOR), largest))


def separate_whole(separator: Separator, maps: NDArray[np.float32]) -> NDArray[np.int32]:
    """Label image (H, W) of the maps (H, W, K) of a whole image."""
    return separator.separate(maps, separator.fit([maps]))


def whole_maps(plane: Plane, maps: Maps, spec: InputSpec, stride: int) -> NDArray[np.float32]:
    """Maps (H, W, K) of a whole plane (H, W), given what makes the maps (h, w, K) of a normalised canvas (h, w, 1)."""
    height, width = plane.shape
    return np.ascontiguousarray(maps(whole_canvas(plane, spec, stride))[:height, :width])


def whole_canvas(plane: Plane, spec: InputSpec, stride: int) -> NDArray[np.float32]:
    """A whole plane (H, W) as the network's input (h, w, 1): normalised, its sides multiples of `stride`."""
    norm = estimate(plane, percentile=spec.percentile, floor_sigmas=spec.floor_sigmas, polarity=spec.polarity)
    grid = plan_tiles(
        (plane.shape[0], plane.shape[1]), stride=stride, radius=0, max_tile=max(plane.shape) + stride
    )
    return cut([plane], [norm], grid, grid.tiles[0])


def at_true_diameter(package: Package, engine: Engine) -> Predict:
    """A counter of images brought to the model's scale by their labels: an upper bound, no method."""

    def counted(image: LabelledImage) -> NDArray[np.int32]:
        diameter: Diameter = image.diameter_px if image.diameter_px > 0 else "model"
        return PackageCounter(package, engine, diameter).count(image.plane).labels

    return counted


def group_scores(report: Report) -> Mapping[str, Report]:
    """The report of each modality by itself."""
    names = sorted({score.modality for score in report.images})
    return {name: Report(tuple(score for score in report.images if score.modality == name)) for name in names}
