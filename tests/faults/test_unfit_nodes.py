"""Nodes on which the model fails its golden tensors or cannot be loaded: the run goes on without them, on real Ray."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cellcount_core.domain.errors import ExitCode
from tests.faults.drill import judge
from tests.jobs import count
from tests.plates import Plate, write_plate
from tests.s3_jobs import tables

pytestmark = [pytest.mark.slow, pytest.mark.ray]

TIME_LIMIT_S = 600


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> Plate:
    """2 wells, 2 sites: four shards of one field."""
    return write_plate(tmp_path_factory.mktemp("nodes") / "plate", well_count=2)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Where the cluster lives; short, for the sake of its sockets."""
    folder = Path(tempfile.mkdtemp(prefix="cc-nodes-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def jobs(plate: Plate, folder: Path) -> dict[str, dict[str, Any]]:
    """What became of each job on the cluster."""
    (folder / "token").write_text(secrets.token_hex(32))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": str(folder),
    }
    ran = subprocess.run(
        [sys.executable, "-m", "tests.faults.several_nodes", str(plate.folder), str(folder / "jobs")],
        cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True, timeout=TIME_LIMIT_S, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    lines = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    return {line["job"]: line for line in lines}


def test_nodes_that_cannot_use_the_model_are_left_out_and_one_that_joins_does_their_work(
    plate: Plate, folder: Path, jobs: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    ended = jobs["one node joins"]
    assert ended["code"] == ExitCode.OK, ended
    off, absent = sorted(ended["warnings"], key=lambda text: "golden" not in text)
    assert "is left out of this run: package threshold" in off
    assert "is off its golden tensors by 0.5" in off
    assert "is left out of this run: model package '~/package': neither a folder" in absent
    assert off.split(" (node ")[1][:12] != absent.split(" (node ")[1][:12]
    assert ended["workers"] == 1
    # The other worker may have been sent there as well, before the node was left out.
    assert 1 <= ended["tries"] <= 2
    count(plate.folder, tmp_path / "peace")
    judge("model off its golden tensors on a node", tables(tmp_path / "peace"), folder / "jobs" / "out")


def test_where_the_good_nodes_are_lost_others_are_waited_for_but_not_for_ever(
    jobs: dict[str, dict[str, Any]],
) -> None:
    ended = jobs["the good ones are lost"]
    assert sum("is left out of this run" in text for text in ended["warnings"]) == 2, ended
    assert ended["said"].startswith("ModelFault: ")
    assert "no node without a fault has come for 2 s" in ended["said"]
    # While it waits it says which nodes stand empty.
    assert any(
        "workers have not started yet" in text and "got none of them" in text for text in ended["warnings"]
    )


def test_where_no_node_is_left_the_run_stops_with_the_fault_of_the_last_one(
    folder: Path, jobs: dict[str, dict[str, Any]]
) -> None:
    ended = jobs["none is left"]
    assert ended["code"] == ExitCode.MODEL, ended
    assert len(ended["warnings"]) == 1
    assert {"golden" in ended["said"], "golden" in ended["warnings"][0]} == {True, False}
    assert "\n" not in ended["said"]
    assert not (folder / "jobs" / "none" / "fields").exists()


def test_no_process_of_the_cluster_is_left(folder: Path, jobs: dict[str, dict[str, Any]]) -> None:
    assert jobs
    left = [process.info for process in psutil.process_iter(["pid", "cmdline"])]
    assert [info for info in left if any(str(folder) in part for part in info["cmdline"] or [])] == []
