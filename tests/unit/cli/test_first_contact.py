"""What a user is told who gives a wrong path, a wrong setting, or images that cannot be counted."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellcount_core.cli.main import main
from cellcount_core.domain.errors import ExitCode
from tests.plates import crowded

SERIAL = ["--model", "threshold", "--runner", "serial", "--progress", "quiet"]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder "images" with one image of two channels, named in the file."""
    folder = tmp_path / "images"
    folder.mkdir()
    stack = np.zeros((2, 64, 64), np.uint16)
    stack[:, 20:40, 20:40] = 900
    metadata = {"axes": "CYX", "Channel": {"Name": ["DAPI", "Actin"]}}
    tifffile.imwrite(folder / "a.ome.tif", stack, ome=True, metadata=metadata, photometric="minisblack")
    return folder


def test_the_bare_command_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == ExitCode.OK
    told = capsys.readouterr()
    assert "Commands:" in told.out
    assert told.err == ""


def test_a_misused_command_points_to_its_own_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["count"]) == ExitCode.CONFIG
    assert "cellcount count --help" in capsys.readouterr().err


def test_a_folder_that_does_not_exist_is_named_with_the_one_that_may_be_meant(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = images.with_name("imges")
    assert main(["plan", str(wrong)]) == ExitCode.CONFIG
    assert f"{wrong}: there is no such folder; did you mean 'images'?" in capsys.readouterr().err


def test_a_file_as_input_is_answered_with_how_to_count_one_file(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(images / "a.ome.tif")]) == ExitCode.CONFIG
    told = capsys.readouterr().err
    assert "is a file" in told
    assert "run.include=[a.ome.tif]" in told


def test_a_plan_says_of_the_files_it_looked_into_that_they_cannot_be_counted(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(images)]) == ExitCode.OK
    told = capsys.readouterr().err
    assert (
        "1 of them cannot be counted with these settings, for example a.ome.tif: the file holds 2 channels"
        in told
    )
    assert "--channel NAME" in told
    assert main(["plan", str(images), "--channel", "DAPI"]) == ExitCode.OK
    assert "cannot be counted" not in capsys.readouterr().err


@pytest.mark.parametrize("spelling", ["{}", "{}/", "{}/../images", "{}/."])
def test_the_input_folder_is_refused_as_output_however_it_is_spelled(
    images: Path, spelling: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["count", str(images), spelling.format(images), *SERIAL]) == ExitCode.CONFIG
    assert "output must not be the input folder" in capsys.readouterr().err
    assert [path.name for path in images.iterdir()] == ["a.ome.tif"]


def test_a_link_to_the_input_and_a_folder_of_the_outputs_own_are_refused(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images.parent / "link").symlink_to(images)
    inner = images / "labels"
    inner.mkdir()
    (images / "a.ome.tif").rename(inner / "a.ome.tif")
    for source, output, told in (
        (images, images.parent / "link", "output must not be the input folder"),
        (images.parent / "link", images, "output must not be the input folder"),
        (inner, images, "where the output keeps files of its own"),
        (images.parent / "link" / "labels", images, "where the output keeps files of its own"),
    ):
        assert main(["count", str(source), str(output), *SERIAL]) == ExitCode.CONFIG
        assert told in capsys.readouterr().err
    assert [path.name for path in images.rglob("*")] == ["labels", "a.ome.tif"]


def test_an_output_that_only_links_or_dots_lead_into_the_input_is_refused(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (images.parent / "link").symlink_to(images)
    monkeypatch.chdir(images)
    words = ["--channel", "DAPI", *SERIAL]
    for source, output in (
        (str(images), "../images/out"),
        (".", "../images/out"),
        ("../images", "deep/../out"),
        (str(images), str(images.parent / "link" / "out")),
        (str(images.parent / "link"), str(images / "out")),
    ):
        assert main(["count", source, output, *words]) == ExitCode.CONFIG, (source, output)
        told = capsys.readouterr().err
        assert f"lies inside the input {source}: it is {images}/out" in told
        assert [path.name for path in images.iterdir()] == ["a.ome.tif"]
    # Named as one inside it is wanted there, and left out of the listing.
    for source, output in ((".", "out"), (str(images), "out"), (str(images), f"{images}/out")):
        assert main(["count", source, output, *words]) == ExitCode.OK, (source, output)
    # A run that is there goes on by any name.
    assert main(["count", str(images), str(images.parent / "link" / "out"), *words]) == ExitCode.OK


def test_a_file_is_refused_as_output(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = images.with_name("out")
    out.write_text("a file", encoding="utf-8")
    assert main(["count", str(images), str(out), *SERIAL]) == ExitCode.OUTPUT
    assert f"{out}: is a file" in capsys.readouterr().err


def test_a_tile_too_small_for_the_model_is_refused_before_the_output_is_taken(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = images.with_name("out")
    settings = ["--channel", "DAPI", "--runner", "serial", "--progress", "quiet", "--set", "run.tile=64"]
    assert main(["count", str(images), str(out), *settings]) == ExitCode.CONFIG
    assert "run.tile is 64 px" in capsys.readouterr().err
    assert not out.exists()


def test_wrong_input_is_told_before_a_ray_cluster_is_started(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "a.ome.tif").rename(images / "a.txt")
    arguments = ["count", str(images), str(images.with_name("out")), "--runner", "ray", "--progress", "json"]
    assert main(arguments) == ExitCode.CONFIG
    told = capsys.readouterr().err
    assert "no image to count among 1 file: 1 not an image (.txt)" in told
    assert "Ray" not in told


def test_what_was_wrong_with_a_field_is_printed_and_says_what_to_do(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = images.with_name("out")
    assert main(["count", str(images), str(out), *SERIAL]) == ExitCode.FAILURES
    told = capsys.readouterr().out
    assert "no field could be counted: 0 of 1 field" in told
    assert (
        "a.ome.tif: the file holds 2 channels ('DAPI', 'Actin'); say which one to count (--channel NAME)"
        in told
    )
    assert main(["reduce", str(out)]) == ExitCode.OK
    assert "a.ome.tif: the file holds 2 channels" in capsys.readouterr().out


def test_a_count_of_0_where_things_stand_out_is_doubted_wherever_it_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "a.tif", crowded(0))
    out = tmp_path / "out"
    doubted = "1 of 1 image shows things that stand out of the background, and no object was found"
    assert main(["count", str(tmp_path / "in"), str(out), *SERIAL]) == ExitCode.OK
    assert doubted in capsys.readouterr().out
    for command in (
        ["reduce", str(out)],
        ["verify", str(out)],
        ["export", str(out), str(tmp_path / "counts.csv")],
    ):
        assert main(command) == ExitCode.OK
        assert doubted in capsys.readouterr().out, command
    assert main(["count", str(tmp_path / "in"), str(out), *SERIAL, "--strict"]) == ExitCode.DOUBTS
    assert "1 plate in doubt (--strict)" in capsys.readouterr().out
    assert "nothing_found" in (out / "summary.csv").read_text()


def test_pictures_of_an_output_inside_the_input_are_no_images_to_count(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = images / "out"
    assert main(["count", str(images), str(out), "--channel", "DAPI", *SERIAL]) == ExitCode.OK
    assert main(["pictures", str(out)]) == ExitCode.OK
    capsys.readouterr()
    assert main(["plan", str(images), "--channel", "DAPI"]) == ExitCode.OK
    told = capsys.readouterr().out
    assert "1 field in 1 shard, 1 file," in told
    assert "left out: 3 files, picture of a run" in told


def test_pictures_of_a_run_with_a_part_gone_say_what_is_missing(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = images.with_name("out")
    assert main(["count", str(images), str(out), "--channel", "DAPI", *SERIAL]) == ExitCode.OK
    (out / "fields" / "part-000000.parquet").unlink()
    assert main(["pictures", str(out)]) == ExitCode.LEDGER
    assert "fields/part-000000.parquet" in capsys.readouterr().err


def test_a_relative_place_in_rays_copy_of_a_folder_is_refused(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = images.parent / "session_1" / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    (copy / "images").symlink_to(images)
    for source, output, told in (
        (images, "out", "output: 'out'"),
        ("images", images.parent / "x", "input: 'images'"),
        (images, copy / "out", f"output: '{copy}/out'"),
    ):
        assert main(["count", str(source), str(output), "--channel", "DAPI", *SERIAL]) == ExitCode.CONFIG
        assert f"{told} lies in Ray's own copy" in capsys.readouterr().err
    assert [path.name for path in copy.iterdir()] == ["images"]
    assert main(["count", str(images), f"{images.parent}/out", "--channel", "DAPI", *SERIAL]) == ExitCode.OK


def test_what_the_system_refuses_is_one_line_with_a_way_out(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    no_folder = FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp', '/work']")
    for error, told in (
        (
            PermissionError(errno.EACCES, "Permission denied", "/home/me/.ray/auth_token"),
            "/home/me/.ray/auth_token: Permission",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device; make room"),
        (
            OSError(errno.EMFILE, "Too many open files", "a.tif"),
            "a.tif: Too many open files; allow more open files (ulimit -n)",
        ),
        (no_folder, "no temporary folder can be written; set TMPDIR"),
        (MemoryError(), "out of memory"),
        (RuntimeError("can't start new thread"), "no thread can be started"),
        (RuntimeError("Could not determine home directory."), "a path begins with ~"),
    ):

        def fails(*_: object, fault: Exception = error) -> None:
            raise fault

        monkeypatch.setattr("cellcount_core.runners.job.run_job", fails)
        assert main(["count", str(images), str(images.with_name("out")), *SERIAL]) == ExitCode.STORAGE
        said = capsys.readouterr().err
        assert said.startswith(f"cellcount: {told}")
        assert said.count("\n") == 1


@pytest.mark.slow
def test_a_home_that_cannot_be_written_is_one_line_where_ray_needs_it(images: Path) -> None:
    (images.parent / "file").write_text("no folder")
    command = [sys.executable, "-m", "cellcount_core.cli", "count", str(images), str(images.with_name("out"))]
    command += ["--channel", "DAPI", "--model", "threshold", "--runner", "ray", "--progress", "quiet"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        command,
        env=environment | {"HOME": str(images.parent / "file")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ExitCode.STORAGE, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("cellcount: Ray: cannot start a local cluster: ")
    assert "HOME" in last
    assert "--runner serial" in last


@pytest.mark.slow
def test_a_reader_that_leaves_early_and_a_terminal_of_few_letters_are_no_tracebacks(images: Path) -> None:
    (images / "a.ome.tif").rename(images / "µ.ome.tif")
    command = [sys.executable, "-m", "cellcount_core.cli", "plan", str(images), "--model", "threshold"]
    command += ["--set", "run.plate=Ж"]
    plain = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=plain, capture_output=True, check=False)
    assert done.returncode == ExitCode.OK, done.stderr
    assert b"plate '?'" in done.stdout
    read, write = os.pipe()
    os.close(read)
    left = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert left.returncode == 1
    assert b"Traceback" not in left.stderr
    assert b"Broken pipe" not in left.stderr
