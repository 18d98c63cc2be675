"""Count labelled images with a package, and score what it counts: overlap of objects, and counts.

Images are counted by `examine`, the function that counts the fields of a run, so what is evaluated is what is
counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from cellcount_core.config import RunConfig
from cellcount_core.domain.errors import ConfigFault, FieldFault
from cellcount_core.images.imagefile import Plane
from cellcount_core.images.pixels import LARGEST_FACTOR, SMALLEST_FACTOR, bit_max_of
from cellcount_core.labelled.image import LabelledImage
from cellcount_core.models.engines import Engine
from cellcount_core.models.package import Package
from cellcount_core.pipeline.field import PlanesKit, examine, planes_kit
from cellcount_core.pipeline.pixels import Pixels
from cellcount_core.pipeline.rows import Examined
from cellcount_core.tasks.instances.score import (
    Match,
    intersection_over_union,
    match_with_iou,
    merges,
    shared_pixels,
    splits,
)

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)

_IN_HAND = 3
"""Images counted at the same time, as in a worker: one waits for the device, one is read, one is separated and
measured."""

_Item = TypeVar("_Item")
_Done = TypeVar("_Done")

Predict = Callable[[LabelledImage], NDArray[np.int32]]
Diameter = float | Literal["auto", "model"]
"""Median object diameter of the images in px; or "auto", each image's own estimate; or "model", every image as it is."""


@dataclass(frozen=True, slots=True)
class ImageScore:
    """The score of one image: true objects, counted objects, and the match at each of `THRESHOLDS`.

    `matched_iou` is the summed IoU of the pairs at IoU 0.5. `splits` and `merges` are numbers of objects (see
    tasks/instances/score.py). `diameter_px` is the median diameter of the true objects, 0.0 if there are none.
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
        """Panoptic quality at IoU 0.5; 1.0 if the image holds no object and none was counted."""
        return self.matches[0].panoptic_quality(self.matched_iou)


@dataclass(frozen=True, slots=True)
class Report:
    """The scores of a set of images. Means are over images, as in published comparisons on this kind of data."""

    images: tuple[ImageScore, ...]

    def f1(self, threshold: float = 0.5) -> float:
        """Mean F1 at an IoU threshold, one of `THRESHOLDS`."""
        return _mean([score.matches[THRESHOLDS.index(threshold)].f1 for score in self.images])

    def ap(self, threshold: float = 0.5) -> float:
        """Mean average precision, hits / (hits + misses + extras), at an IoU threshold, one of `THRESHOLDS`."""
        return _mean([score.matches[THRESHOLDS.index(threshold)].ap for score in self.images])

    def mean_ap(self) -> float:
        """Mean of `ap` over all `THRESHOLDS`."""
        return _mean([self.ap(threshold) for threshold in THRESHOLDS])

    def count_mape(self) -> float:
        """Mean of |counted - true| / true over the images with objects, as a fraction."""
        return _mean([abs(s.counted - s.true) / s.true for s in self.images if s.true])

    def count_bias(self) -> float:
        """(counted - true) / true over all objects of all images, as a signed fraction; 0.0 if there are no true
        objects."""
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
    """Count every image with `predict`, which returns labels (H, W) int32 of the image's size, and compare with the
    true labels.

    A few images are counted at the same time. Raises ValueError if a label image has another size than its image.
    """
    return Report(tuple(in_turn(lambda image: score_image(image, predict(image)), dataset)))


def in_turn(work: Callable[[_Item], _Done], items: Iterable[_Item]) -> Iterator[_Done]:
    """Yield the result of `work` for each item, in the order of the items, while a few further items are worked on."""
    with ThreadPoolExecutor(_IN_HAND, thread_name_prefix="counting") as pool:
        waiting: deque[Future[_Done]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > _IN_HAND:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for unfinished in waiting:
                unfinished.cancel()


def score_image(image: LabelledImage, counted: NDArray[np.int32]) -> ImageScore:
    """Compare an image's true labels with counted ones (H, W) int32 of the same shape."""
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


@contextmanager
def package_predictor(package: Package, engine: Engine, diameter: Diameter = "model") -> Iterator[Predict]:
    """A function that counts labelled images as a run does, each by itself. It is valid inside the `with` block."""
    with closing(planes_kit(package, engine, counting_of(diameter))) as kit:
        yield lambda image: labels_of(count_image(kit, image))


@contextmanager
def at_true_diameter(package: Package, engine: Engine) -> Iterator[Predict]:
    """A function that counts images brought to the model's scale by their own labels. This is an upper bound, not a
    way to count."""
    with closing(planes_kit(package, engine, counting_of("model"))) as kit:
        yield lambda image: labels_of(count_image(at_true_size(kit, image), image))


def at_true_size(kit: PlanesKit, image: LabelledImage) -> PlanesKit:
    """The kit with the image's true object size as its diameter, limited to sizes that an image can be resized for."""
    own = kit.package.input.diameter_px
    diameter: Diameter = "model"
    if own is not None and image.diameter_px > 0:
        diameter = float(np.clip(image.diameter_px, own / LARGEST_FACTOR, own / SMALLEST_FACTOR))
    return replace(kit, run=kit.run.model_copy(update={"diameter": diameter}))


def counting_of(diameter: Diameter) -> RunConfig:
    """The settings of a run that counts images with this diameter and keeps their label images."""
    return RunConfig(diameter=diameter, labels="tiff")


def count_image(kit: PlanesKit, image: LabelledImage) -> Examined:
    """Count one labelled image as a field is counted. Raises ConfigFault naming the image if it cannot be counted."""
    try:
        return examine(kit, pixels_of(kit, image))
    except FieldFault as fault:
        raise ConfigFault(f"{image.id}: {fault.detail}") from fault


def pixels_of(kit: PlanesKit, image: LabelledImage) -> Pixels:
    """The image's pixels under the names of the channels that the kit counts.

    Channels are matched by name if the image's channels are called as the package's roles are, and otherwise by
    order. Raises ConfigFault naming the image if it has another number of channels.
    """
    planes = {image.channel: image.plane, **image.further}
    return pixels_of_channels(kit, image.id, Pixels(planes, image.um_per_px, image.bit_max, ()))


def pixels_of_channels(kit: PlanesKit, name: str, pixels: Pixels) -> Pixels:
    """Match the channels of `pixels` to the kit's roles, as `pixels_of` does. `name` is the image's name in error
    messages."""
    roles = [selection.name for selection in kit.counted]
    if len(roles) != len(pixels.planes):
        raise ConfigFault(
            f"{name}: an image of {len(pixels.planes)} channels; package {kit.package.name!r} looks at {len(roles)} "
            f"({', '.join(roles)})"
        )
    named = {channel.casefold(): plane for channel, plane in pixels.planes.items()}
    wanted = [role.casefold() for role in roles]
    ordered = [named[role] for role in wanted] if set(wanted) == set(named) else pixels.planes.values()
    return replace(pixels, planes=dict(zip(roles, ordered, strict=True)))


def count_plane(kit: PlanesKit, plane: Plane) -> Examined:
    """Count one raw plane (H, W) of uint8, uint16 or float32 without any metadata. Raises the same errors as
    `examine`."""
    return examine(kit, Pixels({kit.counted[0].name: plane}, None, bit_max_of(plane.dtype), ()))


def labels_of(seen: Examined) -> NDArray[np.int32]:
    """The label image (H, W) int32 of an image counted with a kit that keeps label images."""
    assert seen.found.labels is not None
    return np.asarray(seen.found.labels, np.int32)


def group_scores(report: Report) -> Mapping[str, Report]:
    """The report of each modality by itself, by the modality's name."""
    names = sorted({score.modality for score in report.images})
    return {name: Report(tuple(score for score in report.images if score.modality == name)) for name in names}
