"""What the trainings of tasks that look at images as a whole have in common: their settings, and the lesson of a run.

A task adds what is true of an image as targets (T,), a loss, and what is fitted afterwards (`tasks/classes/learn.py` is one).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from cellcount_core.domain.settings import Place
from cellcount_core.evaluation.evaluate import Diameter, counting_of, in_turn, pixels_of
from cellcount_core.labelled.whole import WholeImage
from cellcount_core.models.engines import Engine
from cellcount_core.models.families.pooled import POOLED, fit_features, load_backbone
from cellcount_core.models.package import Package
from cellcount_core.pipeline.field import planes_kit, prepare
from cellcount_core.tasks.whole import square, starts, tile_vectors
from cellcount_core.training.config import InputConfig, TrainConfig
from cellcount_core.training.fit import fit_domain
from cellcount_core.training.learning import Example, Images, Say
from cellcount_core.training.whole_images import (
    CacheConfig,
    Canvases,
    WholeAugment,
    augmented_view,
    plain_view,
)

if TYPE_CHECKING:
    import keras

_MOST_DESCRIBED = 600
"""Training images whose vectors the features are fitted to."""

_MOST_CALIBRATION = 128
_MOST_DOMAIN_IMAGES = 400


class WholeInput(InputConfig):
    """The channels and the normalisation. Whole images have no scale: `diameter_px` is not given."""

    diameter_px: None = None


class WholeConfig(TrainConfig):
    """The training of a network that looks at images as a whole.

    Images are resized to `crop_px` a side, whatever the ratio of their sides. `tile_px`, if it is given, cuts them into tiles of so many px of
    the image instead, which are resized to that side. `features` is the number of numbers that describe an image beside its classes; by them
    images unlike the training set are told (0: they are not).

    `network.backbone` names a network of keras.applications; `backbone_weights` are what it begins with: the path of a file, or "imagenet".
    """

    family: ClassVar[str] = "pooled"
    output: ClassVar[str] = "softmax"
    """What the outputs are: "softmax", one of several, or "sigmoid", each for itself."""

    input: WholeInput = WholeInput()
    object: str = ""
    crop_px: int = Field(128, ge=8)
    tile_px: int | None = Field(None, ge=8)
    features: int = Field(8, ge=0, le=32)
    backbone_weights: Place = ""
    cache: CacheConfig = CacheConfig()
    augment: WholeAugment = WholeAugment()

    @model_validator(mode="after")
    def _backbone_fits(self) -> WholeConfig:
        named = self.network.get("backbone")
        if self.backbone_weights and not named:
            raise ValueError("backbone_weights: network.backbone does not say of which network")
        if named and self.optimiser.ema:
            raise ValueError(
                f"optimiser.ema: 0 expected with network.backbone (got {self.optimiser.ema:g}): the statistics in its layers are those of the "
                "weights as they are, not of averaged ones"
            )
        return self

    def begin(self, network: keras.Model) -> None:
        """Load the weights of the backbone. Raises ModelFault if they cannot be had."""
        if self.backbone_weights:
            load_backbone(network, str(self.network["backbone"]), self.backbone_weights)

    def of_network(self) -> dict[str, int | float | str | bool | list[int]]:
        """What the outputs are, the number of features, and the side where the network works at one side alone."""
        flat = (
            self.network.get("pool", "flatten" if self.network.get("preset") == "seed" else "") == "flatten"
        )
        return {"output": self.output, "features": self.features, **({"side": self.crop_px} if flat else {})}


class WholeLesson(ABC):
    """The images of a run, each looked at as a whole.

    A subclass adds `targets`, `weights`, `watch`, `section`, `fitted`, and what it likes of the rest.
    """

    def __init__(self, config: WholeConfig, images: Images[WholeImage]) -> None:
        self._whole = config
        self.train, self.fit = images.train, images.fit
        self.watched, self.validation = images.watched, images.validation
        self._canvases = Canvases(
            config.input.spec(),
            config.crop_px,
            config.tile_px,
            config.cache,
            Path(config.work_dir).expanduser(),
        )

    @abstractmethod
    def targets(self, image: WholeImage) -> NDArray[np.float32]:
        """What the network is taught of an image: (T,)."""

    @abstractmethod
    def weights(self, images: Sequence[WholeImage]) -> NDArray[np.float64]:
        """How often each image is drawn, (n,), above 0; they need not add up to 1."""

    @abstractmethod
    def watch(self, maps: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Mapping[str, float]:
        """See `Lesson.watch`."""

    @abstractmethod
    def section(self, network: Mapping[str, object], report: Say) -> dict[str, object]:
        """See `Lesson.section`."""

    @abstractmethod
    def fitted(self, package: Package, engine: Engine, report: Say) -> dict[str, object]:
        """See `Lesson.fitted`."""

    def chances(self) -> NDArray[np.float64]:
        """The chances that `weights` gives the training images."""
        return self.statistics_chances()

    def statistics_chances(self, most: int | None = None) -> NDArray[np.float64]:
        """Those of the first `most` of them."""
        weights = self.weights(self.train[:most])
        return np.asarray(weights / weights.sum(), np.float64)

    def crop(self, rng: np.random.Generator, number: int) -> Example:
        """A training image, or a tile from anywhere in it, as augmentation makes it, and its targets."""
        image, config = self.train[number], self._whole
        canvas, aspect = self._canvases.of(image)
        pixels = augmented_view(rng, canvas, config.crop_px, aspect, config.augment)
        return pixels, self.targets(image)

    def plain_crop(self, rng: np.random.Generator, number: int) -> Example:
        """A watched image, or a tile from anywhere in it, unchanged."""
        image, side = self.watched[number], self._whole.crop_px
        canvas, _ = self._canvases.of(image)
        top, left = (int(rng.integers(0, length - side + 1)) for length in canvas.shape[:2])
        return plain_view(canvas, side, top, left), self.targets(image)

    def views(self, image: WholeImage) -> list[NDArray[np.float32]]:
        """What the network sees of an image when it is counted: all of it, or each of its tiles, (side, side, C)."""
        (canvas, _), side = self._canvases.of(image), self._whole.crop_px
        height, width = canvas.shape[:2]
        return [
            plain_view(canvas, side, top, left)
            for top in starts(height, side)
            for left in starts(width, side)
        ]

    def finish(self, network: keras.Model) -> None:
        """Fit the features that describe an image to the vectors of training images."""
        if not self._whole.features:
            return
        import keras

        step = max(1, len(self.train) // _MOST_DESCRIBED)
        pooled = keras.Model(network.input, network.get_layer(POOLED).output)
        seen = [view for image in self.train[::step] for view in self.views(image)[:1]]
        vectors = [
            np.asarray(pooled.predict_on_batch(np.stack(seen[at : at + 16])))
            for at in range(0, len(seen), 16)
        ]
        fit_features(network, np.concatenate(vectors).astype(np.float32))

    def fitting_images(self) -> Sequence[WholeImage]:
        """The images set aside (the training images if none are)."""
        return self.fit

    def diameters(self) -> tuple[Diameter, ...]:
        """Images have no scale."""
        return ("model",)

    def golden_crops(self, stride: int) -> NDArray[np.float32]:
        """Two of the images set aside, as the network sees them."""
        chosen = [self.fit[0], self.fit[-1]]
        return np.stack([self.views(image)[0] for image in chosen])

    def calibration_tiles(self, stride: int) -> Sequence[NDArray[np.float32]]:
        """Training images, evenly spread, as the network sees them."""
        chosen = self.train[:: max(1, len(self.train) // _MOST_CALIBRATION)][:_MOST_CALIBRATION]
        return [self.views(image)[0] for image in chosen]

    def golden_arrays(
        self, section: Mapping[str, object], maps: NDArray[np.float32]
    ) -> dict[str, NDArray[np.generic]]:
        """None: what is told of an image follows from its vector."""
        return {}

    def measured_apart(self) -> dict[str, Sequence[WholeImage]]:
        """Empty: images come from one source."""
        return {}

    def tell(self, package: Package, engine: Engine, report: Say) -> None:
        """Nothing beside the figures of the package, unless a task says more."""
        del package, engine, report

    def uncertainty(self, package: Package, engine: Engine) -> dict[str, object]:
        """The domain of the training images, by the features that the network describes them with."""
        count = self._whole.features
        if not count:
            return {}
        outputs = len(self._whole.outputs())
        step = max(1, len(self.train) // _MOST_DOMAIN_IMAGES)
        seen, held_out = (
            [
                tuple(map(float, vectors[:, outputs:].mean(axis=0)))
                for vectors in vectors_of(package, engine, images, self._whole)
            ]
            for images in (self.train[::step], [] if self.fit is self.train else self.fit)
        )
        domain = fit_domain(feature_names(count), seen, held_out)
        return {} if domain is None else {"domain": asdict(domain)}


def feature_names(count: int) -> tuple[str, ...]:
    """The names of the features that a network of whole images gives: principal components."""
    return tuple(f"component_{number}" for number in range(1, count + 1))


def vectors_of(
    package: Package, engine: Engine, images: Sequence[WholeImage], config: WholeConfig
) -> list[NDArray[np.float32]]:
    """The network's vectors (n, K) of each image, found as a run finds them: of the whole image, or of each of its tiles.

    Raises ConfigFault naming an image that cannot be counted.
    """
    with closing(planes_kit(package, engine, counting_of("model"))) as kit:

        def vectors(image: WholeImage) -> NDArray[np.float32]:
            return tile_vectors(prepare(kit, pixels_of(kit, image)), square(config.tile_px))[1]

        return list(in_turn(vectors, images))
