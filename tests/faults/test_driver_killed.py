"""A driver killed with SIGKILL, at each step from planning to the summary: the same command completes what it left."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cellcount_core.cli.main import main
from cellcount_core.domain.errors import ExitCode
from cellcount_core.runners.lease import LEASE
from cellcount_core.stores.base import StorageOptions
from cellcount_core.stores.open import open_store
from tests.faults.drill import judge, read_again
from tests.faults.drivers import LONGEST_S, KillsAt, Moment, arguments, end, start
from tests.faults.sabotage.sitecustomize import KILL_AT
from tests.plates import Plate, write_plate
from tests.s3_jobs import Tables, keys, tables, upload
from tests.s3_proxy import S3Proxy, s3_proxy
from tests.s3_server import S3Server

ROOT = Path(__file__).parents[2]
SABOTAGE = ROOT / "tests" / "faults" / "sabotage"
INPUT = "s3://drills-driver/plate"
SETTINGS = (
    "execution.runner=serial",
    "execution.shard_fields=2",
    "execution.in_flight=2",
    "execution.threads=1",
)

PLAN, RUN = "run/plan.parquet", "run/run.json"
FIRST, FOURTH = "fields/part-000000.parquet", "fields/part-000003.parquet"

MOMENTS = {
    "before the plan stands": Moment("PUT", PLAN),
    "between plan and run.json": Moment("PUT", RUN),
    "once run.json stands": Moment("PUT", RUN, heard=True),
    "before the first commit": Moment("PUT", FIRST),
    "at the first commit": Moment("PUT", FIRST, heard=True),
    "mid-run": Moment("PUT", FOURTH),
    "during reduce": Moment("PUT", "wells.parquet", heard=True),
    "before the summary": Moment("PUT", "summary.json"),
}


@pytest.fixture(scope="module")
def server(s3_server: S3Server) -> Iterator[S3Server]:
    with s3_server.with_buckets("drills-driver", "drills-driver-out") as ready:
        yield ready


@pytest.fixture(scope="module")
def plate(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Plate:
    """Six wells, two sites: six shards of two fields."""
    plate = write_plate(tmp_path_factory.mktemp("drills-driver") / "plate", well_count=6)
    upload(plate, open_store(INPUT, StorageOptions(endpoint=server.endpoint)))
    return plate


@pytest.fixture(scope="module")
def unbroken(plate: Plate, server: S3Server) -> Tables:
    output = "s3://drills-driver-out/unbroken"
    assert main(arguments(INPUT, output, *SETTINGS, endpoint=server.endpoint)) == ExitCode.OK
    return tables(output, server.endpoint)


@pytest.fixture
def proxy(server: S3Server) -> Iterator[S3Proxy]:
    with s3_proxy(server.endpoint) as between:
        yield between


@pytest.mark.parametrize("when", MOMENTS)
def test_what_a_killed_driver_leaves_the_same_command_completes(
    when: str, unbroken: Tables, proxy: S3Proxy, server: S3Server
) -> None:
    output = f"s3://drills-driver-out/{when.replace(' ', '-')}"
    moment = MOMENTS[when]
    command = arguments(INPUT, output, *SETTINGS, endpoint=proxy.endpoint)
    proxy.interfere = KillsAt([moment])
    assert end(start(command)).code == -signal.SIGKILL
    store = open_store(output, StorageOptions(endpoint=server.endpoint))
    # What the store was asked for is done after the driver's death: the proxy passes it on.
    until = time.monotonic() + LONGEST_S
    while (moment.ending in keys(store)) is not moment.heard:
        assert time.monotonic() < until, keys(store)
        time.sleep(0.05)
    assert "summary.json" not in keys(store)
    assert main(command) == ExitCode.OK
    judge(
        f"driver killed {when}",
        unbroken,
        output,
        endpoint=server.endpoint,
        redone=read_again(proxy, "drills-driver"),
    )


@pytest.mark.parametrize("name", [RUN, FIRST, "summary.json"])
def test_a_driver_killed_while_it_names_a_file_of_a_local_output_leaves_nothing_once_its_run_is_done(
    name: str, plate: Plate, unbroken: Tables, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    command = arguments(plate.folder, output, *SETTINGS)
    search = os.pathsep.join((str(SABOTAGE), str(ROOT)))
    killed = end(start(command, {**os.environ, "PYTHONPATH": search, KILL_AT: f"{output}/{name}"}))
    assert killed.code == -signal.SIGKILL, killed
    assert not (output / name).exists()
    assert main(command) == ExitCode.OK
    judge(f"driver killed naming {name} on local disk", unbroken, output)


def test_a_driver_with_other_settings_or_images_is_refused_and_changes_nothing(
    plate: Plate, unbroken: Tables, proxy: S3Proxy, server: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    output = "s3://drills-driver-out/another"
    command = arguments(INPUT, output, *SETTINGS, endpoint=proxy.endpoint)
    proxy.interfere = KillsAt([Moment("PUT", FOURTH)])
    assert end(start(command)).code == -signal.SIGKILL
    source, out = (open_store(url, StorageOptions(endpoint=server.endpoint)) for url in (INPUT, output))
    half = {key: out.get(key) for key in keys(out) if not key.startswith(LEASE)}

    assert main([*command, "--set", "run.um_per_px=0.5"]) == ExitCode.OUTPUT
    told = capsys.readouterr().err
    assert f"{output} belongs to another run" in told
    assert "run.um_per_px: None -> 0.5" in told
    key, other = (plate.file(*at).relative_to(plate.folder).as_posix() for at in (("A02", 1), ("A03", 1)))
    body = source.get(key)
    source.put(key, source.get(other))
    try:
        assert main(command) == ExitCode.OUTPUT
        assert f"1 file was changed: {key}" in capsys.readouterr().err
    finally:
        source.put(key, body)
    # The lease alone was taken and given back, so that nobody else was at work meanwhile.
    assert {key: out.get(key) for key in keys(out) if not key.startswith(LEASE)} == half

    assert main(command) == ExitCode.OK
    redone = read_again(proxy, "drills-driver")
    judge(
        "drivers of another run on a half-done output",
        unbroken,
        output,
        endpoint=server.endpoint,
        redone=redone,
    )
