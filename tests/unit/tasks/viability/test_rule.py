"""Thresholds between live and dead: two populations are told apart, one is not split, and what spills over is taken off."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.tasks.viability.controls import (
    ControlCells,
    ControlRule,
    control_warning,
    from_controls,
    refuse_swapped,
    spill_of_controls,
)
from cellcount_core.tasks.viability.rule import RoleRule, between_populations, rule_in

Floats = NDArray[np.float64]
NOISE = 20.0


def cells(number: int, level: float, seed: int, spread: float = 0.35) -> Floats:
    """Signals of cells that take up a stain."""
    return np.asarray(level * np.random.default_rng(seed).lognormal(0, spread, number))


def plate(
    dead: int, live: int, *, level: float = 800.0, spill: float = 0.0, all_level: float = 1000.0
) -> tuple[Floats, Floats]:
    """Signals in `dead` and in `all` of a plate of dead and live cells."""
    every = cells(dead + live, all_level, 1, 0.25)
    stained = np.concatenate([cells(dead, level, 2), np.zeros(live)])
    return stained + spill * every + np.random.default_rng(3).normal(0, NOISE / 8, dead + live), every


def found(dead: Floats, every: Floats) -> RoleRule:
    return between_populations(dead, every, NOISE, NOISE, None)


def positives(rule: RoleRule, signal: Floats, other: Floats) -> int:
    return int(np.count_nonzero(rule.clean(signal, other) > rule.threshold))


@pytest.mark.parametrize("dead", [20, 100, 500, 900, 980])
@pytest.mark.parametrize(("level", "spill"), [(800.0, 0.0), (800.0, 0.1), (250.0, 0.0), (350.0, 0.06)])
def test_dead_cells_are_counted_whatever_their_share(dead: int, level: float, spill: float) -> None:
    signal, every = plate(dead, 1000 - dead, level=level, spill=spill)
    rule = found(signal, every)
    assert rule.populations == 2
    assert positives(rule, signal, every) == pytest.approx(dead, abs=10)
    assert rule.spill == pytest.approx(spill, abs=0.02)


@pytest.mark.parametrize("spill", [0.0, 0.03, 0.1, 0.15])
def test_a_plate_that_is_all_alive_is_not_split(spill: float) -> None:
    signal, every = plate(0, 1000, spill=spill)
    rule = found(signal, every)
    assert rule.populations == 1
    assert positives(rule, signal, every) == 0


def test_a_plate_that_is_all_dead_is_not_split_either() -> None:
    signal, every = plate(1000, 0)
    rule = found(signal, every)
    assert rule.populations == 1
    assert positives(rule, signal, every) == 1000


def test_cells_with_more_of_the_other_stain_are_not_dead_for_that() -> None:
    """Two kinds of live cells, one with three times the DNA: both spill the same share."""
    every = np.concatenate([cells(500, 600, 1, 0.1), cells(500, 1900, 2, 0.1)])
    rule = found(0.12 * every, every)
    assert positives(rule, 0.12 * every, every) == 0


@pytest.mark.parametrize("number", [0, 1, 3, 9])
def test_a_few_cells_are_one_population(number: int) -> None:
    signal, every = plate(0, number)
    rule = found(signal, every)
    assert rule.populations == 1
    assert rule.threshold > 0
    assert positives(rule, signal, every) == 0


def test_live_and_dead_stains_are_each_told_by_the_other() -> None:
    live = np.concatenate([cells(600, 900, 1), np.zeros(400)]) + np.random.default_rng(5).normal(0, 3, 1000)
    dead = np.concatenate([np.zeros(600), cells(400, 700, 2)]) + 0.05 * live
    assert positives(found(live, dead), live, dead) == pytest.approx(600, abs=6)
    assert positives(found(dead, live), dead, live) == pytest.approx(400, abs=6)


def test_an_all_dead_plate_of_live_and_dead_stains_has_no_live_cell() -> None:
    dead = cells(500, 700, 2)
    live = 0.05 * dead + np.random.default_rng(5).normal(0, 3, 500)
    assert positives(found(live, dead), live, dead) == 0
    assert positives(found(dead, live), dead, live) == 500


def test_a_million_cells_take_no_longer_and_say_the_same() -> None:
    signal, every = plate(30_000, 970_000, spill=0.05)
    rule = found(signal, every)
    assert rule.populations == 2
    assert positives(rule, signal, every) == pytest.approx(30_000, rel=0.01)


def by_controls(low: Floats, high: Floats, spill: float = 0.0) -> ControlRule:
    """The rule of controls with these signals, none of which spills over."""
    return from_controls(
        *(ControlCells(each, np.full(each.size, 1000.0)) for each in (low, high)), NOISE, spill
    )


NONE = np.zeros(0)


def test_controls_put_the_threshold_between_them() -> None:
    low, high = np.abs(cells(200, 10, 1)), cells(200, 600, 2)
    found = by_controls(low, high, 0.02)
    assert low.max() < found.rule.threshold < high.min()
    assert (found.above, found.below, found.rule.spill, found.rule.populations) == (0, 0, 0.02, 0)


@pytest.mark.parametrize("which", ["negative", "positive"])
def test_one_control_suffices(which: str) -> None:
    low, high = np.abs(cells(200, 10, 1)), cells(200, 600, 2)
    found = by_controls(low if which == "negative" else NONE, high if which == "positive" else NONE)
    assert np.quantile(low, 0.99) < found.rule.threshold < np.quantile(high, 0.05)
    assert control_warning("P", "dead", found) is None


@pytest.mark.parametrize("number", [40, 260, 2000])
@pytest.mark.parametrize("wrong", [0.02, 0.05, 0.2, 0.5])
@pytest.mark.parametrize("controls", ["negative", "positive", "both"])
def test_cells_of_the_other_kind_in_a_control_do_not_move_the_threshold(
    number: int, wrong: float, controls: str
) -> None:
    """A live control of 95 % live cells is one still, and the plan says that it is mixed."""
    of_other = round(wrong * number)
    rng = np.random.default_rng(7)
    low = np.concatenate([rng.normal(0, 3, number - of_other), cells(of_other, 500, 2)])
    high = np.concatenate([cells(number - of_other, 500, 3), rng.normal(0, 3, of_other)])
    found = by_controls(NONE if controls == "positive" else low, NONE if controls == "negative" else high)
    assert 20 < found.rule.threshold < np.quantile(cells(1000, 500, 4), 0.05)
    told = control_warning("P", "dead", found)
    assert (told is not None) == (of_other > 0.02 * number)
    assert told is None or "controls are mixed in the role 'dead'" in told


def test_what_spills_over_in_a_mixed_control_is_that_of_its_own_cells() -> None:
    signal, every = plate(500, 500, spill=0.08)
    found = spill_of_controls("dead", ControlCells(signal, every), ControlCells(NONE, NONE), NOISE, NOISE)
    assert found == pytest.approx(0.08, abs=0.02)


def test_a_control_that_is_stained_throughout_is_no_control_of_unstained_cells() -> None:
    signal, every = plate(1000, 0)
    stained, nothing = ControlCells(signal, every), ControlCells(NONE, NONE)
    with pytest.raises(ConfigFault, match=r"run\.viability\.spill\.dead=SHARE"):
        spill_of_controls("dead", stained, nothing, NOISE, NOISE)
    other = ControlCells(3 * signal, every)
    assert spill_of_controls("dead", stained, other, NOISE, NOISE) == pytest.approx(0.8, abs=0.1)


def test_a_few_cells_of_two_kinds_are_said_to_be_mixed() -> None:
    low = np.concatenate([np.arange(4.0), cells(4, 500, 2)])
    told = control_warning("P", "dead", by_controls(low, NONE))
    assert told is not None
    assert "differ so much" in told


def test_controls_that_overlap_tell_how_many_cells_are_on_the_wrong_side() -> None:
    found = by_controls(cells(500, 300, 1), cells(500, 450, 2))
    assert 0.1 < found.above < 0.5
    assert 0.1 < found.below < 0.5


def test_a_negative_control_that_is_brighter_is_refused() -> None:
    with pytest.raises(ConfigFault, match="are the wells, or the channels, swapped"):
        refuse_swapped("dead", cells(50, 900, 1), cells(50, 10, 2))


def test_a_rule_is_the_same_after_run_json() -> None:
    signal, every = plate(300, 700, spill=0.05)
    numbers = found(signal, every).numbers("dead")
    again = rule_in(numbers, "dead")
    assert again is not None
    assert again.numbers("dead") == numbers
    assert rule_in(numbers, "live") is None


def test_the_probability_is_one_half_at_the_threshold_and_rises() -> None:
    rule = found(*plate(300, 700))
    low, middle, high = rule.probability(np.array([0.0, rule.threshold, 3 * rule.threshold])).tolist()
    assert middle == pytest.approx(0.5)
    assert low < 0.05
    assert high > 0.95
