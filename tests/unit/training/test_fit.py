"""Thresholds fitted to labelled images."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from cellcount_core.labelled.image import LabelledImage
from cellcount_core.labelled.label_files import median_diameter
from cellcount_core.tasks.instances.fit import SEPARATOR_START, fit_cores


def example(rim: float) -> tuple[LabelledImage, np.ndarray]:
    """Discs, some cut by the edge, at twice the model's scale, and maps whose foreground is `rim` at their outline."""
    labels = np.zeros((160, 160), np.int32)
    places = [(y, x) for y in (-10, 30, 70, 110, 150) for x in (30, 80, 130)]
    for number, (y, x) in enumerate(places, 1):
        cv2.circle(labels, (x, y), 15, number, -1)
    distance = cv2.distanceTransform((labels > 0).astype(np.uint8), cv2.DIST_L2, 5)
    distance -= cv2.distanceTransform((labels == 0).astype(np.uint8), cv2.DIST_L2, 5)
    foreground = np.clip(rim + distance / 8, 0, 1).astype(np.float32)
    maps = np.stack([foreground, np.clip(distance / 8, 0, 1).astype(np.float32)], axis=-1)
    image = LabelledImage("i", np.zeros(labels.shape, np.uint8), labels, "", "", median_diameter(labels))
    return image, cv2.resize(maps, (80, 80), interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize(("rim", "first"), [(0.4, 0.6), (0.55, 0.35)])
def test_the_outline_is_where_the_network_sees_the_rim_and_the_rest_stays(rim: float, first: float) -> None:
    image, maps = example(rim)
    start = {**SEPARATOR_START, "foreground": 0.7, "edge_area": 8.0, "outline": first}
    found = fit_cores([image], [maps], lambda text: None, start=start, names=("outline",))
    assert found["outline"] == pytest.approx(rim, abs=0.051)
    assert {**found, "outline": 0} == {**start, "outline": 0}


def test_parts_at_the_edge_are_kept_where_labels_have_them() -> None:
    image, maps = example(0.5)
    start = {**SEPARATOR_START, "min_area": 58.0, "edge_area": 44.0}
    said: list[str] = []
    found = fit_cores([image], [maps], said.append, start=start, names=("edge_area",))
    assert found["edge_area"] <= 20
    assert "F1 1.0" in said[0]
