from __future__ import annotations

import pytest

from cellcount_core.domain.fields import FieldKey, Parsed
from cellcount_core.layouts.flat import KIND, Flat


@pytest.mark.parametrize(
    ("key", "plate", "well"),
    [
        ("cells.png", "PX", "cells"),
        ("day 1/dish/cells.2.TIF", "day 1/dish", "cells.2"),
        ("scan.ome.tif", "PX", "scan"),
        ("b2.jpg", "PX", "b2"),
        ("a/X_and_y.npz", "a", "X_and_y"),
    ],
)
def test_the_folder_is_the_plate_and_the_name_the_well(key: str, plate: str, well: str) -> None:
    assert Flat("PX").parse(key) == Parsed(FieldKey(plate, well, 1, 1), folder=key.rpartition("/")[0])


def test_each_image_of_an_array_file_is_a_field() -> None:
    assert KIND.traits.slices_are_fields
