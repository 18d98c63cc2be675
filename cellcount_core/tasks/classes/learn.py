"""How networks are trained that tell one of several classes for each image: settings, the lesson of a run, and what is fitted to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator
from scipy import optimize

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.labelled.dataset import Listing
from cellcount_core.labelled.folders import list_truths
from cellcount_core.labelled.whole import WholeEntry, WholeImage
from cellcount_core.models.engines import Engine
from cellcount_core.models.package import Package
from cellcount_core.tasks.classes.task import COLUMN, ClassesSection, tempered
from cellcount_core.tasks.task import read_section
from cellcount_core.training.config import TrainConfig
from cellcount_core.training.learning import Images, Loss, Say, split_images
from cellcount_core.training.whole import WholeConfig, WholeLesson, vectors_of

if TYPE_CHECKING:
    import keras

_LEAST = 1e-6
_COLDEST, _HOTTEST = 0.5, 8.0
_MOST_WATCHED = 200


class ClassesConfig(WholeConfig):
    """The training of a network that tells one of several classes for each image.

    `classes` are those to tell, in their order. Every class is drawn equally often, and within a class every group, whatever their numbers of images.
    `smoothing` is the part of the truth that is spread over all classes, so that the network does not become too sure of itself.
    """

    kinds: ClassVar[tuple[str, ...]] = ("table",)
    output: ClassVar[str] = "softmax"

    classes: tuple[str, ...] = Field(min_length=2)
    smoothing: float = Field(0.05, ge=0, lt=1)

    @field_validator("classes")
    @classmethod
    def _each_once(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if not all(classes) or len(set(classes)) != len(classes):
            raise ValueError(f"the names of the classes, each once, expected (got {list(classes)})")
        return classes

    def outputs(self) -> tuple[str, ...]:
        """The classes."""
        return self.classes


def _own(config: TrainConfig) -> ClassesConfig:
    if not isinstance(config, ClassesConfig):
        raise TypeError(f"settings of the task 'classes' expected (got {type(config).__name__})")
    return config


class ClassesLearning:
    """How networks that tell classes are trained."""

    settings: type[TrainConfig] = ClassesConfig

    def taken(self, config: TrainConfig, package: Package) -> Mapping[str, object]:
        """The classes and the side of the package, which the configuration must name too."""
        section, own = read_section(ClassesSection, package), _own(config)
        asked = (own.classes, own.crop_px, own.tile_px)
        if asked != (section.classes, section.side_px, section.tile_px):
            raise ConfigFault(
                f"start_from: package {package.name!r} tells {list(section.classes)} in images of {section.side_px} px (tiles: {section.tile_px}), "
                f"the configuration asks for {list(asked[0])} in {asked[1]} px (tiles: {asked[2]}): name the same"
            )
        return {"classes": section.classes}

    def load(self, config: TrainConfig, report: Say) -> ClassLesson:
        """List and split the images of a table with the columns image and class. Raises ConfigFault for a class that is not one of the settings'."""
        own = _own(config)
        path = own.data.resolved()
        entries = [
            WholeEntry(one.id, one.files, {COLUMN: one.values[COLUMN]}, one.split, one.modality, one.group)
            for one in list_truths(path, own.input.channels, (COLUMN,))
        ]
        listing = Listing(path, "table", tuple(entries))
        return ClassLesson(own, split_images(own, listing, report, stratum=class_of))

    def loss(self, config: TrainConfig, parts: int) -> Loss:
        """Cross-entropy of targets (B, K) that add up to 1 with the softmax of logits (B, K)."""
        from keras import ops

        def loss(targets: keras.KerasTensor, logits: keras.KerasTensor) -> keras.KerasTensor:
            logits = ops.cast(logits, "float32")
            return ops.mean(ops.logsumexp(logits, axis=-1) - ops.sum(targets * logits, axis=-1)) / parts

        return loss

    def first_chance(self, config: TrainConfig) -> Mapping[int, float]:
        """All classes alike."""
        return {}

    def metric(self) -> Loss:
        """The share of images whose class is told right."""
        from keras import ops

        def accuracy(targets: keras.KerasTensor, logits: keras.KerasTensor) -> keras.KerasTensor:
            right = ops.equal(ops.argmax(targets, axis=-1), ops.argmax(logits, axis=-1))
            return ops.mean(ops.cast(right, "float32"))

        return accuracy


def class_of(image: WholeImage) -> str:
    """The true class of an image."""
    return image.values[COLUMN]


class ClassLesson(WholeLesson):
    """The images of a run whose truth is a class."""

    def __init__(self, config: ClassesConfig, images: Images[WholeImage]) -> None:
        super().__init__(config, images)
        self._config = config
        for part, its in (("train on", self.train), ("measure", self.validation)):
            lacking = sorted(set(config.classes) - {class_of(image) for image in its})
            if lacking:
                raise ConfigFault(
                    f"data: no image of class {lacking[0]!r} is left to {part}; each class needs images in every part, or a smaller share "
                    "(data.validation_share, data.fit_share)"
                )

    def targets(self, image: WholeImage) -> NDArray[np.float32]:
        """1 for the true class, less what is spread over all. Raises ConfigFault if the class is not one of the settings'."""
        count, smooth = len(self._config.classes), self._config.smoothing
        targets = np.full(count, smooth / count, np.float32)
        targets[self.number_of(image)] += 1 - smooth
        return targets

    def number_of(self, image: WholeImage) -> int:
        """The place of an image's class among the classes."""
        return self._config.classes.index(class_of(image))

    def weights(self, images: Sequence[WholeImage]) -> NDArray[np.float64]:
        """Equal for each class, and within a class for each group."""
        groups = Counter((class_of(image), image.group) for image in images)
        of_class = Counter(name for name, _ in groups)
        return np.array(
            [1 / (of_class[class_of(image)] * groups[class_of(image), image.group]) for image in images],
            np.float64,
        )

    def watch(self, maps: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> dict[str, float]:
        """The balanced accuracy over at most 200 watched images."""
        count = min(_MOST_WATCHED, len(self.watched))
        images = [self.watched[at * len(self.watched) // count] for at in range(count)]
        right: dict[int, list[bool]] = {}
        for image in images:
            told = np.mean([maps(view)[: len(self._config.classes)] for view in self.views(image)], axis=0)
            right.setdefault(self.number_of(image), []).append(int(np.argmax(told)) == self.number_of(image))
        return {"balanced_accuracy": float(np.mean([np.mean(each) for each in right.values()]))}

    def section(self, _: Mapping[str, object], __: Say) -> dict[str, object]:
        """Classes, side and tiles, and the temperature before it is fitted."""
        return {
            "classes": list(self._config.classes), "side_px": self._config.crop_px, "tile_px": self._config.tile_px, "temperature": 1.0,
            "features": self._config.features,
        }  # fmt: skip

    def fitted(self, package: Package, engine: Engine, report: Say) -> dict[str, object]:
        """The temperature at which the probabilities of the images set aside are most likely: it leaves the class as it is."""
        count = len(self._config.classes)
        vectors = vectors_of(package, engine, self.fit, self._config)
        chances = np.stack([each[:, :count].mean(axis=0) for each in vectors]).astype(np.float64)
        truth = np.array([self.number_of(image) for image in self.fit])
        temperature = fit_temperature(chances, truth)
        how = (
            "images set aside"
            if self.fit is not self.train
            else "training images, because none are set aside"
        )
        report(f"temperature {temperature:g}, fitted on {len(self.fit)} {how}")
        return {"temperature": temperature}


def fit_temperature(chances: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    """The temperature, within 0.5 to 8, that makes the true classes (n,) most likely by probabilities (n, K) (Guo et al. 2017)."""

    def loss(logarithm: float) -> float:
        told = tempered(chances, float(np.exp(logarithm)))[np.arange(len(truth)), truth]
        return -float(np.log(np.maximum(told, _LEAST)).mean())

    ends = (float(np.log(_COLDEST)), float(np.log(_HOTTEST)))
    return round(float(np.exp(optimize.minimize_scalar(loss, bounds=ends, method="bounded").x)), 4)
