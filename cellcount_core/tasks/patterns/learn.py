"""How networks are trained that tell which patterns an image shows: settings, the lesson of a run, and what is fitted to it."""

from __future__ import annotations

import builtins
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.domain.settings import Section, expanded
from cellcount_core.labelled.leaks import Pair, found_groups, kinds, pairs_of
from cellcount_core.labelled.patterns import (
    STRUCTURES,
    PatternData,
    PatternReading,
    list_patterns,
    pattern_names,
    patterns_of,
    skipping,
)
from cellcount_core.labelled.whole import WholeEntry, WholeImage
from cellcount_core.models.engines import Engine
from cellcount_core.models.package import Package
from cellcount_core.tasks.patterns.fit import FEWEST_IMAGES, Thresholds, fit_thresholds
from cellcount_core.tasks.patterns.score import FLAT, Shown, at_thresholds, flat, macro_f1, never_found
from cellcount_core.tasks.patterns.task import PatternsSection
from cellcount_core.tasks.task import read_section
from cellcount_core.training.config import DataConfig, TrainConfig, own_settings
from cellcount_core.training.learning import Images, Loss, Say, report_left_out
from cellcount_core.training.stratify import stratified_folds, stratified_parts
from cellcount_core.training.whole import WholeConfig, WholeLesson, vectors_of

if TYPE_CHECKING:
    import keras

_MOST_WATCHED = 300
_FIRST_THRESHOLD = 0.5


class PatternDataConfig(DataConfig):
    """Where images of patterns come from.

    `path` is the folder of the images, or the table, which is a CSV with the columns Id and Target; `table` names it if it lies elsewhere.
    `skip` lists the kinds of fault (labelled/patterns.py) of which what is faulty is left out instead of refused: no_image, no_channel, …
    Without splits the images are split so that each part has its share of every pattern. Images that are copies of each other (the same pixels, turned
    ones, or hardly to be told apart) are put "together" on one side, beside those of one `group`; "ignore" does not look for them.
    """

    kind: Literal["auto", "patterns"] = "patterns"
    table: str = ""
    skip: tuple[str, ...] = ()
    copies: Literal["together", "ignore"] = "together"
    fit_share: float = Field(0.2, gt=0, lt=0.5)

    @field_validator("skip")
    @classmethod
    def _known_faults(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        try:
            skipping(kinds)
        except ConfigFault as fault:
            raise ValueError(str(fault)) from None
        return kinds

    def listed(self, roles: Sequence[str], names: Sequence[str]) -> PatternData:
        """The images, not yet read. Raises ConfigFault with the report of all faults if one of them is refused."""
        table = Path(expanded(self.table, os.environ)) if self.table else None
        by_split = self.validation_split and self.fold is None
        splits = [self.split, self.fit_split, self.validation_split] if by_split else []
        reading = PatternReading(table, skipping(self.skip), [*filter(None, splits)], "decoded")
        return list_patterns(self.resolved(), roles, names, reading)


class PatternLossConfig(Section):
    """What an error costs.

    "cross_entropy" is that of each pattern by itself; "focal" makes what is told rightly count less, the more the larger `focusing` is (Lin et
    al. 2017). An image that shows a pattern weighs (others / own) ^ `rarity` times as much for that pattern, but at most `most` times: 0 weighs
    all alike.
    """

    kind: Literal["focal", "cross_entropy"] = "focal"
    focusing: float = Field(1.0, ge=0)
    rarity: float = Field(0.25, ge=0, le=1)
    most: float = Field(8.0, ge=1)


class PatternsConfig(WholeConfig):
    """The training of a network that tells which patterns an image shows.

    `patterns` are their names in the order of their numbers: a list, the path of a CSV (columns number and name), or "structures", the 28 of the Human
    Protein Atlas. Images are drawn the more often the rarer their rarest pattern is: as 1 / images ^ `balance`.
    """

    kinds: ClassVar[tuple[str, ...]] = ("auto", "patterns")
    output: ClassVar[str] = "sigmoid"

    data: PatternDataConfig
    patterns: tuple[str, ...] = pattern_names(STRUCTURES)
    loss: PatternLossConfig = PatternLossConfig()
    balance: float = Field(0.5, ge=0, le=1)

    @field_validator("patterns", mode="before")
    @classmethod
    def _names(cls, given: builtins.object) -> builtins.object:
        if not isinstance(given, str | list | tuple):
            return given
        try:
            named = expanded(given, os.environ) if isinstance(given, str) else [str(name) for name in given]
            return pattern_names(named)
        except (ConfigFault, ValueError) as fault:
            raise ValueError(str(fault)) from None

    def outputs(self) -> tuple[str, ...]:
        """The patterns."""
        return self.patterns


class PatternsLearning:
    """How networks that tell patterns are trained."""

    settings: type[TrainConfig] = PatternsConfig

    def taken(self, config: TrainConfig, package: Package) -> Mapping[str, object]:
        """The patterns and the side of the package, which the configuration must name too."""
        section, own = read_section(PatternsSection, package), own_settings(config, PatternsConfig)
        if (own.patterns, own.crop_px) != (section.patterns, section.side_px):
            raise ConfigFault(
                f"start_from: package {package.name!r} tells {len(section.patterns)} patterns ({section.patterns[0]!r}, …) in images of "
                f"{section.side_px} px, the configuration asks for {len(own.patterns)} ({own.patterns[0]!r}, …) in {own.crop_px} px: name the same"
            )
        return {"patterns": section.patterns}

    def load(self, config: TrainConfig, report: Say) -> PatternLesson:
        """List and split the images of a table of patterns. Raises ConfigFault with all faults of the annotations that are refused."""
        own = own_settings(config, PatternsConfig)
        data = own.data.listed(own.input.channels, own.patterns)
        for line in data.report.lines():
            report(line)
        return PatternLesson(own, split_patterns(own, data, report))

    def loss(self, config: TrainConfig, parts: int) -> Loss:
        """Cross-entropy, focal if it is asked for, of targets (B, 2 K): what is shown, and how much the error weighs; with logits (B, K)."""
        from keras import ops

        own = own_settings(config, PatternsConfig).loss
        focusing = own.focusing if own.kind == "focal" else 0.0

        def loss(targets: keras.KerasTensor, logits: keras.KerasTensor) -> keras.KerasTensor:
            count = targets.shape[-1] // 2
            shown, weights = targets[:, :count], targets[:, count:]
            logits = ops.cast(logits, "float32")
            # The logarithm of the chance that is given to what is true.
            right = -ops.softplus(ops.where(shown > 0.5, -logits, logits))
            error = -right * (1.0 - ops.exp(right)) ** focusing if focusing else -right
            return ops.mean(ops.sum(weights * error, axis=-1)) / parts

        return loss

    def first_chance(self, config: TrainConfig) -> Mapping[int, float]:
        """Most patterns are rare."""
        return dict.fromkeys(range(len(own_settings(config, PatternsConfig).patterns)), 0.05)

    def metric(self) -> Loss:
        """Micro F1 at a probability of 0.5."""
        from keras import ops

        def f1(targets: keras.KerasTensor, logits: keras.KerasTensor) -> keras.KerasTensor:
            count = targets.shape[-1] // 2
            shown = targets[:, :count]
            told = ops.cast(logits > 0, "float32")
            return 2 * ops.sum(told * shown) / (ops.sum(told) + ops.sum(shown) + 1e-6)

        return f1


def split_patterns(config: PatternsConfig, data: PatternData, report: Say) -> Images[WholeImage]:
    """Split the images into those that train, those that thresholds are fitted on, and those that the accuracy is measured on (a second
    hold-out): by the splits that the table names, or else stratified. No group is cut in two.

    Raises ConfigFault if a part is left without images.
    """
    own, roles = config.data, config.input.channels
    entries = [entry for entry in data.entries if not own.modality or entry.modality in ("", *own.modality)]
    if own.copies == "together":
        entries = with_copies(entries, config, report)
    named = any(entry.split for entry in entries)
    part = np.zeros(len(entries), np.int64)
    if own.fold is not None:
        fold, folds = own.fold
        part[_folds_of(entries, config, folds) == fold - 1] = 2
        how = f"fold {fold} of {folds} is measured"
    elif named and own.validation_split:
        part[:] = [
            {own.split: 0, own.fit_split or None: 1, own.validation_split: 2}.get(entry.split, -1)
            for entry in entries
        ]
        how = f"split {own.split!r} trains, {own.validation_split!r} is measured"
    else:
        part[:] = _parts_of(entries, config, (1 - own.validation_share, own.validation_share)) * 2
        how = f"validation_share is {own.validation_share:.0%}, as near as whole groups and a share of every pattern allow"
    if not (part == 1).any():
        rest = np.flatnonzero(part == 0)
        some = [entries[at] for at in rest]
        part[rest] = _parts_of(some, config, (1 - own.fit_share, own.fit_share))
    report_left_out([entry.split for entry, number in zip(entries, part, strict=True) if number < 0], report)
    groups: dict[str, set[int]] = {}
    for entry, number in zip(entries, part, strict=True):
        groups.setdefault(entry.group or entry.id, set()).add(int(number))
    cut = next((name for name, parts in groups.items() if len(parts - {-1}) > 1), None)
    if cut is not None:
        raise ConfigFault(f"{data.path}: images of group {cut!r} are in several splits: one of them expected")
    train, fit, validation = (
        [entry.load(roles) for entry, number in zip(entries, part, strict=True) if number == wanted]
        for wanted in range(3)
    )
    for images, what in ((train, "train on"), (fit, "fit thresholds on"), (validation, "measure")):
        if not images:
            raise ConfigFault(
                f"{data.path}: {len(entries)} images leave none to {what}; more images or groups, or another share, expected"
            )
    if len(fit) < FEWEST_IMAGES:
        raise ConfigFault(
            f"{data.path}: {len(fit)} of {len(entries)} images are left to fit thresholds on, {FEWEST_IMAGES} or more expected: a larger "
            f"data.fit_share ({own.fit_share:g}{f', or data.fit_split ({own.fit_split!r})' if own.fit_split else ''}) or more images"
        )
    report(
        f"{data.path}: {len(train)} images train, thresholds are fitted on {len(fit)}, {len(validation)} are measured; {how}"
    )
    return Images(train, fit, fit, validation)


def _shrunk(found: Thresholds) -> str:
    """In words, how far thresholds were drawn towards a common one."""
    if not found.strength:
        return f"each by itself ({found.common:.3f} for a pattern of too few images)"
    return f"each drawn towards one of {found.common:.3f} for all, which weighs as much as {found.strength:g} images that show its pattern"


def with_copies(entries: Sequence[WholeEntry], config: PatternsConfig, report: Say) -> list[WholeEntry]:
    """The entries, copies of one image in one group, with those that the table puts into one with any of them.

    Raises ConfigFault naming a file that cannot be read.
    """
    roles, work_dir = config.input.channels, Path(config.work_dir).expanduser()
    pairs = [
        pair
        for pair in pairs_of([entry.load(roles) for entry in entries], work_dir, report, scenes="skip")
        if pair.kind != "scene"
    ]
    if not pairs:
        return list(entries)
    report(
        f"{len(pairs)} pairs of copies, which are put on one side of the split ({kinds(pairs)}): {pairs[0]}, …"
    )
    first: dict[str, str] = {}
    for entry in entries:
        if entry.group:
            first.setdefault(entry.group, entry.id)
    told = [Pair(first[entry.group], entry.id, "identical") for entry in entries if entry.group]
    groups = found_groups([entry.id for entry in entries], [*pairs, *told])
    return [entry.of_group(groups[entry.id]) for entry in entries]


def shown_of(images: Sequence[WholeImage | WholeEntry], names: Sequence[str]) -> Shown:
    """Which image shows which of the patterns, (N, K)."""
    shown = np.zeros((len(images), len(names)), bool)
    for row, image in zip(shown, images, strict=True):
        for name in patterns_of(image.values):
            row[names.index(name)] = True
    return shown


def _parts_of(
    entries: Sequence[WholeEntry], config: PatternsConfig, shares: Sequence[float]
) -> NDArray[np.int64]:
    groups = [entry.group or entry.id for entry in entries]
    return stratified_parts(shown_of(entries, config.patterns), groups, shares)


def _folds_of(entries: Sequence[WholeEntry], config: PatternsConfig, folds: int) -> NDArray[np.int64]:
    groups = [entry.group or entry.id for entry in entries]
    return stratified_folds(shown_of(entries, config.patterns), groups, folds)


class PatternLesson(WholeLesson):
    """The images of a run whose truth is the patterns that they show."""

    def __init__(self, config: PatternsConfig, images: Images[WholeImage]) -> None:
        super().__init__(config, images)
        self._config = config
        shown = shown_of(self.train, config.patterns)
        self._numbers = shown.sum(axis=0)
        lacking = [name for name, number in zip(config.patterns, self._numbers, strict=True) if not number]
        if len(lacking) == len(config.patterns):
            raise ConfigFault("data: no training image shows any of the patterns")
        others = (len(shown) - self._numbers) / np.maximum(1, self._numbers)
        self._weights = np.clip(others, 1, None) ** config.loss.rarity
        self._weights = np.clip(self._weights, 1, config.loss.most).astype(np.float32)
        self.lacking = tuple(lacking)

    def targets(self, image: WholeImage) -> NDArray[np.float32]:
        """1 for each pattern that is shown, else 0; and behind them how much an error weighs."""
        shown = shown_of([image], self._config.patterns)[0]
        return np.concatenate(
            [shown.astype(np.float32), np.where(shown, self._weights, 1).astype(np.float32)]
        )

    def weights(self, images: Sequence[WholeImage]) -> NDArray[np.float64]:
        """The more, the rarer the image's rarest pattern; less in large groups."""
        groups = Counter(image.group for image in images)
        shown = shown_of(images, self._config.patterns)
        rarity = np.where(shown, np.maximum(1, self._numbers) ** -self._config.balance, 0.0).max(axis=1)
        common = np.median(rarity[rarity > 0]) if (rarity > 0).any() else 1.0
        rarity[rarity == 0] = common
        return np.asarray(
            [one * groups[image.group] ** -0.5 for one, image in zip(rarity, images, strict=True)]
        )

    def watch(self, maps: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> dict[str, float]:
        """Macro F1 at a probability of 0.5 over at most 300 watched images."""
        count = min(_MOST_WATCHED, len(self.watched))
        images = [self.watched[at * len(self.watched) // count] for at in range(count)]
        told = np.array([maps(self.views(image)[0])[: len(self._config.patterns)] for image in images])
        value = macro_f1(flat(told, _FIRST_THRESHOLD), shown_of(images, self._config.patterns))
        return {"macro_f1": value} if np.isfinite(value) else {}

    def section(self, _: Mapping[str, object], report: Say) -> dict[str, object]:
        """Patterns and side, and thresholds before they are fitted."""
        if self.lacking:
            report(
                f"no training image shows {', '.join(self.lacking)}: the network cannot know what they look like"
            )
        count = len(self._config.patterns)
        return {
            "patterns": list(self._config.patterns), "thresholds": [_FIRST_THRESHOLD] * count, "side_px": self._config.crop_px,
        }  # fmt: skip

    def fitted(self, package: Package, engine: Engine, report: Say) -> dict[str, object]:
        """The threshold of each pattern, fitted on the images set aside, and what was reached there."""
        count = len(self._config.patterns)
        vectors = vectors_of(package, engine, self.fit, self._config)
        chances = np.stack([each[0, :count] for each in vectors]).astype(np.float64)
        shown = shown_of(self.fit, self._config.patterns)
        found = fit_thresholds(chances, shown, self._config.seed)
        at = ", ".join(f"{macro_f1(flat(chances, each), shown):.3f} at {each:g}" for each in FLAT)
        own = macro_f1(at_thresholds(chances, found.values), shown)
        report(
            f"thresholds fitted on {len(self.fit)} images, {_shrunk(found)}: macro F1 {own:.3f} on these, {found.macro_f1:.3f} on those of them that were not fitted to ({at} for all patterns)"
        )
        for line in never_found(self._config.patterns, found.values):
            report(line)
        return {
            "thresholds": list(found.values), "common_threshold": found.common, "strength": found.strength,
            "threshold_images": list(found.shown),
        }  # fmt: skip
