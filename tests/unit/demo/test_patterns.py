"""Made-up images of patterns: what is planted is what the table says, rare patterns are rare, and equal arguments give equal files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cellcount_core.demo.patterns import (
    CHANNELS,
    NAMES,
    PATTERNS,
    STRONG,
    planted,
    render_patterns,
    write_patterns,
)
from cellcount_core.labelled.patterns import PatternReading, list_patterns, pattern_names


def test_patterns_are_common_to_rare_and_are_found_together() -> None:
    shown = planted(1000, STRONG, 0)
    numbers = np.sort(shown.sum(axis=0))
    assert (len(numbers), numbers[0], numbers[-1]) == (28, 20, 300)
    assert numbers[1] < numbers[14] / 2
    together = shown.T.astype(int) @ shown
    expected = np.outer(shown.sum(axis=0), shown.sum(axis=0)) / len(shown)
    assert (together / expected)[~np.eye(28, dtype=bool)].max() > 1.8


def test_a_pattern_on_a_channel_is_seen_there_and_one_alone_is_not() -> None:
    for name, channels in (("discs alone", ()), ("discs on red and yellow", ("red", "yellow"))):
        shown = np.array([pattern == name for pattern in PATTERNS])
        drawn = render_patterns(np.random.default_rng(0), shown)
        bright = {channel for channel in CHANNELS if drawn[channel].max() > 80}
        assert bright == {"green", *channels}


def test_few_images_have_about_as_many_patterns_each_as_many_have() -> None:
    few, many = (planted(images, STRONG.of_images(images), 0).sum(axis=1).mean() for images in (40, 4000))
    assert few < 2 * many
    assert STRONG.of_images(4000) == STRONG
    assert planted(40, STRONG.of_images(40), 0).sum(axis=0).min() == 2


def test_what_is_written_is_read_as_annotated_images_and_is_the_same_again(tmp_path: Path) -> None:
    table = write_patterns(tmp_path / "made", 60, seed=3)
    names = pattern_names(NAMES, table.parent)
    assert names == PATTERNS
    data = list_patterns(table.parent, CHANNELS, names, PatternReading(table))
    assert data.report.lines()[1:] == ["no faults"]
    again = write_patterns(tmp_path / "again", 60, seed=3)
    assert again.read_bytes() == table.read_bytes()
    one = "images/made-up-00007_green.png"
    assert (again.parent / one).read_bytes() == (table.parent / one).read_bytes()


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 40"):
        planted(30, STRONG, 0)
