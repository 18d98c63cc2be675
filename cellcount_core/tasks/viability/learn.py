"""How networks are trained that tell living and dead cells by the picture: as those that find boxes, with classes that stand for live or dead."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from cellcount_core.labelled.boxes import BoxedImage
from cellcount_core.models.engines import Engine
from cellcount_core.models.package import Package
from cellcount_core.tasks.boxes.learn import BoxesConfig, BoxesLearning, BoxLesson, boxed_images
from cellcount_core.tasks.viability.columns import DEAD, LIVE
from cellcount_core.training.config import TrainConfig, own_settings
from cellcount_core.training.learning import Images, Say


class ViabilityTraining(BoxesConfig):
    """The training of a network that tells viability by the picture.

    `stands_for` says for each class of the boxes what it stands for: `{Living Cell: live, Dead Cell: dead}`. `classes` are its keys.
    """

    stands_for: dict[str, str] = Field(min_length=2)

    @model_validator(mode="before")
    @classmethod
    def _classes(cls, given: builtins.object) -> builtins.object:
        named = given.get("stands_for") if isinstance(given, dict) else None
        if not isinstance(given, dict) or not isinstance(named, dict) or "classes" in given:
            return given
        return {**given, "classes": list(named)}

    @model_validator(mode="after")
    def _both(self) -> ViabilityTraining:
        if {*self.stands_for.values()} != {LIVE, DEAD} or tuple(self.stands_for) != self.classes:
            raise ValueError(
                f"stands_for: every class as {LIVE} or {DEAD}, and one of each at least, expected (got {self.stands_for})"
            )
        return self


class ViabilityLearning(BoxesLearning):
    """How networks that tell viability by the picture are trained."""

    settings: type[TrainConfig] = ViabilityTraining

    def taken(self, config: TrainConfig, package: Package) -> Mapping[str, object]:
        """The classes of the package, which the configuration must name too."""
        return super().taken(config, _of_boxes(package))

    def load(self, config: TrainConfig, report: Say) -> ViabilityLesson:
        """Read and split images with boxes in any format of `labelled.boxes`."""
        return ViabilityLesson(
            own_settings(config, ViabilityTraining),
            boxed_images(own_settings(config, ViabilityTraining), report),
        )


class ViabilityLesson(BoxLesson):
    """The images of a run whose truth is boxes around living and dead cells."""

    def __init__(self, config: ViabilityTraining, images: Images[BoxedImage]) -> None:
        super().__init__(config, images)
        self._stands_for = config.stands_for

    def section(self, network: Mapping[str, object], report: Say) -> dict[str, object]:
        """The section of the boxes, and what their classes stand for."""
        return {"boxes": super().section(network, report), "classes": dict(self._stands_for)}

    def fitted(self, package: Package, engine: Engine, report: Say) -> dict[str, object]:
        """For each class the threshold at which as many cells are found as there are boxes: so the viability has no bias either."""
        inner = _of_boxes(package)
        return {"boxes": {**inner.section, **super().fitted(inner, engine, report)}}

    def golden_arrays(
        self, section: Mapping[str, object], maps: NDArray[np.float32]
    ) -> dict[str, NDArray[np.generic]]:
        """Those of boxes."""
        return super().golden_arrays(_inner(section), maps)


def _of_boxes(package: Package) -> Package:
    """The package as the task `boxes` sees it."""
    return replace(package, task="boxes", section=_inner(package.section))


def _inner(section: Mapping[str, object]) -> dict[str, object]:
    inner = section["boxes"]
    assert isinstance(inner, dict)
    return inner
