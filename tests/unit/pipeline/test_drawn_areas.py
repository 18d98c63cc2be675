"""What is drawn of a disc: at most the share above its true area that counting rules state."""

from __future__ import annotations

import numpy as np

from tests.fields import count_array
from tests.plates import nuclear_field


def test_areas_of_discs_are_bounded() -> None:
    for diameter, most in ((8, 1.4), (12, 1.2), (20, 1.1), (35, 1.1), (60, 1.1)):
        pitch = 2 * diameter + 8
        image = np.full((3 * pitch, 3 * pitch), 300.0)
        yy, xx = np.mgrid[: 3 * pitch, : 3 * pitch]
        for y in range(3):
            for x in range(3):
                far = np.hypot(yy - (y + 0.5) * pitch, xx - (x + 0.5) * pitch)
                image += 2000 / (1 + np.exp(np.clip((far - diameter / 2) / 0.9, -50, 50)))
        image += np.random.default_rng(diameter).normal(0, 12, image.shape)
        row = count_array(image.astype(np.uint16), "nuclei", diameter=diameter).row
        assert row.values["count"] == 9
        assert row.values["area_fraction"] is not None
        drawn = row.values["area_fraction"] * image.size / 9 / (np.pi * diameter**2 / 4)
        assert 0.9 <= drawn <= most, (diameter, drawn)


def test_objects_of_a_noisy_field_are_drawn_in_blocks_as_in_the_whole() -> None:
    noisy = nuclear_field(20, 60, seed=3, side=440).astype(np.float64)
    noisy += np.random.default_rng(0).normal(0, 120, noisy.shape)
    field = np.clip(noisy, 0, 65_535).astype(np.uint16)
    whole = count_array(field, "nuclei").row
    cut = count_array(field, "nuclei", whole_limit=65_536, block=256).row
    assert (cut.values["count"], cut.values["area_fraction"]) == (
        whole.values["count"],
        whole.values["area_fraction"],
    )
