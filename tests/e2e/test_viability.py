"""Viability by fluorescence, from two channels to tables: a made-up plate of known mixtures is counted, merged, verified and exported."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile

import cellcount_core
from cellcount_core.cli.main import main
from cellcount_core.demo.live_dead import UM_PER_PX, Condition, TruthCells, render_live_dead
from cellcount_core.domain.errors import ConfigFault, ExitCode
from tests.jobs import digest, rows
from tests.nights import night, settings

pytestmark = pytest.mark.beside

MIXTURES = (0.0, 0.25, 0.5, 0.9, 1.0)
CONDITION = Condition("dim, crosstalk, uneven light", first=0.7, dead=0.45, spill=0.06, fall_off=0.45)


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five wells of two sites, from all dead to all live."""
    folder = tmp_path_factory.mktemp("plates") / "P"
    render_live_dead(folder, CONDITION, 5, mixtures=MIXTURES, cells=90, side=384)
    return folder


def truth(plate: Path) -> dict[str, TruthCells]:
    """The true numbers of both sites of each well."""
    lines = [line.split(",") for line in (plate / "truth.csv").read_text().splitlines()[1:]]
    wells: dict[str, TruthCells] = {}
    for well, _, live, dead, both, _ in lines:
        before = wells.get(well, TruthCells(well, 0, 0, 0))
        wells[well] = TruthCells(
            well, 0, before.live + int(live), before.dead + int(dead), before.both + int(both)
        )
    return wells


def count(
    plate: Path, out: Path, *more: str, model: str = "viability-fluorescence", first: str = "all"
) -> int:
    return main(
        ["count", str(plate / "images"), str(out), "--layout", "imagexpress", "--model", model, "--channel", f"{first}=w1",
         "--channel", "dead=w2", "--um-per-px", str(UM_PER_PX), "--set", "execution.shard_fields=3", *more]
    )  # fmt: skip


def test_evaluate_takes_a_file_for_each_role(plate: Path, counted: Path, tmp_path: Path) -> None:
    lines = ["image_all,image_dead,live,dead"]
    for well, site, live, dead, _, _ in csv.reader((plate / "truth.csv").read_text().splitlines()[1:]):
        files = [plate / "images" / f"P_{well}_s{site}_w{channel}.TIF" for channel in (1, 2)]
        lines.append(",".join([*map(str, files), live, dead]))
    table = tmp_path / "truth.csv"
    table.write_text("\n".join(lines) + "\n")
    out = tmp_path / "evaluation"
    assert main(["evaluate", "viability-fluorescence", str(table), "--out", str(out)]) == ExitCode.OK
    found = json.loads((out / "evaluation.json").read_text())
    assert abs(found["figures"]["pooled_error_points"]["value"]) < 10
    assert found["figures"]["images"]["value"] == len(MIXTURES) * 2
    table.write_text("image_all,dead_image,live,dead\na.tif,b.tif,1,2\n")
    with pytest.raises(ConfigFault, match="no column 'image_dead' with the files of that channel"):
        cellcount_core.evaluate("viability-fluorescence", table)


def wells_of(out: Path) -> dict[str, dict[str, object]]:
    return {row["Metadata_Well"]: row for row in pq.read_table(out / "wells.parquet").to_pylist()}


def number(row: dict[str, object], column: str) -> float:
    """A value of a row that must be a number."""
    value = row[column]
    assert isinstance(value, int | float), (column, value)
    return value


@pytest.fixture(scope="module")
def counted(plate: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Counted by the serial runner."""
    out = tmp_path_factory.mktemp("counted") / "out"
    assert (
        count(plate, out, "--runner", "serial", "--chamber", "improved_neubauer", "--dilution", "2")
        == ExitCode.OK
    )
    return out


def test_the_viability_of_every_well_is_within_a_point_and_a_half_of_the_truth(
    plate: Path, counted: Path
) -> None:
    wells = wells_of(counted)
    for name, true in truth(plate).items():
        expected = 100 * true.live / (true.live + true.dead)
        assert wells[name]["viability"] == pytest.approx(expected, abs=1.5), name
        assert wells[name]["viability_n"] == pytest.approx(true.live + true.dead, rel=0.02)
        assert str(wells[name]["viability"]) != "-0.0"


def test_every_cell_has_a_class_and_the_classes_add_up(counted: Path) -> None:
    fields, objects = rows(counted, "fields").to_pylist(), rows(counted, "objects").to_pylist()
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


def test_cells_per_ml_are_those_of_the_chamber(counted: Path) -> None:
    """0.1 mm deep, diluted twice: a field of 384 px shows 384² x 0.65² µm² x 100 µm = 6.23 nL, of which half is sample."""
    shown_ml = (384 * UM_PER_PX) ** 2 * 100 * 1e-12 / 2
    for row in rows(counted, "fields").to_pylist():
        assert row["sample_ml"] == pytest.approx(shown_ml)
        assert row["cells_per_ml"] == pytest.approx(row["count_two_edges"] / shown_ml)
        assert row["viable_cells_per_ml"] == pytest.approx(row["live_two_edges"] / shown_ml)
        assert row["count_two_edges"] <= row["count"]
    well = wells_of(counted)["A03"]
    assert well["cells_per_ml"] == pytest.approx(number(well, "count_two_edges") / (2 * shown_ml))


def test_the_thresholds_stand_in_the_run_and_its_fingerprint(
    plate: Path, counted: Path, tmp_path: Path
) -> None:
    run = json.loads((counted / "run" / "run.json").read_text())
    [found] = run["plate_numbers"]
    assert found["plate"] == "P"
    assert found["numbers"]["dead_populations"] == 2
    assert found["numbers"]["dead_threshold"] > 0
    assert found["numbers"]["dead_spill"] == pytest.approx(0.06, abs=0.03)
    assert (
        count(
            plate, tmp_path / "out", "--runner", "serial", "--threshold", "dead=150", "--threshold", "all=20"
        )
        == ExitCode.OK
    )
    given = json.loads((tmp_path / "out" / "run" / "run.json").read_text())
    [bits] = given["plate_numbers"]
    assert bits["numbers"] == {"all_bits": 16, "dead_bits": 16}
    assert given["fingerprint"] != run["fingerprint"]


def test_control_wells_give_the_thresholds(plate: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert (
        count(plate, out, "--runner", "serial", "--control", "live=A5", "--control", "dead=A01")
        == ExitCode.OK
    )
    numbers = json.loads((out / "run" / "run.json").read_text())["plate_numbers"][0]["numbers"]
    assert numbers["dead_populations"] == 0
    for name, true in truth(plate).items():
        expected = 100 * true.live / (true.live + true.dead)
        assert wells_of(out)[name]["viability"] == pytest.approx(expected, abs=1.5), name


def test_a_live_control_may_hold_a_tenth_of_dead_cells(
    plate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert count(plate, out, "--runner", "serial", "--control", "live=A04") == ExitCode.OK
    said = capsys.readouterr()
    assert "controls are mixed in the role 'dead': 1" in said.out + said.err
    for name, true in truth(plate).items():
        expected = 100 * true.live / (true.live + true.dead)
        assert wells_of(out)[name]["viability"] == pytest.approx(expected, abs=1.5), name


def test_a_threshold_above_the_range_of_the_images_is_refused(
    plate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        count(plate, tmp_path / "out", "--runner", "serial", "--threshold", "dead=70000") == ExitCode.CONFIG
    )
    assert (
        "the threshold 70000 of the role 'dead' is above all that an image of 16 bits can hold"
        in capsys.readouterr().err
    )


def test_swapped_controls_are_refused(
    plate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    swapped = ("--control", "live=A01", "--control", "dead=A05")
    assert count(plate, tmp_path / "out", "--runner", "serial", *swapped) == ExitCode.CONFIG
    assert (
        "in the role 'dead' the cells of the live control are as bright as those of the dead one or brighter"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("controls", ["G01", "A05,G01"])
def test_a_control_well_that_is_on_no_plate_is_refused(
    plate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], controls: str
) -> None:
    assert (
        count(plate, tmp_path / "out", "--runner", "serial", "--control", f"live={controls}")
        == ExitCode.CONFIG
    )
    assert (
        "control wells of 'live': there is no well 'G01' (the nearest are A01, A02, A03)"
        in capsys.readouterr().err
    )


def test_a_control_without_cells_is_refused(
    plate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "P").mkdir()
    shutil.copytree(plate / "images", tmp_path / "P" / "images")
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
    plate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "two" / "images"
    images.mkdir(parents=True)
    for path in (plate / "images").iterdir():
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
    plate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
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
    assert main(["plan", str(plate / "images"), *options, *controls]) == ExitCode.OK
    told = capsys.readouterr().out
    assert (
        main(
            ["count", str(plate / "images"), str(tmp_path / "out"), *options, *controls, "--runner", "serial"]
        )
        == ExitCode.OK
    )
    [found] = json.loads((tmp_path / "out" / "run" / "run.json").read_text())["plate_numbers"]
    assert f"dead_threshold {found['numbers']['dead_threshold']:g}" in told


def test_swapped_channels_are_flagged(
    plate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    code = main(
        ["count", str(plate / "images"), str(out), "--layout", "imagexpress", "--model", "viability-fluorescence", "--channel", "all=w2",
         "--channel", "dead=w1", "--runner", "serial"]
    )  # fmt: skip
    assert code == ExitCode.OK
    assert (
        "show more dead stain outside of cells than inside: look whether the roles all and dead"
        in capsys.readouterr().out
    )
    assert "dead_outside_cells" in str(wells_of(out)["A04"]["warnings"])


def test_one_channel_of_two_is_refused(
    plate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "count",
        str(plate / "images"),
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


def test_a_gate_in_um_needs_a_pixel_size(
    plate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused before all images are read, if no image has a pixel size; else those without one fail."""
    options = (
        "--layout", "imagexpress", "--model", "viability-fluorescence", "--channel", "all=w1", "--channel", "dead=w2", "--runner", "serial",
        "--min-diameter", "7um",
    )  # fmt: skip
    out = str(tmp_path / "out")
    for more in ((), ("--diameter", "18"), ("--threshold", "dead=150", "--threshold", "all=20")):
        assert main(["count", str(plate / "images"), out, *options, *more]) == ExitCode.CONFIG
        assert "--min-diameter 7um: none of 10 sampled fields has a pixel size" in capsys.readouterr().err
    images = tmp_path / "images"
    shutil.copytree(plate / "images", images)
    for path in images.glob("P_A01_s1_*"):
        tifffile.imwrite(
            path, tifffile.imread(path), imagej=True, resolution=(1 / UM_PER_PX,) * 2, metadata={"unit": "um"}
        )
    assert main(["count", str(images), out, *options]) == ExitCode.FAILURES
    assert rows(Path(out), "fields").column("reason").to_pylist().count("no_pixel_size") == 9


def test_what_needs_a_pixel_size_is_told_by_the_plan_where_the_object_size_is_given_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing else would be sampled there, and every field would fail, or have no volume, after the count."""
    images, sized = tmp_path / "images", tmp_path / "sized"
    for folder, more in ((images, {}), (sized, {"resolution": (1 / 0.65,) * 2, "metadata": {"unit": "um"}})):
        folder.mkdir()
        for name in "ab":
            tifffile.imwrite(folder / f"{name}.tif", np.full((96, 96), 200, np.uint8), imagej=True, **more)
    given = ("--model", "viability-brightfield", "--diameter", "20")

    def planned(folder: Path, *options: str) -> tuple[int, str]:
        code = main(["plan", str(folder), *given, *options])
        told = capsys.readouterr()
        return code, told.out + told.err

    code, told = planned(images, "--min-diameter", "7um")
    assert (code, "none of 2 sampled fields has a pixel size" in told) == (ExitCode.CONFIG, True)
    code, told = planned(images, "--chamber", "improved_neubauer")
    assert (code, "--chamber: none of 2 sampled fields has a pixel size, so there will be no cells/mL" in told) == (ExitCode.OK, True)  # fmt: skip
    gates = ("--min-diameter", "30px", "--max-diameter", "7um")
    code, told = planned(sized, *gates)
    assert (code, "(30px) is larger than max_diameter (7um) at 0.65 µm per px" in told) == (ExitCode.CONFIG, True)  # fmt: skip
    out = tmp_path / "out"
    assert main(["count", str(sized), str(out), *given, *gates]) == ExitCode.CONFIG
    for needed in (("--min-diameter", "7um"), ("--chamber", "improved_neubauer")):
        code, told = planned(sized, *needed)
        assert (code, "pixel size" in told) == (ExitCode.OK, False)
        code, told = planned(images, *needed, "--um-per-px", "0.65")
        assert (code, "pixel size" in told) == (ExitCode.OK, False)


def test_a_gate_by_what_a_package_does_not_measure_is_refused_in_every_way_to_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Boxes have no outline, so no circularity: the gate would pass everything and be reported as applied."""
    images, out = tmp_path / "images", str(tmp_path / "out")
    images.mkdir()
    picture = np.full((96, 96, 3), 200, np.uint8)
    tifffile.imwrite(images / "a.tif", picture, photometric="rgb")
    told = "package 'viability-brightfield' finds cells as boxes, which have no outline"
    options = ["--model", "viability-brightfield", "--diameter", "20", "--min-circularity", "0.6"]
    config = tmp_path / "job.yaml"
    config.write_text(
        f"input: {images}\noutput: {out}\nrun: {{model: {{package: viability-brightfield}}, viability: {{min_circularity: 0.6}}}}\n"
    )
    for command in (
        ["count", str(images), out, *options],
        ["plan", str(images), *options],
        ["count", str(config)],
    ):
        assert main(command) == ExitCode.CONFIG, command
        assert told in capsys.readouterr().err
    gate = {"run.viability.min_circularity": 0.6}
    with pytest.raises(ConfigFault, match=told):
        cellcount_core.count(picture[..., 0], model="viability-brightfield", settings=gate)
    with pytest.raises(ConfigFault, match=told):
        cellcount_core.run(images, out, model="viability-brightfield", settings=gate)


def test_gates_that_leave_nothing_are_named_in_place_of_the_model(
    plate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert count(plate, tmp_path / "out", "--runner", "serial", "--min-diameter", "200um") == ExitCode.OK
    told = capsys.readouterr().out
    left_out = sum(rows(tmp_path / "out", "fields").column("gated_out").to_pylist())
    assert f"{left_out} objects left out by the gates (--min-diameter 200um)" in told
    assert "10 of 10 fields hold objects, all of which the gates left out" in told
    assert "try another --model" not in told


def test_gates_leave_out_objects_and_say_how_many(plate: Path, counted: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    gates = ("--min-diameter", "11um", "--min-circularity", "0.7", "--labels")
    assert count(plate, out, "--runner", "serial", *gates) == ExitCode.OK
    assert main(["verify", str(out)]) == ExitCode.OK
    objects = rows(out, "objects").to_pylist()
    assert min(each["diameter_um"] for each in objects) >= 11
    assert min(each["circularity"] for each in objects) >= 0.7
    for before, after in zip(
        rows(counted, "fields").to_pylist(), rows(out, "fields").to_pylist(), strict=True
    ):
        assert after["count"] + after["gated_out"] == before["count"]
        assert after["gated_out"] > 0


@pytest.mark.alone
def test_ray_gives_the_same_tables_and_a_run_that_lost_a_part_goes_on(
    plate: Path, counted: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    chamber = ("--chamber", "improved_neubauer", "--dilution", "2")
    assert count(plate, out, "--runner", "ray", "--set", "execution.actors=2", *chamber) == ExitCode.OK
    assert digest(out) == digest(counted)
    (out / "fields" / "part-000001.parquet").unlink()
    (out / "summary.json").unlink()
    assert main(["verify", str(out)]) == ExitCode.LEDGER
    assert count(plate, out, "--runner", "serial", *chamber) == ExitCode.OK
    assert main(["verify", str(out)]) == ExitCode.OK
    assert digest(out) == digest(counted)


def test_the_last_lines_say_what_was_found_and_what_to_doubt(
    counted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reduce", str(counted)]) == ExitCode.OK
    told = capsys.readouterr().out
    summary = json.loads((counted / "summary.json").read_text())
    assert (
        f"viability {summary['viability']:.1f} % ({summary['viability_low']:.1f} to {summary['viability_high']:.1f})"
        in told
    )
    assert f"{summary['live']} live, {summary['dead']} dead in 10 of 10 fields" in told
    assert "2 of 5 wells have a viability below 50 %" in told
    assert summary["wells_warnings"] == {"low_viability": 2}
    assert wells_of(counted)["A01"]["viability_warnings"] == "below 50 %"


def test_settings_of_viability_are_refused_for_other_packages(
    plate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "count",
        str(plate / "images"),
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


def test_it_is_evaluated_by_a_table_of_true_numbers(
    plate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["image,live,dead"]
    for line in (plate / "truth.csv").read_text().splitlines()[1:]:
        well, site, live, dead, *_ = line.split(",")
        planes = [
            tifffile.imread(plate / "images" / f"P_{well}_s{site}_w{channel}.TIF") for channel in (1, 2)
        ]
        named = {"axes": "CYX", "Channel": {"Name": ["all", "dead"]}}
        tifffile.imwrite(tmp_path / f"{well}_{site}.ome.tif", np.stack(planes), metadata=named, ome=True)
        lines.append(f"{well}_{site}.ome.tif,{live},{dead}")
    (tmp_path / "truth.csv").write_text("\n".join([*lines, ""]))
    arguments = [
        "evaluate",
        "viability-fluorescence",
        str(tmp_path / "truth.csv"),
        "--out",
        str(tmp_path / "evaluation"),
    ]
    assert main(arguments) == ExitCode.OK
    figures = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())["figures"]
    assert figures["images"]["value"] == 10
    assert abs(figures["pooled_error_points"]["value"]) < 1.5
    assert figures["largest_error_points"]["value"] < 5
    (tmp_path / "truth.csv").write_text("image,live,dead\nA01_1.ome.tif,many,2\n")
    capsys.readouterr()
    assert main(arguments) == ExitCode.CONFIG
    assert "column 'live': a number of cells expected (got 'many')" in capsys.readouterr().err


def test_a_dilution_series_is_judged_by_its_plate_map(
    plate: Path, counted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The wells hold equally many cells, so as a dilution series they are anything but proportional."""
    path = tmp_path / "series.csv"
    path.write_text("well,sample,dilution\nA1,s,1\nA2,s,1\nA3,s,2\nA4,s,4\nB7,s,8\n")
    arguments = ["dilution", str(counted), "--platemap", str(path), "--json", str(tmp_path / "series.json")]
    assert main(arguments) == ExitCode.OK
    told = capsys.readouterr().out
    assert "sample 's', viable cells/mL:" in told
    assert "not accuracy" in told
    assert "note: not counted in this run: B07" in told
    [sample] = json.loads((tmp_path / "series.json").read_text())["samples"]
    assert [each["fraction"] for each in sample["fractions"]] == [0.25, 0.5, 1.0]
    assert sample["proportionality_index"] > 1
    path.write_text("well,sample,dilution\nA1,s,0.5\n")
    assert main(arguments) == ExitCode.CONFIG
    assert (
        "the dilution is how many times the sample was diluted, 1 or more (got '0.5')"
        in capsys.readouterr().err
    )


def test_counter_files_are_written_for_the_whole_plate(
    counted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = tmp_path / "names.csv"
    names.write_text("well,sample\nA1,first\nB03,second\n")
    out = str(tmp_path / "plate.csv")
    assert main(["export", str(counted), out, "--to", "vicell", "--platemap", str(names)]) == ExitCode.OK
    assert "wells that the run does not have: B03; known: 'A01', 'A02'" in capsys.readouterr().out
    lines = list(csv.DictReader(io.StringIO((tmp_path / "plate.csv").read_text())))
    assert [line["Sample ID"] for line in lines] == ["first", "P_A02", "P_A03", "P_A04", "P_A05"]
    assert [line["Dilution"] for line in lines] == ["2"] * 5
    well = wells_of(counted)["A03"]
    assert float(lines[2]["Viable (x10^6) cells/mL"]) == pytest.approx(
        number(well, "viable_cells_per_ml") / 1e6, abs=1e-6
    )
    asm = str(tmp_path / "plate.json")
    assert (
        main(["export", str(counted), asm, "--to", "asm", "--measured", "2026-11-30T09:00:00"]) == ExitCode.OK
    )
    assert (
        len(
            json.loads((tmp_path / "plate.json").read_text())["cell counting aggregate document"][
                "cell counting document"
            ]
        )
        == 5
    )
    assert main(["export", str(counted), asm, "--to", "asm", "--measured", "yesterday"]) == ExitCode.CONFIG
    assert main(["export", str(counted), asm, "--platemap", str(names)]) == ExitCode.CONFIG
    assert "--platemap and --measured are of --to vicell and --to asm" in capsys.readouterr().err


def test_one_image_is_judged_by_its_own_cells(plate: Path) -> None:
    planes = np.stack([tifffile.imread(plate / "images" / f"P_A03_s1_w{channel}.TIF") for channel in (1, 2)])
    true = truth(plate)["A03"]
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


def test_a_night_tells_how_many_are_dead(plate: Path, tmp_path: Path) -> None:
    scope = tmp_path / "scope"
    shutil.copytree(plate / "images", scope / "P")
    (scope / "P" / "DONE").touch()
    run = {
        "layout": {"kind": "imagexpress"}, "model": {"package": "viability-fluorescence"}, "channels": {"all": "w1", "dead": "w2"},
    }  # fmt: skip
    told = night(settings(scope, tmp_path / "counts", run=run))
    [event] = [each for each in told.events if each.statistics]
    assert event.statistics["live"] + event.statistics["dead"] == event.statistics["count"]
    assert event.statistics["dead"] > 100
    readings = {reading.statistic: reading for reading in told.readings}
    assert readings["viability"].title == "viability (%)"
    assert readings["viability"].value == pytest.approx(53, abs=2)
    pages = [page.read_text() for page in (tmp_path / "counts").rglob("*.html")]
    assert any(f"{event.statistics['dead']:,}" in page and "dead" in page for page in pages)
