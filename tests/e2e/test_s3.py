"""From s3:// to s3:// against a real server: the tables of local disk, one message where the store says no, no secret anywhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import botocore.session
import psutil
import pytest
from botocore.client import BaseClient

from cellcount_core.cli.main import main
from cellcount_core.domain.errors import ExitCode
from cellcount_core.output.runfile import read_run
from cellcount_core.reduce.verify import verify
from cellcount_core.runners.lease import LEASE
from cellcount_core.runners.places import Places, make_context
from cellcount_core.stores.base import StorageOptions, Store
from cellcount_core.stores.open import open_store
from tests.jobs import count, job
from tests.plates import Plate, write_plate
from tests.s3_jobs import Tables, keys, tables, upload
from tests.s3_proxy import Instead, Request, s3_proxy
from tests.s3_server import S3Server, free_ports

INPUT = "s3://e2e-in/plate"
OUT = "s3://e2e-out"
SHARDS = 3
FILES_READ = 9
"""Of 10 fields; the file with no bytes is asked for once (HEAD): the listing does not tell it from the marker of a folder."""
SETTINGS = ["--layout", "imagexpress", "--model", "threshold", "--set", "execution.shard_fields=4"]


@pytest.fixture(scope="module")
def server(s3_server: S3Server) -> Iterator[S3Server]:
    """The server with both buckets, and its full key in the environment."""
    with s3_server.with_buckets("e2e-in", "e2e-out") as ready:
        yield ready


@pytest.fixture(scope="module")
def plate(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Plate:
    """5 wells, 2 sites, on disk and on S3; one file truncated, one with no bytes."""
    plate = write_plate(tmp_path_factory.mktemp("e2e") / "plate", well_count=5)
    truncated = plate.file("A03", 1)
    truncated.write_bytes(truncated.read_bytes()[:900])
    plate.file("A04", 2).write_bytes(b"")
    upload(plate, store_at(INPUT, server))
    return plate


@pytest.fixture(scope="module")
def reference(plate: Plate, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """The tables of the same plate from local disk."""
    output = tmp_path_factory.mktemp("e2e-reference") / "out"
    result = count(plate.folder, output)
    assert result.summary.statuses == {"ok": 8, "failed": 2, "missing": 0, "skipped": 0}
    return tables(output)


def store_at(url: str, server: S3Server) -> Store:
    return open_store(url, StorageOptions(endpoint=server.endpoint))


def command(output: str, endpoint: str, *more: str) -> list[str]:
    return ["count", INPUT, output, "--endpoint", endpoint, *SETTINGS, *more]


def count_here(output: str, endpoint: str, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str]:
    """Exit code and standard error of the command on the serial runner, in this process."""
    capsys.readouterr()
    code = main(command(output, endpoint, "--runner", "serial", "--progress", "quiet", *more))
    return code, capsys.readouterr().err


@pytest.fixture(scope="module")
def serial(plate: Plate, server: S3Server) -> str:
    """The output of a serial run from S3 to S3."""
    output = f"{OUT}/serial"
    result = count(INPUT, output, storage={"endpoint": server.endpoint})
    assert result.exit_code is ExitCode.FAILURES
    return output


def test_the_tables_on_s3_are_those_of_local_disk(serial: str, reference: Tables, server: S3Server) -> None:
    assert tables(serial, server.endpoint) == reference
    assert verify(store_at(serial, server)).proven


@pytest.mark.ray
def test_through_ray_the_tables_are_the_same_and_no_secret_is_anywhere(
    plate: Plate, reference: Tables, server: S3Server
) -> None:
    secret = re.compile(
        b"|".join(re.escape(part.encode()) for part in (server.secret_key, server.access_key))
    )
    output = f"{OUT}/ray"
    # Sockets below Ray's folder have names of limited length, so pytest's own deep folder will not do.
    session = Path(tempfile.mkdtemp(prefix="cc-ray-"))
    memories: list[bytes] = []
    first = threading.Lock()

    def look_into_the_object_store(request: Request) -> None:
        with first:
            if not memories and request.is_get_of(".TIF"):
                memories.append(_object_store_of(request.client_pid()))

    try:
        with s3_proxy(server.endpoint) as proxy:
            proxy.interfere = look_into_the_object_store
            driver = subprocess.run(
                [sys.executable, "-m", "cellcount_core.cli", *command(output, proxy.endpoint), "--actors", "1", "--progress", "json"],
                env=_environment(RAY_TMPDIR=str(session)), capture_output=True, timeout=600, check=False,
            )  # fmt: skip
            assert driver.returncode == ExitCode.FAILURES, driver.stderr.decode()
            source, asked = proxy.operations("e2e-in"), proxy.operations("e2e-out")
        logs = {path: path.read_bytes() for path in session.rglob("*") if path.is_file()}
    finally:
        shutil.rmtree(session, ignore_errors=True)

    assert tables(output, server.endpoint) == reference
    assert verify(store_at(output, server)).proven
    # The formula of test_operations.py: who counts makes no difference to what is asked of the stores. Ray takes long enough to
    # start for the lease to beat: a list and a put each.
    assert source == Counter(list=1, read=FILES_READ, HEAD=1)
    beats = asked["list"] - 7
    assert 0 <= beats <= 15
    assert asked == Counter(list=7 + beats, read=SHARDS + 4, put=2 * SHARDS + 9 + beats)

    # That the run's context is found there shows that the place looked into is the right one.
    assert OUT.encode() in memories[0]
    assert not secret.search(memories[0])
    assert any("CountingActor" in text.decode(errors="replace") for text in logs.values())
    assert [path.name for path, text in logs.items() if secret.search(text)] == []
    assert not secret.search(driver.stderr + driver.stdout)
    store = store_at(output, server)
    assert [key for key in keys(store) if secret.search(store.get(key))] == []


def _environment(**more: str) -> dict[str, str]:
    """This process's environment without a Ray cluster that might be named there."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return kept | {"RAY_USAGE_STATS_ENABLED": "0"} | more


def _object_store_of(actor_pid: int) -> bytes:
    """What is in the shared memory of the object store that serves an actor: the raylet, its parent, maps all of it."""
    raylet = psutil.Process(actor_pid).parent()
    assert raylet is not None
    found = b""
    with Path(f"/proc/{raylet.pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{raylet.pid}/maps").read_text().splitlines():
            if "plasma" in line:
                start, end = (int(part, 16) for part in line.split()[0].split("-"))
                memory.seek(start)
                # Only the objects matter; pages that were never written read as zeros.
                found += memory.read(end - start).replace(b"\0" * 4096, b"")
    return found


def test_what_workers_are_told_holds_no_secret(serial: str, server: S3Server) -> None:
    from ray import cloudpickle

    options = StorageOptions(endpoint=server.endpoint)
    config = job(INPUT, serial, storage={"endpoint": server.endpoint})
    places = Places(INPUT, options, serial, options)
    told = cloudpickle.dumps(make_context(read_run(store_at(serial, server)), config.run, places, 8))
    assert OUT.encode() in told
    assert server.secret_key.encode() not in told
    assert server.access_key.encode() not in told


@pytest.mark.parametrize("wrong", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"])
def test_a_wrong_key_is_one_message_that_does_not_show_it(
    plate: Plate,
    server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    wrong: str,
) -> None:
    monkeypatch.setenv(wrong, "WRONGWRONGWRONG")
    code, told = count_here(f"{OUT}/wrong-key", server.endpoint, capsys)
    assert code == ExitCode.CREDENTIALS
    assert told.count("\n") == 1
    # The output is asked first: a run that is finished asks its input for nothing.
    assert re.search(f"{OUT}/wrong-key/.*the store refuses the credentials found", told)
    assert server.secret_key not in told
    assert "AWS_ACCESS_KEY_ID" in told


def test_no_credentials_at_all_is_one_message_that_says_where_they_come_from(
    plate: Plate,
    server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    for name in server.environment():
        if "KEY" in name:
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    code, told = count_here(f"{OUT}/no-key", server.endpoint, capsys)
    assert code == ExitCode.CREDENTIALS
    assert told.count("\n") == 1
    assert "no credentials were found" in told


def test_a_missing_bucket_is_named(
    plate: Plate, server: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told = count_here("s3://no-such-bucket/out", server.endpoint, capsys)
    assert code == ExitCode.STORAGE
    assert told.count("\n") == 1
    assert re.search("no-such-bucket.*no such bucket", told)


def test_an_endpoint_that_nobody_listens_on_is_given_up_in_bounded_time(
    plate: Plate, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint = f"http://127.0.0.1:{free_ports(1)[0]}"
    began = time.monotonic()
    code, told = count_here(f"{OUT}/nobody", endpoint, capsys, "--set", "storage.timeout_s=3")
    assert code == ExitCode.STORAGE
    assert time.monotonic() - began < 20
    assert told.count("\n") == 1
    assert f"unreachable, {endpoint} does not answer" in told


def test_a_key_that_may_only_read_is_stopped_before_anything_is_counted(
    plate: Plate, server: S3Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch, s3_proxy(server.endpoint) as proxy:
        for name, value in server.ro_environment().items():
            patch.setenv(name, value)
        code, told = count_here(f"{OUT}/read-only", proxy.endpoint, capsys)
        assert proxy.operations("e2e-in") == Counter(list=1, HEAD=1)
    assert code == ExitCode.CREDENTIALS
    assert told.count("\n") == 1
    assert f"{OUT}/read-only/run/lease/000001.json" in told
    assert keys(store_at(f"{OUT}/read-only", server)) == []


def test_the_output_of_another_run_is_left_as_it_is(
    plate: Plate, reference: Tables, server: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    output = f"{OUT}/another"
    assert count_here(output, server.endpoint, capsys)[0] == ExitCode.FAILURES
    store = store_at(output, server)
    before = {key: store.get(key) for key in keys(store) if not key.startswith(LEASE)}
    code, told = count_here(output, server.endpoint, capsys, "--set", "run.um_per_px=0.5")
    assert code == ExitCode.OUTPUT
    assert f"{output} belongs to another run" in told
    assert "run.um_per_px: None -> 0.5" in told
    assert {key: store.get(key) for key in keys(store) if not key.startswith(LEASE)} == before


def test_of_two_drivers_that_want_one_output_at_once_one_counts_and_the_other_is_refused(
    plate: Plate, reference: Tables, server: S3Server
) -> None:
    output = f"{OUT}/two"
    taken = "e2e-out/two/run/lease/000001.json"
    meeting = threading.Barrier(2)
    firsts: list[Request] = []

    def make_them_meet(request: Request) -> Instead | None:
        """Both drivers' first puts of the lease go to the server at the same moment."""
        if request.method == "PUT" and request.key == taken and len(firsts) < 2:
            firsts.append(request)
            with suppress(threading.BrokenBarrierError):
                meeting.wait(60)
        return None

    with s3_proxy(server.endpoint) as proxy:
        proxy.interfere = make_them_meet
        arguments = command(output, proxy.endpoint, "--runner", "serial", "--progress", "json")
        drivers = [
            subprocess.Popen([sys.executable, "-m", "cellcount_core.cli", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            for _ in range(2)
        ]  # fmt: skip
        logs = [driver.communicate(timeout=600)[1].decode() for driver in drivers]
        refused = [request.key for request, status in proxy.requests if status in (409, 412)]

    codes = [driver.returncode for driver in drivers]
    assert sorted(codes) == [ExitCode.FAILURES, ExitCode.BUSY], logs
    assert taken in refused
    counted = drivers[codes.index(ExitCode.FAILURES)]
    assert (
        f"another run is at work on this output: process {counted.pid} on "
        in logs[codes.index(ExitCode.BUSY)]
    )
    assert tables(output, server.endpoint) == reference
    assert verify(store_at(output, server)).proven


def test_a_public_bucket_is_counted_without_credentials(
    plate: Plate, reference: Tables, server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.make_bucket("e2e-public")
    upload(plate, store_at("s3://e2e-public/plate", server))
    _make_public("e2e-public", server)
    for name in server.environment():
        if "KEY" in name:
            monkeypatch.delenv(name)
    storage = {"endpoint": server.endpoint, "anonymous": True}
    count("s3://e2e-public/plate", tmp_path / "out", storage=storage)
    assert tables(tmp_path / "out") == reference


def test_the_marker_of_a_folder_and_keys_that_are_no_paths_are_left_out_and_named(
    server: S3Server, plate: Plate, reference: Tables, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.make_bucket("e2e-odd")
    upload(plate, store_at("s3://e2e-odd/plate", server))
    _client(server).put_object(Bucket="e2e-odd", Key="plate/sub.tif/", Body=b"")
    page = _client(server).list_objects_v2(Bucket="e2e-odd", Prefix="plate/")
    listed = [(found["Key"], found["Size"], found["ETag"]) for found in page["Contents"]] + [
        ("plate/x//y.tif", 9, "z")
    ]
    contents = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>{tag.strip(chr(34))}</ETag>"
        f"<Size>{size}</Size></Contents>"
        for key, size, tag in sorted(listed)
    )
    with_an_odd_key = (
        f"<ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>".encode()
    )
    with s3_proxy(server.endpoint) as proxy:
        proxy.interfere = lambda request: (
            Instead(200, with_an_odd_key) if request.prefix is not None else None
        )
        source = ["count", "s3://e2e-odd/plate", str(tmp_path / "out"), "--endpoint", proxy.endpoint]
        code = main([*source, "--runner", "serial", *SETTINGS])
    assert code == ExitCode.FAILURES
    told = capsys.readouterr().err
    assert "marker of a folder, such as 'sub.tif'" in told
    assert "such as 'x//y.tif'" in told
    assert tables(tmp_path / "out") == reference


def _make_public(bucket: str, server: S3Server) -> None:
    """Let anybody list and read the bucket."""
    allowed = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": ["s3:GetObject", "s3:ListBucket"],
        "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
    }
    _client(server).put_bucket_policy(
        Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    )


def _client(server: S3Server) -> BaseClient:
    return botocore.session.Session().create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url=server.endpoint,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
    )
