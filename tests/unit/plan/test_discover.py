"""Globs on keys, as run.include and run.exclude take them."""

from __future__ import annotations

import pytest

from cellcount_core.plan.discover import matcher


@pytest.mark.parametrize(
    ("pattern", "key"),
    [
        ("*.tif", "a/b/c.tif"),
        ("thumbs", "plate/thumbs/x.tif"),
        ("thumbs/", "thumbs/deep/x.tif"),
        ("plate1/*.tif", "plate1/x.tif"),
        ("plate1", "plate1/x/y.tif"),
        ("**/TimePoint_2/**", "p/TimePoint_2/ZStep_1/x.tif"),
        ("**/x.tif", "x.tif"),
        ("/top.tif", "top.tif"),
        ("p_[AB]0?_*", "q/p_A01_s1.tif"),
        ("p_[!A]01.tif", "p_B01.tif"),
        ("a[", "a["),
        ("x[]a].tif", "x].tif"),
    ],
)
def test_a_pattern_matches(pattern: str, key: str) -> None:
    assert matcher([pattern])(key)


@pytest.mark.parametrize(
    ("pattern", "key"),
    [
        ("*.tif", "a/b/c.tiff"),
        ("plate1/*.tif", "plate1/deep/x.tif"),
        ("plate1/*.tif", "other/plate1/x.tif"),
        ("/top.tif", "a/top.tif"),
        ("thumbs", "plate/thumbs2/x.tif"),
        ("p_[!A]01.tif", "p_A01.tif"),
        ("x?y", "x/y"),
        ("[z-a]", "b"),
        ("a.tif", "abtif"),
    ],
)
def test_a_pattern_does_not_match(pattern: str, key: str) -> None:
    assert not matcher([pattern])(key)


def test_no_pattern_matches_nothing() -> None:
    assert not matcher([])("a.tif")
