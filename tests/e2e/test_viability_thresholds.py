"""What tells living cells from dead ones: thresholds that are found, given, or taken from control wells, and channels that fit their roles."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile

from cellcount_core.cli.main import main
from cellcount_core.demo.live_dead import UM_PER_PX, Condition, render_live_dead
from cellcount_core.domain.errors import ExitCode
from tests.viability import count, truth, wells_of

pytestmark = pytest.mark.beside


def test_the_thresholds_stand_in_the_run_and_its_fingerprint(
    stained: Path, judged: Path, tmp_path: Path
) -> None:
    run = json.loads((judged / "run" / "run.json").read_text())
    [found] = run["plate_numbers"]
    assert found["plate"] == "P"
    assert found["numbers"]["dead_populations"] == 2
    assert found["numbers"]["dead_threshold"] > 0
    assert found["numbers"]["dead_spill"] == pytest.approx(0.06, abs=0.03)
    assert (
        count(
            stained,
            tmp_path / "out",
            "--runner",
            "serial",
            "--threshold",
            "dead=150",
            "--threshold",
            "all=20",
        )
        == ExitCode.OK
    )
    given = json.loads((tmp_path / "out" / "run" / "run.json").read_text())
    [bits] = given["plate_numbers"]
    assert bits["numbers"] == {"all_bits": 16, "dead_bits": 16}
    assert given["fingerprint"] != run["fingerprint"]


def test_control_wells_give_the_thresholds(stained: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert (
        count(stained, out, "--runner", "serial", "--control", "live=A5", "--control", "dead=A01")
        == ExitCode.OK
    )
    numbers = json.loads((out / "run" / "run.json").read_text())["plate_numbers"][0]["numbers"]
    assert numbers["dead_populations"] == 0
    for name, true in truth(stained).items():
        expected = 100 * true.live / (true.live + true.dead)
        assert wells_of(out)[name]["viability"] == pytest.approx(expected, abs=1.5), name


def test_a_live_control_may_hold_a_tenth_of_dead_cells(
    stained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert count(stained, out, "--runner", "serial", "--control", "live=A04") == ExitCode.OK
    said = capsys.readouterr()
    assert "controls are mixed in the role 'dead': 1" in said.out + said.err
    for name, true in truth(stained).items():
        expected = 100 * true.live / (true.live + true.dead)
        assert wells_of(out)[name]["viability"] == pytest.approx(expected, abs=1.5), name


def test_a_threshold_above_the_range_of_the_images_is_refused(
    stained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        count(stained, tmp_path / "out", "--runner", "serial", "--threshold", "dead=70000") == ExitCode.CONFIG
    )
    assert (
        "the threshold 70000 of the role 'dead' is above all that an image of 16 bits can hold"
        in capsys.readouterr().err
    )


def test_swapped_controls_are_refused(
    stained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    swapped = ("--control", "live=A01", "--control", "dead=A05")
    assert count(stained, tmp_path / "out", "--runner", "serial", *swapped) == ExitCode.CONFIG
    assert (
        "in the role 'dead' the cells of the live control are as bright as those of the dead one or brighter"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("controls", ["G01", "A05,G01"])
def test_a_control_well_that_is_on_no_plate_is_refused(
    stained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], controls: str
) -> None:
    assert (
        count(stained, tmp_path / "out", "--runner", "serial", "--control", f"live={controls}")
        == ExitCode.CONFIG
    )
    assert (
        "control wells of 'live': there is no well 'G01' (the nearest are A01, A02, A03)"
        in capsys.readouterr().err
    )


def test_a_control_without_cells_is_refused(
    stained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "P").mkdir()
    shutil.copytree(stained / "images", tmp_path / "P" / "images")
    for path in (tmp_path / "P" / "images").glob("P_A05_*"):
        tifffile.imwrite(path, np.random.default_rng(1).normal(300, 5, (384, 384)).astype(np.uint16))
    controls = ("--control", "live=A05", "--control", "dead=A01")
    assert count(tmp_path / "P", tmp_path / "out", "--runner", "serial", *controls) == ExitCode.CONFIG
    assert "plate 'P': no cell was found in the live control wells A05" in capsys.readouterr().err
    for path in (tmp_path / "P" / "images").glob("P_A05_*"):
        path.write_bytes(b"no image")
    assert count(tmp_path / "P", tmp_path / "out", "--runner", "serial", *controls[:2]) == ExitCode.CONFIG
    assert "no field of the control wells A05 can be counted" in capsys.readouterr().err


def test_a_plate_without_controls_is_judged_by_those_of_another(
    stained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "two" / "images"
    images.mkdir(parents=True)
    for path in (stained / "images").iterdir():
        shutil.copy(path, images / path.name)
        if "_A03_" in path.name:
            shutil.copy(path, images / path.name.replace("P_A03", "Q_B03"))
    out = tmp_path / "out"
    controls = ("--control", "live=A05", "--control", "dead=A01")
    assert count(tmp_path / "two", out, "--runner", "serial", *controls) == ExitCode.OK
    assert "no control well of plate 'Q' could be used" in "".join(capsys.readouterr())
    wells = {
        row["Metadata_Plate"] + row["Metadata_Well"]: row
        for row in pq.read_table(out / "wells.parquet").to_pylist()
    }
    assert wells["QB03"]["dead"] == wells["PA03"]["dead"]


def test_the_plan_shows_the_thresholds_that_a_count_would_use(
    stained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    controls = (
        "--control",
        "live=A05",
        "--control",
        "dead=A01",
        "--um-per-px",
        str(UM_PER_PX),
        "--min-diameter",
        "7um",
    )
    options = (
        "--layout",
        "imagexpress",
        "--model",
        "viability-fluorescence",
        "--channel",
        "all=w1",
        "--channel",
        "dead=w2",
    )
    assert main(["plan", str(stained / "images"), *options, *controls]) == ExitCode.OK
    told = capsys.readouterr().out
    assert (
        main(
            [
                "count",
                str(stained / "images"),
                str(tmp_path / "out"),
                *options,
                *controls,
                "--runner",
                "serial",
            ]
        )
        == ExitCode.OK
    )
    [found] = json.loads((tmp_path / "out" / "run" / "run.json").read_text())["plate_numbers"]
    assert f"dead_threshold {found['numbers']['dead_threshold']:g}" in told


def test_each_plate_has_thresholds_of_its_own_and_a_new_one_changes_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plates, out = tmp_path / "plates", tmp_path / "out"
    arguments = [
        "count", str(plates), str(out), "--layout", "imagexpress", "--model", "viability-live-dead", "--channel", "live=w1", "--channel",
        "dead=w2", "--runner", "serial", "--diameter", "19",
    ]  # fmt: skip
    for name, brightness in (("bright", 1.5), ("dim", 0.4)):
        condition = Condition(name, roles=("live", "dead"), first=brightness, dead=brightness)
        render_live_dead(
            plates / name, condition, 3, mixtures=(0.2, 0.8), sites=1, cells=60, side=320, plate=name
        )
        (plates / name / "images").rename(plates / name / "TimePoint_1")
    assert main(["plan", *arguments[1:2], *arguments[3:-4], *arguments[-2:]]) == ExitCode.OK
    assert "plate 'bright', from 1" in capsys.readouterr().out
    assert main(arguments) == ExitCode.OK
    before = thresholds(out)
    assert set(before) == {"", "bright", "dim"}
    assert before["bright"] > 1.5 * before["dim"]
    for row in pq.read_table(out / "wells.parquet").to_pylist():
        assert row["viability"] == pytest.approx(20 if row["Metadata_Well"] == "A01" else 80, abs=2)
    third = Condition("third", roles=("live", "dead"))
    render_live_dead(plates / "third", third, 4, mixtures=(0.5,), sites=1, cells=60, side=320, plate="third")
    (plates / "third" / "images").rename(plates / "third" / "TimePoint_1")
    capsys.readouterr()
    assert main([*arguments, "--update"]) == ExitCode.OK
    assert "1 field updated, 4 rows kept" in capsys.readouterr().out
    assert main(["verify", str(out)]) == ExitCode.OK
    after = thresholds(out)
    assert {name: after[name] for name in before} == before
    assert "third" in after


def thresholds(out: Path) -> dict[str, float]:
    """The threshold of the role `dead`, by plate."""
    found = json.loads((out / "run" / "run.json").read_text())["plate_numbers"]
    return {each["plate"]: each["numbers"]["dead_threshold"] for each in found}


def test_swapped_channels_are_flagged(
    stained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    code = main(
        ["count", str(stained / "images"), str(out), "--layout", "imagexpress", "--model", "viability-fluorescence", "--channel", "all=w2",
         "--channel", "dead=w1", "--runner", "serial"]
    )  # fmt: skip
    assert code == ExitCode.OK
    assert (
        "show more dead stain outside of cells than inside: look whether the roles all and dead"
        in capsys.readouterr().out
    )
    assert "dead_outside_cells" in str(wells_of(out)["A04"]["warnings"])


def test_one_channel_of_two_is_refused(
    stained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "count",
        str(stained / "images"),
        str(tmp_path / "out"),
        "--layout",
        "imagexpress",
        "--model",
        "viability-fluorescence",
    ]
    assert main([*arguments, "--channel", "all=w1"]) == ExitCode.CONFIG
    assert (
        "the model needs a channel for each of its roles 'all', 'dead': give run.channels.dead"
        in capsys.readouterr().err
    )
    assert main([*arguments, "--channel", "all=w1", "--channel", "dead=w1"]) == ExitCode.CONFIG
    assert "the roles 'all' and 'dead' are both channel 'w1'" in capsys.readouterr().err


def test_settings_of_viability_are_refused_for_other_packages(
    stained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "count",
        str(stained / "images"),
        str(tmp_path / "out"),
        "--layout",
        "imagexpress",
        "--channel",
        "w1",
        "--min-diameter",
        "7um",
    ]
    assert main(arguments) == ExitCode.CONFIG
    assert "run.viability is for packages that tell live cells from dead ones" in capsys.readouterr().err
