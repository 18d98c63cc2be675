"""Viability by fluorescence, from two channels to tables: a made-up plate of known mixtures is counted, merged and verified, on any runner."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

import cellcount_core
from cellcount_core.cli.main import main
from cellcount_core.demo.live_dead import UM_PER_PX
from cellcount_core.domain.errors import ExitCode
from tests.jobs import digest, rows
from tests.viability import count, number, truth, wells_of

pytestmark = pytest.mark.beside


def test_the_viability_of_every_well_is_within_a_point_and_a_half_of_the_truth(
    stained: Path, judged: Path
) -> None:
    wells = wells_of(judged)
    for name, true in truth(stained).items():
        expected = 100 * true.live / (true.live + true.dead)
        assert wells[name]["viability"] == pytest.approx(expected, abs=1.5), name
        assert wells[name]["viability_n"] == pytest.approx(true.live + true.dead, rel=0.02)
        assert str(wells[name]["viability"]) != "-0.0"


def test_every_cell_has_a_class_and_the_classes_add_up(judged: Path) -> None:
    fields, objects = rows(judged, "fields").to_pylist(), rows(judged, "objects").to_pylist()
    assert len(objects) == sum(row["count"] for row in fields)
    for row in fields:
        own = [each for each in objects if each["field_id"] == row["field_id"]]
        for kind in ("live", "dead", "both", "neither"):
            assert row[kind] == sum(each["class"] == kind for each in own)
        assert all(0.5 <= each["class_probability"] <= 1 for each in own)
        assert row["viability"] == pytest.approx(100 * row["live"] / (row["live"] + row["dead"]))
        assert row["viability_low"] <= row["viability"] <= row["viability_high"]
        assert sum(row["diameter_histogram"]) == row["count"]
    assert {each["class"] for each in objects} == {"live", "dead"}


def test_cells_per_ml_are_those_of_the_chamber(judged: Path) -> None:
    """0.1 mm deep, diluted twice: a field of 384 px shows 384² x 0.65² µm² x 100 µm = 6.23 nL, of which half is sample."""
    shown_ml = (384 * UM_PER_PX) ** 2 * 100 * 1e-12 / 2
    for row in rows(judged, "fields").to_pylist():
        assert row["sample_ml"] == pytest.approx(shown_ml)
        assert row["cells_per_ml"] == pytest.approx(row["count_two_edges"] / shown_ml)
        assert row["viable_cells_per_ml"] == pytest.approx(row["live_two_edges"] / shown_ml)
        assert row["count_two_edges"] <= row["count"]
    well = wells_of(judged)["A03"]
    assert well["cells_per_ml"] == pytest.approx(number(well, "count_two_edges") / (2 * shown_ml))


@pytest.mark.alone
@pytest.mark.ray
def test_ray_gives_the_same_tables_and_a_run_that_lost_a_part_goes_on(
    stained: Path, judged: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    chamber = ("--chamber", "improved_neubauer", "--dilution", "2")
    assert count(stained, out, "--runner", "ray", "--set", "execution.actors=2", *chamber) == ExitCode.OK
    assert digest(out) == digest(judged)
    (out / "fields" / "part-000001.parquet").unlink()
    (out / "summary.json").unlink()
    assert main(["verify", str(out)]) == ExitCode.LEDGER
    assert count(stained, out, "--runner", "serial", *chamber) == ExitCode.OK
    assert main(["verify", str(out)]) == ExitCode.OK
    assert digest(out) == digest(judged)


def test_one_image_is_judged_by_its_own_cells(stained: Path) -> None:
    planes = np.stack(
        [tifffile.imread(stained / "images" / f"P_A03_s1_w{channel}.TIF") for channel in (1, 2)]
    )
    true = truth(stained)["A03"]
    found = cellcount_core.count(
        planes,
        model="viability-fluorescence",
        channel={"all": "0", "dead": "1"},
        settings={"run.axes": "CYX"},
    )
    assert found.count == pytest.approx((true.live + true.dead) / 2, abs=2)
    assert found.row["viability"] == pytest.approx(50, abs=3)
    assert found.objects is not None
    assert set(found.objects.column("class").to_pylist()) == {"live", "dead"}
