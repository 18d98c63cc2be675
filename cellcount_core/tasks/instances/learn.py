"""How networks that find objects are trained on label images: settings, the lesson of a run, and what is fitted to it afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from cellcount_core.domain.errors import ConfigFault, nearest
from cellcount_core.evaluation.evaluate import Diameter, counting_of
from cellcount_core.images.normalise import estimate
from cellcount_core.images.pixels import resized_shape
from cellcount_core.labelled.dataset import AUTO, KINDS
from cellcount_core.labelled.image import LabelledImage
from cellcount_core.models.engines import Engine
from cellcount_core.models.families.unet import stride
from cellcount_core.models.package import Package
from cellcount_core.objects.separators import build_separator, of_whole_objects
from cellcount_core.pipeline.field import planes_kit
from cellcount_core.pipeline.maps import canvas_maps, whole_canvas
from cellcount_core.tasks.instances.crops import (
    AugmentConfig,
    Sample,
    augmented_crop,
    plain_crop,
    sample_of,
    targets_of,
)
from cellcount_core.tasks.instances.domain_features import domain_features
from cellcount_core.tasks.instances.fit import SEPARATOR_START, as_counted, fit_cores, fit_sizing, uncertainty
from cellcount_core.tasks.instances.score import score_labels
from cellcount_core.tasks.instances.sources import SourceConfig, ignored_share, load_sources
from cellcount_core.tasks.instances.targets import LossConfig, make_loss, pixel_accuracy
from cellcount_core.tasks.instances.task import label_whole, section_of, separate_whole
from cellcount_core.tasks.matching import Report
from cellcount_core.tasks.object_size.looks import SIZE
from cellcount_core.tasks.task import CanvasMaps
from cellcount_core.training.augment import draw_crop
from cellcount_core.training.config import Told, TrainConfig, own_settings
from cellcount_core.training.learning import Example, Images, Loss, Say, chances
from cellcount_core.training.start import start_package
from cellcount_core.training.variants import busiest, calibration_tiles

if TYPE_CHECKING:
    import keras


Raw = object
"""Settings before they are checked. (Within the class, `object` is what is counted.)"""


def first_and_others(given: object) -> object:
    """Settings with a list of sources as `data`, as settings with the first as `data` and the others as `beside`; others unchanged."""
    if not isinstance(given, dict) or not isinstance(given.get("data"), list):
        return given
    if not given["data"]:
        raise ValueError("data is an empty list: one source (path, split, ...) or several expected")
    if given.get("beside"):
        raise ValueError("data is a list, and beside is given too: all sources in the list expected")
    first, *others = given["data"]
    return {**given, "data": first, "beside": others}


class InstancesConfig(TrainConfig):
    """The training of a network that finds objects: what it gives (`maps`), how objects are separated in that, loss and augmentation.

    `data` may be a list of sources (tasks/instances/sources.py): the first is `data`, the others are `beside`.
    """

    kinds: ClassVar[tuple[str, ...]] = (*KINDS, AUTO)

    data: SourceConfig
    beside: tuple[SourceConfig, ...] = ()
    maps: tuple[Literal["foreground", "distance", "size"], ...] = ("foreground", "distance")
    separator: Literal["cores", "components"] = "cores"
    loss: LossConfig = LossConfig()
    augment: AugmentConfig = AugmentConfig()

    @property
    def sources(self) -> tuple[SourceConfig, ...]:
        """Where images come from, one or several."""
        return (self.data, *self.beside)

    def outputs(self) -> tuple[str, ...]:
        """The maps."""
        return self.maps

    def in_fold(self, fold: int, folds: int) -> Told:
        """See TrainConfig; every source is cut into as many parts."""
        beside = tuple(each.model_copy(update={"fold": (fold, folds)}) for each in self.beside)
        return {**super().in_fold(fold, folds), **({"beside": beside} if beside else {})}

    def partial(self) -> tuple[str, ...]:
        """The ids of images, as they are called in the run, in which only a part of the objects is labelled."""
        return tuple(source.called(image) for source in self.sources for image in source.partial)

    def modalities(self) -> tuple[str, ...]:
        """Those of all sources."""
        return tuple(dict.fromkeys(each for source in self.sources for each in source.modality))

    def sources_told(self) -> Told:
        """The title and licence of every source."""
        if not self.beside:
            return super().sources_told()
        told = [
            {"name": each.name, "data": f"{each.title or each.kind}, split {each.split}", "licence": each.licence, "weight": each.weight}
            for each in self.sources
        ]  # fmt: skip
        licences = dict.fromkeys(each.licence or "not stated" for each in self.sources)
        data = "; ".join(str(each["data"]) for each in told)
        return {"data": data, "licence": ", ".join(licences), "sources": told}

    def measured_on(self) -> str:
        """The validation splits of all sources."""
        return "; ".join(f"{each.title or each.kind}, split {each.validation_split}" for each in self.sources)

    @model_validator(mode="before")
    @classmethod
    def _several_sources(cls, given: Raw) -> Raw:
        return first_and_others(given)

    @model_validator(mode="after")
    def _sources_fit(self) -> InstancesConfig:
        names = [source.name for source in self.sources]
        if len(names) > 1 and (not all(names) or len(set(names)) < len(names)):
            raise ValueError(
                f"every source of data needs a name of its own (data: [{{name: …, path: …}}, …]); got {names}"
            )
        for source in self.beside:
            if source.kind not in self.kinds:
                raise ValueError(f"data.kind: {source.kind!r} is unknown{nearest(source.kind, self.kinds)}")
        return self

    @model_validator(mode="after")
    def _maps_fit(self) -> InstancesConfig:
        if not self.maps or self.maps[0] != "foreground" or len(set(self.maps)) != len(self.maps):
            raise ValueError("maps must begin with 'foreground' and name each map once")
        if self.separator == "cores" and "distance" not in self.maps:
            raise ValueError("separator 'cores' needs the map 'distance'")
        return self


class InstancesLearning:
    """How networks that find objects are trained."""

    settings = InstancesConfig

    def taken(self, config: TrainConfig, package: Package) -> Mapping[str, object]:
        """Maps and kind of separator of the package."""
        asked = own_settings(config, InstancesConfig)
        if "maps" in config.model_fields_set and asked.maps != package.maps:
            raise ConfigFault(
                f"start_from: package {package.name!r} has the maps {list(package.maps)}, the configuration asks for {list(asked.maps)}: "
                "leave `maps` out, or train a network of those maps from its beginning"
            )
        return {"maps": package.maps, "separator": section_of(package).separator["kind"]}

    def load(self, config: TrainConfig, report: Say) -> LabelLesson:
        """Read and split labelled images in any layout of `labelled/`."""
        own = own_settings(config, InstancesConfig)
        return LabelLesson(own, *load_sources(own, own.sources, report))

    def loss(self, config: TrainConfig, parts: int) -> Loss:
        """See `make_loss`."""
        own = own_settings(config, InstancesConfig)
        return make_loss(own.loss, own.maps, parts)

    def first_chance(self, _: TrainConfig) -> Mapping[int, float]:
        """None: about as many pixels are objects as are not."""
        return {}

    def metric(self) -> Loss:
        """The share of pixels on the right side of the foreground."""
        return pixel_accuracy


FEWEST_TO_FIT = 5
"""Thresholds fitted on fewer images than this follow chance; the thresholds of the starting package are better then."""

_FITTED_TRAINING_IMAGES = 100
_MOST_WATCHED = 24
_FACTORS = (0.125, 3.0)
_GOLDEN_PX = 96
_GOLDEN_CROPS = 2
_DOMAIN_PX = 256
_DOMAIN_SIGMA = 0.15
_MOST_IGNORED = 0.02
"""Of an image of which more is ignored than this share of the pixels, the labels do not tell how many objects it has."""


@dataclass(frozen=True, slots=True)
class WatchedImage:
    """A watched image as the network's input: `canvas` (h, w, C). The image at the model's scale fills its upper left (H, W) = `shape`."""

    image: LabelledImage
    canvas: NDArray[np.float32]
    shape: tuple[int, int]


class LabelLesson:
    """The labelled images of a run whose truth is label images."""

    def __init__(
        self,
        config: InstancesConfig,
        images: Images[LabelledImage],
        source_of: Mapping[str, str] | None = None,
    ) -> None:
        self._config = config
        self._source_of = source_of or {}
        self.train = images.train
        self.fit = images.fit
        self.watched = images.watched
        self.validation = images.validation
        self._samples: dict[int, Sample] = {}

    def chances(self) -> NDArray[np.float64]:
        """Those of `chances` for the images of each source, or equal ones without augmentation; sources share by their weights."""
        plain = self._config.augment.kind == "none"
        return self._shared(
            self.train, (lambda some: np.full(len(some), 1 / len(some))) if plain else chances
        )

    def statistics_chances(self, most: int | None = None) -> NDArray[np.float64]:
        """See `training.learning.chances`; sources share by their weights."""
        return self._shared(self.train if len(self._config.sources) > 1 else self.train[:most], chances)

    def _shared(
        self,
        images: Sequence[LabelledImage],
        of: Callable[[Sequence[LabelledImage]], NDArray[np.float64]],
    ) -> NDArray[np.float64]:
        """The chance (n,) of each image: `of` those of its source, times the source's share of all weights."""
        sources = self._config.sources
        if len(sources) == 1:
            return of(images)
        total = sum(source.weight for source in sources)
        found = np.zeros(len(images), np.float64)
        for source in sources:
            own = [at for at, image in enumerate(images) if self._source_of[image.id] == source.name]
            if own:
                found[own] = of([images[at] for at in own]) * source.weight / total
        return np.asarray(found / found.sum(), np.float64)

    def measured_apart(self) -> dict[str, Sequence[LabelledImage]]:
        """The validation images of each source; empty if there is one source."""
        if len(self._config.sources) == 1:
            return {}
        return {
            source.name: [image for image in self.validation if self._source_of[image.id] == source.name]
            for source in self._config.sources
        }

    def crop(self, rng: np.random.Generator, number: int) -> Example:
        """An augmented crop and its targets."""
        config = self._config
        sample = self._sample(self.train[number])
        crop = augmented_crop(rng, sample, config.augment, config.crop_px, config.input.diameter_px)
        return crop.pixels, targets_of(crop, config.maps, config.loss)

    def plain_crop(self, rng: np.random.Generator, number: int) -> Example:
        """An unchanged crop and its targets."""
        crop = plain_crop(rng, self._sample(self.watched[number]), self._config.crop_px)
        return crop.pixels, targets_of(crop, self._config.maps, self._config.loss)

    def _sample(self, image: LabelledImage) -> Sample:
        # The lesson holds on to its images, so none gets the number of another.
        if id(image) not in self._samples:
            self._samples[id(image)] = sample_of(image, self._config.input.spec())
        return self._samples[id(image)]

    def watch(self, maps: CanvasMaps) -> dict[str, float]:
        """Mean F1 and AP at IoU 0.5 of at most 24 watched images, and the bias (counted - true) / true over all of them.

        Each is brought to the model's scale by its labels. Thresholds are those of the starting package, or a first guess.
        """
        separator = build_separator(self._first_separator())
        scores = []
        for whole in self.whole_images:
            found = maps(whole.canvas)[: whole.shape[0], : whole.shape[1]]
            plane = whole.image.plane
            labels = label_whole(
                separator, np.ascontiguousarray(found), plane, estimate(plane, polarity="auto")
            )
            scores.append(score_labels(whole.image.truth, labels))
        report = Report(tuple(scores))
        return {"f1": report.f1(), "ap": report.ap(), "bias": report.count_bias()}

    @cached_property
    def whole_images(self) -> list[WatchedImage]:
        """At most 24 of the watched images, evenly spread, ready for the network."""
        count = min(_MOST_WATCHED, len(self.watched))
        return [self._whole(self.watched[index * len(self.watched) // count]) for index in range(count)]

    def _whole(self, image: LabelledImage) -> WatchedImage:
        config = self._config
        wanted, factor = config.input.diameter_px, 1.0
        if wanted is not None and image.diameter_px > 0:
            factor = float(np.clip(wanted / image.diameter_px, *_FACTORS))
        planes = list(image.planes.values())
        canvas = whole_canvas(planes, config.input.spec(), stride(config.network), factor)
        height, width = image.labels.shape
        return WatchedImage(image, canvas, resized_shape((height, width), factor))

    def _first_separator(self) -> Mapping[str, object]:
        config = self._config
        if config.separator == "components":
            return {"kind": "components", "threshold": 0.5, "min_area": 0.0}
        if config.start_from and section_of(start_package(config)).separator["kind"] == "cores":
            return section_of(start_package(config)).separator
        return {"kind": "cores", **SEPARATOR_START}

    def kept(self, report: Say) -> Package | None:
        """The starting package, if its thresholds are kept because too few images are set aside to fit new ones."""
        config = self._config
        if not config.start_from:
            return None
        aside = 0 if self.fit is self.train else len(self.fit)
        package = start_package(config)
        if aside >= FEWEST_TO_FIT or section_of(package).separator["kind"] != config.separator:
            return None
        report(
            f"{aside} images set aside to fit thresholds on (data.fit_share), less than {FEWEST_TO_FIT}: "
            f"those of {package.name!r} are kept"
        )
        return package

    def finish(self, network: keras.Model) -> None:
        """Nothing: all weights are taught."""

    def section(self, network: Mapping[str, object], report: Say) -> dict[str, object]:
        """Maps, separator, and the numbers for the estimate of sizes, which are kept together with the thresholds."""
        kept = self.kept(report)
        if kept is not None:
            taken = section_of(kept)
            separator, sizing = dict(taken.separator), dict(taken.sizing)
        elif self._config.separator == "components":
            separator, sizing = dict(self._first_separator()), {}
        else:
            separator, sizing = {"kind": "cores", **SEPARATOR_START}, {}
        return {**network, "maps": list(self._config.maps), "separator": separator, "sizing": sizing}

    def fitted(self, package: Package, engine: Engine, report: Say) -> dict[str, object]:
        """Sizing numbers first, then thresholds, on images that are brought to scale with those numbers."""
        if self._config.separator != "cores" or self.kept(_nobody) is not None:
            return {}
        images = self.fitting_images()
        kit = planes_kit(package, engine, counting_of("auto"))
        try:
            sizing = fit_sizing(
                package, images, lambda canvas: canvas_maps(canvas, package, kit.device), report
            )
        finally:
            kit.close()
        sized = replace(package, section={**package.section, "sizing": sizing})
        counted, found = as_counted(sized, engine, images, report)
        fitted = fit_cores(
            counted, found, report, groups=[self._source_of.get(image.id, "") for image in counted]
        )
        return {"sizing": sizing, "separator": {"kind": "cores", **fitted}}

    def fitting_images(self) -> list[LabelledImage]:
        """The images set aside, and some training images beside them.

        Only a few numbers are fitted, so training images do little harm, while a few dozen images alone may come from two or three
        experiments and would bend the fit. If no image is set aside, training images are used alone.
        """
        partial = self._config.partial()
        trained = [image for image in self.train if image.id not in partial] or self.train
        some = trained[:: max(1, len(trained) // _FITTED_TRAINING_IMAGES)]
        return some if self.fit is self.train else [*self.fit, *some]

    def golden_crops(self, stride: int) -> NDArray[np.float32]:
        """Cut from the two images with the most objects, where each has the most, so that an engine that is wrong shows it on objects
        and not on background."""
        crowded = sorted(self.fit, key=lambda image: (-int(image.labels.max(initial=0)), image.id))
        size = max(stride, _GOLDEN_PX - _GOLDEN_PX % stride)
        return np.stack([self._busiest(image, size) for image in crowded[:_GOLDEN_CROPS]])

    def _busiest(self, image: LabelledImage, size: int) -> NDArray[np.float32]:
        def objects(top: int, left: int) -> int:
            window = image.labels[top : top + size, left : left + size]
            return int(np.unique(window[window > 0]).size)

        return busiest(list(image.planes.values()), self._config.input.spec(), size, objects)

    def calibration_tiles(self, stride: int) -> Sequence[NDArray[np.float32]]:
        """See `training.variants.calibration_tiles`."""
        return calibration_tiles(self.train, self._config.input.spec(), stride)

    def golden_arrays(
        self, section: Mapping[str, object], maps: NDArray[np.float32]
    ) -> dict[str, NDArray[np.generic]]:
        """The labels that the maps give."""
        separator = section["separator"]
        assert isinstance(separator, Mapping)
        built = build_separator(separator)
        return {"labels": np.stack([separate_whole(built, found) for found in maps])}

    def diameters(self) -> tuple[Diameter, ...]:
        """ "auto" as well, if the network finds the model's scale itself."""
        tells_size = self._config.input.diameter_px is not None and SIZE in self._config.maps
        return ("model", "auto") if tells_size else ("model",)

    def tell(self, package: Package, engine: Engine, report: Say) -> None:
        """Nothing beside the figures of the package."""

    def uncertainty(self, package: Package, engine: Engine) -> dict[str, object]:
        """The interval of a count and the domain of training images; empty if no image is set aside, or sizes cannot be told."""
        if self.fit is self.train:
            return {}
        told = [image for image in self.fit if ignored_share(image) <= _MOST_IGNORED]
        return uncertainty(package, engine, self.train, told, lambda images: _varied(images, package, engine))


def _equal(images: Sequence[LabelledImage]) -> NDArray[np.float64]:
    return np.full(len(images), 1 / len(images))


def _nobody(_: str) -> None:
    """Takes a line of the progress that was told before."""


def _varied(
    images: Sequence[LabelledImage], package: Package, engine: Engine
) -> list[tuple[float, ...] | None]:
    """The features of one augmented crop of each image, at about the model's scale."""
    # In a crop that holds little else, a small part at its edge would pass for an object of a strange shape and size, and widen
    # the domain: by such ones the ROC of histology fell from 0.88 to 0.79.
    spec, separator = package.input, build_separator(of_whole_objects(section_of(package).separator))
    rng = np.random.default_rng(0)
    found = []
    for image in images:
        if not image.diameter_px or spec.diameter_px is None:
            continue
        sample = sample_of(image, spec)
        scale = spec.diameter_px / sample.diameter_px * float(np.exp(rng.normal(0, _DOMAIN_SIGMA)))
        crop = draw_crop(rng, sample.linear, sample.labels, sample.sizes, scale, _DOMAIN_PX)
        maps = np.ascontiguousarray(engine.run(crop.pixels[None].repeat(engine.batch, axis=0))[0])
        first = np.ascontiguousarray(crop.pixels[..., 0])
        found.append(domain_features(first, maps, separate_whole(separator, maps)))
    return found
