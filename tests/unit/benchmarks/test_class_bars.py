"""The bars of class folders: what is compared must be comparable, and a page gets one table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.class_bars import BEGIN, END, Run, check_comparable, config_of, table_of, write_between
from cellcount_core.domain.errors import ConfigFault

GROUPED = Run(
    "grouped",
    0,
    {"steps": 600, "batch": 32, "seed": 0, "work_dir": "a", "data": {"groups": "g.csv", "path": "data"}},
    (0.7, 0.9),
    (0.8, 0.8),
    (("a", "b"), ("c",)),
    0.8,
    0.81,
    60.0,
)
RANDOM = replace(
    GROUPED,
    series="random",
    settings={**GROUPED.settings, "work_dir": "b", "data": {"groups": "", "path": "data"}},
    balanced=(0.9, 1.0),
    held_out=(("a", "c"), ("b",)),
)
SHUFFLED = replace(
    GROUPED, series="shuffled", settings={**GROUPED.settings, "steps": 400, "baseline": "shuffled"}
)


def test_series_of_one_recipe_over_the_same_images_are_comparable() -> None:
    check_comparable([GROUPED, RANDOM, SHUFFLED, replace(GROUPED, seed=1)])


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (replace(RANDOM, settings={**RANDOM.settings, "batch": 16}), "batch is 16, and 32 for grouped"),
        (replace(RANDOM, settings={**RANDOM.settings, "steps": 900}), "steps is 900, and 600"),
        (
            replace(RANDOM, settings={**RANDOM.settings, "data": {"groups": "", "path": "other"}}),
            "data.path is 'other'",
        ),
        (replace(RANDOM, held_out=(("a", "c"), ("d",))), "other images are held out"),
        (replace(RANDOM, held_out=(("a", "b", "c"), ("c",))), "or one twice"),
        (replace(RANDOM, held_out=(("a",), ("b",), ("c",))), "3 folds, and 2"),
        (replace(SHUFFLED, held_out=(("a", "c"), ("b",))), "than those of the same split"),
    ],
)
def test_what_is_not_comparable_is_refused_with_the_reason(other: Run, said: str) -> None:
    with pytest.raises(ConfigFault, match=said):
        check_comparable([GROUPED, other])


def test_the_table_has_mean_deviation_and_range_over_the_folds_of_all_seeds() -> None:
    again = replace(GROUPED, seed=1, balanced=(0.6, 0.8), pooled_balanced=0.7)
    row = table_of([GROUPED, again, SHUFFLED]).splitlines()[2]
    assert row == "| grouped | 2 x 2 | 600 | 0.750 | 0.129 | 0.600 to 0.900 | 0.800, 0.700 | 0.800 |"


def test_a_series_differs_from_the_recipe_in_what_makes_it_one() -> None:
    plain, dealt, single = (
        config_of(Path("data"), Path("work"), series, 0, 600) for series in ("grouped", "shuffled", "random")
    )
    assert dealt.baseline == "shuffled"
    assert single.data.groups == "work/singles.csv"
    assert single.data.allow_leaks
    same = {"work_dir": "", "package_dir": "", "baseline": "none", "data": plain.data}
    assert dealt.model_copy(update=same) == single.model_copy(update=same) == plain.model_copy(update=same)


def test_a_table_is_written_between_the_marks_and_nowhere_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_between(page, "| new |")
    assert page.read_text() == f"before\n{BEGIN}\n\n| new |\n\n{END}\nafter\n"
    page.write_text("no marks\n")
    with pytest.raises(ConfigFault, match="the marks"):
        write_between(page, "| new |")
