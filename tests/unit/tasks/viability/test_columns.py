"""What the columns of viability come to: percentages with known intervals, volumes, clusters, and totals over fields."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pydantic import ValidationError

from cellcount_core.config import RunConfig, ViabilityConfig, length
from cellcount_core.domain.columns import Column, Kind, Merge
from cellcount_core.domain.doubts import Doubt
from cellcount_core.domain.totals import BinsTotal, PercentTotal, RatioTotal, SumTotal, percentage
from cellcount_core.tasks.viability.columns import sample_volume, touching

VIABILITY = Column("viability", Kind.FLOAT, "%", "", merge=Merge.PERCENT, of=("live", "dead"))


@pytest.mark.parametrize(
    ("live", "of", "low", "high"),
    [
        (90, 100, 82.6, 94.5),
        (180, 200, 85.1, 93.4),
        (360, 400, 86.7, 92.6),
        (100, 100, 96.3, 100.0),
        (0, 100, 0.0, 3.7),
    ],
)
def test_the_interval_is_wilsons(live: int, of: int, low: float, high: float) -> None:
    found = percentage("viability", live, of - live)
    assert found["viability"] == 100 * live / of
    assert found["viability_low"] == pytest.approx(low, abs=0.05)
    assert found["viability_high"] == pytest.approx(high, abs=0.05)
    assert found["viability_n"] == of
    assert (found["viability_low"] == 0.0) == (live == 0)
    assert (found["viability_high"] == 100.0) == (live == of)


def test_nothing_found_has_no_viability() -> None:
    assert percentage("viability", 0, 0) == {
        "viability": None,
        "viability_low": None,
        "viability_high": None,
        "viability_n": 0,
    }


def test_none_alive_is_zero_and_not_minus_zero() -> None:
    values = percentage("viability", 0, 40)
    assert all(math.copysign(1, value) == 1 for value in values.values() if value is not None)


def test_percentages_of_fields_are_pooled_not_averaged() -> None:
    total, other = PercentTotal(VIABILITY), PercentTotal(VIABILITY)
    total.add((9, 1))
    other.add((20, 170))
    total.merge(other)
    values = total.values()
    assert values["viability"] == pytest.approx(100 * 29 / 200)
    assert values["viability_n"] == 200
    assert total.concerns == (Doubt.LOW_VIABILITY,)
    assert values["viability_warnings"] == "below 50 %"


def test_few_cells_are_told_in_words_and_so_are_none() -> None:
    few, none, uncounted = (PercentTotal(VIABILITY) for _ in range(3))
    few.add((60, 39))
    none.add((0, 0))
    assert few.values()["viability_warnings"] == "fewer than 100 cells"
    assert none.values()["viability_warnings"] == "fewer than 100 cells"
    assert uncounted.values()["viability_warnings"] is None
    uncounted.merge(none)
    assert uncounted.values()["viability_warnings"] == "fewer than 100 cells"
    few.add((1, 0))
    assert few.values()["viability_warnings"] is None


def test_a_ratio_is_that_of_the_sums_and_unknown_with_an_unknown_field() -> None:
    total = RatioTotal(Column("cells_per_ml", Kind.FLOAT, "1/mL", "", merge=Merge.RATIO, of=("cells", "ml")))
    total.add((10, 1e-4))
    total.add((30, 3e-4))
    assert total.values() == {"cells_per_ml": pytest.approx(1e5)}
    total.add(None)
    assert total.values() == {"cells_per_ml": None}


def test_bins_and_sums_are_unknown_with_an_unknown_field() -> None:
    bins = BinsTotal(Column("histogram", Kind.INTS, "", "", merge=Merge.BINS))
    volume = SumTotal(Column("sample_ml", Kind.FLOAT, "mL", "", merge=Merge.SUM))
    for each in ((1, 0, 2), (0, 3, 1)):
        bins.add(each)
        volume.add(0.5)
    assert (bins.values(), volume.values()) == ({"histogram": [1, 3, 3]}, {"sample_ml": 1.0})
    bins.add(None)
    volume.add(None)
    assert (bins.values(), volume.values()) == ({"histogram": None}, {"sample_ml": None})


def test_a_neubauer_chamber_counts_as_by_hand() -> None:
    """cells/mL = cells / squares x 10^4 x dilution: 200 cells in 4 large squares of a sample mixed 1:1 are 10^6."""
    settings = ViabilityConfig(chamber="improved_neubauer", squares=4, dilution=2)
    volume = sample_volume(settings, (1000, 1000), None)
    assert volume is not None
    assert 200 / (volume * 1e-6) == pytest.approx(200 / 4 * 1e4 * 2)


def test_a_photo_of_a_chamber_has_the_volume_above_it() -> None:
    """1000 x 2000 px of 0.5 um are 0.5 mm²; 0.1 mm deep that is 50 nL."""
    chamber = ViabilityConfig(chamber="improved_neubauer")
    assert sample_volume(chamber, (1000, 2000), 0.5) == pytest.approx(50)
    assert sample_volume(ViabilityConfig(depth_um=100), (1000, 2000), 0.5) == pytest.approx(50)
    assert sample_volume(ViabilityConfig(volume_nl=25, dilution=5), (1000, 2000), None) == pytest.approx(5)
    assert sample_volume(chamber, (1000, 2000), None) is None
    assert sample_volume(ViabilityConfig(), (1000, 2000), 0.5) is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"depth_um": 100, "volume_nl": 5}, "said twice, by depth_um and volume_nl"),
        ({"squares": 4}, "squares are those of a chamber"),
        ({"min_diameter": "7"}, "for example 7um or 20px"),
        (
            {"controls": {"live": ["A1"], "dead": ["A01"]}},
            "names A01 as live and as dead; a well is a control of one of them",
        ),
        ({"controls": {"live": ["A1", "A01"]}}, "names wells twice: A01"),
        ({"dilution": 0.5}, "greater than or equal to 1"),
        ({"dilution": 1e300}, "less than or equal to 1000000000"),
        ({"depth_um": 1e308}, "less than or equal to 100000"),
        ({"volume_nl": 5e-324}, "greater than or equal to "),
        ({"chamber": "improved_neubauer", "squares": 1e-300}, "greater than or equal to 0.001"),
        (
            {"min_diameter": "30um", "max_diameter": "7um"},
            r"min_diameter \(30um\) is larger than max_diameter \(7um\)",
        ),
    ],
)
def test_settings_that_contradict_are_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ViabilityConfig.model_validate(given)


def test_gates_in_px_and_in_um_contradict_each_other_once_the_pixel_size_is_known() -> None:
    gates = ViabilityConfig(min_diameter="30px", max_diameter="7um")
    with pytest.raises(
        ValidationError, match=r"\(30px\) is larger than max_diameter \(7um\) at 0.65 µm per px"
    ):
        RunConfig(viability=gates, um_per_px=0.65)
    assert RunConfig(viability=gates, um_per_px=0.2).um_per_px == 0.2
    assert gates.contradiction(None) == ""


@pytest.mark.parametrize(
    ("text", "value", "unit"), [("7um", 7, "um"), ("7.5 µm", 7.5, "um"), ("20 PX", 20, "px")]
)
def test_a_length_has_a_unit(text: str, value: float, unit: str) -> None:
    assert (length(text).value, length(text).unit) == (value, unit)


def test_cells_that_touch_are_in_clusters() -> None:
    y = np.array([10.0, 10.0, 10.0, 50.0, 50.0, 90.0])
    x = np.array([10.0, 20.0, 30.0, 10.0, 21.0, 90.0])
    assert touching(y, x, np.full(6, 10.0)) == (5, 2)
    assert touching(y, x, np.full(6, 5.0)) == (0, 0)
    assert touching(y[:1], x[:1], np.full(1, 5.0)) == (0, 0)
