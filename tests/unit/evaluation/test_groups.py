"""Groups of images by modality, size and density."""

from __future__ import annotations

import pytest

from cellcount_core.evaluation.figures import density_of, grouped, groupings, size_of
from cellcount_core.tasks.matching import ImageScore


def image(true: int, diameter: float = 20.0, modality: str = "fluorescence") -> ImageScore:
    return ImageScore("a", modality, true, 0, (), diameter_px=diameter)


@pytest.mark.parametrize(
    ("diameter", "name"),
    [
        (7.9, "below 8"), (8.0, "8 to 12"), (15.9, "12 to 16"), (16.0, "16 to 24"), (31.0, "24 to 32"), (47.9, "32 to 48"),
        (48.0, "48 and more"), (110.0, "48 and more"),
    ],
)  # fmt: skip
def test_a_diameter_at_an_edge_is_of_the_upper_bin(diameter: float, name: str) -> None:
    assert size_of(image(3, diameter)) == name


@pytest.mark.parametrize(
    ("true", "name"),
    [
        (1, "1 to 5"), (5, "1 to 5"), (6, "6 to 20"), (50, "21 to 50"), (51, "51 to 100"), (100, "51 to 100"), (101, "above 100"),
    ],
)  # fmt: skip
def test_bins_of_density_end_with_their_edge(true: int, name: str) -> None:
    assert density_of(image(true)) == name


def test_an_image_without_objects_is_a_group_of_its_own() -> None:
    assert size_of(image(0, 0.0)) == density_of(image(0, 0.0)) == "no object"


def test_every_image_is_in_one_group_of_each_grouping_and_empty_groups_are_left_out() -> None:
    images = [image(3), image(200, 9.0, "histology"), image(0, 0.0, ""), image(4, 50.0)]
    found = {key: grouped(images, grouping) for key, grouping in groupings(images).items()}
    assert found["modality"] == {"fluorescence": [0, 3], "histology": [1], "not stated": [2]}
    assert list(found["size"]) == ["no object", "8 to 12", "16 to 24", "48 and more"]
    assert found["density"] == {"no object": [2], "1 to 5": [0, 3], "above 100": [1]}
