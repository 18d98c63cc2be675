"""Object size through a whole run: found when planning, the same for every runner, kept on resume, told in every row."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile

from cellcount_core.cli.main import main
from cellcount_core.domain.errors import ConfigFault, ExitCode
from cellcount_core.output.runfile import read_run
from cellcount_core.reduce.verify import verify
from cellcount_core.runners.job import plan_job
from cellcount_core.stores.local import open_local
from tests.jobs import count, job, rows
from tests.plates import nuclear_field
from tests.small_device import use_small_device

pytestmark = pytest.mark.beside

RUN = {"layout": {"kind": "flat"}, "model": {"package": "nuclei"}}
ON_CPU = ("onnxruntime", "onnxruntime-int8")


def write_fields(folder: Path, diameters: dict[str, float], side: int = 320) -> Path:
    folder.mkdir()
    for seed, (name, diameter) in enumerate(sorted(diameters.items())):
        many = 16 if diameter < 50 else 4
        tifffile.imwrite(folder / f"{name}.tif", nuclear_field(diameter, many, seed, side=side))
    return folder


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six fields of nuclei of 40 px, and an empty one: twice the size the network is made for."""
    folder = tmp_path_factory.mktemp("size")
    write_fields(folder / "plate", {f"f{number}": 40.0 for number in range(6)})
    noise = np.random.default_rng(1).normal(300, 40, (320, 320)).astype(np.uint16)
    tifffile.imwrite(folder / "plate" / "empty.tif", noise)
    return folder / "plate"


def test_fields_of_one_plate_share_the_size_found_when_planning(plate: Path, tmp_path: Path) -> None:
    result = count(plate, tmp_path / "out", run=RUN)
    [pool] = result.run.scales
    assert pool.diameter_px is not None
    assert 33 < pool.diameter_px < 48
    table = rows(tmp_path / "out", "fields").to_pylist()
    assert {row["diameter_source"] for row in table} == {"pool"}
    assert {row["diameter_px"] for row in table} == {pool.diameter_px}
    assert {(row["diameter_images"], row["diameter_objects"]) for row in table} == {(6, pool.objects)}
    counts = {row["Metadata_Well"]: row["count"] for row in table}
    assert counts["empty"] == 0
    assert [counts[f"f{number}"] for number in range(6)] == [16] * 6
    stored = json.loads((tmp_path / "out" / "run" / "run.json").read_text())
    assert stored["scales"][0]["diameter_px"] == pool.diameter_px


def test_sizes_do_not_depend_on_the_memory_of_the_device_that_plans(
    plate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = plan_job(job(plate, tmp_path / "out", run=RUN))
    for engine in ON_CPU:
        use_small_device(monkeypatch, engine, lambda tiles: max(tiles.shape[1:3]) > 300)
    small = plan_job(job(plate, tmp_path / "out", run=RUN))
    assert large == small
    for engine in ON_CPU:
        use_small_device(monkeypatch, engine, lambda tiles: True)
    with pytest.raises(
        ConfigFault, match=r"\.tif: no memory here .*no memory for a tile .*; set run\.diameter"
    ):
        plan_job(job(plate, tmp_path / "out", run=RUN))


def test_a_diameter_far_from_what_the_images_show_is_told_by_the_plan_and_by_every_row(
    plate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """16 nuclei of 40 px a field are counted as if they had 10 px."""
    out = tmp_path / "out"
    command = [str(plate), "--model", "nuclei", "--diameter"]
    assert main(["plan", *command, "10"]) == ExitCode.OK
    said = "--diameter 10 is more than 1.6 times off what a sample of the images shows: 4"
    assert said in capsys.readouterr().out
    counting = ["count", command[0], str(out), *command[1:], "10", "--runner", "serial"]
    assert main([*counting, "--set", "execution.strict=true"]) == ExitCode.DOUBTS
    told = "7 of 7 images were counted at a given diameter that is more than 1.6 times off the size that a sample"
    assert told in capsys.readouterr().out
    [shown] = read_run(open_local(out)).shown_sizes
    assert 33 < shown.diameter_px < 48
    warnings = [row["warnings"] for row in rows(out, "fields").to_pylist()]
    assert all(f"diameter_unlike:{shown.diameter_px:.3g} px" in each for each in warnings)
    assert json.loads((out / "summary.json").read_text())["warnings"]["diameter_unlike"] == 7
    assert pq.read_table(out / "plates.parquet").column("doubt").to_pylist() == ["diameter_unlike"]
    assert main(counting) == ExitCode.OK
    assert said in capsys.readouterr().err, "a run that goes on says it again"


@pytest.mark.parametrize("diameter", ["40", "30", "55", "model"])
def test_a_diameter_near_what_the_images_show_is_not_told(
    plate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], diameter: str
) -> None:
    assert main(["plan", str(plate), "--model", "nuclei", "--diameter", diameter]) == ExitCode.OK
    assert "times off" not in capsys.readouterr().out


def test_a_diameter_is_compared_with_more_fields_where_the_first_show_hardly_an_object(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "sparse"
    folder.mkdir()
    for number in range(9):
        tifffile.imwrite(folder / f"{number}.tif", nuclear_field(40.0, 1, number, side=120))
    assert main(["plan", str(folder), "--model", "nuclei", "--diameter", "12"]) == ExitCode.OK
    told = capsys.readouterr()
    assert "show hardly an object: comparing it with" in told.err
    assert "--diameter 12 is more than 1.6 times off" in told.out


def test_an_update_compares_the_diameter_with_new_plates_and_keeps_the_rows_of_old_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    write_fields(images / "far", {"a": 40.0, "b": 42.0})
    write_fields(images / "near", {"a": 12.0})
    layout = {"kind": "pattern", "pattern": r"(?P<plate>\w+)/(?P<well>\w+)\.tif$"}
    run = {"run": {**RUN, "layout": layout, "diameter": 12.0}}
    count(images, out, **run)
    write_fields(images / "new", {"a": 41.0})
    tifffile.imwrite(images / "near" / "c.tif", nuclear_field(45.0, 16, 5, side=320))
    assert main(["count", str(out), "--update", "--runner", "serial"]) == ExitCode.OK
    assert "2 fields updated, 3 rows kept" in capsys.readouterr().out
    assert [shown.plate for shown in read_run(open_local(out)).shown_sizes] == ["far", "new"]
    unlike = {
        row["Metadata_Plate"]
        for row in rows(out, "fields").to_pylist()
        if any(warning.startswith("diameter_unlike") for warning in row["warnings"])
    }
    assert unlike == {"far", "new"}
    assert verify(open_local(out)).proven


def test_a_run_that_goes_on_keeps_its_sizes_and_its_tables(plate: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    count(plate, whole, run=RUN, execution={"shard_fields": 2})
    count(plate, broken, run=RUN, execution={"shard_fields": 2})
    for part in (broken / "fields" / "part-000001.parquet", broken / "objects" / "part-000001.parquet"):
        part.unlink()
    again = count(plate, broken, run=RUN, execution={"shard_fields": 2})
    assert again.progress.statuses == {"ok": 2}
    for table in ("fields", "objects"):
        assert rows(whole, table).equals(rows(broken, table))


def test_a_folder_of_two_magnifications_is_noticed_and_each_image_goes_by_itself(tmp_path: Path) -> None:
    mixed = {f"a{n}": 18.0 for n in range(3)} | {f"b{n}": 45.0 for n in range(3)}
    folder = write_fields(tmp_path / "mixed", mixed)
    summary = plan_job(job(folder, tmp_path / "out", run=RUN))
    assert any("object sizes disagree" in warning for warning in summary.warnings)
    count(folder, tmp_path / "out", run=RUN)
    table = rows(tmp_path / "out", "fields").to_pylist()
    assert {row["diameter_source"] for row in table} == {"image"}
    assert all("size_of_this_image" in row["warnings"] for row in table)
    for row in table:
        true = mixed[row["Metadata_Well"]]
        assert max(row["diameter_px"] / true, true / row["diameter_px"]) < 1.25
        assert abs(row["count"] - 16) <= 1


def test_a_plate_without_any_object_is_counted_and_the_plan_says_that_no_size_was_found(
    tmp_path: Path,
) -> None:
    (tmp_path / "blank").mkdir()
    tifffile.imwrite(tmp_path / "blank" / "a.tif", np.full((200, 200), 100, np.uint16))
    [told] = plan_job(job(tmp_path / "blank", tmp_path / "out", run=RUN)).warnings
    assert "no object size can be told" in told
    assert "--diameter PX" in told
    assert "look whether the right channel is counted" in told
    assert count(tmp_path / "blank", tmp_path / "out", run=RUN).summary.totals["count"] == 0
    [row] = rows(tmp_path / "out", "fields").to_pylist()
    assert (row["count"], row["diameter_source"], row["warnings"]) == (0, "unknown", ["size_unknown"])


def test_a_damaged_file_in_the_sample_does_not_stop_the_plan(tmp_path: Path) -> None:
    folder = write_fields(tmp_path / "plate", {"good": 25.0})
    (folder / "bad.tif").write_bytes(b"II*\x00 not an image")
    count(folder, tmp_path / "out", run=RUN)
    table = {row["Metadata_Well"]: row for row in rows(tmp_path / "out", "fields").to_pylist()}
    assert (table["bad"]["status"], table["good"]["count"]) == ("failed", 16)
