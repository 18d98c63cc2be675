"""What a night does with budgets, waiting times, failing plates, changed settings and a root that is gone."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
import yaml

from cellcount_core.cli.main import main
from cellcount_core.domain.errors import BusyFault, ConfigFault, ExitCode, OutputFault
from cellcount_core.nightly.digest import Digest
from cellcount_core.nightly.ledger import PlateStatus
from tests import zarrs
from tests.nights import MONDAY, SimulatedClock, Witness, night, settings
from tests.plates import Plate, discs, write_plate

ROOT = Path(__file__).parents[3]


@pytest.fixture
def scope(tmp_path: Path) -> Path:
    return tmp_path / "scope"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "counts"


def arrives(scope: Path, name: str) -> Plate:
    plate = write_plate(scope / name, well_count=2)
    (plate.folder / "DONE").touch()
    return plate


def names(digest: Digest, status: PlateStatus) -> list[str]:
    return [event.plate for event in digest.of(status)]


def day(number: int, **more: object) -> SimulatedClock:
    return replace(SimulatedClock(**more), date=MONDAY + timedelta(days=number))  # type: ignore[arg-type]


def test_past_the_budget_no_plate_is_begun_and_the_next_night_takes_what_is_left_first(
    scope: Path, output: Path
) -> None:
    for name in ("P1", "P2", "P3"):
        arrives(scope, name)
    config = settings(scope, output, budget={"max_hours": 1, "cost_per_hour": 6})

    first = night(config, day(0, per_call=1200.0))
    assert names(first, PlateStatus.COUNTED) == ["P1"]
    assert names(first, PlateStatus.LEFT) == ["P2", "P3"]
    assert first.exit_code is ExitCode.INTERRUPTED
    assert first.cost == pytest.approx(6 * first.seconds / 3600)

    arrives(scope, "P0")
    second = night(config, day(1))
    assert names(second, PlateStatus.COUNTED) == ["P2", "P3", "P0"]


def test_a_budget_of_money_is_kept_like_one_of_time(scope: Path, output: Path) -> None:
    arrives(scope, "P1")
    arrives(scope, "P2")
    config = settings(scope, output, budget={"max_cost": 2, "cost_per_hour": 2})

    digest = night(config, day(0, per_call=1300.0))

    assert names(digest, PlateStatus.LEFT) == ["P2"]
    assert digest.of(PlateStatus.LEFT)[0].detail == "budget.max_cost of 2 is spent"


def test_a_plate_that_is_unchanged_for_the_waiting_time_is_counted_the_same_night(
    scope: Path, output: Path
) -> None:
    arrives(scope, "P1")
    clock = day(0)

    digest = night(settings(scope, output, complete={"unchanged_min": 30}), clock)

    assert clock.slept == [1800]
    assert names(digest, PlateStatus.COUNTED) == ["P1"]


def test_a_plate_that_is_still_being_written_is_late_and_counted_the_next_night(
    scope: Path, output: Path
) -> None:
    plate = arrives(scope, "P1")
    config = settings(scope, output, complete={"unchanged_min": 30})

    def writing() -> None:
        tifffile.imwrite(plate.file("A03", 1), discs(3, 96, 1))

    first = night(config, day(0, meanwhile=writing))
    clock = day(1)
    second = night(config, clock)

    assert names(first, PlateStatus.LATE) == ["P1"]
    assert first.exit_code is ExitCode.OK
    assert names(second, PlateStatus.COUNTED) == ["P1"]
    assert clock.slept == []
    assert second.of(PlateStatus.COUNTED)[0].fields == 5


def test_a_clock_that_was_set_back_makes_a_plate_wait_and_never_count_too_early(
    scope: Path, output: Path
) -> None:
    plate = arrives(scope, "P1")
    config = settings(scope, output, complete={"unchanged_min": 30})
    night(config, day(5, meanwhile=lambda: tifffile.imwrite(plate.file("A03", 1), discs(3, 96, 1))))
    clock = day(0)

    assert names(night(config, clock), PlateStatus.COUNTED) == ["P1"]
    assert clock.slept == [1800]


def test_a_plate_that_cannot_be_counted_is_told_and_the_others_are_counted(scope: Path, output: Path) -> None:
    arrives(scope, "P2")
    bad = arrives(scope, "P1")
    (bad.folder / "TimePoint_1" / "nonsense.tif").write_bytes(b"x")
    config = settings(scope, output)

    digest = night(config, day(0))

    assert names(digest, PlateStatus.COUNTED) == ["P2"]
    assert digest.exit_code is ExitCode.FAILURES
    assert "nonsense.tif" in digest.of(PlateStatus.FAILED)[0].detail

    (bad.folder / "TimePoint_1" / "nonsense.tif").unlink()
    assert names(night(config, day(1)), PlateStatus.COUNTED) == ["P1"]


def test_each_plate_has_its_own_map_and_one_without_is_told(
    scope: Path, output: Path, tmp_path: Path
) -> None:
    arrives(scope, "P1")
    arrives(scope, "P2")
    (tmp_path / "P1.csv").write_text("Well,drug\nA01,DMSO\nA02,taxol\n")
    run = {**settings(scope, output).run.model_dump(), "platemap": f"{tmp_path}/{{plate}}.csv"}

    digest = night(settings(scope, output, run=run), day(0))

    [counted], [failed] = digest.of(PlateStatus.COUNTED), digest.of(PlateStatus.FAILED)
    assert (counted.plate, failed.plate) == ("P1", "P2")
    assert "P2.csv: no such file; a plate map" in failed.detail
    wells = pq.read_table(output / counted.output / "wells.parquet")
    assert wells.column("Metadata_drug").to_pylist() == ["DMSO", "taxol"]


def test_a_plate_that_changes_while_it_is_counted_is_not_taken_for_counted(scope: Path, output: Path) -> None:
    plate = arrives(scope, "P1")

    class Correcting(Witness):
        def begin(self, fields: int, already: int, run: str) -> None:
            tifffile.imwrite(plate.file("A03", 1), discs(3, 96, 1))

    config = settings(scope, output)
    first = night(config, day(0), Correcting())
    second = night(config, day(1))

    assert names(first, PlateStatus.FAILED) == ["P1"]
    assert names(second, PlateStatus.COUNTED) == ["P1"]
    assert second.of(PlateStatus.COUNTED)[0].fields == 5


def test_a_plate_that_came_back_as_it_was_is_not_counted_again(
    scope: Path, output: Path, tmp_path: Path
) -> None:
    plate = arrives(scope, "P1")
    arrives(scope, "P2")
    config = settings(scope, output)
    night(config, day(0))
    plate.folder.rename(tmp_path / "away")
    assert names(night(config, day(1)), PlateStatus.DELETED) == ["P1"]
    (tmp_path / "away").rename(plate.folder)

    witness = Witness()
    digest = night(config, day(2), witness)

    assert names(digest, PlateStatus.COUNTED) == ["P1"]
    assert witness.fields == {}
    assert digest.of(PlateStatus.COUNTED)[0].fields_now == 0


def test_a_root_that_lists_nothing_is_a_problem_and_deletes_no_plate(
    scope: Path, output: Path, tmp_path: Path
) -> None:
    arrives(scope, "P1")
    config = settings(scope, output)
    night(config, day(0))
    scope.rename(tmp_path / "unmounted")
    scope.mkdir()

    digest = night(config, day(1))

    assert digest.of(PlateStatus.DELETED) == []
    assert digest.exit_code is ExitCode.FAILURES
    assert "lists no file at all" in digest.problems[0]
    scope.rmdir()
    with pytest.raises(ConfigFault, match="no such folder"):
        night(config, day(2))


def test_other_settings_need_another_output(scope: Path, output: Path) -> None:
    arrives(scope, "P1")
    night(settings(scope, output), day(0))
    changed = settings(
        scope, output, run={"layout": {"kind": "imagexpress"}, "model": {"package": "threshold"}, "z": "mean"}
    )

    with pytest.raises(OutputFault, match=r"run\.z: 'max' -> 'mean'"):
        night(changed, day(1))


@pytest.mark.slow
def test_a_plate_unlike_those_of_the_last_nights_is_flagged(scope: Path, output: Path) -> None:
    for number in range(5):
        arrives(scope, f"P{number}")
    config = settings(scope, output)
    assert night(config, day(0)).exit_code is ExitCode.OK
    bright = arrives(scope, "P9")
    for well in ("A01", "A02"):
        for site in (1, 2):
            file = bright.file(well, site)
            tifffile.imwrite(file, (tifffile.imread(file) + np.uint16(2000)).astype(np.uint16))

    digest = night(config, day(1))

    assert [(reading.plate, reading.statistic) for reading in digest.flagged] == [("P9", "background")]
    assert digest.exit_code is ExitCode.FAILURES
    assert "P9" in (output / "nights/latest.html").read_text()


def test_a_failing_webhook_is_told_and_fails_no_night(scope: Path, output: Path) -> None:
    arrives(scope, "P1")
    config = settings(scope, output, webhook={"url": "http://127.0.0.1:9/", "retries": 0, "timeout_s": 2})

    digest = night(config, day(0))

    assert digest.exit_code is ExitCode.OK
    assert digest.webhook.startswith("not sent to 127.0.0.1")
    assert json.loads((output / "nights/2026-03-02/digest.json").read_bytes())["webhook"] == digest.webhook


def test_the_command_prints_the_night_and_exits_with_its_code(
    scope: Path, output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plate = arrives(scope, "P1")
    plate.file("A02", 1).write_bytes(b"this is not an image")
    file = tmp_path / "nightly.yaml"
    file.write_text(yaml.safe_dump(settings(scope, output).model_dump(mode="json")), encoding="utf-8")

    assert main(["nightly", str(file), "--progress", "quiet"]) == ExitCode.FAILURES
    assert "1 counted, 0 unchanged" in capsys.readouterr().out
    assert (
        main(["nightly", str(file), "--progress", "quiet", "--set", "execution.max_failed=1"]) == ExitCode.OK
    )


def test_faults_of_the_settings_are_told_at_once_with_what_was_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "nightly.yaml"
    file.write_text(
        "roots: []\noutput: out\nbudgets: {}\ncomplete: {}\nbudget: {max_cost: 3}\n", encoding="utf-8"
    )

    assert main(["nightly", str(file)]) == ExitCode.CONFIG
    told = capsys.readouterr().err
    assert "budgets: unknown key; did you mean 'budget'?" in told
    assert "complete: should have one of marker, fields, unchanged_min" in told
    assert "max_cost needs a cost_per_hour above 0" in told


def test_the_commented_settings_are_valid() -> None:
    from cellcount_core.cli.unattended import nightly_config

    config = nightly_config(ROOT / "conf/nightly.yaml", [])

    assert config.complete.unchanged_min == 30
    assert config.budget.max_hours == 8


def test_a_second_night_on_the_same_output_is_refused_and_writes_nothing(scope: Path, output: Path) -> None:
    arrives(scope, "P1")
    config = settings(scope, output)
    refused: list[str] = []

    class Impatient(Witness):
        def begin(self, fields: int, already: int, run: str) -> None:
            before = sorted(output.rglob("*"))
            with pytest.raises(BusyFault) as fault:
                night(config, day(0))
            refused.append(str(fault.value))
            assert sorted(output.rglob("*")) == before

    digest = night(config, day(0), Impatient())

    assert names(digest, PlateStatus.COUNTED) == ["P1"]
    assert "another run is at work" in refused[0]


def test_a_plate_of_arrays_is_counted_once_and_anew_when_it_changed(scope: Path, output: Path) -> None:
    def arrives_as_arrays(seed: int) -> None:
        pixels = discs(5, 96, seed)[None, None]
        zarrs.write_plate(scope / "P.zarr", {"B/03": {"0": pixels}, "B/04": {"0": pixels[..., ::-1]}})
        (scope / "P.zarr" / "DONE").touch()

    arrives_as_arrays(1)
    run = {"layout": {"kind": "ome-zarr"}, "model": {"package": "threshold"}}
    first = night(settings(scope, output, run=run), day(0))
    [event] = first.of(PlateStatus.COUNTED)
    assert (event.plate, event.fields, event.statistics["count"]) == ("P.zarr", 2, 10)
    assert night(settings(scope, output, run=run), day(1)).unchanged == 1
    arrives_as_arrays(2)
    third = night(settings(scope, output, run=run), day(2))
    assert names(third, PlateStatus.COUNTED) == ["P.zarr"]
    assert [event.detail for event in third.of(PlateStatus.SUPERSEDED)] == [""]
