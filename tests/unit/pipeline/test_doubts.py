"""A field unlike what the model is made for is counted and says so; an ordinary one says nothing."""

from __future__ import annotations

import numpy as np
import pytest

from tests.fields import count_array
from tests.plates import discs, nuclear_field

PACKAGES = ("threshold", "nuclei")


@pytest.mark.parametrize("package", PACKAGES)
def test_dark_objects_on_a_bright_background_are_warned_of(package: str) -> None:
    inverted = (40_000 - discs(8, 128, seed=1)).astype(np.uint16)
    assert "bright_background" in count_array(inverted, package).row.warnings


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("count", [0, 1, 12])
def test_ordinary_and_empty_fields_have_no_warning(package: str, count: int) -> None:
    field = (
        nuclear_field(20, count, seed=count, side=200)
        if package == "nuclei"
        else discs(count, 128, seed=count)
    )
    row = count_array(field, package).row
    assert (row.count, row.warnings) == (count, ())


def test_a_field_unlike_the_training_images_is_told_and_has_no_interval() -> None:
    ordinary = count_array(nuclear_field(20, 12, seed=5, side=200), "nuclei").row
    assert ordinary.out_of_domain is not None
    assert ordinary.count_low is not None
    assert ordinary.count_high is not None
    assert ordinary.count_low < 12 < ordinary.count_high
    rng = np.random.default_rng(6)
    wild = rng.integers(0, 2, (25, 25)).repeat(8, 0).repeat(8, 1) * 3000 + rng.normal(300, 900, (200, 200))
    row = count_array(np.clip(wild, 0, 65535).astype(np.uint16), "nuclei").row
    assert row.out_of_domain is not None
    assert row.out_of_domain > ordinary.out_of_domain
    assert "out_of_domain" in row.warnings
    assert (row.count_low, row.count_high) == (None, None)


def test_an_empty_field_has_an_interval_from_zero_and_no_score() -> None:
    row = count_array(np.full((128, 128), 100, np.uint16), "nuclei").row
    assert (row.count, row.count_low, row.out_of_domain) == (0, 0.0, None)
