"""A store that asks to slow down, or takes an object away: throttling is never a missing row, an absent file always is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cellcount_core.cli.main import main
from cellcount_core.cli.progress import Quiet
from cellcount_core.domain.errors import ExitCode
from cellcount_core.reduce.verify import verify
from cellcount_core.runners.job import run_job
from cellcount_core.stores.base import StorageOptions, Store
from cellcount_core.stores.open import open_store
from tests.jobs import job
from tests.plates import Plate, write_plate
from tests.s3_jobs import field_rows, upload
from tests.s3_proxy import SLOW_DOWN, Instead, Request, S3Proxy, s3_proxy
from tests.s3_server import S3Server

INPUT = "s3://faults-throttling/plate"
BAD = ("A02", 2)
"""The fourth of eight fields."""

Row = tuple[str, str | None, int | None]


@pytest.fixture(scope="module")
def source(s3_server: S3Server) -> Iterator[Store]:
    """The input on S3, past the proxy."""
    with s3_server.with_buckets("faults-throttling"):
        yield open_store(INPUT, StorageOptions(endpoint=s3_server.endpoint))


@pytest.fixture(scope="module")
def plate(source: Store, tmp_path_factory: pytest.TempPathFactory) -> Plate:
    plate = write_plate(tmp_path_factory.mktemp("throttling") / "plate", well_count=4)
    upload(plate, source)
    return plate


@pytest.fixture
def proxy(source: Store, s3_server: S3Server) -> Iterator[S3Proxy]:
    with s3_proxy(s3_server.endpoint) as between:
        yield between


def counted(plate: Plate) -> dict[tuple[str, int], Row]:
    """The rows of a run in which nothing went wrong."""
    return {key: ("ok", None, count) for key, count in plate.truth.items()}


def slow(name: str, times: float) -> Callable[[Request], Instead | None]:
    """Answers the first `times` reads of one file with 503 Slow Down."""
    asked: list[Request] = []

    def interfere(request: Request) -> Instead | None:
        if not request.is_get_of(name):
            return None
        asked.append(request)
        return SLOW_DOWN if len(asked) <= times else None

    return interfere


def count(proxy: S3Proxy, output: Path, *settings: str) -> int:
    arguments = ["count", INPUT, str(output), "--endpoint", proxy.endpoint, "--layout", "imagexpress"]
    arguments += ["--model", "threshold", "--runner", "serial", "--progress", "quiet"]
    assignments = ["execution.shard_fields=2", "execution.in_flight=1", *settings]
    return main([*arguments, *(part for assignment in assignments for part in ("--set", assignment))])


def test_a_read_that_is_throttled_for_a_while_is_counted_like_any_other(
    plate: Plate, proxy: S3Proxy, tmp_path: Path
) -> None:
    proxy.interfere = slow(plate.file(*BAD).name, 4)
    assert count(proxy, tmp_path / "out") == ExitCode.OK
    assert [status for request, status in proxy.requests if request.is_get_of(plate.file(*BAD).name)] == [
        503,
        503,
        503,
        503,
        200,
    ]
    assert field_rows(tmp_path / "out") == counted(plate)


def test_throttling_without_end_stops_the_run_and_the_same_command_completes_it(
    plate: Plate, proxy: S3Proxy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = plate.file(*BAD).name
    proxy.interfere = slow(bad, float("inf"))
    assert count(proxy, tmp_path / "out", "storage.retries=2") == ExitCode.STORAGE
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert f"{bad}: throttled" in told
    # The shard before it is committed; its own is not, so there is no row that says anything about it.
    assert sorted(part.name for part in (tmp_path / "out" / "fields").iterdir()) == ["part-000000.parquet"]

    proxy.interfere = lambda request: None
    proxy.requests.clear()
    assert count(proxy, tmp_path / "out", "storage.retries=2") == ExitCode.OK
    assert proxy.operations("faults-throttling")["read"] == 6
    assert field_rows(tmp_path / "out") == counted(plate)
    assert verify(open_store(str(tmp_path / "out"), StorageOptions())).proven


class Begun(Quiet):
    """Does `act` when the plan stands and counting begins."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act

    def begin(self, fields: int, already: int, run: str) -> None:
        self._act()


@pytest.mark.parametrize("place", ["local disk", "S3"])
def test_a_file_that_goes_away_between_plan_and_read_is_a_missing_row(
    plate: Plate, source: Store, s3_server: S3Server, tmp_path: Path, place: str
) -> None:
    path = plate.file(*BAD)
    key = path.relative_to(plate.folder).as_posix()
    body = path.read_bytes()
    if place == "S3":
        config = job(INPUT, tmp_path / "out", storage={"endpoint": s3_server.endpoint})
        gone = Begun(lambda: source.delete(key))
    else:
        config = job(plate.folder, tmp_path / "out")
        gone = Begun(path.unlink)
    try:
        result = run_job(config, gone)
    finally:
        path.write_bytes(body)
        source.put(key, body)
    assert result.exit_code is ExitCode.FAILURES
    rows = field_rows(tmp_path / "out")
    assert rows.pop(BAD) == ("missing", "absent", None)
    assert rows.items() <= counted(plate).items()
    assert len(rows) == 7


def test_a_file_that_grows_between_plan_and_read_is_a_failed_row(plate: Plate, tmp_path: Path) -> None:
    path = plate.file(*BAD)
    body = path.read_bytes()
    try:
        run_job(job(plate.folder, tmp_path / "out"), Begun(lambda: path.write_bytes(body + b"more")))
    finally:
        path.write_bytes(body)
    rows = field_rows(tmp_path / "out")
    assert rows.pop(BAD) == ("failed", "changed", None)
    assert rows.items() <= counted(plate).items()
