"""The command line as a user meets it: what it prints, what it exits with, and one message where something is wrong."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellcount_core.cli.main import main
from cellcount_core.domain.errors import ExitCode
from tests.plates import Plate, discs, write_plate

SERIAL = ["--model", "threshold", "--runner", "serial", "--progress", "quiet"]


@pytest.fixture
def plate(tmp_path: Path) -> Plate:
    return write_plate(tmp_path / "plate", well_count=4, channels=2)


def count(plate: Plate, output: Path, *more: str) -> int:
    return main(
        [
            "count",
            str(plate.folder),
            str(output),
            "--layout",
            "imagexpress",
            "--channel",
            "w1",
            *SERIAL,
            *more,
        ]
    )


def test_counting_a_plate_prints_the_count_and_where_the_tables_are(
    plate: Plate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert count(plate, tmp_path / "out") == ExitCode.OK
    told = capsys.readouterr().out
    assert f"{sum(plate.truth.values())} objects in 8 of 8 fields" in told
    assert "wells.parquet" in told
    assert f"cellcount verify {tmp_path / 'out'}" in told


def test_failures_above_the_limit_have_an_exit_code_of_their_own(
    plate: Plate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plate.file("A02", 1).write_bytes(b"this is not an image")
    assert count(plate, tmp_path / "out") == ExitCode.FAILURES
    assert "not_an_image" in capsys.readouterr().out
    assert count(plate, tmp_path / "out", "--max-failed", "1") == ExitCode.OK


def test_plan_says_what_would_run_and_writes_nothing(
    plate: Plate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (plate.folder / "notes.txt").write_text("x")
    before = sorted(tmp_path.rglob("*"))
    arguments = [
        "plan",
        str(plate.folder),
        "--layout",
        "imagexpress",
        "--channel",
        "w1",
        "--model",
        "threshold",
    ]
    assert main(arguments) == ExitCode.OK
    told = capsys.readouterr().out
    assert "8 fields in 8 shards, 8 files" in told
    assert "counted: w1" in told
    assert "plate 'P1': 8 fields in 4 wells" in told
    assert "not an image" in told
    assert sorted(tmp_path.rglob("*")) == before


def test_several_channels_must_be_chosen_from(
    plate: Plate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["count", str(plate.folder), str(tmp_path / "out"), "--layout", "imagexpress", *SERIAL]
    assert main(arguments) == ExitCode.CONFIG
    assert "--channel" in capsys.readouterr().err
    assert main([*arguments, "--channel", "w3"]) == ExitCode.CONFIG
    assert "'w3'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["count", "{tmp}/nowhere", "{tmp}/out", *SERIAL], ExitCode.CONFIG, "nowhere"),
        (["count", "{tmp}/plate", "{tmp}/out", "--model", "nuclie"], ExitCode.MODEL, "did you mean"),
        (["count", "{tmp}/plate"], ExitCode.CONFIG, "OUTPUT is missing"),
        (["count", "{tmp}/plate", "{tmp}/out", "--layout", "operetta"], ExitCode.CONFIG, "run.layout"),
        (["conut", "a", "b"], ExitCode.CONFIG, "conut"),
        (["verify", "{tmp}/plate"], ExitCode.OUTPUT, "run.json"),
        (["count", "{tmp}/none.yaml"], ExitCode.CONFIG, "none.yaml"),
    ],
)
def test_what_cannot_be_run_is_one_message_and_an_exit_code(
    plate: Plate,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: ExitCode,
    told: str,
) -> None:
    assert main([argument.format(tmp=tmp_path) for argument in arguments]) == code
    message = capsys.readouterr().err
    assert told in message
    assert "Traceback" not in message


def test_verify_proves_a_run_and_finds_an_edited_one(
    plate: Plate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    count(plate, out)
    assert main(["verify", str(out)]) == ExitCode.OK
    assert "8 expected = 8 ok + 0 failed + 0 missing + 0 skipped" in capsys.readouterr().out
    part = next((out / "objects").glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:-1] + b"\0")
    assert main(["verify", str(out)]) == ExitCode.LEDGER
    assert part.name in capsys.readouterr().out


def test_reduce_rebuilds_the_tables_byte_for_byte(plate: Plate, tmp_path: Path) -> None:
    out = tmp_path / "out"
    count(plate, out)
    names = ("wells.parquet", "plates.parquet", "summary.json", "summary.csv")
    before = [(out / name).read_bytes() for name in names]
    for name in names:
        (out / name).unlink()
    assert main(["reduce", str(out)]) == ExitCode.OK
    assert [(out / name).read_bytes() for name in names] == before


def test_labels_mirror_the_input_and_agree_with_the_counts(plate: Plate, tmp_path: Path) -> None:
    out = tmp_path / "out"
    count(plate, out, "--labels")
    for (well, site), true in plate.truth.items():
        labels = tifffile.imread(out / "labels" / "TimePoint_1" / f"P1_{well}_s{site}_w1.TIF.labels.tif")
        assert labels.dtype == np.uint16
        assert labels.max() == true


def test_an_array_archive_gives_index_and_count(tmp_path: Path) -> None:
    from tests.plates import discs

    source = tmp_path / "in"
    source.mkdir()
    true = [3, 0, 5, 1]
    np.savez(source / "X_and_y.npz", X=np.stack([discs(count, 96, seed) for seed, count in enumerate(true)]))
    out = tmp_path / "out"
    assert main(["count", str(source), str(out), *SERIAL]) == ExitCode.OK
    assert main(["export", str(out), str(tmp_path / "counts.csv")]) == ExitCode.OK
    table = list(csv.DictReader(io.StringIO((tmp_path / "counts.csv").read_text())))
    assert [(row["index"], row["count"]) for row in table] == [("0", "3"), ("1", "0"), ("2", "5"), ("3", "1")]
    assert {row["file"] for row in table} == {"X_and_y.npz"}


def test_progress_elsewhere_than_on_a_terminal_is_json_lines(plate: Plate, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cellcount_core.cli", "count", str(plate.folder), str(tmp_path / "out")]
    command += ["--layout", "imagexpress", "--channel", "w1", "--model", "threshold", "--runner", "serial"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    events = [json.loads(line) for line in done.stderr.splitlines()]
    shown = [event["event"] for event in events if event["event"] in ("begin", "shard")]
    assert shown == ["begin", *["shard"] * 8]
    assert {str(event["statuses"]) for event in events if event["event"] == "shard"} == {"{'ok': 1}"}


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = "import sys; from cellcount_core.cli.main import main; main(['--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    heavy = {
        "numpy",
        "pyarrow",
        "cv2",
        "ray",
        "tensorflow",
        "keras",
        "onnxruntime",
        "scipy",
        "matplotlib",
        "s3fs",
        "pydantic",
    }
    assert not heavy & loaded


def test_counting_on_a_cpu_never_imports_tensorflow(plate: Plate, tmp_path: Path) -> None:
    code = (
        "import sys; from cellcount_core.cli.main import main; "
        f"main(['count', {str(plate.folder)!r}, {str(tmp_path / 'out')!r}, '--layout', 'imagexpress', '--channel', 'w1', "
        "'--runner', 'serial', '--progress', 'quiet']); "
        "assert not {'tensorflow', 'keras', 'ray'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_command_shows_an_example() -> None:
    import typer

    from cellcount_core.cli.main import app

    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    without = [name for name, command in commands.items() if f"cellcount {name}" not in (command.help or "")]
    assert not without


def test_the_time_of_a_stage_is_wall_clock_not_part_of_a_table(plate: Plate, tmp_path: Path) -> None:
    count(plate, tmp_path / "one")
    time.sleep(1.1)
    count(plate, tmp_path / "two")
    for name in ("wells.parquet", "fields/part-000000.parquet", "run/run.json", "summary.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_what_the_images_are_unlike_is_the_last_thing_said_and_with_strict_the_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "slides", tmp_path / "out"
    folder.mkdir()
    for seed in (1, 2):
        tifffile.imwrite(folder / f"{seed}.tif", (9_000 - discs(8, 128, seed=seed)).astype(np.uint16))
    assert main(["count", str(folder), str(out), *SERIAL]) == ExitCode.OK
    sentence = "2 of 2 images have a background brighter than the objects; `threshold` is for fluorescence: try --model histology"
    assert sentence in capsys.readouterr().out
    assert main(["count", str(folder), str(out), *SERIAL, "--strict"]) == ExitCode.DOUBTS
    told = capsys.readouterr().out
    assert sentence in told
    assert "exit code 10: 1 plate in doubt" in told
    assert main(["verify", str(out)]) == ExitCode.OK
    assert sentence in capsys.readouterr().out
