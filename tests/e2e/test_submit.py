"""Jobs are submitted to a real head node: exit codes, logs, names that never run twice, a count from end to end."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.e2e.ray_head import RayHead, free_port, ray_head
from tests.plates import write_plate

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[2]

CLIENT = """
import json, sys
from pathlib import Path
from cellcount_core.domain.errors import RunFault
from cellcount_core.runners.submit import SubmitRequest, submit
asked = json.loads(sys.argv[1])
request = SubmitRequest(Path(asked["config"]), asked["address"], Path(asked["working_dir"]), tuple(asked["assignments"]),
                        asked["submission_id"], tuple(asked["entrypoint"]))
try:
    sys.exit(submit(request))
except RunFault as fault:
    print(f"{type(fault).__name__}: {fault}", file=sys.stderr)
    sys.exit(fault.exit_code)
"""

SCRIPT = """
import sys, time
from pathlib import Path
import yaml
settings = yaml.safe_load(Path(sys.argv[1]).read_text())
print("settings", settings["word"], sys.argv[2:], flush=True)
while "wait_for" in settings and not Path(settings["wait_for"]).exists():
    time.sleep(0.1)
print("last line", flush=True)
sys.exit(settings["code"])
"""


@dataclass
class Folder:
    """A working directory with a small entry point, and a client beside it."""

    path: Path
    head: RayHead

    def config(self, **settings: object) -> Path:
        path = self.path / "conf" / "job.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(settings))
        return path

    def command(self, config: Path, **changes: object) -> list[str]:
        asked = {
            "config": str(config),
            "address": self.head.address,
            "working_dir": str(self.path),
            "assignments": [],
            "submission_id": "",
            "entrypoint": ["python", "script.py"],
            **changes,
        }
        return [sys.executable, "-c", CLIENT, json.dumps(asked)]

    def follow(self, config: Path) -> subprocess.Popen[str]:
        """A client that goes on beside the test."""
        return subprocess.Popen(
            self.command(config),
            env=self.head.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def submit(self, config: Path, **changes: object) -> subprocess.CompletedProcess[str]:
        command = self.command(config, **changes)
        return subprocess.run(
            command, env=self.head.environment, capture_output=True, text=True, timeout=6000, check=False
        )


@pytest.fixture(scope="module")
def head() -> Iterator[RayHead]:
    with ray_head() as started:
        yield started


@pytest.fixture
def folder(tmp_path: Path, head: RayHead) -> Folder:
    (tmp_path / "script.py").write_text(SCRIPT)
    return Folder(tmp_path, head)


def test_a_job_gets_its_config_and_assignments_and_its_logs_come_back(folder: Folder) -> None:
    # An address given wins over what the environment says of another cluster.
    folder = Folder(
        folder.path,
        RayHead(folder.head.address, {**folder.head.environment, "RAY_ADDRESS": f"127.0.0.1:{free_port()}"}),
    )
    done = folder.submit(folder.config(word="hello", code=0), assignments=["run.z=max", "a.b=with space"])

    assert done.returncode == 0, done.stderr
    assert "settings hello ['--set', 'run.z=max', '--set', 'a.b=with space']\nlast line\n" in done.stdout


def test_a_job_that_succeeded_is_reported_and_not_run_again(folder: Folder) -> None:
    config = folder.config(word="once", code=0)
    first = folder.submit(config, submission_id="plate-7")
    second = folder.submit(config, submission_id="plate-7")

    assert (first.returncode, second.returncode) == (0, 0)
    assert "job plate-7: submitted" in first.stderr
    assert "job plate-7: already succeeded" in second.stderr
    assert second.stdout.count("settings once") == 1


def test_without_a_name_of_its_own_a_job_that_succeeded_looks_again(folder: Folder) -> None:
    config = folder.config(word="anew", code=0)
    first = folder.submit(config)
    second = folder.submit(config)

    assert (first.returncode, second.returncode) == (0, 0)
    assert "-2: submitted again; what is counted already stays as it is" in second.stderr
    assert "settings anew" in second.stdout


def test_a_jobs_own_exit_code_is_returned_and_a_failed_one_is_submitted_again_under_the_next_number(
    folder: Folder,
) -> None:
    failed = folder.submit(folder.config(word="first", code=5), submission_id="plate-8")
    again = folder.submit(folder.config(word="second", code=0), submission_id="plate-8")

    assert (failed.returncode, again.returncode) == (5, 0)
    assert "job plate-8-2: submitted again" in again.stderr


def test_ctrl_c_leaves_the_job_running_and_the_same_command_attaches_to_it(folder: Folder) -> None:
    done = folder.path.parent / f"{folder.path.name}-done"
    config = folder.config(word="slow", code=0, wait_for=str(done))
    client = folder.follow(config)
    assert client.stdout is not None
    assert any("settings slow" in line for line in iter(client.stdout.readline, ""))
    client.send_signal(signal.SIGINT)
    _, said = client.communicate(timeout=300)
    again = folder.follow(config)
    said_first: list[str] = []
    assert again.stderr is not None
    # The job ends only once the second client is attached to it, however long that takes.
    for line in iter(again.stderr.readline, ""):
        said_first.append(line)
        if "already running; attached to it" in line:
            break
    done.touch()
    printed, said_last = again.communicate(timeout=300)

    assert client.returncode == 75, said
    assert "goes on without you" in said
    assert "ray job stop --address" in said
    assert again.returncode == 0, said_last
    assert "already running; attached to it" in "".join(said_first)
    assert printed.endswith("last line\n")


def test_a_command_that_the_head_does_not_find_is_explained(folder: Folder) -> None:
    done = folder.submit(folder.config(word="x", code=0), entrypoint=["python-of-another-place", "script.py"])

    assert done.returncode == 127
    assert "the head does not find 'python-of-another-place' on its PATH" in done.stderr


def test_a_client_without_the_clusters_token_is_refused_in_one_sentence(
    folder: Folder, tmp_path: Path
) -> None:
    other = tmp_path / "other-token"
    other.write_text("0" * 64)
    stranger = Folder(
        folder.path,
        RayHead(folder.head.address, {**folder.head.environment, "RAY_AUTH_TOKEN_PATH": str(other)}),
    )
    done = stranger.submit(folder.config(word="x", code=0))

    assert done.returncode == 5
    assert "CredentialsFault" in done.stderr
    assert "RAY_AUTH_TOKEN_PATH" in done.stderr


def test_an_address_that_nobody_answers_is_a_storage_fault_within_seconds(folder: Folder) -> None:
    began = time.monotonic()
    done = folder.submit(folder.config(word="x", code=0), address=f"http://127.0.0.1:{free_port()}")

    assert done.returncode == 4
    assert "cannot be reached" in done.stderr
    assert time.monotonic() - began < 30


def test_cellcount_submit_counts_a_plate_on_the_cluster(tmp_path: Path, head: RayHead) -> None:
    checkout = tmp_path / "checkout"
    for part in ("cellcount_core", "jobs", "models"):
        shutil.copytree(ROOT / part, checkout / part, ignore=shutil.ignore_patterns("__pycache__"))
    plate = write_plate(tmp_path / "plate", well_count=3)
    out = tmp_path / "out"
    folder = Folder(checkout, head)
    config = folder.config(
        input=str(plate.folder),
        output=str(out),
        run={"layout": {"kind": "imagexpress"}, "model": {"package": "threshold"}},
        execution={"actors": 1, "shard_fields": 3},
    )
    command = [sys.executable, "-m", "cellcount_core.cli", "submit", str(config), "--address", head.address]
    command += ["--working-dir", str(checkout), "--id", "plate-9"]
    done = subprocess.run(
        command, env=head.environment, capture_output=True, text=True, timeout=6000, check=False
    )
    again = subprocess.run(
        [*command, "--no-wait"],
        env=head.environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert pq.read_table(out / "wells.parquet", columns=["count"])["count"].to_pylist() == [
        sum(count for (well, _), count in plate.truth.items() if well == name)
        for name in ("A01", "A02", "A03")
    ]
    assert again.returncode == 0
    assert "job plate-9: already succeeded" in again.stderr
