"""The images of a run and what each is for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.labelled.dataset import choose, list_labelled
from cellcount_core.labelled.image import LabelledImage
from cellcount_core.training.batches import split_groups
from cellcount_core.training.config import TrainConfig


@dataclass(frozen=True, slots=True)
class Images:
    """The images of a run.

    `fit`: thresholds are fitted on them (the training images where none are set aside). `watched`: none of them trains, and
    the validation curve is theirs. `validation`: the accuracy in the package is theirs.
    """

    train: list[LabelledImage]
    fit: list[LabelledImage]
    watched: list[LabelledImage]
    validation: list[LabelledImage]


def load_images(config: TrainConfig, *, report: Callable[[str], None] | None = None) -> Images:
    """Read the images a configuration names and split them. Raises ConfigFault naming what is wrong with them."""
    data = config.data
    listing = list_labelled(data.resolved(), data.kind)
    splits = listing.has_splits
    rest = [entry.load() for entry in choose(listing, data.split if splits else "", data.modality)]
    if splits and data.validation_split:
        held_back = choose(listing, data.validation_split, data.modality)
        validation = [entry.load() for entry in held_back]
        how = f"split {data.split!r} trains, {data.validation_split!r} is measured"
    else:
        rest, validation = split_groups(rest, data.validation_share)
        how = f"{data.validation_share:.0%} of the groups are measured"
    train, fit = split_groups(rest, data.fit_share)
    if not train or not validation:
        raise ConfigFault(
            f"{listing.path}: {len(rest) + len(validation)} images leave none to {'measure' if train else 'train on'}; a group "
            "(file, unless the data names groups) is never cut in two: more images or groups, or a smaller share, expected"
        )
    if report is not None:
        report(f"data: {listing.path}: layout {listing.kind!r}, {len(rest) + len(validation)} images; {how}")
    whole = [image for image in fit if image.id not in data.partial]
    return Images(train, whole or train, fit or validation, validation)
