"""How networks are trained that tell one of several classes for each image: settings, the lesson of a run, and what is fitted to it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator
from scipy import optimize

from cellcount_core.domain.errors import ConfigFault, nearest
from cellcount_core.domain.settings import expanded
from cellcount_core.evaluation.evaluate import in_turn, package_scorer
from cellcount_core.labelled.class_folders import list_class_folders
from cellcount_core.labelled.dataset import Listing
from cellcount_core.labelled.folders import list_truths
from cellcount_core.labelled.leaks import Kind, Pair, across, kinds, of_two_classes, pairs_of
from cellcount_core.labelled.whole import WholeEntry, WholeImage, in_words, unreadable
from cellcount_core.models.engines import Engine
from cellcount_core.models.package import Package
from cellcount_core.pipeline.maps import levels
from cellcount_core.tasks.classes.task import COLUMN, ClassesSection, tempered
from cellcount_core.tasks.task import read_section
from cellcount_core.training.config import DataConfig, TrainConfig, own_settings
from cellcount_core.training.learning import Images, Loss, Say, split_images
from cellcount_core.training.told_classes import ToldClasses, shown_places, write_told
from cellcount_core.training.watching import read_curve
from cellcount_core.training.whole import WholeConfig, WholeLesson, vectors_of

if TYPE_CHECKING:
    import keras

_LEAST = 1e-6
_COLDEST, _HOTTEST = 0.02, 50.0
"""Far beyond what is fitted: a network taught with `smoothing` 0.1 has come to 0.5 and below."""

_NEAR_BOUND = 0.9

_MOST_WATCHED = 200
_MOST_MEASURED = 64
_NAMED = 5


class ClassDataConfig(DataConfig):
    """Where images with a class come from: "class_folders" (a folder for each class, see labelled/class_folders.py), or a "table" with the
    columns image and class and, optionally, split and group.

    `groups` is a CSV with the columns file and group for class folders ("": groups.csv beside them, if it is there). `skip_unreadable` leaves
    out images that cannot be decoded, which are named, instead of refusing the data. `skip_two_classes` does so with images of the same pixels
    that have two classes, of which one must be wrong. Images that stand on both sides of a split, by what they
    show, are looked for before anything is trained (see labelled/leaks.py); `allow_leaks` goes on although there are some.
    """

    kind: Literal["class_folders", "table"] = "class_folders"
    groups: str = ""
    skip_unreadable: bool = False
    skip_two_classes: bool = False
    allow_leaks: bool = False


class ClassesConfig(WholeConfig):
    """The training of a network that tells one of several classes for each image.

    `classes` are those to tell, in their order. Every class is drawn equally often, and within a class every group, whatever their numbers of images.
    `baseline` "shuffled" deals the classes of what trains out anew to its groups, so that nothing can be learnt: what such a training reaches
    is what chance reaches; the package's name ends in "-shuffled", and whoever counts with it is warned. `smoothing` is the part of the truth that is spread over all classes, so that the network does not become too sure of itself.
    """

    kinds: ClassVar[tuple[str, ...]] = ("class_folders", "table")
    output: ClassVar[str] = "softmax"

    data: ClassDataConfig
    classes: tuple[str, ...] = Field(min_length=2)
    smoothing: float = Field(0.05, ge=0, lt=1)
    baseline: Literal["none", "shuffled"] = "none"

    @field_validator("classes")
    @classmethod
    def _each_once(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if not all(classes) or len(set(classes)) != len(classes):
            raise ValueError(f"the names of the classes, each once, expected (got {list(classes)})")
        return classes

    def outputs(self) -> tuple[str, ...]:
        """The classes."""
        return self.classes

    def package_name(self) -> str:
        """The name, with "-shuffled" behind it for a baseline."""
        plain = self.baseline == "none" or self.name.endswith("-shuffled")
        return self.name if plain else f"{self.name}-shuffled"

    def taught_nothing(self) -> str:
        """Says of a baseline that it is one."""
        if self.baseline == "none":
            return ""
        return "the classes of what trained were dealt out at random (baseline: shuffled), so its figures are those of chance"


class ClassesLearning:
    """How networks that tell classes are trained."""

    settings: type[TrainConfig] = ClassesConfig

    def taken(self, config: TrainConfig, package: Package) -> Mapping[str, object]:
        """The classes and the side of the package, which the configuration must name too."""
        section, own = read_section(ClassesSection, package), own_settings(config, ClassesConfig)
        asked = (own.classes, own.crop_px, own.tile_px)
        if asked != (section.classes, section.side_px, section.tile_px):
            raise ConfigFault(
                f"start_from: package {package.name!r} tells {list(section.classes)} in images of {section.side_px} px (tiles: {section.tile_px}), "
                f"the configuration asks for {list(asked[0])} in {asked[1]} px (tiles: {asked[2]}): name the same"
            )
        return {"classes": section.classes}

    def load(self, config: TrainConfig, report: Say) -> ClassLesson:
        """List and split images with a class. Raises ConfigFault if the data is faulty, or its classes are not the settings'."""
        own = own_settings(config, ClassesConfig)
        path, entries = listed_images(own, report)
        images = split_images(own, Listing(path, own.data.kind, tuple(entries)), report, stratum=class_of)
        pairs = pairs_shown(own, images, report)
        images = of_one_class(own, images, pairs, report)
        leaks = leaks_of(own, images, pairs, report)
        if own.baseline == "shuffled":
            report("baseline: the classes of what trains are dealt out anew to its groups")
            images = shuffled(images, own.seed)
        return ClassLesson(own, images, leaks)

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


def listed_images(config: ClassesConfig, report: Say) -> tuple[Path, list[WholeEntry]]:
    """Where the images of a run lie, and the images, each of which can be read; what is left out is reported.

    Raises ConfigFault as `list_class_folders` and `check_readable`, and for a class of a table that is not one of the settings'.
    """
    data, roles = config.data, config.input.channels
    path = data.resolved()
    if data.kind == "table":
        entries = [
            replace(one, values={COLUMN: one.values[COLUMN]}) for one in list_truths(path, roles, (COLUMN,))
        ]
        for entry in entries:
            if entry.values[COLUMN] not in config.classes:
                raise ConfigFault(
                    f"{path}: image {entry.id!r} has the class {entry.values[COLUMN]!r}, which is not one of `classes`"
                    f"{nearest(entry.values[COLUMN], config.classes)}"
                )
    else:
        groups = Path(expanded(data.groups, os.environ)) if data.groups else None
        found = list_class_folders(path, config.classes, groups)
        entries = list(found.entries)
        for line in found.lines():
            report(line)
    faults = unreadable(entries, roles)
    if faults and not data.skip_unreadable:
        raise ConfigFault(
            f"{path}: {in_words(faults.values())}. Remove or mend them, or set data.skip_unreadable=true"
        )
    for fault in faults.values():
        report(f"left out: {fault}")
    return path, [entry for entry in entries if entry.id not in faults]


def pairs_shown(config: ClassesConfig, images: Images[WholeImage], report: Say) -> list[Pair]:
    """The pairs of all images of a run that show the same. They are kept beside the run's folder."""
    every = {image.id: image for image in _all_of(images)}
    folder = Path(config.work_dir).expanduser().parent
    return pairs_of([every[name] for name in sorted(every)], folder, report)


def of_one_class(
    config: ClassesConfig, images: Images[WholeImage], pairs: Sequence[Pair], report: Say
) -> Images[WholeImage]:
    """The images without those whose pixels have two classes, if the settings leave them out.

    Turned copies count too, unless images have a direction (neither turned nor mirrored while they train). Raises ConfigFault naming the images,
    unless the settings leave them out.
    """
    augment = config.augment
    kinds: tuple[Kind, ...] = (
        ("identical",) if augment.turns == "none" and not augment.mirror else ("identical", "turned")
    )
    classes = {image.id: class_of(image) for image in _all_of(images)}
    wrong = of_two_classes(pairs, classes, kinds)
    if not wrong:
        return images
    told = [
        f"{pair.first} ({classes[pair.first]}) and {pair.second} ({classes[pair.second]})"
        for pair in wrong[:_NAMED]
    ]
    more = f"; and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
    if not config.data.skip_two_classes:
        raise ConfigFault(
            f"{config.data.path}: the same image has two classes, in {len(wrong)} pair{'s' if len(wrong) > 1 else ''}: {'; '.join(told)}{more}. "
            "One of the two is wrong, and groups do not mend that: remove it, or leave out both with data.skip_two_classes=true"
        )
    gone = {name for pair in wrong for name in (pair.first, pair.second)}
    report(f"left out: {len(gone)} images whose pixels have two classes: {'; '.join(told)}{more}")

    def kept(some: Sequence[WholeImage]) -> list[WholeImage]:
        return [image for image in some if image.id not in gone]

    train = kept(images.train)
    fit = train if images.fit is images.train else kept(images.fit)
    return Images(train, fit, kept(images.watched), kept(images.validation))


def _all_of(images: Images[WholeImage]) -> list[WholeImage]:
    return [*images.train, *images.fit, *images.watched, *images.validation]


def leaks_of(
    config: ClassesConfig, images: Images[WholeImage], pairs: Sequence[Pair], report: Say
) -> list[Pair]:
    """Those of the pairs of images that show the same that would stand on both sides of the split.

    Raises ConfigFault naming them, unless the settings allow them.
    """
    part: dict[str, str] = {}
    for name, its in (
        ("trains", images.train),
        ("is fitted on", images.fit),
        ("is measured", images.validation),
    ):
        part |= {image.id: name for image in its if image.id not in part}
    crossing = across(pairs, part)
    if not crossing:
        report(f"leaks: none; {len(pairs)} pairs of images that show the same lie on one side each")
        return []
    told = (
        f"{len(crossing)} pairs of images that show the same would stand on both sides of the split ({kinds(crossing)}): "
        f"{'; '.join(map(str, crossing[:_NAMED]))}{f'; and {len(crossing) - _NAMED} more' if len(crossing) > _NAMED else ''}"
    )
    if not config.data.allow_leaks:
        raise ConfigFault(
            f"{config.data.path}: {told}. What is measured would be what the network remembers: give groups.csv (cellcount check-classes DATA "
            "--write-groups groups.csv writes one), or go on all the same with --allow-leaks"
        )
    report(f"leaks: {told}")
    return crossing


def shuffled(images: Images[WholeImage], seed: int) -> Images[WholeImage]:
    """The same images, with the classes of what trains and is fitted on dealt out anew to their groups: nothing can be learnt of them."""
    known: dict[str, str] = {}
    for image in (*images.train, *images.fit):
        known.setdefault(image.group, class_of(image))
    dealt = dict(zip(known, np.random.default_rng([seed, 7]).permutation(list(known.values())), strict=True))

    def again(some: Sequence[WholeImage]) -> list[WholeImage]:
        return [replace(image, values={COLUMN: str(dealt[image.group])}) for image in some]

    train = again(images.train)
    return Images(
        train, train if images.fit is images.train else again(images.fit), images.watched, images.validation
    )


def class_of(image: WholeImage) -> str:
    """The true class of an image."""
    return image.values[COLUMN]


class ClassLesson(WholeLesson):
    """The images of a run whose truth is a class."""

    def __init__(self, config: ClassesConfig, images: Images[WholeImage], leaks: Sequence[Pair] = ()) -> None:
        super().__init__(config, images)
        self._config = config
        self.leaks = tuple(leaks)
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
        """Classes, side, tiles or the usual size of the images, and the temperature before it is fitted."""
        shown = {"image_px": usual_shape(self.train)} if self._config.tile_px is None else {}
        return {
            "classes": list(self._config.classes), "side_px": self._config.crop_px, "tile_px": self._config.tile_px, "temperature": 1.0,
            "features": self._config.features, **shown,
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
        if at_its_bound(temperature):
            report(
                "the temperature is as high as it may be: the probabilities say nothing of those images, and every class is told with about the same"
            )
        return {"temperature": temperature}

    def tell(self, package: Package, engine: Engine, report: Say) -> None:
        """Say whether the network learns or remembers, and whether it tells the classes apart at all; write learning.json and learning.png."""
        work_dir = Path(self._config.work_dir).expanduser()
        with package_scorer(package, engine) as score:
            every = [one.values for one in in_turn(score, self.validation)]
        # An image that shows nothing is told no class.
        told = [place for place, row in enumerate(every) if row["found"] is not None]
        if not told:
            raise ConfigFault(
                "data: none of the images that are left to measure shows anything (one value, or noise alone)"
            )
        if len(told) < len(every):
            report(
                f"{len(every) - len(told)} of {len(every)} images that did not train show nothing, and no class is told of them"
            )
        scored, measured = [every[place] for place in told], [self.validation[place] for place in told]
        points = read_curve(work_dir)
        found = ToldClasses(
            self._config.classes,
            np.array([self._config.classes.index(str(row["true"])) for row in scored]),
            np.array([self._config.classes.index(str(row["found"])) for row in scored]),
            np.array([row["probability"] for row in scored], np.float64),
            tuple(image.group for image in measured),
            tuple(point.accuracy for point in points),
            tuple(point.validation_accuracy for point in points),
            len(self.watched),
            tuple(map(str, self.leaks)),
            self._config.taught_nothing(),
        )
        for line in found.verdicts():
            report(line)
        pictures = [self._picture(measured[place]) for place in shown_places(found)]
        write_told(work_dir, found, pictures)

    def _picture(self, image: WholeImage) -> NDArray[np.float32]:
        """An image as the network sees it, for people: objects that are darker than the background are dark again."""
        view = self.views(image)[0]
        planes = list(image.planes.values())
        dark = levels(planes, self._config.input.spec())[0].inverted
        return np.asarray(1 - view if dark else view, np.float32)


def at_its_bound(temperature: float) -> bool:
    """Whether a fitted temperature is as high as it may be, so that no temperature makes the probabilities right: they say nothing."""
    return temperature > _NEAR_BOUND * _HOTTEST


def usual_shape(images: Sequence[WholeImage]) -> list[int]:
    """The median height and width in px of images; of many, some evenly spread ones tell it."""
    some = images[:: max(1, len(images) // _MOST_MEASURED)]
    shapes = [next(iter(image.planes.values())).shape for image in some]
    return [int(np.median(lengths)) for lengths in zip(*shapes, strict=True)]


def fit_temperature(chances: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    """The temperature, within 0.02 to 50, that makes the true classes (n,) most likely by probabilities (n, K) (Guo et al. 2017).

    One image more of each class is reckoned with than there is, as by Platt (1999): if all n are told right, the network is not held for certain,
    but for right in (n + 1) of (n + K) cases.
    """
    count, classes = chances.shape
    targets = np.full((count, classes), 1 / (count + classes))
    targets[np.arange(count), truth] = (count + 1) / (count + classes)

    def loss(logarithm: float) -> float:
        told = np.log(np.maximum(tempered(chances, float(np.exp(logarithm))), _LEAST))
        return -float((targets * told).sum(axis=1).mean())

    ends = (float(np.log(_COLDEST)), float(np.log(_HOTTEST)))
    return round(float(np.exp(optimize.minimize_scalar(loss, bounds=ends, method="bounded").x)), 4)
