"""What a task tells the trainer: its settings, its crops and targets, its loss, and what is fitted after training.

The trainer, checkpoints, curves, export, int8 variants and seeds know no task. They ask a `Learning`, which the task names
(`Task.learning`) and which is imported when something is trained. Its `load` reads the labelled images of a run and gives a `Lesson`.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.errors import ConfigFault, nearest
from cellcount_core.evaluation.evaluate import Diameter
from cellcount_core.labelled.dataset import Listing, choose
from cellcount_core.labelled.image import Pictured
from cellcount_core.labelled.whole import WholeImage
from cellcount_core.models.engines import Engine
from cellcount_core.models.package import Package
from cellcount_core.tasks.task import TASKS, CanvasMaps, task_named
from cellcount_core.training.config import TrainConfig

if TYPE_CHECKING:
    import keras

Loss = Callable[["keras.KerasTensor", "keras.KerasTensor"], "keras.KerasTensor"]
"""Takes targets and logits, and gives a scalar. They are (B, S, S, T) and (B, S, S, K), or (B, T) and (B, K) for networks of whole images."""

Example = tuple[NDArray[np.float32], NDArray[np.float32]]
"""What the network learns from at one place: its input (S, S, C) and the targets of its loss, (S, S, T) for a network that gives maps of a
crop of S x S px, (T,) for one that looks at an image as a whole.

C are the channels of `input.channels`, normalised and compressed as `images.normalise.apply` leaves them. T is the task's own matter,
usually one target a map and a weight.
"""

Say = Callable[[str], None]
"""Takes a line of the progress."""


class Lesson(Protocol):
    """The labelled images of a run, what each is used for, and what the task makes of them.

    The network learns from `train`. Thresholds are fitted on `fit` (the training images, the same list, if none are set aside). The
    validation curve is drawn from `watched`, which never train. The accuracy that the package states is measured on `validation`.
    """

    @property
    def train(self) -> Sequence[Pictured]:
        """See above."""
        ...

    @property
    def fit(self) -> Sequence[Pictured]:
        """See above."""
        ...

    @property
    def watched(self) -> Sequence[Pictured]:
        """See above."""
        ...

    @property
    def validation(self) -> Sequence[Pictured]:
        """See above."""
        ...

    def chances(self) -> NDArray[np.float64]:
        """The chance of each training image to be drawn, (n,), summing to 1. `chances` of this module suits most tasks."""
        ...

    def statistics_chances(self, most: int | None = None) -> NDArray[np.float64]:
        """The chance of each of the first `most` training images (None: all) to be in a batch that gives the statistics of the batch
        normalisation. `chances` of this module suits most tasks."""
        ...

    def crop(self, rng: np.random.Generator, number: int) -> Example:
        """A crop of the training image `train[number]` as augmentation makes it.

        `rng` is seeded by the run's seed and the step, and nothing else may decide what is drawn: so an interrupted run ends as an
        uninterrupted one. Called from a thread, one crop after the other.
        """
        ...

    def plain_crop(self, rng: np.random.Generator, number: int) -> Example:
        """An unchanged crop from anywhere in `watched[number]`, for the validation curve."""
        ...

    def watch(self, maps: CanvasMaps) -> Mapping[str, float]:
        """Look at some watched images whole with the network as it is now, and say how well that went.

        `maps` gives the network's maps (h, w, K) of a canvas (h, w, C), or the vector (K,) of a whole image. Thresholds are not fitted yet. The figures are drawn and
        written to the curves under these names; "f1", "ap" (at IoU 0.5) and "bias" (of the count) are shown in words.
        """
        ...

    def finish(self, network: keras.Model) -> None:
        """Set weights that are not taught but follow from the finished network. Most tasks have none."""
        ...

    def section(self, network: Mapping[str, object], report: Say) -> dict[str, object]:
        """The task's section of the manifest before anything is fitted.

        Where the network gives maps it must have `maps`, and beside them what `network` says (`stride` and `receptive_radius`). What a run
        keeps of the package it started from is here.
        """
        ...

    def fitted(self, package: Package, engine: Engine, report: Say) -> dict[str, object]:
        """The values of the section that are fitted to labelled images, by key; empty if nothing is.

        `package` is complete but for them, and `engine` runs it in float32.
        """
        ...

    def golden_crops(self, stride: int) -> NDArray[np.float32]:
        """The input (2, h, w, C) of the golden tensors, cut where there is something to find; h and w are multiples of `stride`."""
        ...

    def calibration_tiles(self, stride: int) -> Sequence[NDArray[np.float32]]:
        """Inputs (h, w, C) of training images, by which the network in 8-bit integers is scaled; h and w are multiples of `stride`.
        `calibration_tiles` of training/variants.py suits tasks with maps."""
        ...

    def golden_arrays(
        self, section: Mapping[str, object], maps: NDArray[np.float32]
    ) -> dict[str, NDArray[np.generic]]:
        """What the task finds in golden maps (2, h, w, K) with a section's thresholds, by name, for who ports it; may be empty."""
        ...

    def fitting_images(self) -> Sequence[Pictured]:
        """The images on which thresholds are fitted and variants are tried."""
        ...

    def diameters(self) -> tuple[Diameter, ...]:
        """The ways in which such a package is used to bring images to its scale: "model", a number of px, or "auto" if it tells sizes
        itself.

        Variants must pass at each, and the accuracy is stated for each; the first one is the usual one, and never "auto".
        """
        ...

    def measured_apart(self) -> Mapping[str, Sequence[Pictured]]:
        """The validation images of each source by its name, where there are several sources; empty otherwise."""
        ...

    def tell(self, package: Package, engine: Engine, report: Say) -> None:
        """Say what the training came to, once the package is complete, and write what is to be looked at into the work folder. May do nothing."""
        ...

    def uncertainty(self, package: Package, engine: Engine) -> dict[str, object]:
        """The manifest's sections `interval` and `domain`, as far as they can be fitted on images that do not train."""
        ...


class Learning(Protocol):
    """How networks of one task are trained."""

    @property
    def settings(self) -> type[TrainConfig]:
        """The settings of a training run of this task: those of all tasks, and its own."""
        ...

    def taken(self, config: TrainConfig, package: Package) -> Mapping[str, object]:
        """The task's own settings that a package gives which a run starts from; what `config` sets itself wins over them.

        Raises ConfigFault if the configuration asks for other maps than the package has.
        """
        ...

    def load(self, config: TrainConfig, report: Say) -> Lesson:
        """Read and split the images that a configuration names (`split_images` does the splitting).

        Raises ConfigFault if a file is missing or wrong, or if too few images are left for one of the parts.
        """
        ...

    def loss(self, config: TrainConfig, parts: int) -> Loss:
        """The loss. It is divided by `parts`, for batches that are cut into so many parts whose losses are added up."""
        ...

    def first_chance(self, config: TrainConfig) -> Mapping[int, float]:
        """What maps show everywhere before anything is learnt, by the number of the map; 0.5 for maps that are not named.

        A map that is almost everywhere 0 is learnt sooner if it begins so.
        """
        ...

    def metric(self) -> Loss:
        """What the curves show as accuracy: a share from 0 to 1 of targets and logits."""
        ...


def learning_of(task: str) -> Learning:
    """How networks of the task of that name are trained. Raises ConfigFault, naming the tasks there are, if they are not."""
    trained = [name for name in TASKS if task_named(name).learning is not None]
    if task not in trained:
        why = "is not trained by `cellcount train`" if task in TASKS else "is unknown"
        raise ConfigFault(f"task: {task!r} {why}{nearest(task, trained)}")
    module, _, name = str(task_named(task).learning).partition(":")
    learning: Learning = getattr(import_module(module), name)()
    return learning


def settings_model(tree: Mapping[str, object]) -> type[TrainConfig]:
    """The class of settings that a configuration is checked with, by its key `task`. Raises ConfigFault if there is none."""
    task = tree.get("task")
    return learning_of(str(TrainConfig.model_fields["task"].default if task is None else task)).settings


def train_config(tree: Mapping[str, object]) -> TrainConfig:
    """The settings in plain data. Raises pydantic's ValidationError if they are not valid, ConfigFault for an unknown task."""
    return settings_model(tree).model_validate(tree)


Image = TypeVar("Image", bound=Pictured)


@dataclass(frozen=True, slots=True)
class Images(Generic[Image]):
    """The images of a run, split by what they are used for (see `Lesson`)."""

    train: list[Image]
    fit: list[Image]
    watched: list[Image]
    validation: list[Image]


def split_images(
    config: TrainConfig,
    listing: Listing[Image],
    report: Say,
    *,
    stratum: Callable[[Image], str] | None = None,
) -> Images[Image]:
    """Read the listed images that a configuration names, and split them.

    Images of each `stratum` are split by themselves, so that each has its share in every part; a group belongs to the stratum that most of its
    images have.

    Raises ConfigFault if a file is wrong, or if too few images or groups are left for one of the parts.
    """
    data, roles = config.data, config.input.channels
    splits = listing.has_splits

    def of_split(name: str) -> list[Image]:
        return [entry.load(roles) for entry in choose(listing, name, data.modality)]

    rest = of_split(data.split if splits else "")
    fitted = of_split(data.fit_split) if splits and data.fit_split else []
    if data.fold is not None:
        rest += [*fitted, *(of_split(data.validation_split) if splits and data.validation_split else [])]
        fitted = []
        if len({image.group for image in rest}) == 1:
            raise ConfigFault(
                f"{listing.path}: its images are one group ({rest[0].group!r}), so no part of them can be held out; two groups (files, unless "
                "the data names groups) or more expected"
            )
        fold, folds = data.fold
        rest, validation = _by_strata(rest, stratum, lambda some: hold_out(some, fold, folds))
        how = f"fold {data.fold[0]} of {data.fold[1]} is measured"
    elif splits and data.validation_split:
        validation = of_split(data.validation_split)
        how = f"split {data.split!r} trains, {data.validation_split!r} is measured"
    else:
        rest, validation = _by_strata(rest, stratum, lambda some: split_groups(some, data.validation_share))
        how = f"{data.validation_share:.0%} of the groups are measured"
    train, fit = rest, fitted
    if not fitted:
        train, fit = _by_strata(rest, stratum, lambda some: split_groups(some, data.fit_share))
    if not train or not validation:
        raise ConfigFault(
            f"{listing.path}: {len(rest) + len(validation)} images leave none to {'measure' if train else 'train on'}; a group "
            "(file, unless the data names groups) is never cut in two: more images or groups, or a smaller share, expected"
        )
    report(
        f"data: {listing.path}: layout {listing.kind!r}, {len(train) + len(fit) + len(validation)} images; {how}"
    )
    if splits:
        asked = {data.split, data.fit_split, data.validation_split} - {""}
        of_modality = choose(listing, "", data.modality)
        report_left_out([entry.split for entry in of_modality if entry.split not in asked], report)
    whole = [image for image in fit if image.id not in data.partial]
    return Images(train, whole or train, fit or validation, validation)


def report_left_out(splits: Sequence[str], report: Say) -> None:
    """Tell how many images are in no part, by the splits that the data gives them ("" if it gives none)."""
    for split, number in sorted(Counter(splits).items()):
        what = f"of the split {split!r}" if split else "without a split"
        report(
            f"data: images in no part, {what}: {number:,} (data.split, data.fit_split and data.validation_split name the parts)"
        )


def _by_strata(
    images: Sequence[Image],
    stratum: Callable[[Image], str] | None,
    split: Callable[[Sequence[Image]], tuple[list[Image], list[Image]]],
) -> tuple[list[Image], list[Image]]:
    """Split the images of each stratum by themselves, and put the parts together."""
    if stratum is None:
        return split(images)
    of_group: dict[str, Counter[str]] = {}
    for image in images:
        of_group.setdefault(image.group, Counter())[stratum(image)] += 1
    strata: dict[str, list[Image]] = {}
    for image in images:
        held = of_group[image.group]
        strata.setdefault(max(sorted(held), key=lambda name: held[name]), []).append(image)
    kept: list[Image] = []
    taken: list[Image] = []
    for _, some in sorted(strata.items()):
        rest, part = split(some)
        kept, taken = kept + rest, taken + part
    return kept, taken


def split_groups(images: Sequence[Image], share: float) -> tuple[list[Image], list[Image]]:
    """Split the images into the rest and about `share` of them, without cutting a group in two.

    Groups are taken in the order of their SHA-1, so the same images are always split in the same way.
    """
    sizes = Counter(image.group for image in images)
    ordered = sorted(sizes, key=lambda group: hashlib.sha1(group.encode(), usedforsecurity=False).hexdigest())
    chosen: set[str] = set()
    for group in ordered:
        if sum(sizes[name] for name in chosen) >= share * len(images):
            break
        chosen.add(group)
    return [i for i in images if i.group not in chosen], [i for i in images if i.group in chosen]


def hold_out(images: Sequence[Image], fold: int, folds: int) -> tuple[list[Image], list[Image]]:
    """Split the images into the rest and those of one of `folds` parts (from 1), without cutting a group in two.

    Every group is in exactly one part. Groups are taken in the order of their SHA-1, each into the part that has the fewest images, so
    the same images are always split in the same way, and as many parts as groups have one group each.
    """
    sizes = Counter(image.group for image in images)
    filled = [0] * folds
    part: dict[str, int] = {}
    for group in sorted(
        sizes, key=lambda group: hashlib.sha1(group.encode(), usedforsecurity=False).hexdigest()
    ):
        part[group] = filled.index(min(filled))
        filled[part[group]] += sizes[group]
    kept = [image for image in images if part[image.group] != fold - 1]
    return kept, [image for image in images if part[image.group] == fold - 1]


def data_digest(lesson: Lesson, partial: Sequence[str] = ()) -> str:
    """SHA-256 of the labelled images of a run: pixels, what is true of them, groups, and what each image is used for.

    `partial` are the ids of `data.partial`. The digest is of what was read, so the same data elsewhere has the same one.
    """
    own: dict[int, bytes] = {}
    whole = hashlib.sha256()
    for part in (lesson.train, lesson.fit, lesson.watched, lesson.validation):
        whole.update(f"{len(part)};".encode())
        for image in part:
            # The lesson holds on to its images, so none gets the number of another.
            if id(image) not in own:
                own[id(image)] = _digest_of(image, partial)
            whole.update(own[id(image)])
    return whole.hexdigest()


def _digest_of(image: Pictured, partial: Sequence[str]) -> bytes:
    truth = image.truth
    if isinstance(image, WholeImage):
        # Its files stand for its pixels: a set that does not fit into memory is not decoded for this.
        whole = [image.id, image.group, sorted(truth.values.items()), list(image.roles), image.content.hex()]
        return hashlib.sha256(json.dumps(whole).encode()).digest()
    arrays = {**image.planes, "labels": truth.labels, "boxes": truth.boxes}
    present = {name: np.ascontiguousarray(array) for name, array in arrays.items() if array is not None}
    said = [
        image.id, image.group, image.id in partial, image.um_per_px, image.bit_max, truth.classes, sorted(truth.values.items()),
        [(name, array.dtype.str, array.shape) for name, array in present.items()],
    ]  # fmt: skip
    found = hashlib.sha256(json.dumps(said).encode())
    for array in present.values():
        found.update(array.data)
    return found.digest()


_TYPICAL_PIXELS = 256 * 256


def chances(images: Sequence[Pictured]) -> NDArray[np.float64]:
    """The chance of each image to be drawn, (n,) float64, summing to 1.

    It falls with the square root of the size of the image's group and grows with the square root of the image's area, so that neither
    a large group nor a large image crowds out the others.
    """
    sizes = Counter(image.group for image in images)
    areas = [next(iter(image.planes.values())).size for image in images]
    weights = np.array(
        [
            sizes[image.group] ** -0.5 * np.sqrt(max(1.0, area / _TYPICAL_PIXELS))
            for image, area in zip(images, areas, strict=True)
        ],
        np.float64,
    )
    return np.asarray(weights / weights.sum(), np.float64)
