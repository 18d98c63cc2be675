"""Which runner "auto" stands for, what is told before a cluster is started, and that the runner changes no byte."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from cellcount_core.cli.progress import Quiet
from cellcount_core.config import JobConfig
from cellcount_core.domain.errors import ConfigFault, ExitCode, OutputFault, StorageFault
from cellcount_core.models.package import find_package
from cellcount_core.output.planfile import read_shards
from cellcount_core.output.run_folder import load_plan
from cellcount_core.output.runfile import read_run
from cellcount_core.runners.events import Progress
from cellcount_core.runners.fanout import decided
from cellcount_core.runners.job import run_job
from cellcount_core.runners.lease import held
from cellcount_core.runners.places import open_job_input, open_job_output
from cellcount_core.stores.base import StorageOptions
from cellcount_core.stores.open import open_store
from tests.jobs import count, digest, job
from tests.plates import Plate, discs, write_plate


class Told(Quiet):
    """Keeps what a run tells."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.done: list[int] = []
        self.warned: list[str] = []

    def warn(self, text: str) -> None:
        self.warned.append(text)

    def stage(self, text: str) -> None:
        self.stages.append(text)

    def tick(self, progress: Progress) -> None:
        self.done.append(progress.statuses.total() + progress.in_hand)


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> Plate:
    return write_plate(tmp_path_factory.mktemp("input") / "plate", well_count=4)


def auto(source: Path, output: Path, **execution: object) -> JobConfig:
    given = {"runner": "auto", "threads": "auto", "shard_fields": "auto", **execution}
    return job(source, output, execution=given)


def runner_of(asked: JobConfig, run_at: Path) -> str:
    """What "auto" stands for in a job like that counted at `run_at`."""
    source = open_job_input(asked)
    output = open_job_output(asked.model_copy(update={"output": str(run_at)}), source)
    run = read_run(output)
    package = find_package(asked.run.model.package)
    return decided(asked, run, package, source, read_shards(load_plan(output, run)), Told()).execution.runner


def test_a_small_job_is_counted_in_this_process_and_the_session_says_so(plate: Plate, tmp_path: Path) -> None:
    told = Told()
    result = run_job(auto(plate.folder, tmp_path / "out"), told)
    assert result.summary.totals["count"] == sum(plate.truth.values())
    assert [stage for stage in told.stages if stage.startswith("runner serial: about 1 s")]
    [session] = (tmp_path / "out" / "run" / "timings").iterdir()
    assert json.loads(session.read_text())["runner"] == "serial"
    # Small shards: all workers of a machine have some, and a stop loses little.
    assert len(list((tmp_path / "out" / "fields").iterdir())) == 8
    count(plate.folder, tmp_path / "serial")
    assert digest(tmp_path / "out") == digest(tmp_path / "serial")
    # Neither decides the result.
    assert (tmp_path / "out" / "run" / "run.json").read_text().count("serial") == 0


def test_threads_of_a_network_change_no_byte(tmp_path: Path) -> None:
    """This process counts with all its cores, a worker of Ray with one."""
    folder = tmp_path / "in"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), discs(30, 300, 3))
    run = {"layout": {"kind": "flat"}, "model": {"package": "nuclei"}, "diameter": "model"}
    for threads in (1, 3):
        count(folder, tmp_path / str(threads), run=run, execution={"threads": threads})
    assert digest(tmp_path / "1") == digest(tmp_path / "3")


@pytest.mark.slow
def test_auto_is_ray_where_there_is_work_for_it_or_a_setting_asks_for_it(
    plate: Plate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    out = tmp_path / "out"
    count(plate.folder, out)
    assert runner_of(auto(plate.folder, out), out) == "serial"
    for wish in ({"actors": 2}, {"address": "head:6379"}, {"memory_mib": 2000}, {"shard_timeout_s": 60}):
        assert runner_of(auto(plate.folder, out, **wish), out) == "ray", wish
    assert runner_of(auto(plate.folder, out, address="local"), out) == "ray"
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert runner_of(auto(plate.folder, out), out) == "ray"
    monkeypatch.delenv("RAY_ADDRESS")
    # 300 small fields are little work, however well they are compressed; 40 of 9 megapixels are not.
    for name, number, side, expected in (("small", 300, 64, "serial"), ("large", 40, 3000, "ray")):
        folder = tmp_path / name
        folder.mkdir()
        first = folder / "0.png"
        cv2.imwrite(str(first), np.ones((side, side), np.uint8))
        for index in range(1, number):
            (folder / f"{index}.png").hardlink_to(first)
        flat = {"layout": {"kind": "flat"}, "tile": 8192}
        one = job(folder, tmp_path / f"{name}-out", run=flat | {"include": ["0.png"]})
        run_job(one, Quiet())
        whole = auto(folder, tmp_path / f"{name}-out").model_copy(update={"run": one.run})
        output = open_job_output(whole, open_job_input(whole))
        run = read_run(output)
        [shard] = read_shards(load_plan(output, run))
        many = [shard] * number
        package = find_package(whole.run.model.package)
        assert decided(whole, run, package, open_job_input(whole), many, Told()).execution.runner == expected


def test_settings_of_another_run_and_a_finished_run_are_told_without_ray_or_a_listing(
    plate: Plate, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    count(plate.folder, out)
    told = Told()
    other = job(plate.folder, out, run={"z": "mean"}, execution={"runner": "ray"})
    with pytest.raises(
        OutputFault, match=r"belongs to another run; what differs:\n  run\.z: 'max' -> 'mean'"
    ):
        run_job(other, told)
    assert told.stages == []
    again = run_job(job(plate.folder, out, execution={"runner": "ray"}), told)
    assert again.progress.shards == 0
    assert not [stage for stage in told.stages if "Ray" in stage]


def test_a_gpu_where_there_is_none_is_refused_before_ray_starts_or_anything_is_listed(
    plate: Plate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    told = Told()
    for runner in ("auto", "ray"):
        for gpus, actors in ((1, "auto"), (0.5, 2)):
            execution = {"runner": runner, "gpus_per_actor": gpus, "actors": actors}
            with pytest.raises(
                ConfigFault, match=rf"gpus_per_actor is {gpus:g}, but this machine.* has no GPU"
            ):
                run_job(job(plate.folder, tmp_path / "out", execution=execution), told)
    assert told.stages == []
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_finished_run_loads_nothing_that_counts(plate: Plate, tmp_path: Path) -> None:
    out = tmp_path / "out"
    count(plate.folder, out)
    code = (
        "import sys; from tests.jobs import count; "
        f"count({str(plate.folder)!r}, {str(out)!r}, execution={{'runner': 'auto', 'shard_fields': 'auto'}}); "
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"ray", "onnxruntime", "scipy", "cv2", "matplotlib", "tifffile"}
    assert heavy & set(done.stdout.split()) == set()


def test_other_cores_go_on_with_the_plan_that_is_there(
    plate: Plate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    count(plate.folder, tmp_path / "whole")
    run_job(auto(plate.folder, out), Quiet())
    for part in sorted((out / "fields").iterdir())[3:]:
        part.unlink()
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    result = run_job(auto(plate.folder, out, shard_fields=64), Quiet())
    assert result.progress.shards == 5
    assert digest(out) == digest(tmp_path / "whole")


@pytest.mark.slow
def test_after_a_process_died_at_work_the_next_one_counts_on_ray(plate: Plate, tmp_path: Path) -> None:
    out = tmp_path / "out"
    hold = (
        "import os, signal; from cellcount_core.runners.lease import held; "
        "from cellcount_core.stores.base import StorageOptions; from cellcount_core.stores.open import open_store\n"
        f"with held(open_store({str(out)!r}, StorageOptions())): os.kill(os.getpid(), signal.SIGKILL)"
    )
    store = open_store(out, StorageOptions())
    with held(store) as first:
        assert not first.after_death
    with held(store) as second:
        assert not second.after_death
    subprocess.run([sys.executable, "-c", hold], check=False)
    # A cluster cannot be started without a home: that it is tried is enough here.
    (tmp_path / "file").write_text("no folder")
    command = [
        sys.executable,
        "-m",
        "cellcount_core.cli",
        "count",
        str(plate.folder),
        str(out),
        "--progress",
        "json",
    ]
    command += ["--layout", "imagexpress", "--model", "threshold"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        command,
        env=environment | {"HOME": str(tmp_path / "file")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ExitCode.STORAGE
    assert "the last process at work here died: counting on Ray" in done.stderr
    # That one let go of the output, so the next small job is counted here again.
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.OK, done.stderr
    assert "runner serial" in done.stderr


def test_progress_counts_fields_of_shards_that_are_not_committed_yet(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for index in range(6):
        cv2.imwrite(str(folder / f"{index}.png"), discs(9, 400, index))
    told = Told()
    one_shard = {"runner": "serial", "shard_fields": 64}
    run_job(job(folder, tmp_path / "out", run={"layout": {"kind": "flat"}}, execution=one_shard), told)
    assert told.done[-1] == 6
    assert told.done == sorted(told.done)


def test_an_address_where_nobody_listens_is_told_at_once(plate: Plate, tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}", f"[::1]:{port}"):
            asked = auto(plate.folder, tmp_path / "out", address=address)
            with pytest.raises(StorageFault, match="nobody listens there") as caught:
                run_job(asked, Quiet())
            assert f"cannot reach {address}" in str(caught.value)
    with pytest.raises(ConfigFault, match="cellcount submit --address http://head:8265"):
        run_job(auto(plate.folder, tmp_path / "out", address="http://head:8265"), Quiet())


def test_the_serial_runner_says_which_settings_it_does_not_follow(plate: Plate, tmp_path: Path) -> None:
    for name, given, warned in (
        ("plain", {"threads": 1}, []),
        ("address", {"address": "head:6379", "actors": 2}, ["execution.address, execution.actors;"]),
    ):
        told = Told()
        run_job(auto(plate.folder, tmp_path / name, runner="serial", **given), told)
        assert len(told.warned) == len(warned)
        assert all(words in line for words, line in zip(warned, told.warned, strict=True))
