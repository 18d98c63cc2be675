"""The labelled images of a run from one or several laboratories: their settings, what is ignored in them, and reading them.

    data:
      - {name: dsb, path: ${DATA}/dsb2018_nuclei, split: train, modality: [fluorescence], licence: CC0-1.0}
      - {name: kromp, path: ${DATA}/kromp2020, split: train, weight: 1, ignore: {bright: true}, licence: CC0-1.0}

Images of a source that has a name are called `<name>/<id>`, and so are their groups, so that two sources may use the same names.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.domain.settings import Section, expanded
from cellcount_core.labelled.dataset import list_labelled
from cellcount_core.labelled.image import IMAGE_SUFFIXES, LabelledImage
from cellcount_core.labelled.label_files import read_indices
from cellcount_core.tasks.instances.score import without_ignored
from cellcount_core.training.config import DataConfig, TrainConfig
from cellcount_core.training.learning import Images, Say, split_images

_NEAR_PX = 3
_SIGMA_PX = 1.0
_DARK = 0.25
_BRIGHT = 0.35


class IgnoreConfig(Section):
    """Which pixels of a source teach nothing and are not judged, because the labels do not say what they show.

    `bright` are those without a label that are as bright as objects are: blurred or broken nuclei that nobody outlined. `label` is a number
    in the label images that means "not labelled here". `regions` is a folder with a mask for each image that has such places: a file
    of the image's id, in which every number but 0 says so.
    """

    bright: bool = False
    label: int | None = Field(None, ge=1)
    regions: str = ""


class SourceConfig(DataConfig):
    """Where labelled images of one laboratory come from: the settings of `data` (training/config.py), and three of their own.

    `weight` is the share of the crops that are of this source, against the weights of the others. `name` is what figures are told
    under; it is needed where there are several sources. `ignore` says which pixels teach nothing.
    """

    name: str = ""
    weight: float = Field(1.0, gt=0)
    ignore: IgnoreConfig = IgnoreConfig()

    def called(self, image: str) -> str:
        """What an image or group of this source is called in a run."""
        return f"{self.name}/{image}" if self.name else image


def load_sources(
    config: TrainConfig, sources: Sequence[SourceConfig], report: Say
) -> tuple[Images[LabelledImage], dict[str, str]]:
    """Read and split the images of every source, and put the parts together. Also the name of each image's source, by the image's id, unless
    there is one source without a name.

    Raises ConfigFault as `list_labelled` and `split_images` do.
    """
    parts: Images[LabelledImage] = Images([], [], [], [])
    of_image: dict[str, str] = {}
    aside = False
    for source in sources:
        report(f"data: reading {source.resolved()}")
        listing = list_labelled(source.resolved(), source.kind, config.input.channels)
        read = split_images(config.model_copy(update={"data": source}), listing, report)
        # An image may be in two parts; it stays one image, so that what is made of it is made once.
        if len(sources) == 1 and not source.name and source.ignore == IgnoreConfig():
            return read, {}
        known: dict[int, LabelledImage] = {}
        for name in ("train", "fit", "watched", "validation"):
            for image in getattr(read, name):
                if id(image) not in known:
                    known[id(image)] = of_source(image, source)
                    of_image[known[id(image)].id] = source.name
                getattr(parts, name).append(known[id(image)])
        aside |= read.fit is not read.train
        if source.ignore != IgnoreConfig():
            share = np.mean([ignored_share(image) for image in known.values()])
            report(f"data: {source.resolved()}: {share:.1%} of the pixels are ignored")
    # A lesson that sets nothing aside says so by having one list for both.
    return (parts if aside else replace(parts, fit=parts.train)), of_image


def of_source(image: LabelledImage, source: SourceConfig) -> LabelledImage:
    """The image under its name in the run, without the labels that mean "not labelled here", and with what is ignored in it."""
    ignored = np.zeros(image.labels.shape, bool)
    labels = image.labels
    if source.ignore.label is not None:
        ignored |= labels == source.ignore.label
        labels = np.where(ignored, 0, labels).astype(np.int32)
    if source.ignore.regions:
        ignored |= _regions(image, source)
        labels = without_ignored(labels, ignored)
    if source.ignore.bright:
        ignored |= bright_unlabelled(image.plane, labels)
    return replace(
        image,
        id=source.called(image.id),
        group=source.called(image.group),
        labels=labels,
        ignored=ignored if ignored.any() else None,
    )


def ignored_share(image: LabelledImage) -> float:
    """The share of the image's pixels that are ignored."""
    return 0.0 if image.ignored is None else float(image.ignored.mean())


def bright_unlabelled(plane: NDArray[np.generic], labels: NDArray[np.int32]) -> NDArray[np.bool_]:
    """The pixels (H, W) further than 3 px from any object that are brighter than the dark ones by more than 35 % of what objects are.

    The plane is smoothed (sigma 1 px). Dark is the lower quartile of what is not near an object, and objects have their median. Nothing is
    ignored in an image without objects, or in which objects are not brighter.
    """
    near = cv2.dilate((labels > 0).astype(np.uint8), np.ones((2 * _NEAR_PX + 1,) * 2, np.uint8)) > 0
    if not near.any() or near.all():
        return np.zeros(labels.shape, bool)
    smooth = np.asarray(cv2.GaussianBlur(plane.astype(np.float32), (0, 0), _SIGMA_PX))
    dark = float(np.quantile(smooth[~near], _DARK))
    light = float(np.median(smooth[labels > 0])) - dark
    if light <= 0:
        return np.zeros(labels.shape, bool)
    return np.asarray(~near & (smooth > dark + _BRIGHT * light), np.bool_)


def _regions(image: LabelledImage, source: SourceConfig) -> NDArray[np.bool_]:
    try:
        folder = Path(expanded(source.ignore.regions, os.environ))
    except ValueError as fault:
        raise ConfigFault(f"data.ignore.regions: {fault}") from None
    if not folder.is_dir():
        raise ConfigFault(f"data.ignore.regions: {folder}: no such folder; a folder of masks expected")
    file = next(
        (folder / f"{image.id}{end}" for end in IMAGE_SUFFIXES if (folder / f"{image.id}{end}").is_file()),
        None,
    )
    if file is None:
        return np.zeros(image.labels.shape, bool)
    mask = read_indices(file) > 0
    if mask.shape != image.labels.shape:
        raise ConfigFault(
            f"{file}: a mask of {mask.shape} (height, width), the image has {image.labels.shape}: one size expected"
        )
    return np.asarray(mask, np.bool_)
