"""A store on a bad day, between a run and a real S3 server: what it answers late, wrongly or not at all changes no row.

Faults are thrown by seed, method, key and how often that was asked for, so a run can be repeated whatever order its threads
ask in. Input and output are both behind the proxy; the verdicts are read past it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from random import Random

import pytest

from cellcount_core.cli.main import main
from cellcount_core.domain.errors import ExitCode, Reason
from cellcount_core.domain.fields import Commit
from cellcount_core.output.parts import commit_part, fields_key, read_fields_part
from cellcount_core.stores.base import StorageOptions, Store
from cellcount_core.stores.open import open_store
from tests.faults.cluster import ray_cluster
from tests.faults.drill import judge, read_again
from tests.plates import write_plate
from tests.s3_jobs import Tables, keys, tables, upload
from tests.s3_proxy import (
    EXPIRED,
    INTERNAL_ERROR,
    SLOW_DOWN,
    Cut,
    Interference,
    Late,
    Request,
    Reset,
    S3Proxy,
    refusal,
    s3_proxy,
)
from tests.s3_server import S3Server
from tests.unit.output.test_parts import ONE, OTHER

IN, OUT = "store-faults-in", "store-faults-out"
INPUT = f"s3://{IN}/plate"
FIELDS, SHARDS = 16, 8
SHARE = 0.3
FORBIDDEN = refusal(403, "AccessDenied", "Access Denied")
TIMEOUT_S = 2.0

Thrown = Callable[[Random], Interference]

KINDS: dict[str, Thrown] = {
    "503": lambda dice: SLOW_DOWN,
    "500": lambda dice: INTERNAL_ERROR,
    "resets": lambda dice: Reset(acted=dice.random() < 0.5),
    "truncated bodies": lambda dice: Cut(dice.random()),
    "slow replies": lambda dice: Late(dice.choice([0.05, 0.1, 0.2, 0.2, TIMEOUT_S + 0.3])),
}


STATUS = {"503": 503, "500": 500}
"""What the client is sent of a fault; of the others it is no reply, or no whole one."""


class Thrower:
    """Spoils SHARE of all requests, each by one of `kinds`, and counts them."""

    def __init__(self, seed: str, kinds: Sequence[Thrown]) -> None:
        self._seed = seed
        self._kinds = kinds
        self._asked: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.spoilt = 0

    def __call__(self, request: Request) -> Interference | None:
        name = f"{request.method} {request.key} {request.prefix}"
        with self._lock:
            self._asked[name] += 1
            dice = Random(f"{self._seed} {name} {self._asked[name]}")
            if dice.random() >= SHARE:
                return None
            self.spoilt += 1
            return dice.choice(self._kinds)(dice)

    @property
    def share(self) -> float:
        """Of all requests so far, those that were spoilt."""
        return self.spoilt / self._asked.total()


@pytest.fixture(scope="module")
def server(s3_server: S3Server) -> Iterator[S3Server]:
    with s3_server.with_buckets(IN, OUT) as ready:
        yield ready


@pytest.fixture
def proxy(server: S3Server) -> Iterator[S3Proxy]:
    with s3_proxy(server.endpoint) as between:
        yield between


def store_at(url: str, endpoint: str) -> Store:
    return open_store(url, StorageOptions(endpoint=endpoint, retries=3, timeout_s=TIMEOUT_S))


def command(endpoint: str, output: str, *more: str) -> list[str]:
    """Shards of two fields; patience enough for the faults that are thrown."""
    settings = ["execution.shard_fields=2", "storage.retries=12", f"storage.timeout_s={TIMEOUT_S}"]
    arguments = ["count", INPUT, output, "--endpoint", endpoint, "--layout", "imagexpress"]
    arguments += ["--model", "threshold", "--progress", "json", *more]
    return [*arguments, *(part for setting in settings for part in ("--set", setting))]


def count(endpoint: str, output: str) -> int:
    return main(command(endpoint, output, "--runner", "serial", "--set", "execution.in_flight=1"))


@pytest.fixture(scope="module")
def unbroken(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """The tables of a run in which nothing goes wrong, over eight wells of two fields."""
    plate = write_plate(tmp_path_factory.mktemp("store-faults") / "plate", well_count=8)
    assert len(plate.truth) == FIELDS
    upload(plate, store_at(INPUT, server.endpoint))
    assert count(server.endpoint, f"s3://{OUT}/unbroken") == ExitCode.OK
    return tables(f"s3://{OUT}/unbroken", server.endpoint)


def events(told: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in told.splitlines() if line.startswith("{")]


def words(told: str) -> list[str]:
    return [line for line in told.splitlines() if not line.startswith("{")]


def commits(told: str) -> list[object]:
    """What the receipts say of each shard, in the order they came."""
    return [event["commit"] for event in events(told) if event["event"] == "shard"]


@pytest.mark.parametrize("kind", [*KINDS, "all five kinds"])
def test_faults_of_three_requests_in_ten_change_nothing(
    unbroken: Tables, proxy: S3Proxy, server: S3Server, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    thrower = Thrower("a bad day", [KINDS[kind]] if kind in KINDS else list(KINDS.values()))
    proxy.interfere = thrower
    output = f"s3://{OUT}/{kind.replace(' ', '-')}"
    code = count(proxy.endpoint, output)
    told = capsys.readouterr().err
    assert code == ExitCode.OK, told
    assert 0.2 < thrower.share < 0.4
    spoilt = Counter(status for _, status in proxy.requests)
    assert spoilt[STATUS.get(kind, 0)] >= 2
    redone = read_again(proxy, IN)
    judge(f"store, {kind} at 3 of 10 requests", unbroken, output, endpoint=server.endpoint, redone=redone)
    assert redone == 0
    assert commits(told) == [Commit.WRITTEN] * SHARDS


def test_a_commit_whose_reply_is_lost_is_known_as_one_s_own(
    unbroken: Tables, proxy: S3Proxy, server: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every conditional put lands, and its reply is lost: the next try is told that something is there."""
    lost: set[str] = set()

    def lose(request: Request) -> Interference | None:
        if not request.creates or request.key in lost:
            return None
        lost.add(request.key)
        return Reset(acted=True)

    proxy.interfere = lose
    output = f"s3://{OUT}/lost"
    code = count(proxy.endpoint, output)
    told = capsys.readouterr().err
    assert code == ExitCode.OK, told
    # Two parts a shard, the plan, the run file and the lease.
    assert len(lost) == 2 * SHARDS + 3
    assert sorted(request.key for request, status in proxy.requests if status == 412) == sorted(lost)
    assert commits(told) == [Commit.WRITTEN] * SHARDS
    redone = read_again(proxy, IN)
    judge(
        "store, every conditional put lands and its reply is lost",
        unbroken,
        output,
        endpoint=server.endpoint,
        redone=redone,
    )
    assert redone == 0


@pytest.mark.parametrize("lost", ["objects", "fields"])
def test_a_commit_whose_request_is_lost_is_not_mistaken_for_that_of_another(
    proxy: S3Proxy, server: S3Server, lost: str
) -> None:
    """A put never arrives; before it is tried again, another worker commits the shard with other rows."""
    place = f"s3://{OUT}/race-for-{lost}"
    past = store_at(place, server.endpoint)
    happened: list[Commit] = []

    def overtake(request: Request) -> Interference | None:
        if happened or not request.creates or f"/{lost}/" not in request.key:
            return None
        happened.append(commit_part(past, OTHER))
        return Reset(acted=False)

    proxy.interfere = overtake
    assert commit_part(store_at(place, proxy.endpoint), ONE) is Commit.ALREADY
    assert happened == [Commit.WRITTEN]
    standing = read_fields_part(fields_key(0), past.get(fields_key(0)))
    assert standing.table.column("reason").to_pylist() == [None, Reason.WORKER_DIED]
    assert keys(past) == [fields_key(0), standing.objects_key]
    assert past.get(standing.objects_key) == OTHER.objects


class Expiring:
    """Credentials that the store refuses once so many shards are committed."""

    def __init__(self, commits: int) -> None:
        self._left = commits
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> Interference | None:
        with self._lock:
            if self._left == 0:
                return EXPIRED
            self._left -= request.creates and "/fields/" in request.key
            return None


def assert_expired(told: list[str]) -> None:
    (line,) = told
    assert line.startswith("cellcount: s3://")
    assert "the credentials have expired (400 ExpiredToken: The provided token has expired.)" in line
    assert "AWS_SESSION_TOKEN" in line
    assert line.endswith("run the same command again, it goes on where it stopped")


def committed(output: str, server: S3Server) -> list[str]:
    return keys(store_at(output, server.endpoint), "fields")


def test_expired_credentials_stop_a_run_and_the_same_command_with_good_ones_completes_it(
    unbroken: Tables, proxy: S3Proxy, server: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    output = f"s3://{OUT}/expired"
    proxy.interfere = Expiring(3)
    assert count(proxy.endpoint, output) == ExitCode.CREDENTIALS
    assert_expired(words(capsys.readouterr().err))
    assert committed(output, server) == [fields_key(number) for number in range(3)]

    proxy.interfere = lambda request: None
    code = count(proxy.endpoint, output)
    told = capsys.readouterr().err
    assert code == ExitCode.OK, told
    assert commits(told) == [Commit.WRITTEN] * (SHARDS - 3)
    redone = read_again(proxy, IN)
    judge("store, credentials expire mid-run", unbroken, output, endpoint=server.endpoint, redone=redone)
    # At most what was in hand: a shard being counted and one read ahead.
    assert redone <= 4


def stopped_run(proxy: S3Proxy, output: str, commits: int) -> None:
    """A run of which so many shards are committed."""
    proxy.interfere = Expiring(commits)
    assert count(proxy.endpoint, output) == ExitCode.CREDENTIALS
    proxy.interfere = lambda request: None


@pytest.mark.parametrize(
    ("name", "kept_back"),
    [("some parts", {0, 2, 3}), ("all parts", {0, 1, 2, 3})],
)
def test_parts_that_a_listing_lacks_when_a_run_goes_on_are_neither_doubled_nor_lost(
    unbroken: Tables,
    proxy: S3Proxy,
    server: S3Server,
    name: str,
    kept_back: set[int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = f"s3://{OUT}/lag-{name.replace(' ', '-')}"
    stopped_run(proxy, output, 4)
    hidden = {f"{output}/{fields_key(number)}" for number in kept_back}
    proxy.hidden = lambda key: f"s3://{key}" in hidden or "/run/" in key
    capsys.readouterr()
    code = count(proxy.endpoint, output)
    told = capsys.readouterr().err
    assert code == ExitCode.OK, told
    shards = [(event["shard"], event["commit"]) for event in events(told) if event["event"] == "shard"]
    assert shards == [
        (number, Commit.ALREADY if number in kept_back else Commit.WRITTEN)
        for number in sorted({*kept_back, *range(4, SHARDS)})
    ]
    redone = read_again(proxy, IN)
    judge(
        f"store, listing lags: {name} unlisted at resume",
        unbroken,
        output,
        endpoint=server.endpoint,
        redone=redone,
    )
    # Their fields are counted again for nothing; what the stopped run had in hand may come on top.
    assert 2 * len(kept_back) <= redone <= 2 * len(kept_back) + 4


def test_a_listing_that_shows_nothing_of_the_output_loses_nothing_in_the_reduction(
    unbroken: Tables, proxy: S3Proxy, server: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    output = f"s3://{OUT}/unlisted"
    proxy.hidden = lambda key: key.startswith(f"{OUT}/")
    code = count(proxy.endpoint, output)
    assert code == ExitCode.OK, capsys.readouterr().err
    redone = read_again(proxy, IN)
    judge(
        "store, listing lags: all parts unlisted at reduce",
        unbroken,
        output,
        endpoint=server.endpoint,
        redone=redone,
    )
    assert redone == 0


def test_a_retry_on_a_bad_day_with_listings_that_lag_mends_what_failed(
    unbroken: Tables, proxy: S3Proxy, server: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    output = f"s3://{OUT}/retry"
    denied = ("P1_A02_s1_w1.TIF", "P1_A06_s2_w1.TIF")
    proxy.interfere = lambda request: FORBIDDEN if request.is_get_of(denied) else None
    assert count(proxy.endpoint, output) == ExitCode.FAILURES
    proxy.interfere = thrower = Thrower("retry", list(KINDS.values()))
    proxy.hidden = lambda key: key.startswith(f"{OUT}/")
    capsys.readouterr()
    again = ["retry", output, "--endpoint", proxy.endpoint, "--runner", "serial", "--progress", "quiet"]
    code = main([*again, "--set", "storage.retries=12", "--set", f"storage.timeout_s={TIMEOUT_S}"])
    told = capsys.readouterr()
    assert code == ExitCode.OK, told.err
    assert told.out.startswith("2 of 2 fields tried again are counted now (they were 2 access_denied)\n")
    assert thrower.spoilt > 8
    redone = read_again(proxy, IN)
    judge(
        "store, retry among all five kinds with a listing that lags",
        unbroken,
        output,
        endpoint=server.endpoint,
        redone=redone,
    )
    assert redone == 0


def test_an_input_whose_listing_lags_when_a_run_goes_on_is_refused_until_it_is_whole_again(
    unbroken: Tables, proxy: S3Proxy, server: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fields that are not shown are not taken for fields that are gone."""
    output = f"s3://{OUT}/input-lags"
    stopped_run(proxy, output, 2)
    proxy.hidden = lambda key: key.endswith(("P1_A05_s1_w1.TIF", "P1_A08_s2_w1.TIF"))
    capsys.readouterr()
    assert count(proxy.endpoint, output) == ExitCode.OUTPUT
    (line, *more) = words(capsys.readouterr().err)
    assert line == f"cellcount: {output} was counted from other files; since then"
    assert more[0].startswith("  2 files were removed: ")
    assert committed(output, server) == [fields_key(0), fields_key(1)]

    proxy.hidden = lambda key: False
    assert count(proxy.endpoint, output) == ExitCode.OK
    redone = read_again(proxy, IN)
    judge(
        "store, listing lags: input files unlisted at resume",
        unbroken,
        output,
        endpoint=server.endpoint,
        redone=redone,
    )
    assert redone <= 4


@pytest.mark.ray
def test_on_ray_a_bad_day_and_credentials_that_expire_change_nothing(
    unbroken: Tables, proxy: S3Proxy, server: S3Server
) -> None:
    """Two workers meet faults of all kinds, then the credentials expire; the same command goes on, on the same bad day."""
    output = f"s3://{OUT}/ray"
    thrower, expiring = Thrower("ray", list(KINDS.values())), Expiring(5)

    def drive() -> tuple[int, str]:
        driver = subprocess.run(
            [sys.executable, "-m", "cellcount_core.cli", *command(proxy.endpoint, output, "--address", cluster.address, "--actors", "2")],
            env=cluster.environment, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        return driver.returncode, driver.stderr

    with ray_cluster(server.environment()) as cluster:
        proxy.interfere = lambda request: expiring(request) or thrower(request)
        code, told = drive()
        assert code == ExitCode.CREDENTIALS, told
        assert_expired(words(told))
        before = committed(output, server)
        assert 0 < len(before) <= 5
        proxy.interfere = thrower
        code, told = drive()
        assert code == ExitCode.OK, told
    assert sorted(commits(told)) == [Commit.WRITTEN] * (SHARDS - len(before))
    assert 0.2 < thrower.share < 0.4
    redone = read_again(proxy, IN)
    judge(
        "store, on Ray all five kinds and credentials that expire",
        unbroken,
        output,
        endpoint=server.endpoint,
        redone=redone,
    )
    # Two workers with two shards in hand each, of two fields.
    assert redone <= 8
