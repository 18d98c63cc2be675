"""Thresholds of patterns and what they are judged by: F1, its mean with an interval, and flat thresholds beside it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.tasks.patterns.fit import fit_thresholds, shrunk
from cellcount_core.tasks.patterns.score import (
    NEVER,
    PatternScoring,
    at_thresholds,
    bootstrap_macro_f1,
    f1_of,
    flat,
    macro_f1,
    weak_patterns,
)
from cellcount_core.tasks.task import Found, Truth

RATES = np.geomspace(0.3, 0.007, 12)


def drawn(images: int, seed: int, separation: float = 2.0) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Probabilities, as a calibrated network gives them, of patterns that are common to rare; and which image shows which."""
    rng = np.random.default_rng(seed)
    shown = rng.random((images, len(RATES))) < RATES
    seen = rng.normal(size=shown.shape) + separation * shown
    odds = np.log(RATES / (1 - RATES)) + separation * seen - separation**2 / 2
    return 1 / (1 + np.exp(-odds)), shown


@pytest.mark.slow
def test_fitted_thresholds_beat_flat_ones_on_images_that_they_were_not_fitted_to() -> None:
    fitted = fit_thresholds(*drawn(3000, 0))
    chances, shown = drawn(3000, 1)
    own = macro_f1(at_thresholds(chances, fitted.values), shown)
    assert own > macro_f1(flat(chances, 0.5), shown) + 0.02
    assert own > macro_f1(flat(chances, 0.15), shown) + 0.02
    assert own == pytest.approx(fitted.macro_f1, abs=0.05)


def test_the_thresholds_of_rare_patterns_are_nearer_to_the_common_one() -> None:
    at = shrunk(np.array([2.0, 2.0, np.nan]), 0.5, np.array([90, 10, 0]), strength=10.0)
    assert at.tolist() == pytest.approx([1.85, 1.25, 0.5])
    chances, shown = drawn(1500, 2)
    assert fit_thresholds(chances, shown).strength > 0


def test_a_pattern_without_images_is_never_found() -> None:
    chances, shown = drawn(400, 3)
    shown[:, 4] = False
    fitted = fit_thresholds(chances, shown)
    assert fitted.shown[4] == 0
    assert fitted.values[4] == NEVER
    assert not at_thresholds(np.ones_like(chances), fitted.values)[:, 4].any()


def test_patterns_that_are_never_found_are_told_with_the_figures() -> None:
    scoring = PatternScoring(("dots", "rings"), (0.4, NEVER))
    never = "never found, since no image that thresholds were fitted to shows them: rings"
    assert scoring.words([]) == [never]
    assert scoring.words([scoring.score(truth("a", "dots"), found(("dots",), (0.45, 0.99)))])[0] == never


def test_a_rare_pattern_is_never_said_to_be_nowhere() -> None:
    """Its probabilities are all far below every other threshold."""
    chances, shown = drawn(600, 4)
    shown[:, 11] = False
    shown[:2, 11] = True
    chances[:, 11] = 0.001
    chances[:2, 11] = 0.004
    told = at_thresholds(chances, fit_thresholds(chances, shown).values)
    assert told[:2, 11].any()


def test_the_same_images_give_the_same_thresholds() -> None:
    assert fit_thresholds(*drawn(400, 5)) == fit_thresholds(*drawn(400, 5))


def test_f1_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import f1_score

    rng = np.random.default_rng(0)
    told, shown = rng.random((200, 7)) < 0.4, rng.random((200, 7)) < 0.4
    assert f1_of(told, shown).tolist() == pytest.approx(f1_score(shown, told, average=None).tolist())
    assert macro_f1(told, shown) == pytest.approx(f1_score(shown, told, average="macro"))


def test_the_mean_is_over_the_patterns_that_images_show() -> None:
    told = np.array([[True, False, True], [True, False, False]])
    shown = np.array([[True, False, False], [True, False, False]])
    assert macro_f1(told, shown) == 1.0
    assert math.isnan(macro_f1(told, np.zeros_like(shown)))


def test_the_interval_holds_the_mean_and_narrows_with_more_images() -> None:
    widths = []
    for images in (300, 3000):
        chances, shown = drawn(images, 6)
        low, high = bootstrap_macro_f1(told := flat(chances, 0.3), shown)
        assert low < macro_f1(told, shown) < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_weak_patterns_are_named_with_the_reason() -> None:
    f1, images = np.array([0.9, 0.2, 0.9, np.nan]), np.array([50, 30, 3, 0])
    assert weak_patterns(("a", "b", "c", "d"), f1, images) == [
        "b (F1 0.20 on 30 images)",
        "c (F1 0.90 on 3 images)",
        "d (no image shows it)",
    ]


def truth(name: str, patterns: str) -> Truth:
    return Truth(name, values={"patterns": patterns})


def found(patterns: tuple[str, ...], chances: tuple[float, ...]) -> Found:
    return Found({"patterns": patterns, "probability": chances})


def test_figures_stand_beside_those_of_flat_thresholds() -> None:
    scoring = PatternScoring(("dots", "rings"), (0.4, 0.1))
    scored = [
        scoring.score(truth("a", "dots"), found(("dots", "rings"), (0.45, 0.12))),
        scoring.score(truth("b", "rings"), found(("rings",), (0.3, 0.14))),
        scoring.score(truth("c", ""), found((), (0.2, 0.05))),
    ]
    assert scored[0].values["excess"] == "rings"
    figures = scoring.figures(scored)
    assert (figures["images"], figures["all_right"]) == (3, 2 / 3)
    assert figures["f1_dots"] == 1.0
    assert figures["f1_rings"] == pytest.approx(2 / 3)
    assert figures["macro_f1"] == pytest.approx(5 / 6)
    assert figures["macro_f1_flat_0.5"] == 0.0
    assert figures["macro_f1_flat_0.15"] == pytest.approx(0.25)
    assert figures["images_rings"] == 1
    assert scoring.words(scored) == ["weak patterns: dots (F1 1.00 on 1 image); rings (F1 0.67 on 1 image)"]
    with pytest.raises(ConfigFault, match="pattern 'ring' is none of the package's; did you mean 'rings'"):
        scoring.score(truth("d", "ring"), found((), (0.0, 0.0)))
