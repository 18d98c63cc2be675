"""The indicators of a dilution series, on examples that can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.report.dilution import assess_series, dilution_reports, report_lines
from cellcount_core.report.samples import WellSample
from tests.unit.report.test_counter_files import samples


def test_a_proportional_series_has_an_index_of_zero() -> None:
    series = {x: [1000 * x, 1000 * x, 1000 * x] for x in (1.0, 0.5, 0.25, 0.125)}
    found = assess_series("s", "cells", series)
    assert found.slope == pytest.approx(1000)
    assert found.r_squared == pytest.approx(1)
    assert found.proportionality_index == pytest.approx(0, abs=1e-12)
    assert found.mean_cv == 0
    assert found.notes == ()


def test_a_worked_example() -> None:
    """Two fractions, 1 and 0.5, of three replicates: means 100 and 60.

    Weights n / x are 3 and 6. b = (3 x 1 x 100 + 6 x 0.5 x 60) / (3 x 1 + 6 x 0.25) = 480 / 4.5 = 106.67. R² = 1 - (3 (100 - 106.67)² + 6 (60
    - 53.33)²) / (3 x 100² + 6 x 60²) = 1 - 400 / 51600. Index = 6.67 / 106.67 + 6.67 / 53.33 = 0.0625 + 0.125.
    """
    found = assess_series("s", "cells", {1.0: [90.0, 100.0, 110.0], 0.5: [60.0, 60.0, 60.0]})
    assert found.slope == pytest.approx(480 / 4.5)
    assert found.r_squared == pytest.approx(1 - 400 / 51600)
    assert found.proportionality_index == pytest.approx(0.1875)
    assert [each.cv for each in found.fractions] == [0, pytest.approx(0.1)]
    assert found.mean_cv == pytest.approx(0.05)
    assert found.notes == ("2 fractions; ISO 20391-2 asks for 4 at least",)


def test_a_counter_that_loses_cells_where_it_is_dense_shows_in_the_index() -> None:
    """It counts n / (1 + n / 2000): at 1000 a third is lost."""
    series = {x: [1000 * x / (1 + 1000 * x / 2000)] * 3 for x in (1.0, 0.5, 0.25, 0.125)}
    assert assess_series("s", "cells", series).proportionality_index > 0.3


def test_a_counter_that_misses_every_second_cell_is_as_proportional() -> None:
    series = {x: [500 * x] * 3 for x in (1.0, 0.5, 0.25)}
    found = assess_series("s", "cells", series)
    assert found.proportionality_index == pytest.approx(0, abs=1e-12)
    assert (
        report_lines(found)[-1] == "  these indicators tell repeatability and proportionality, not accuracy"
    )


@pytest.mark.parametrize("series", [{1.0: [5.0, 6.0]}, {1.0: [0.0], 0.5: [0.0]}, {}])
def test_what_is_no_series_is_refused(series: dict[float, list[float]]) -> None:
    with pytest.raises(ConfigFault, match="two fractions at least"):
        assess_series("s", "cells", series)


def well(name: str, **values: object) -> WellSample:
    return WellSample("P", name, 1, name, {"fields_ok": 2, "fields_expected": 2, **values})


def test_a_well_of_which_a_field_failed_has_not_fewer_cells(tmp_path: Path) -> None:
    wells = (
        well("A01", live=120),
        well("A02", live=60, fields_ok=1),
        well("A03", live=60),
        well("A04", live=60),
    )
    platemap = tmp_path / "map.csv"
    platemap.write_text("well,sample,dilution\nA01,s,1\nA02,s,1\nA03,s,2\nA04,s,2\n")
    [report] = dilution_reports(replace(samples(), wells=wells), platemap)
    assert [each.values for each in report.fractions] == [(30.0, 30.0), (60.0, 60.0)]
    assert report.measure == "live cells a field"
    assert report.r_squared == pytest.approx(1)
    assert "some fields could not be counted: A02" in report.notes
