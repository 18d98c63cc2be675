"""`cellcount retry`: only what failed is read again, what is counted stays, and a kill at any moment loses nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cellcount_core.cli.main import main
from cellcount_core.cli.progress import Quiet
from cellcount_core.domain.errors import ExitCode
from cellcount_core.reduce.verify import verify
from cellcount_core.runners.job import run_job
from cellcount_core.stores.base import StorageOptions
from cellcount_core.stores.local import open_local
from cellcount_core.stores.open import open_store
from tests.faults.drill import judge, read_again
from tests.jobs import count, digest, job
from tests.plates import Plate, write_plate
from tests.s3_jobs import Tables, field_rows, tables, upload
from tests.s3_proxy import Instead, Request, S3Proxy, s3_proxy
from tests.s3_server import S3Server

INPUT, COUNTS = "s3://faults-retry/plate", "s3://faults-retry/counts"
DENIED = [("A01", 2), ("A03", 1)]
FORBIDDEN = Instead(
    403, b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>no</Message></Error>"
)


@pytest.fixture(scope="module")
def server(s3_server: S3Server) -> Iterator[S3Server]:
    with s3_server.with_buckets("faults-retry") as ready:
        yield ready


@pytest.fixture(scope="module")
def plate(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Plate:
    """Eight fields in four shards; the two that will be denied are in two of them."""
    plate = write_plate(tmp_path_factory.mktemp("retry") / "plate", well_count=4)
    upload(plate, open_store(INPUT, StorageOptions(endpoint=server.endpoint)))
    return plate


@pytest.fixture
def proxy(server: S3Server) -> Iterator[S3Proxy]:
    with s3_proxy(server.endpoint) as between:
        yield between


@pytest.fixture(scope="module")
def unbroken(plate: Plate, server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    output = tmp_path_factory.mktemp("unbroken") / "out"
    count(INPUT, output, storage={"endpoint": server.endpoint})
    return tables(output)


def command(name: str, *places: str, endpoint: str) -> list[str]:
    given = [name, *places, "--endpoint", endpoint, "--runner", "serial", "--progress", "quiet"]
    return [*given, "--set", "execution.in_flight=1"]


def count_with_two_denied(plate: Plate, proxy: S3Proxy, output: str) -> None:
    denied = {plate.file(*bad).name for bad in DENIED}
    proxy.interfere = lambda request: FORBIDDEN if any(map(request.is_get_of, denied)) else None
    settings = ["--layout", "imagexpress", "--model", "threshold", "--set", "execution.shard_fields=2"]
    assert main([*command("count", INPUT, output, endpoint=proxy.endpoint), *settings]) == ExitCode.FAILURES
    proxy.interfere = lambda request: None
    proxy.requests.clear()


def test_only_the_fields_that_failed_are_read_again_and_the_tables_are_those_of_an_unbroken_run(
    plate: Plate,
    proxy: S3Proxy,
    server: S3Server,
    unbroken: Tables,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = f"{COUNTS}/once"
    count_with_two_denied(plate, proxy, output)
    rows = field_rows(output, server.endpoint)
    assert [key for key, row in rows.items() if row == ("failed", "access_denied", None)] == DENIED
    capsys.readouterr()
    assert main(command("retry", output, endpoint=proxy.endpoint)) == ExitCode.OK
    told = capsys.readouterr().out
    assert told.startswith("2 of 2 fields tried again are counted now (they were 2 access_denied)\n")
    read = [request.key for request, _ in proxy.requests if request.is_get_of(".TIF")]
    assert [key.rsplit("/", 1)[-1] for key in read] == [plate.file(*bad).name for bad in DENIED]
    judge(
        "failed fields retried",
        unbroken,
        output,
        endpoint=server.endpoint,
        redone=read_again(proxy, "faults-retry"),
    )
    assert main(command("retry", output, endpoint=proxy.endpoint)) == ExitCode.OK
    assert capsys.readouterr().out.startswith("no field to try again\n")


@pytest.mark.parametrize(
    ("moment", "asked"),
    [
        ("before the first objects part", "/objects/"),
        ("before the first fields part", "/fields/"),
        ("before the reduction", "wells.parquet"),
        ("before the summary", "summary.json"),
    ],
)
def test_a_retry_killed_at_any_moment_is_ended_by_the_same_command(
    plate: Plate, proxy: S3Proxy, server: S3Server, unbroken: Tables, moment: str, asked: str
) -> None:
    output = f"{COUNTS}/killed-{asked.strip('/').split('.')[0]}"
    count_with_two_denied(plate, proxy, output)
    killed: list[str] = []

    def kill(request: Request) -> None:
        if request.method == "PUT" and asked in f"/{request.key}" and not killed:
            killed.append(request.key)
            os.kill(request.client_pid(), signal.SIGKILL)

    proxy.interfere = kill
    arguments = command("retry", output, endpoint=proxy.endpoint)
    driver = subprocess.run(
        [sys.executable, "-m", "cellcount_core.cli", *arguments], check=False, timeout=600
    )
    assert driver.returncode == -signal.SIGKILL
    assert len(killed) == 1
    assert main(command("retry", output, endpoint=proxy.endpoint)) == ExitCode.OK
    judge(
        f"retry killed {moment}",
        unbroken,
        output,
        endpoint=server.endpoint,
        redone=read_again(proxy, "faults-retry"),
    )


class Begun(Quiet):
    """Does `act` when the plan stands and counting begins."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act

    def begin(self, fields: int, already: int, run: str) -> None:
        self._act()


def test_a_file_that_came_back_is_counted_and_one_that_was_replaced_stays_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plate = write_plate(tmp_path / "plate", well_count=4)
    broken = plate.file("A04", 2)
    broken.write_bytes(broken.read_bytes()[:-900])
    lost, replaced = plate.file("A02", 1), plate.file("A03", 2)
    count(plate.folder, tmp_path / "unbroken")

    def away() -> None:
        for file in (lost, replaced):
            file.rename(tmp_path / file.name)

    run_job(job(plate.folder, tmp_path / "out"), Begun(away))
    (tmp_path / lost.name).rename(lost)
    # Of the same size, and another content: the tag of the listing tells.
    replaced.write_bytes((tmp_path / replaced.name).read_bytes())
    assert (
        main(["retry", str(tmp_path / "out"), "--runner", "serial", "--progress", "quiet"])
        == ExitCode.FAILURES
    )
    told = capsys.readouterr().out
    assert told.startswith("1 of 3 fields tried again is counted now (they were 2 absent, 1 truncated)\n")
    rows = field_rows(tmp_path / "out")
    assert rows[("A02", 1)] == ("ok", None, plate.truth[("A02", 1)])
    assert rows[("A03", 2)] == ("failed", "changed", None)
    assert rows[("A04", 2)] == ("failed", "truncated", None)
    assert f"{replaced.relative_to(plate.folder)}: it is not the file that was planned" in told
    assert verify(open_local(tmp_path / "out")).proven

    (tmp_path / replaced.name).rename(replaced)
    arguments = [
        "retry",
        str(tmp_path / "out"),
        "--reason",
        "changed",
        "--runner",
        "serial",
        "--progress",
        "quiet",
    ]
    assert main(arguments) == ExitCode.FAILURES
    assert capsys.readouterr().out.startswith(
        "1 of 1 field tried again is counted now (they were 1 changed)\n"
    )
    assert digest(tmp_path / "out") == digest(tmp_path / "unbroken")


def test_what_cannot_be_retried_is_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plate = write_plate(tmp_path / "plate", well_count=2)
    out = tmp_path / "out"

    def told(*arguments: str) -> tuple[int, str]:
        code = main(["retry", str(out), "--runner", "serial", *arguments])
        return code, capsys.readouterr().err.splitlines()[-1]

    code, line = told()
    assert code == ExitCode.OUTPUT
    assert line.startswith(f"cellcount: {out}: is not the output of a run, run/run.json cannot be read")
    count(plate.folder, out, execution={"shard_fields": 1})
    (out / "fields" / "part-000001.parquet").unlink()
    assert told() == (
        ExitCode.LEDGER,
        f"cellcount: {out}: 1 of 4 shards are not counted yet; finish the run with the command that began it, then retry "
        "what failed",
    )
    assert told("--reason", "access_denid") == (
        ExitCode.CONFIG,
        "cellcount: --reason access_denid: is not a reason for which a field fails; did you mean 'access_denied'?",
    )
    code, line = told("--set", "run.z=max")
    assert code == ExitCode.CONFIG
    assert "only execution, storage and output_storage can be set" in line


def test_a_replaced_file_is_tried_once_and_then_offered_an_update_instead(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plate, out = write_plate(tmp_path / "plate", well_count=2), tmp_path / "out"
    cut = plate.file("A02", 1)
    whole = cut.read_bytes()
    cut.write_bytes(whole[:-900])
    count(plate.folder, out)
    cut.write_bytes(whole)
    again = ["retry", str(out), "--runner", "serial", "--progress", "quiet"]
    offer = f"cellcount count {plate.folder} {out} --update (1 changed)"
    assert main(again) == ExitCode.FAILURES
    assert offer in capsys.readouterr().out
    assert main(again) == ExitCode.FAILURES
    told = capsys.readouterr().out
    assert told.startswith("no field to try again\n1 field left (1 changed)")
    assert "cellcount retry" not in told
    assert offer in told
    # What is offered helps.
    assert main(["count", str(plate.folder), str(out), "--update", *again[2:]]) == ExitCode.OK
    assert field_rows(out)["A02", 1] == ("ok", None, plate.truth["A02", 1])


def test_what_is_offered_goes_by_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plate, out = write_plate(tmp_path / "plate", well_count=2, channels=2), tmp_path / "out"
    plate.file("A01", 1, 2).unlink()
    given = [
        "count",
        str(plate.folder),
        str(out),
        "--layout",
        "imagexpress",
        "--channel",
        "w2",
        "--model",
        "threshold",
    ]
    assert main([*given, "--runner", "serial", "--progress", "quiet"]) == ExitCode.FAILURES
    told = capsys.readouterr().out
    assert "cellcount retry" not in told
    assert "with other settings (see above), into another output folder" in told
    assert f"cellcount count {plate.folder} {out} --update (1 channel_missing)" in told
