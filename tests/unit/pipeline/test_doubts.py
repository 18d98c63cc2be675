"""A field unlike what the model is made for is counted and says so; an ordinary one says nothing."""

from __future__ import annotations

import numpy as np
import pytest

from tests.fields import count_array
from tests.plates import discs

PACKAGES = ("threshold", "nuclei")


@pytest.mark.parametrize("package", PACKAGES)
def test_dark_objects_on_a_bright_background_are_warned_of(package: str) -> None:
    inverted = (40_000 - discs(8, 128, seed=1)).astype(np.uint16)
    assert "bright_background" in count_array(inverted, package).row.warnings


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("count", [0, 1, 12])
def test_ordinary_and_empty_fields_have_no_warning(package: str, count: int) -> None:
    row = count_array(discs(count, 128, seed=count), package).row
    assert (row.count, row.warnings) == (count, ())
