"""Figures of a set of images, and their bootstrap intervals."""

from __future__ import annotations

import numpy as np
import pytest

from cellcount_core.evaluation import figures as module
from cellcount_core.evaluation.figures import (
    FIGURES,
    Interval,
    columns,
    meaning,
    measure,
    shown,
    shown_with_interval,
)
from cellcount_core.tasks.matching import THRESHOLDS, ImageScore, Match, Report


def score(true: int, counted: int, hits: int, *, splits: int = 0, merges: int = 0) -> ImageScore:
    """One image with the same hits at every threshold."""
    match = Match(hits, true - hits, counted - hits)
    return ImageScore("a", "f", true, counted, (match,) * len(THRESHOLDS), 0.8 * hits, splits, merges, 20.0)


def value(scores: list[ImageScore], name: str) -> float | None:
    return measure(scores, resamples=0)[name].value


SCORES = [score(10, 9, 8, merges=1), score(20, 23, 18, splits=2), score(0, 0, 0), score(5, 5, 5)]


def test_figures_are_those_of_the_report_that_packages_state() -> None:
    report = Report(tuple(SCORES))
    assert value(SCORES, "ap_50") == pytest.approx(report.ap())
    assert value(SCORES, "ap_mean") == pytest.approx(report.mean_ap())
    assert value(SCORES, "f1_70") == pytest.approx(report.f1(0.7))
    assert value(SCORES, "count_mape") == pytest.approx(report.count_mape())
    assert value(SCORES, "count_bias") == pytest.approx(report.count_bias())


def test_counts_and_faults_follow_their_formulas() -> None:
    assert value(SCORES, "count_mae") == pytest.approx((1 + 3 + 0 + 0) / 4)
    assert value(SCORES, "missed") == pytest.approx((2 + 2) / 35)
    assert value(SCORES, "extra") == pytest.approx((1 + 5) / 35)
    assert value(SCORES, "split") == pytest.approx(2 / 35)
    assert value(SCORES, "merged") == pytest.approx(1 / 35)
    assert value(SCORES, "count_r") == pytest.approx(np.corrcoef([10, 20, 0, 5], [9, 23, 0, 5])[0, 1])
    pq = [2 * 0.8 * 8 / 19, 2 * 0.8 * 18 / 43, 1.0, 0.8]
    assert value(SCORES, "pq") == pytest.approx(np.mean(pq))


def test_large_counts_lose_no_digits_in_the_correlation() -> None:
    true, counted = [100_000, 100_001, 100_003], [100_000, 100_002, 100_003]
    scores = [score(t, c, 10) for t, c in zip(true, counted, strict=True)]
    assert value(scores, "count_r") == pytest.approx(np.corrcoef(true, counted)[0, 1], abs=1e-6)


def test_what_is_not_defined_is_no_number() -> None:
    empty = measure([score(0, 2, 0), score(0, 0, 0)], resamples=50)
    assert {name for name, found in empty.items() if found.value is None} == {
        "count_mape", "count_bias", "count_r", "missed", "extra", "split", "merged",
    }  # fmt: skip
    assert empty["count_mae"].value == pytest.approx(1.0)
    assert value([score(7, 6, 6), score(7, 8, 7)], "count_r") is None


def test_equal_seeds_give_equal_intervals_and_others_do_not() -> None:
    assert measure(SCORES, resamples=300, seed=1) == measure(SCORES, resamples=300, seed=1)
    assert measure(SCORES, resamples=300, seed=1) != measure(SCORES, resamples=300, seed=2)


def test_intervals_hold_the_figure_and_shrink_with_more_images() -> None:
    few, many = measure(SCORES * 5, resamples=400), measure(SCORES * 80, resamples=400)
    for name in FIGURES:
        assert few[name].low <= few[name].value <= few[name].high, name
    assert _width(many["f1_50"]) < 0.4 * _width(few["f1_50"])


def test_one_image_has_no_interval_and_no_image_no_figures() -> None:
    assert measure([SCORES[0]])["f1_50"] == Interval(pytest.approx(16 / 19), None, None)
    with pytest.raises(ValueError, match="at least one image"):
        measure([])


def test_a_bootstrap_value_is_the_figure_of_the_images_drawn() -> None:
    weights = np.array([[2.0, 0.0, 1.0, 1.0]])
    drawn = [SCORES[0], SCORES[0], SCORES[2], SCORES[3]]
    for name, figure in FIGURES.items():
        assert figure(columns(SCORES), weights)[0] == pytest.approx(value(drawn, name)), name


def test_blocks_of_resamples_give_what_all_at_once_give(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measure(SCORES, resamples=50)
    monkeypatch.setattr(module, "_BLOCK", 28)
    assert measure(SCORES, resamples=50) == whole


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    """Images whose F1 has a known mean: of 120 samples of 40 images about 95 % of the intervals hold it."""
    random = np.random.default_rng(0)
    f1_of_hits = {hits: Match(hits, 10 - hits, 10 - hits).f1 for hits in range(11)}
    expected = np.mean(list(f1_of_hits.values()))
    covered = 0
    for _ in range(120):
        found = measure([score(10, 10, int(hits)) for hits in random.integers(0, 11, 40)], resamples=300)[
            "f1_50"
        ]
        covered += found.low <= expected <= found.high
    assert 0.89 <= covered / 120 <= 0.99


def test_figures_are_shown_with_their_unit_and_sign() -> None:
    assert shown("ap_50", 0.87165) == "0.872"
    assert shown("count_bias", -0.0213) == "−2.1 %"
    assert shown("count_bias", 0.05) == "+5.0 %"
    assert shown("count_mape", 0.0631) == "6.3 %"
    assert shown("count_r", None) == "–"
    assert shown_with_interval("count_mape", Interval(0.06, 0.04, 0.09)) == "6.0 % (4.0 – 9.0)"
    assert shown_with_interval("pq", Interval(0.5, None, None)) == "0.500"


def test_every_figure_has_a_title_of_its_own() -> None:
    assert len({meaning(name).title for name in FIGURES}) == len(FIGURES)
    assert meaning("ap_50").title == "AP @ 0.5"


def _width(interval: Interval) -> float:
    assert interval.low is not None
    assert interval.high is not None
    return interval.high - interval.low
