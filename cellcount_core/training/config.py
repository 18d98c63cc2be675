"""What a training run is told: one YAML file, checked as a whole; unknown keys are refused.

`TrainConfig` holds the settings that all tasks share. A task adds its own (what the network gives, loss, augmentation) in a subclass,
which its `Learning` names; `learning.train_config` picks the one that belongs to the key `task`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar

from pydantic import Field, field_validator, model_validator

from cellcount_core.domain.errors import ConfigFault, ModelFault, nearest
from cellcount_core.domain.scales import Polarity
from cellcount_core.domain.settings import Place, Section, expanded
from cellcount_core.labelled.box_faults import BoxFault, policy_of
from cellcount_core.labelled.box_voc import Counting
from cellcount_core.labelled.boxes import BoxData, BoxReading, list_boxes
from cellcount_core.models.families import family_named
from cellcount_core.models.package import InputSpec

if TYPE_CHECKING:
    import keras


Told = dict[str, object]
"""Plain values by name. In a class of settings, whose own `object` is what is counted, the type needs a name from outside."""


class DataConfig(Section):
    """Where labelled images come from.

    `kind` is the layout, or "auto" for whatever the path looks like; which layouts there are depends on the task. `split` and
    `validation_split` name splits of the data. If the data has no splits, or `validation_split` is "", `validation_share` of the groups
    is set aside. Thresholds are fitted on `fit_split`, whose images never train; if it is "", `fit_share` of the training groups are set
    aside for that. `partial` lists the ids of images in which only a part of the objects is labelled: they train, but neither thresholds
    nor intervals are fitted on them.

    `fold` (k, n) holds out the k-th (from 1) of n parts of the groups, whatever split they are of, and measures on that part (see
    training/folds.py, which sets it).
    """

    kind: str = "folder"
    path: str
    split: str = "train"
    validation_split: str = "val"
    validation_share: float = Field(0.2, gt=0, lt=1)
    modality: tuple[str, ...] = ()
    fit_split: str = ""
    fit_share: float = Field(0.1, ge=0, lt=0.5)
    partial: tuple[str, ...] = ()
    title: str = ""
    licence: str = ""
    fold: tuple[int, int] | None = None

    def resolved(self) -> Path:
        """The path with environment variables replaced by their values. Raises ConfigFault if one is not set.

        They are replaced only when the data is read, so that the data may lie elsewhere on another machine and the run is still the
        same.
        """
        try:
            return Path(expanded(self.path, os.environ))
        except ValueError as fault:
            raise ConfigFault(f"data.path: {fault}") from None


class BoxDataConfig(DataConfig):
    """Where images with boxes come from: Pascal VOC, COCO or YOLO (see labelled/boxes.py).

    `faults` says what is done about each kind of fault ("zero_area": "skip"), beside what is usual; `skip_faulty` leaves out whatever
    would be refused. `corners` says what the numbers in Pascal VOC files are. `table` is a CSV with the split, group or modality of each
    `image`; environment variables are replaced in it as in `path`.
    """

    kind: Literal["auto", "voc", "coco", "yolo"] = "auto"
    faults: dict[str, str] = Field(default_factory=dict)
    skip_faulty: bool = False
    corners: Counting = "edges"
    table: str = ""

    @field_validator("faults")
    @classmethod
    def _known_faults(cls, faults: dict[str, str]) -> dict[str, str]:
        try:
            policy_of(faults)
        except ConfigFault as fault:
            raise ValueError(str(fault)) from None
        return faults

    def listed(self, classes: tuple[str, ...] = ()) -> BoxData:
        """The images, not yet read, with boxes of these classes (() for those that the data names).

        Raises ConfigFault with the report of all faults if one of them is refused.
        """
        return list_boxes(
            self.resolved(),
            BoxReading(
                self.kind,
                classes=classes,
                policy=policy_of(self.faults, list(BoxFault) if self.skip_faulty else ()),
                counting=self.corners,
                table=Path(expanded(self.table, os.environ)) if self.table else None,
            ),
        )


class InputConfig(Section):
    """The channels, the scale and the normalisation that the network is trained for (see images/normalise.py).

    `channels` are the package's roles, in the order of the network's inputs; `channel: nuclei` is short for one of them.
    """

    channels: tuple[str, ...] = Field(("nuclei",), min_length=1)
    diameter_px: float | None = Field(20.0, gt=0)
    percentile: float = Field(99.8, gt=50, le=100)
    floor_sigmas: float = Field(12.0, ge=0)
    polarity: Polarity = "auto"

    @model_validator(mode="before")
    @classmethod
    def _one_channel(cls, given: object) -> object:
        if not isinstance(given, dict) or given.get("channel") is None:
            return given
        if "channels" in given:
            raise ValueError("channel and channels are both given: one of them expected")
        return {
            **{key: value for key, value in given.items() if key != "channel"},
            "channels": [given["channel"]],
        }

    @field_validator("channels")
    @classmethod
    def _each_once(cls, channels: tuple[str, ...]) -> tuple[str, ...]:
        if not all(channels) or len({name.casefold() for name in channels}) < len(channels):
            raise ValueError("every channel must have a name of its own")
        return channels

    def spec(self) -> InputSpec:
        """The same values as a package states them."""
        return InputSpec(
            self.channels, self.diameter_px, self.percentile, self.floor_sigmas, polarity=self.polarity
        )


class OptimiserConfig(Section):
    """The optimiser: `kind`, peak learning rate, decoupled weight decay, schedule, warm-up, and averaging of the
    weights (`ema`, 0 for none).

    Schedule "trapezoid" holds the peak and falls linearly over the last `decay_share` of the steps. Such a run may be
    made longer or shorter (`steps`) as long as the rate has not begun to fall.
    """

    kind: Literal["adamw", "rmsprop"] = "adamw"
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    schedule: Literal["cosine", "constant", "trapezoid"] = "cosine"
    decay_share: float = Field(0.3, gt=0, le=1)
    warmup_steps: int = Field(200, ge=0)
    ema: float = Field(0.998, ge=0, lt=1)


class TrainConfig(Section):
    """A training run and the package it ends in.

    `task` is what the package is for. The length is `steps`, or `epochs` over the training images. `work_dir` (checkpoints, curves)
    lies outside any repository and keeps what a killed run needs to continue; `package_dir` receives the package.

    `start_from`, the name or folder of a package, gives the first weights and whatever is left out here: network, object, input and
    what belongs to the task (see training/start.py). Every `validate_every` steps (0: never) the watched images are looked at whole.
    `data_parallel` "auto" shares each batch among the GPUs of this machine. `int8` "auto" tries the network in 8-bit integers, and
    ships it if it counts as float32 does; "off" leaves it out. With `stop_after` a run ends when the validation loss has not fallen for so
    many checkpoints (0: never), and the checkpoint at which it was lowest is the one that counts.
    """

    kinds: ClassVar[tuple[str, ...]] = ()
    """The values of `data.kind` that the task can read."""

    family: ClassVar[str] = "unet"
    """The family of the networks that the task trains (models/families/)."""

    name: str = Field(min_length=1)
    version: str = "1.0.0"
    description: str = ""
    task: str = "instances"
    object: str = "Nuclei"
    data: DataConfig
    input: InputConfig = InputConfig()
    network: dict[str, int | float | str | bool | list[int]] = Field(default_factory=dict)
    start_from: Place = ""
    optimiser: OptimiserConfig = OptimiserConfig()
    steps: int = Field(0, ge=0)
    epochs: int = Field(0, ge=0)
    batch: int = Field(16, ge=1)
    crop_px: int = Field(256, ge=8)
    seed: int = 0
    dtype: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    threads: int = Field(0, ge=0)
    data_parallel: Literal["auto", "off"] = "auto"
    int8: Literal["auto", "off"] = "auto"
    stop_after: int = Field(0, ge=0)
    checkpoint_every: int = Field(250, ge=1)
    validate_every: int = Field(1000, ge=0)
    work_dir: Place
    package_dir: Place

    def outputs(self) -> tuple[str, ...]:
        """Names of the maps that the network gives, in order. Every task's settings say it."""
        raise NotImplementedError

    def package_name(self) -> str:
        """The name of the package, by which it can be told from one that is not to be counted with."""
        return self.name

    def taught_nothing(self) -> str:
        """Why there is nothing that a training of these settings could learn, in words; "" as a rule."""
        return ""

    def in_fold(self, fold: int, folds: int) -> Told:
        """The settings that hold out the part `fold` (from 1) of `folds`."""
        return {"data": self.data.model_copy(update={"fold": (fold, folds)})}

    def partial(self) -> tuple[str, ...]:
        """The ids of images in which only a part of the objects is labelled."""
        return self.data.partial

    def modalities(self) -> tuple[str, ...]:
        """The kinds of images that train, as the data names them."""
        return self.data.modality

    def sources_told(self) -> Told:
        """What the manifest says of the data that trains: `data` and `licence`."""
        return {
            "data": f"{self.data.title or self.data.kind}, split {self.data.split}",
            "licence": self.data.licence,
        }

    def measured_on(self) -> str:
        """What the manifest says of the data that the accuracy is measured on."""
        return f"{self.data.title or self.data.kind}, split {self.data.validation_split}"

    def begin(self, network: keras.Model) -> None:
        """Set weights that a new network begins with and that are not drawn. Most have none."""

    def of_network(self) -> dict[str, int | float | str | bool | list[int]]:
        """What of the network's configuration follows from other settings, beside its ends."""
        return {}

    @model_validator(mode="after")
    def _fits_together(self) -> TrainConfig:
        if self.kinds and self.data.kind not in self.kinds:
            raise ValueError(f"data.kind: {self.data.kind!r} is unknown{nearest(self.data.kind, self.kinds)}")
        if self.steps and self.epochs:
            raise ValueError(
                f"steps ({self.steps}) and epochs ({self.epochs}) are both set: one of them expected; 0 takes the other back (--set epochs=0)"
            )
        if not self.steps and not self.epochs:
            raise ValueError("neither steps nor epochs is set: one of them expected (a number above 0)")
        if self.network:
            self._network_fits()
        elif not self.start_from:
            raise ValueError("network is needed where start_from names no package to take it from")
        return self

    def _network_fits(self) -> None:
        # A network's ends follow from what it looks at and what it is to tell; they need not be said.
        # One is what a network has without a word, so configurations of older versions keep their digest.
        ends = {"inputs": len(self.input.channels), "outputs": len(self.outputs())}
        for name in (name for name, number in ends.items() if number > 1):
            self.network.setdefault(name, ends[name])
        for name, value in self.of_network().items():
            if self.network.setdefault(name, value) != value:
                raise ValueError(
                    f"network.{name}: {value!r} follows from the other settings (got {self.network[name]!r}); leave it out"
                )
        try:
            family = family_named(self.family)
            spec, total = family.parse(self.network), family.stride(self.network)
        except ModelFault as fault:
            raise ValueError(str(fault)) from fault
        inputs, outputs = len(self.input.channels), len(self.outputs())
        if spec.outputs != outputs or spec.inputs != inputs:
            raise ValueError(
                f"network: inputs {inputs} and outputs {outputs} expected (got {spec.inputs} and {spec.outputs}): "
                f"one for each of the channels {', '.join(self.input.channels)} and of the outputs {', '.join(self.outputs())}"
            )
        if self.crop_px % total:
            raise ValueError(
                f"crop_px: a multiple of the network's stride {total} expected (got {self.crop_px})"
            )


Own = TypeVar("Own", bound=TrainConfig)


def own_settings(config: TrainConfig, expected: type[Own]) -> Own:
    """The settings of a task's own class, in which its `Learning` was given them. Raises TypeError for those of another task."""
    if not isinstance(config, expected):
        raise TypeError(f"{expected.__name__} expected (got {type(config).__name__})")
    return config
