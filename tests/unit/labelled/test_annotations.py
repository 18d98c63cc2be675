"""Run lengths and polygons of COCO."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellcount_core.labelled.annotations import decode_counts, mask_of_polygon, mask_of_runs


def two_boxes() -> np.ndarray:
    mask = np.zeros((30, 40), bool)
    mask[3:12, 5:20] = mask[8:25, 15:33] = True
    return mask


def disc() -> np.ndarray:
    y, x = np.mgrid[:60, :50]
    return np.asarray((y - 30) ** 2 + (x - 22) ** 2 < 18**2)


BY_PYCOCOTOOLS = [
    ("i49e0000000000000000000=C00000005K000000000000000000000000Z6", two_boxes()),
    ("U:;^16L2M4M2N2N2O0O2N2O000O2O00000000000000000001N10001N2N101N2N2N3L3N4JRb0", disc()),
]
"""What `pycocotools.mask.encode` 2.0 makes of these masks."""


@pytest.mark.parametrize(("text", "mask"), BY_PYCOCOTOOLS, ids=["boxes", "disc"])
def test_what_pycocotools_compressed_is_read_back(text: str, mask: np.ndarray) -> None:
    height, width = mask.shape
    np.testing.assert_array_equal(mask_of_runs(decode_counts(text), (height, width)), mask)


@pytest.mark.parametrize(("text", "said"), [("i4~9", "character"), ("i", "end inside a number")])
def test_text_that_is_no_run_lengths_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        decode_counts(text)


def test_a_polygon_along_pixel_edges_holds_exactly_the_pixels_between() -> None:
    mask = mask_of_polygon([2, 3, 7, 3, 7, 8, 2, 8], (10, 12))
    expected = np.zeros((10, 12), bool)
    expected[3:8, 2:7] = True
    np.testing.assert_array_equal(mask, expected)


def test_a_polygon_may_reach_beyond_the_image() -> None:
    mask = mask_of_polygon([-5, -5, 6, -5, 6, 4, -5, 4], (10, 12))
    assert (mask.sum(), mask[:4, :6].all()) == (24, True)


@given(st.floats(2, 14), st.floats(20, 30), st.floats(20, 30))
def test_a_round_polygon_has_about_its_area(radius: float, x: float, y: float) -> None:
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    points = np.column_stack([x + radius * np.cos(angles), y + radius * np.sin(angles)]).ravel().tolist()
    area = float(mask_of_polygon(points, (50, 50)).sum())
    assert area == pytest.approx(np.pi * radius**2, abs=2 + 1.5 * radius)
