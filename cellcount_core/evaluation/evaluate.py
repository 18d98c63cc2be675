"""Count images of which the truth is known with a package, and score what it finds.

Images are counted by `examine`, the function that counts the fields of a run, so what is evaluated is what is counted. What is found
is compared with the truth by the package's task (`Task.scoring`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from cellcount_core.config import RunConfig
from cellcount_core.domain.columns import Value
from cellcount_core.domain.errors import ConfigFault, FieldFault
from cellcount_core.images.imagefile import Plane
from cellcount_core.images.pixels import LARGEST_FACTOR, SMALLEST_FACTOR, bit_max_of
from cellcount_core.labelled.image import Pictured, of_roles
from cellcount_core.models.engines import Engine
from cellcount_core.models.package import Package
from cellcount_core.pipeline.field import PlanesKit, examine, planes_kit
from cellcount_core.pipeline.pixels import Pixels
from cellcount_core.pipeline.rows import Examined
from cellcount_core.tasks.matching import ImageScore, Report
from cellcount_core.tasks.task import Compared, task_of

_IN_HAND = 3
"""Images counted at the same time, as in a worker: one waits for the device, one is read, one is separated and measured."""

_Item = TypeVar("_Item")
_Done = TypeVar("_Done")

Score = Callable[[Pictured], Compared]
"""Counts an image and compares what was found with its truth."""

Diameter = float | Literal["auto", "model"]
"""Median object diameter of the images in px; or "auto", each image's own estimate; or "model", every image as it is."""


def evaluate(score: Score, images: Iterable[Pictured]) -> Report:
    """Count every image and compare its objects with the true ones. A few images are counted at the same time.

    Raises ConfigFault if the package's task has no objects.
    """
    return Report(tuple(map(objects_of, in_turn(score, images))))


def stated_figures(package: Package, scored: Sequence[Compared]) -> dict[str, Value]:
    """The figures that a package states of images: those of its objects, if its task has any, and its task's own."""
    scores = [one.objects for one in scored if one.objects is not None]
    of_objects = Report(tuple(scores)).summary() if scores else {}
    return {**of_objects, **task_of(package).scoring(package).figures(scored)}


def objects_of(scored: Compared) -> ImageScore:
    """Which true objects of an image were found. Raises ConfigFault if the package's task has no objects."""
    if scored.objects is None:
        raise ConfigFault("the package's task finds no objects; one that finds objects is expected")
    return scored.objects


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


@contextmanager
def package_scorer(package: Package, engine: Engine, diameter: Diameter = "model") -> Iterator[Score]:
    """A function that counts images as a run does, each by itself, and scores them. It is valid inside the `with` block."""
    with closing(planes_kit(package, engine, counting_of(diameter))) as kit:
        yield lambda image: score_found(kit, image, count_image(kit, image))


@contextmanager
def true_size_scorer(package: Package, engine: Engine) -> Iterator[Score]:
    """The same for images brought to the model's scale by their own truth. This is an upper bound, not a way to count."""
    with closing(planes_kit(package, engine, counting_of("model"))) as kit:
        yield lambda image: score_found(kit, image, count_image(at_true_size(kit, image), image))


def score_found(kit: PlanesKit, image: Pictured, seen: Examined) -> Compared:
    """Compare what was found in an image with its truth, as the package's task does.

    Raises ConfigFault naming the image if its truth is not one that the package can tell.
    """
    try:
        return kit.task.scoring(kit.package).score(image.truth, seen.found)
    except ConfigFault as fault:
        raise ConfigFault(f"{image.id}: {fault}") from fault


def at_true_size(kit: PlanesKit, image: Pictured) -> PlanesKit:
    """The kit with the image's true object size as its diameter, limited to sizes that an image can be resized for."""
    own = kit.package.input.diameter_px
    diameter: Diameter = "model"
    if own is not None and image.diameter_px > 0:
        diameter = float(np.clip(image.diameter_px, own / LARGEST_FACTOR, own / SMALLEST_FACTOR))
    return replace(kit, run=kit.run.model_copy(update={"diameter": diameter}))


def counting_of(diameter: Diameter) -> RunConfig:
    """The settings of a run that counts images with this diameter and keeps their label images."""
    return RunConfig(diameter=diameter, labels="tiff")


def count_image(kit: PlanesKit, image: Pictured) -> Examined:
    """Count one image as a field is counted. Raises ConfigFault naming the image if it cannot be counted."""
    try:
        return examine(kit, pixels_of(kit, image))
    except FieldFault as fault:
        raise ConfigFault(f"{image.id}: {fault.detail}") from fault


def pixels_of(kit: PlanesKit, image: Pictured) -> Pixels:
    """The image's pixels under the names of the channels that the kit counts, matched as `of_roles` does.

    Raises ConfigFault naming the image if it has another number of channels.
    """
    return as_counted(kit, image.id, Pixels(image.planes, image.um_per_px, image.bit_max, ()))


def as_counted(kit: PlanesKit, name: str, pixels: Pixels) -> Pixels:
    """The same pixels under the names of the channels that the kit counts. `name` is the image's name in messages.

    Raises ConfigFault if there are more or fewer channels than the package looks at.
    """
    return of_roles(pixels, [selection.name for selection in kit.counted], name)


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
