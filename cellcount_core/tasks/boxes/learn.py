"""How networks that find boxes are trained on images with boxes: settings, the lesson of a run, and what is fitted to it afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from cellcount_core.domain.errors import ConfigFault, FieldFault
from cellcount_core.evaluation.evaluate import Diameter, count_image, counting_of, in_turn, pixels_of
from cellcount_core.images.pixels import resized_shape
from cellcount_core.labelled.boxes import AUTO, BOX_KINDS, BoxedImage
from cellcount_core.labelled.dataset import Listing
from cellcount_core.models.engines import Engine
from cellcount_core.models.families.unet import stride
from cellcount_core.models.package import Package
from cellcount_core.pipeline.field import planes_kit
from cellcount_core.pipeline.field import prepare as prepare_field
from cellcount_core.pipeline.maps import whole_canvas
from cellcount_core.tasks.boxes.crops import (
    BoxAugmentConfig,
    BoxSample,
    draw_boxes,
    plain_boxes,
    prepare_boxes,
)
from cellcount_core.tasks.boxes.decode import decode
from cellcount_core.tasks.boxes.features import feature_names
from cellcount_core.tasks.boxes.score import iou_of_classes
from cellcount_core.tasks.boxes.section import Boxes, BoxesSection, boxes_section, check_names, maps_of
from cellcount_core.tasks.boxes.targets import (
    BoxLossConfig,
    LabelledBoxes,
    found_share,
    make_loss,
    stack_targets,
)
from cellcount_core.tasks.matching import THRESHOLDS, ImageScore, Report, match_with_iou
from cellcount_core.tasks.task import CanvasMaps, Shape
from cellcount_core.training.config import BoxDataConfig, TrainConfig, own_settings
from cellcount_core.training.fit import fit_domain, fit_interval
from cellcount_core.training.learning import Example, Images, Loss, Say, chances, split_images
from cellcount_core.training.start import start_package
from cellcount_core.training.variants import calibration_tiles

if TYPE_CHECKING:
    import keras

FIRST_SCORE = 0.3
"""Least score of an object before thresholds are fitted."""

_RARE = 0.02
"""What a map of centres shows before anything is learnt."""

_LOWEST, _HIGHEST = 0.02, 0.98
"""Thresholds are looked for between these."""

_MOST_WATCHED = 24
_MOST_DOMAIN_IMAGES = 150
_GOLDEN_PX, _GOLDEN_CROPS = 96, 2


class BoxesConfig(TrainConfig):
    """The training of a network that finds boxes.

    `classes` are those to tell, in their order. `image_diameter` is the size of objects, the root of a box's area, in px of the images:
    all of them are brought to the model's scale by it, as they will be when they are counted (None: the median over all training boxes).
    In an image that `data.partial` names, a class of which it has no box teaches nothing.
    """

    kinds: ClassVar[tuple[str, ...]] = (*BOX_KINDS, AUTO)

    data: BoxDataConfig
    object: str = "Cells"
    classes: tuple[str, ...] = Field((), validate_default=True)
    image_diameter: float | None = Field(None, gt=0)
    loss: BoxLossConfig = BoxLossConfig()
    augment: BoxAugmentConfig = BoxAugmentConfig()

    @field_validator("classes")
    @classmethod
    def _each_once(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if not classes or len(set(classes)) != len(classes):
            raise ValueError(f"the names of the classes, each once, expected (got {list(classes)})")
        # Said now, not when the package is written.
        check_names(classes)
        return classes

    def outputs(self) -> tuple[str, ...]:
        """The maps of the classes."""
        return maps_of(self.classes)


class BoxesLearning:
    """How networks that find boxes are trained."""

    settings: type[TrainConfig] = BoxesConfig

    def taken(self, config: TrainConfig, package: Package) -> Mapping[str, object]:
        """The classes of the package, which the configuration must name too."""
        asked, classes = own_settings(config, BoxesConfig).classes, boxes_section(package).classes
        if asked != classes:
            raise ConfigFault(
                f"start_from: package {package.name!r} tells {list(classes)}, the configuration asks for {list(asked)}: "
                "name the same classes, or train a network of those classes from its beginning"
            )
        return {"classes": classes}

    def load(self, config: TrainConfig, report: Say) -> BoxLesson:
        """Read and split images with boxes in any format of `labelled.boxes`."""
        own = own_settings(config, BoxesConfig)
        return BoxLesson(own, boxed_images(own, report))

    def loss(self, config: TrainConfig, parts: int) -> Loss:
        """See `make_loss`."""
        own = own_settings(config, BoxesConfig)
        return make_loss(own.loss, len(own.classes), parts)

    def first_chance(self, config: TrainConfig) -> Mapping[int, float]:
        """Centres are rare."""
        return dict.fromkeys(range(len(own_settings(config, BoxesConfig).classes)), _RARE)

    def metric(self) -> Loss:
        """The share of centres that are found."""
        return found_share


def boxed_images(config: BoxesConfig, report: Say) -> Images[BoxedImage]:
    """The images with boxes that a configuration names, split. Raises ConfigFault with all faults of the data if one is refused."""
    data = config.data.listed(config.classes)
    for line in data.report.lines():
        report(line)
    return split_images(config, Listing(data.path, data.kind, data.entries), report)


class BoxLesson:
    """The images of a run whose truth is boxes."""

    def __init__(self, config: BoxesConfig, images: Images[BoxedImage]) -> None:
        self._config = config
        self.train, self.fit = images.train, images.fit
        self.watched, self.validation = images.watched, images.validation
        self._samples: dict[int, BoxSample] = {}

    @cached_property
    def image_diameter(self) -> float:
        """The size of objects in px of the images, by which all images are brought to the model's scale.

        Raises ConfigFault if it is not given and there is no box to tell it.
        """
        if self._config.image_diameter is not None:
            return self._config.image_diameter
        boxes = np.concatenate([image.boxes for image in self.train])
        if not len(boxes):
            raise ConfigFault("data: the training images have no box: images with objects expected")
        return float(np.median(np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))))

    def chances(self) -> NDArray[np.float64]:
        """See `training.learning.chances`."""
        return chances(self.train)

    def statistics_chances(self, most: int | None = None) -> NDArray[np.float64]:
        """See `training.learning.chances`."""
        return chances(self.train[:most])

    def crop(self, rng: np.random.Generator, number: int) -> Example:
        """An augmented crop and its targets."""
        config = self._config
        pixels, labelled = draw_boxes(rng, self._sample(self.train[number]), config.crop_px, config.augment)
        return pixels, self._targets(labelled)

    def plain_crop(self, rng: np.random.Generator, number: int) -> Example:
        """An unchanged crop and its targets."""
        pixels, labelled = plain_boxes(rng, self._sample(self.watched[number]), self._config.crop_px)
        return pixels, self._targets(labelled)

    def _targets(self, labelled: LabelledBoxes) -> NDArray[np.float32]:
        side, classes = self._config.crop_px, len(self._config.classes)
        return stack_targets(labelled, (side, side), classes, self._config.loss)

    def _sample(self, image: BoxedImage) -> BoxSample:
        # The lesson holds on to its images, so none gets the number of another.
        if id(image) not in self._samples:
            planes, spec = list(image.planes.values()), self._config.input.spec()
            self._samples[id(image)] = prepare_boxes(planes, self.labelled(image), spec, self.image_diameter)
        return self._samples[id(image)]

    def labelled(self, image: BoxedImage) -> LabelledBoxes:
        """The boxes of an image as targets are made of them."""
        names = self._config.classes
        classes = np.array([names.index(name) for name in image.classes], np.int64)
        unlabelled = tuple(number for number in range(len(names)) if not self._tells(image, names[number]))
        return LabelledBoxes(image.boxes, classes, unlabelled)

    def _tells(self, image: BoxedImage, name: str) -> bool:
        """Whether an image says how many objects of a class it holds."""
        return image.id not in self._config.data.partial or name in image.classes

    def watch(self, maps: CanvasMaps) -> dict[str, float]:
        """Mean F1 and AP at IoU 0.5 of at most 24 watched images, and the bias (counted - true) / true over all of them.

        Thresholds are those of the starting package, or a first guess.
        """
        section = self._as_section(self._first_thresholds())
        count = min(_MOST_WATCHED, len(self.watched))
        scores = []
        for index in range(count):
            image = self.watched[index * len(self.watched) // count]
            canvas, (height, width) = self._canvas(image)
            found = decode(np.ascontiguousarray(maps(canvas)[:height, :width]), section)
            scores.append(self._score(image, found.boxes / self._factor, found.classes))
        report = Report(tuple(scores))
        return {"f1": report.f1(), "ap": report.ap(), "bias": report.count_bias()}

    def _score(self, image: BoxedImage, boxes: NDArray[np.float64], classes: NDArray[np.int64]) -> ImageScore:
        """Which boxes of an image were found with their class, given those that were found, in px of the image."""
        true = Boxes(image.boxes, self.labelled(image).classes, np.ones(len(image.boxes)))
        iou = iou_of_classes(true, Boxes(boxes, classes, np.ones(len(boxes))))
        matches = [match_with_iou(iou, threshold) for threshold in THRESHOLDS]
        found = tuple(match for match, _ in matches)
        return ImageScore(image.id, image.modality, true.count, len(boxes), found, matches[0][1])

    @property
    def _factor(self) -> float:
        wanted = self._config.input.diameter_px
        return 1.0 if wanted is None else wanted / self.image_diameter

    def _canvas(self, image: BoxedImage) -> tuple[NDArray[np.float32], Shape]:
        """An image as the network's input (h, w, C), and its shape at the model's scale, which fills the upper left of that."""
        planes, spec = list(image.planes.values()), self._config.input.spec()
        canvas = whole_canvas(planes, spec, stride(self._config.network), self._factor)
        height, width = planes[0].shape
        return canvas, resized_shape((height, width), self._factor)

    def _first_thresholds(self) -> dict[str, float]:
        start = start_package(self._config) if self._config.start_from else None
        if start is not None and start.task == self._config.task:
            return dict(boxes_section(start).thresholds)
        return dict.fromkeys(self._config.classes, FIRST_SCORE)

    def _as_section(self, thresholds: Mapping[str, float]) -> BoxesSection:
        classes = self._config.classes
        return BoxesSection(
            classes=classes, maps=maps_of(classes), stride=1, receptive_radius=0, thresholds=dict(thresholds)
        )

    def finish(self, network: keras.Model) -> None:
        """Nothing: all weights are taught."""

    def section(self, network: Mapping[str, object], _: Say) -> dict[str, object]:
        """Classes, maps, and the thresholds before any are fitted."""
        section = self._as_section(self._first_thresholds())
        return {
            **network, "classes": list(section.classes), "maps": list(section.maps), "thresholds": section.thresholds, "apart": section.apart,
        }  # fmt: skip

    def fitted(self, package: Package, engine: Engine, report: Say) -> dict[str, object]:
        """For each class the threshold at which as many objects are found as there are boxes, over the images set aside.

        A class without boxes in them keeps its first threshold.
        """
        section = boxes_section(package)
        thresholds = dict(section.thresholds)
        found = self._ranked(package, engine, self.fit, report)
        for number, name in enumerate(section.classes):
            own = [
                boxes.scores[boxes.classes == number] for image, boxes in found if self._tells(image, name)
            ]
            total = sum(image.classes.count(name) for image, _ in found if self._tells(image, name))
            if total:
                thresholds[name] = round(unbiased_threshold(np.concatenate(own), total), 4)
        how = (
            "images set aside"
            if self.fit is not self.train
            else "training images, because none are set aside"
        )
        report(f"thresholds fitted on {len(found)} {how}: {thresholds}")
        return {"thresholds": thresholds}

    def _ranked(
        self, package: Package, engine: Engine, images: Sequence[BoxedImage], report: Say
    ) -> list[tuple[BoxedImage, Boxes]]:
        """The images with all boxes of at least a low score, found as a run finds them."""
        section, ranked = boxes_section(package), []
        with closing(planes_kit(package, engine, counting_of(self.image_diameter))) as kit:
            for image in images:
                try:
                    maps = prepare_field(kit, pixels_of(kit, image)).maps.whole()
                except FieldFault as fault:
                    report(f"{image.id} is left out of the fit: {fault}")
                    continue
                ranked.append((image, decode(maps, section, _LOWEST)))
        return ranked

    def fitting_images(self) -> Sequence[BoxedImage]:
        """The images set aside (the training images if none are)."""
        return self.fit

    def diameters(self) -> tuple[Diameter, ...]:
        """The size of objects in the images, because images of boxes are mostly photos of one magnification."""
        return ("model",) if self._config.input.diameter_px is None else (self.image_diameter,)

    def golden_crops(self, stride: int) -> NDArray[np.float32]:
        """Cut at the model's scale from the two images with the most boxes, where each has the most centres."""
        crowded = sorted(self.fit, key=lambda image: (-len(image.boxes), image.id))[:_GOLDEN_CROPS]
        side = max(stride, _GOLDEN_PX - _GOLDEN_PX % stride)
        return np.stack([self._busiest(image, side) for image in crowded])

    def _busiest(self, image: BoxedImage, side: int) -> NDArray[np.float32]:
        canvas, _ = self._canvas(image)
        missing = [max(0, side - length) for length in canvas.shape[:2]]
        canvas = np.pad(canvas, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
        centres = (image.boxes[:, :2] + image.boxes[:, 2:]) / 2 * self._factor
        corners = [
            (top, left)
            for top in range(0, canvas.shape[0] - side + 1, max(1, side // 4))
            for left in range(0, canvas.shape[1] - side + 1, max(1, side // 4))
        ]
        inside = [
            int(((centres >= corner) & (centres < np.add(corner, side))).all(axis=1).sum())
            for corner in corners
        ]
        top, left = corners[int(np.argmax(inside))]
        return np.ascontiguousarray(canvas[top : top + side, left : left + side])

    def calibration_tiles(self, stride: int) -> Sequence[NDArray[np.float32]]:
        """See `training.variants.calibration_tiles`."""
        return calibration_tiles(self.train, self._config.input.spec(), stride)

    def golden_arrays(
        self, section: Mapping[str, object], maps: NDArray[np.float32]
    ) -> dict[str, NDArray[np.generic]]:
        """`boxes` (n, 7) of all crops: number of the crop, y0, x0, y1, x1, class and score."""
        read = BoxesSection.model_validate(
            {**section, "classes": _names(section), "maps": maps_of(_names(section))}
        )
        rows = []
        for number, crop in enumerate(maps):
            found = decode(crop, read)
            first = np.full((found.count, 1), number)
            rows.append(np.hstack([first, found.boxes, found.classes[:, None], found.scores[:, None]]))
        return {"boxes": np.concatenate(rows).astype(np.float64)}

    def measured_apart(self) -> dict[str, Sequence[BoxedImage]]:
        """Empty: images come from one source."""
        return {}

    def tell(self, package: Package, engine: Engine, report: Say) -> None:
        """Nothing beside the figures of the package."""

    def uncertainty(self, package: Package, engine: Engine) -> dict[str, object]:
        """The interval of a count, and the domain of the training images; empty if no image is set aside.

        Images of `data.partial` have no part in the interval.
        """
        if self.fit is self.train:
            return {}
        step = max(1, len(self.train) // _MOST_DOMAIN_IMAGES)
        sections: dict[str, object] = {}
        with closing(planes_kit(package, engine, counting_of(self.diameters()[0]))) as kit:
            seen, own = (
                list(in_turn(lambda image: count_image(kit, image).found, images))
                for images in (self.train[::step], self.fit)
            )
        told = [
            (len(image.boxes), found.count)
            for image, found in zip(self.fit, own, strict=True)
            if image.id not in self._config.data.partial
        ]
        interval = fit_interval([true for true, _ in told], [count for _, count in told])
        features = [[found.features for found in each if found.features is not None] for each in (seen, own)]
        domain = fit_domain(feature_names(package.input.channels), *features)
        if interval is not None:
            sections["interval"] = asdict(interval)
        if domain is not None:
            sections["domain"] = asdict(domain)
        return sections


def _names(section: Mapping[str, object]) -> tuple[str, ...]:
    classes = section["classes"]
    assert isinstance(classes, list | tuple)
    return tuple(str(name) for name in classes)


def unbiased_threshold(scores: NDArray[np.float64], true: int) -> float:
    """The threshold at which as many of the scores (n,) reach it as there are true objects, within 0.02 to 0.98.

    It lies in the middle between the last score that reaches it and the first that does not.
    """
    falling = np.concatenate([[1.0], np.sort(scores)[::-1], [0.0]])
    last = min(true, scores.size)
    return float(np.clip((falling[last] + falling[last + 1]) / 2, _LOWEST, _HIGHEST))
