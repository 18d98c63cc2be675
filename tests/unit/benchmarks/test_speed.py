"""The images that speed is measured on."""

from __future__ import annotations

import numpy as np

from benchmarks.speed import at_scale
from cellcount_core.labelled.image import LabelledImage
from cellcount_core.labelled.label_files import median_diameter


def test_images_at_the_model_s_scale_keep_their_size() -> None:
    labels = np.zeros((256, 256), np.int32)
    labels[5:15, 5:15], labels[30:40, 40:50] = 1, 2
    plane = np.where(labels > 0, 200, 10).astype(np.uint8)
    image = LabelledImage("i", plane, labels, "g", "fluorescence", median_diameter(labels))
    small, large = at_scale(image, image.diameter_px / 2), at_scale(image, image.diameter_px * 2)
    assert small.shape == large.shape == (256, 256)
    assert (small > 100).sum() < 2 * (image.plane > 100).sum() < (large > 100).sum()
