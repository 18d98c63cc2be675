"""What comes of a viability run outside of its tables: the last lines, evaluation, dilution series, files of cell counters, a night."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

import cellcount_core
from cellcount_core.cli.main import main
from cellcount_core.domain.errors import ConfigFault, ExitCode
from tests.nights import night, settings
from tests.viability import MIXTURES, number, wells_of

pytestmark = pytest.mark.beside


def test_the_last_lines_say_what_was_found_and_what_to_doubt(
    judged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reduce", str(judged)]) == ExitCode.OK
    told = capsys.readouterr().out
    summary = json.loads((judged / "summary.json").read_text())
    assert (
        f"viability {summary['viability']:.1f} % ({summary['viability_low']:.1f} to {summary['viability_high']:.1f})"
        in told
    )
    assert f"{summary['live']} live, {summary['dead']} dead in 10 of 10 fields" in told
    assert "2 of 5 wells have a viability below 50 %" in told
    assert summary["wells_warnings"] == {"low_viability": 2}
    assert wells_of(judged)["A01"]["viability_warnings"] == "below 50 %"


def test_it_is_evaluated_by_a_table_of_true_numbers(
    stained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["image,live,dead"]
    for line in (stained / "truth.csv").read_text().splitlines()[1:]:
        well, site, live, dead, *_ = line.split(",")
        planes = [
            tifffile.imread(stained / "images" / f"P_{well}_s{site}_w{channel}.TIF") for channel in (1, 2)
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


def test_evaluate_takes_a_file_for_each_role(stained: Path, judged: Path, tmp_path: Path) -> None:
    lines = ["image_all,image_dead,live,dead"]
    for well, site, live, dead, _, _ in csv.reader((stained / "truth.csv").read_text().splitlines()[1:]):
        files = [stained / "images" / f"P_{well}_s{site}_w{channel}.TIF" for channel in (1, 2)]
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


def test_a_dilution_series_is_judged_by_its_plate_map(
    stained: Path, judged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The wells hold equally many cells, so as a dilution series they are anything but proportional."""
    path = tmp_path / "series.csv"
    path.write_text("well,sample,dilution\nA1,s,1\nA2,s,1\nA3,s,2\nA4,s,4\nB7,s,8\n")
    arguments = ["dilution", str(judged), "--platemap", str(path), "--json", str(tmp_path / "series.json")]
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
    judged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = tmp_path / "names.csv"
    names.write_text("well,sample\nA1,first\nB03,second\n")
    out = str(tmp_path / "plate.csv")
    assert main(["export", str(judged), out, "--to", "vicell", "--platemap", str(names)]) == ExitCode.OK
    assert "wells that the run does not have: B03; known: 'A01', 'A02'" in capsys.readouterr().out
    lines = list(csv.DictReader(io.StringIO((tmp_path / "plate.csv").read_text())))
    assert [line["Sample ID"] for line in lines] == ["first", "P_A02", "P_A03", "P_A04", "P_A05"]
    assert [line["Dilution"] for line in lines] == ["2"] * 5
    well = wells_of(judged)["A03"]
    assert float(lines[2]["Viable (x10^6) cells/mL"]) == pytest.approx(
        number(well, "viable_cells_per_ml") / 1e6, abs=1e-6
    )
    asm = str(tmp_path / "plate.json")
    assert (
        main(["export", str(judged), asm, "--to", "asm", "--measured", "2026-11-30T09:00:00"]) == ExitCode.OK
    )
    assert (
        len(
            json.loads((tmp_path / "plate.json").read_text())["cell counting aggregate document"][
                "cell counting document"
            ]
        )
        == 5
    )
    assert main(["export", str(judged), asm, "--to", "asm", "--measured", "yesterday"]) == ExitCode.CONFIG
    assert main(["export", str(judged), asm, "--platemap", str(names)]) == ExitCode.CONFIG
    assert "--platemap and --measured are of --to vicell and --to asm" in capsys.readouterr().err


def test_a_night_tells_how_many_are_dead(stained: Path, tmp_path: Path) -> None:
    scope = tmp_path / "scope"
    shutil.copytree(stained / "images", scope / "P")
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
