"""Control charts: robust limits from earlier plates, and no verdict without enough of them."""

from __future__ import annotations

import numpy as np
import pytest

from cellcount_core.domain.columns import schema_3
from cellcount_core.nightly.config import History
from cellcount_core.nightly.digest import limits, readings, statistics_of

HISTORY = History(nights=14, sigmas=4, least=5)
TITLES = statistics_of(schema_3("Nuclei", ("w1",)))


def test_without_enough_earlier_plates_nothing_is_flagged() -> None:
    (reading,) = readings("P1", {"focus": 1e9}, [{"focus": 1.0}] * 4, HISTORY, TITLES)

    assert reading.low is None
    assert not reading.flagged


def test_limits_are_so_many_standard_deviations_about_the_centre_of_normal_values() -> None:
    values = np.random.default_rng(5).normal(100, 10, 4001).tolist()

    bounds = limits(values, HISTORY)

    assert bounds is not None
    assert bounds[0] == pytest.approx(100, abs=1)
    assert bounds[1] == pytest.approx(60, abs=3)
    assert bounds[2] == pytest.approx(140, abs=3)


def test_one_plate_out_of_control_does_not_widen_the_limits_for_the_next() -> None:
    values = [98.0, 99.0, 100.0, 101.0, 102.0]
    clean, with_outlier = limits(values, HISTORY), limits([*values, 10_000.0], HISTORY)

    assert clean is not None
    assert with_outlier is not None
    assert with_outlier[2] < 110


def test_equal_plates_do_not_flag_the_first_that_differs_a_little() -> None:
    before = [{"background": 300.0}] * 9
    near, far = (readings("P", {"background": value}, before, HISTORY, TITLES)[0] for value in (310.0, 330.0))

    assert (near.flagged, far.flagged) == (False, True)


def test_a_statistic_that_a_plate_does_not_have_is_not_compared() -> None:
    found = readings("P", {"focus": None, "count_per_field": 3.0}, [{"focus": 1.0}] * 9, HISTORY, TITLES)

    assert [(reading.statistic, reading.plates) for reading in found] == [("count_per_field", 0)]


def test_what_is_watched_is_what_the_schema_declares() -> None:
    assert TITLES == {
        "count_per_field": "objects a field",
        "focus": "median focus",
        "background": "median background (raw)",
    }
