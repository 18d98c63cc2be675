"""What the recipe of `nuclei` draws: recorded once, so that a change of the trainer cannot change it unseen.

The numbers are means and deviations of whole batches, not digests: processors round in their own ways. Where a recipe is meant to change,
the test prints the numbers to record.
"""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import yaml

from cellcount_core.labelled.image import LabelledImage
from cellcount_core.labelled.label_files import median_diameter
from cellcount_core.tasks.instances.learn import InstancesConfig, LabelLesson
from cellcount_core.training.batches import Batch, training_batches, validation_batches
from cellcount_core.training.learning import Images
from tests.unit.training.tiny import CONF

SIDE = 160

RECORDED = {
    "step 0": [0.07836, 0.23821, 0.12019, 0.04388, 0.06588, 0.94643],
    "step 1": [0.05994, 0.22623, 0.0903, 0.03289, 0.05702, 0.9967],
    "step 2": [0.10388, 0.33445, 0.08336, 0.0315, 0.04069, 0.94796],
    "validation": [0.06001, 0.20516, 0.09042, 0.03184, 0.03867, 1.06223],
}  # fmt: skip
"""Of each batch: mean and standard deviation of the inputs, and the mean of each target."""


def image(seed: int) -> LabelledImage:
    rng = np.random.default_rng(seed)
    labels = np.zeros((SIDE, SIDE), np.int32)
    for number in range(1, 13):
        centre = (int(rng.integers(8, SIDE - 8)), int(rng.integers(8, SIDE - 8)))
        cv2.circle(labels, centre, int(rng.integers(5, 11)), number, -1)
    light = (labels > 0) * (1 + labels % 3)
    plane = 300 + 1500 * light + rng.normal(0, 25, labels.shape)
    return LabelledImage(
        str(seed), plane.astype(np.uint16), labels, f"g{seed // 2}", "", median_diameter(labels)
    )


def drawn() -> dict[str, Batch]:
    tree = yaml.safe_load((CONF / "train_nuclei.yaml").read_text())
    config = InstancesConfig.model_validate(tree | {"batch": 12, "crop_px": 128})
    images = [image(seed) for seed in range(6)]
    lesson = LabelLesson(config, Images(images, images, images, images))
    batches = {f"step {step}": batch for step, batch in training_batches(lesson, config, 0, 3)}
    return batches | {"validation": validation_batches(lesson, config, 1)[0]}


def summary(batch: Batch) -> list[float]:
    inputs, targets = batch
    return [float(inputs.mean()), float(inputs.std()), *map(float, targets.mean(axis=(0, 1, 2)))]


def test_the_recipe_of_the_shipped_nuclei_draws_what_it_drew() -> None:
    found = {name: summary(batch) for name, batch in drawn().items()}
    print({name: [round(value, 5) for value in values] for name, values in found.items()})
    for name, values in RECORDED.items():
        assert found[name] == pytest.approx(values, rel=2e-3, abs=1e-4), name
    assert set(found) == set(RECORDED)
