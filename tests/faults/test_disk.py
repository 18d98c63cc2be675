"""A disk that is full or read-only, and a package that must be refused: one message, an exit code, and the way on."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from cellcount_core.cli.main import main
from cellcount_core.domain.errors import ExitCode
from tests.faults.drill import judge
from tests.faults.packages import package_off_its_golden_tensors
from tests.jobs import count as count_in_peace
from tests.plates import Plate, write_plate
from tests.s3_jobs import tables

SETTINGS = ["--layout", "imagexpress", "--runner", "serial", "--progress", "quiet"]
SETTINGS += ["--set", "execution.shard_fields=1", "--set", "execution.in_flight=1"]


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> Plate:
    return write_plate(tmp_path_factory.mktemp("disk") / "plate", well_count=4)


@dataclass(frozen=True)
class Told:
    """Exit code and standard error of one command."""

    code: int
    error: str


def on_a_small_disk(folder: Path, steps: list[str]) -> list[Told]:
    """Run each step in a mount namespace of its own, where `folder`/disk is a disk in memory of 160 KiB: room for a few parts.

    Nothing is mounted outside that namespace, and the disk is gone with it. Skips where this user may not have one.
    """
    disk = folder / "disk"
    disk.mkdir()
    unshare = [
        shutil.which("unshare") or "unshare",
        "--mount",
        *([] if os.geteuid() == 0 else ["--map-root-user"]),
    ]
    mount = f"mount -t tmpfs -o size=160k none {shlex.quote(str(disk))}"
    try:
        tried = subprocess.run([*unshare, "sh", "-c", mount], capture_output=True, text=True, check=False)
    except OSError as fault:
        pytest.skip(f"no disk can be mounted here: {fault}")
    if tried.returncode:
        pytest.skip(f"no disk can be mounted here: {tried.stderr.strip()}")
    script = [mount]
    for number, step in enumerate(steps):
        script.append(f"{step} 2>{shlex.quote(str(folder / f'{number}.err'))}; echo $?")
    done = subprocess.run(
        [*unshare, "sh", "-c", "\n".join(script)], stdout=subprocess.PIPE, text=True, timeout=600, check=True
    )
    codes = [int(line) for line in done.stdout.splitlines()]
    return [Told(code, (folder / f"{number}.err").read_text()) for number, code in enumerate(codes)]


def test_a_full_disk_stops_the_run_and_the_same_command_completes_it_and_a_read_only_one_is_refused(
    plate: Plate, tmp_path: Path
) -> None:
    disk, out = tmp_path / "disk", tmp_path / "disk" / "out"
    arguments = [sys.executable, "-m", "cellcount_core.cli", "count", str(plate.folder)]
    count = shlex.join([*arguments, str(out), "--model", "threshold", *SETTINGS]) + " >/dev/null"
    elsewhere = (
        shlex.join([*arguments, str(disk / "other"), "--model", "threshold", *SETTINGS]) + " >/dev/null"
    )
    keep = f"ls {shlex.quote(str(out / 'fields'))} >{shlex.quote(str(tmp_path / 'parts'))}"
    copy = f"cp -r {shlex.quote(str(out))} {shlex.quote(str(tmp_path / 'out'))}"
    more = f"mount -o remount,size=16m {shlex.quote(str(disk))}"
    sealed = f"mount -o remount,ro {shlex.quote(str(disk))}"
    full, _, _, again, _, _, refused = on_a_small_disk(
        tmp_path, [count, keep, more, count, copy, sealed, elsewhere]
    )
    assert full.code == ExitCode.STORAGE
    assert full.error.count("\n") == 1
    assert "the disk or the quota is full" in full.error
    assert "/part-" in full.error
    parts = (tmp_path / "parts").read_text().split()
    assert 0 < len(parts) < len(plate.truth)

    assert again == Told(ExitCode.OK, "")
    count_in_peace(plate.folder, tmp_path / "unbroken")
    judge("disk full", tables(tmp_path / "unbroken"), tmp_path / "out")

    assert refused.code == ExitCode.OUTPUT
    assert refused.error.count("\n") == 1
    assert "the file system is read-only" in refused.error


def test_an_output_that_this_user_may_not_write_is_refused(plate: Plate, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    command = [sys.executable, "-m", "cellcount_core.cli", "count", str(plate.folder), str(locked / "out")]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("permissions do not stop root, and setpriv is not here to make it obey them")
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    done = subprocess.run(
        [*command, "--model", "threshold", *SETTINGS], capture_output=True, text=True, check=False
    )
    assert done.returncode == ExitCode.OUTPUT, done.stderr
    assert done.stderr.count("\n") == 1
    assert "no permission" in done.stderr
    assert list(locked.iterdir()) == []


def test_a_package_off_its_golden_tensors_counts_nothing(
    plate: Plate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = package_off_its_golden_tensors(tmp_path / "package")
    code = main(["count", str(plate.folder), str(tmp_path / "out"), "--model", str(package), *SETTINGS])
    told = capsys.readouterr().err
    assert code == ExitCode.MODEL
    assert told.count("\n") == 1
    assert "package threshold 1.0.0: engine smooth is off its golden tensors by 0.25 (allowed 1e-06)" in told
    assert not (tmp_path / "out" / "fields").exists()
