"""`--max-failed`: a run whose files are mostly broken stops early, says why, and goes on with a larger budget."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellcount_core.cli.main import main
from cellcount_core.domain.errors import ExitCode
from tests.jobs import digest
from tests.plates import Plate, write_plate

pytestmark = pytest.mark.beside

FIELDS = 24
BROKEN = ("A02", "A03", "A05", "A09")
SHARDS = 12


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> Plate:
    """12 wells of 2 sites; in 4 wells the first file is no image and the second is cut short, but for one whole."""
    plate = write_plate(tmp_path_factory.mktemp("input") / "plate", well_count=12)
    for well in BROKEN:
        plate.file(well, 1).write_bytes(b"this is not an image")
        if well != "A05":
            plate.file(well, 2).write_bytes(plate.file(well, 2).read_bytes()[:900])
    return plate


def count(plate: Plate, output: Path, *more: str) -> int:
    return main(
        ["count", str(plate.folder), str(output), "--layout", "imagexpress", "--model", "threshold", "--runner", "serial",
         "--progress", "quiet", "--set", "execution.shard_fields=2", "--set", "execution.in_flight=1", *more]
    )  # fmt: skip


def parts(output: Path) -> int:
    return len(list((output / "fields").glob("*.parquet")))


def test_without_a_budget_nothing_stops_early(plate: Plate, tmp_path: Path) -> None:
    assert count(plate, tmp_path / "out") == ExitCode.FAILURES
    assert parts(tmp_path / "out") == SHARDS


def test_a_spent_budget_stops_the_run_and_a_larger_one_goes_on(
    plate: Plate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert count(plate, output, "--max-failed", "2") == ExitCode.FAILURES
    told = capsys.readouterr().err.splitlines()
    assert told == [
        "cellcount: stopped early: 4 of 24 fields failed or are missing, --max-failed is 2; 6 fields are done and stay",
        "       2 failed: not_an_image. The bytes are not those of any image format known here.",
        f"         for example plate P1, well A02, site 1, time point 1: {told[2].split(': ', 1)[1]}",
        "       2 failed: truncated. The file ends before its image does: an unfinished copy or upload.",
        f"         for example plate P1, well A02, site 2, time point 1: {told[4].split(': ', 1)[1]}",
        "the same command with a larger --max-failed, or with none, goes on where this one stopped",
    ]
    assert "P1_A02_s1_w1.TIF" in told[2]
    assert parts(output) == 3
    assert not (output / "summary.json").exists()

    # What an earlier call committed counts too: nothing more is done.
    assert count(plate, output, "--max-failed", "3") == ExitCode.FAILURES
    assert "4 of 24 fields failed or are missing, --max-failed is 3" in capsys.readouterr().err
    assert parts(output) == 3

    # 20% of 24 fields are 4: the fifth failure stops.
    assert count(plate, output, "--max-failed", "20%") == ExitCode.FAILURES
    assert "5 of 24 fields failed or are missing, --max-failed is 20%, 4 of 24;" in capsys.readouterr().err
    assert parts(output) == 5

    assert count(plate, output, "--max-failed", "7") == ExitCode.OK
    count(plate, tmp_path / "unbroken")
    assert digest(output) == digest(tmp_path / "unbroken")


def test_fields_that_the_plan_knows_to_be_missing_spend_the_budget_before_anything_is_counted(
    plate: Plate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = ("--set", "run.expect.wells=96", "--set", "run.expect.sites=[1,2]")
    assert count(plate, tmp_path / "out", *grid, "--max-failed", "50%") == ExitCode.FAILURES
    told = capsys.readouterr().err
    assert (
        "stopped early: 168 of 192 fields failed or are missing, --max-failed is 50%, 96 of 192; 0 fields"
        in told
    )
    assert "     168 missing: absent. The file is expected but is not there." in told
    assert parts(tmp_path / "out") == 0


def test_the_last_shard_is_not_stopped_by_the_budget_it_breaks(plate: Plate, tmp_path: Path) -> None:
    only = ("--set", 'run.include=["**/P1_A02_*"]')
    assert count(plate, tmp_path / "out", *only, "--max-failed", "1") == ExitCode.FAILURES
    assert (tmp_path / "out" / "summary.json").exists()
