"""The batch script starts Ray on all nodes of an allocation with a token, counts, and leaves no process behind."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.e2e.ray_head import free_port
from tests.jobs import rows
from tests.plates import write_plate
from tests.unit.deploy.schemas import ROOT

SCRIPT = ROOT / "deploy" / "slurm" / "count.sbatch"
BIN = Path(sys.executable).parent

_SRUN = """#!/usr/bin/env bash
# Runs the step on this machine, as SLURM would on the other node, and notes what the step was given.
options=()
while [[ $1 == --* ]]; do options+=("$1"); shift; done
printf '%s\\n' "${options[*]}" "$RAY_AUTH_MODE ${#RAY_AUTH_TOKEN}" "$*" >"$SEEN"
exec "$@"
"""


def test_bash_can_read_it() -> None:
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True, timeout=60)


@pytest.mark.parametrize("script", [SCRIPT, ROOT / ".ci" / "run"], ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script: Path) -> None:
    shellcheck = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(BIN))
    if shellcheck is None:
        pytest.skip("shellcheck is not installed (it is part of the dev group)")
    found = subprocess.run([shellcheck, str(script)], capture_output=True, text=True, timeout=60, check=False)

    assert (found.returncode, found.stdout) == (0, "")


def test_it_never_stops_the_ray_of_somebody_else() -> None:
    commands = "\n".join(
        line for line in SCRIPT.read_text().splitlines() if not line.lstrip().startswith("#")
    )

    assert not re.search(r"ray\s+stop|pkill|killall", commands)


def test_no_other_user_of_the_cluster_can_read_the_token() -> None:
    text = SCRIPT.read_text()

    assert "/dev/urandom" in text
    assert re.findall(r"RAY_AUTH_TOKEN(?!=)\b", text) == ["RAY_AUTH_TOKEN"], (
        "only exported, never an argument or a file"
    )


def processes_naming(text: str) -> list[str]:
    """Command lines of this machine that hold `text`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in line:
            found.append(line)
    return found


@pytest.fixture
def temporary() -> Iterator[Path]:
    # Not pytest's folder: Ray's sockets lie in it, and their paths may have 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="cc-slurm-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_it_counts_a_plate_on_two_nodes_and_leaves_nothing_running(tmp_path: Path, temporary: Path) -> None:
    plate = write_plate(tmp_path / "plate", well_count=2)
    config = tmp_path / "count.yaml"
    sections = {
        "input": str(plate.folder),
        "output": str(tmp_path / "out"),
        "run": {"layout": {"kind": "imagexpress"}, "model": {"package": "threshold"}},
        "execution": {"actors": 2, "shard_fields": 2},
    }
    config.write_text(yaml.safe_dump(sections))
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "srun").write_text(_SRUN)
    (bin_folder / "srun").chmod(0o755)
    port = free_port() % 10000
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_"))},
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "CELLCOUNT_BIN": str(BIN),
        "CELLCOUNT_HEAD_IP": "127.0.0.1",
        "TMPDIR": str(temporary),
        "SEEN": str(tmp_path / "seen"),
        "SLURM_JOB_ID": str(port),
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "1",
        "SLURMD_NODENAME": "node-1",
    }
    log = tmp_path / "log"
    with log.open("wb") as sink:
        ended = subprocess.run(
            [str(SCRIPT), str(config), "--progress", "quiet"],
            env=environment,
            stdout=sink,
            stderr=sink,
            timeout=400,
            check=False,
        )
    options, token, step = (tmp_path / "seen").read_text().splitlines()
    patience = time.monotonic() + 30
    while (left := processes_naming(str(temporary))) and time.monotonic() < patience:
        time.sleep(0.5)

    assert ended.returncode == 0, log.read_text(errors="replace")
    counted = rows(tmp_path / "out", "fields").to_pylist()
    assert {(row["Metadata_Well"], row["Metadata_Site"]): row["count"] for row in counted} == plate.truth
    assert "--nodes=1" in options.split()
    assert "--exclude=node-1" in options.split()
    assert token == "token 64"
    assert step.startswith("ray start --block --address=127.0.0.1:")
    assert left == []
    assert list(temporary.iterdir()) == []
