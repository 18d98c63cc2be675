"""What S3's bad days become: throttling is never a missing file, and every wait has an end."""

from __future__ import annotations

import dataclasses
import pickle
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cellcount_core.domain.errors import CredentialsFault, RunFault, StorageFault
from cellcount_core.stores.base import (
    Absent,
    Created,
    Denied,
    Listed,
    Piece,
    StorageOptions,
    Store,
    addressable,
)
from cellcount_core.stores.open import open_store
from cellcount_core.stores.requests import take_retries
from cellcount_core.stores.s3_client import AwsPlace, place_of
from cellcount_core.stores.s3_errors import S3Meaning, failure_of, meaning_of, run_fault
from tests.unit.stores.faulty_server import Reply, error, faulty_server

SECRET = "a-secret-that-must-stay-secret"
SLOW_DOWN = error(503, "SlowDown", "Please reduce your request rate.")


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "KEYID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)


def store_at(endpoint: str, *, retries: int = 3, timeout_s: float = 5.0) -> Store:
    return open_store("s3://plates/run", StorageOptions(endpoint, retries=retries, timeout_s=timeout_s))


OPERATIONS: dict[str, Callable[[Store], object]] = {
    "get": lambda store: store.get("a.tif"),
    "get_many": lambda store: list(store.get_many(["a.tif"], ahead=1)),
    "get_range": lambda store: store.get_range("a.tif", 2, 8),
    "get_ranges": lambda store: list(store.get_ranges("a.tif", [(2, 8)], ahead=1)),
    "list": lambda store: list(store.list()),
    "put": lambda store: store.put("a.tif", b"x"),
    "put_new": lambda store: store.put_new("a.tif", b"x"),
    "delete": lambda store: store.delete("a.tif"),
    "size_of": lambda store: store.size_of("a.tif"),
}
each_operation = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS.keys())


@each_operation
def test_throttling_without_end_is_a_storage_fault_and_never_absent(
    operation: Callable[[Store], object],
) -> None:
    with faulty_server(lambda number, method: SLOW_DOWN) as server:
        with pytest.raises(StorageFault, match="throttled"):
            operation(store_at(server.endpoint, retries=2))
        assert len(server.requests) == 3


def test_throttling_that_ends_is_waited_out() -> None:
    with faulty_server(lambda number, method: SLOW_DOWN if number < 4 else Reply(200, b"pixels")) as server:
        take_retries()
        assert store_at(server.endpoint).get("a.tif") == b"pixels"
        assert len(server.requests) == 4
        assert (take_retries(), take_retries()) == (3, 0)


@pytest.mark.parametrize(
    "reply",
    [error(500, "InternalError"), error(429, "TooManyRequests"), error(400, "RequestTimeout"), Reply(502)],
)
def test_other_passing_faults_are_retried_too(reply: Reply) -> None:
    with faulty_server(lambda number, method: reply if number < 3 else Reply(200, b"pixels")) as server:
        assert store_at(server.endpoint).get("a.tif") == b"pixels"


def test_a_body_cut_short_is_read_again() -> None:
    def answer(number: int, method: str) -> Reply:
        return Reply(200, b"pix", announced=6) if number < 3 else Reply(200, b"pixels")

    with faulty_server(answer) as server:
        assert store_at(server.endpoint).get("a.tif") == b"pixels"


def test_a_body_that_is_always_cut_short_is_never_returned() -> None:
    with (
        faulty_server(lambda number, method: Reply(200, b"pix", announced=6)) as server,
        pytest.raises(StorageFault, match="before its announced length"),
    ):
        store_at(server.endpoint, retries=2).get("a.tif")


def test_a_range_cut_short_is_read_again_and_never_returned() -> None:
    whole, cut = Reply(206, b"xels", part="bytes 2-5/6"), Reply(206, b"xe", announced=4, part="bytes 2-5/6")
    with faulty_server(lambda number, method: cut if number < 3 else whole) as server:
        assert store_at(server.endpoint).get_range("a.tif", 2, 6) == Piece(b"xels", 6, "abc")
    with (
        faulty_server(lambda number, method: cut) as server,
        pytest.raises(StorageFault, match="before its announced length"),
    ):
        store_at(server.endpoint, retries=2).get_range("a.tif", 2, 6)


def test_a_store_that_sends_everything_for_a_range_gives_no_wrong_bytes() -> None:
    with (
        faulty_server(lambda number, method: Reply(200, b"pixels")) as server,
        pytest.raises(StorageFault, match=r"an answer that S3 does not give"),
    ):
        store_at(server.endpoint, retries=1).get_range("a.tif", 2, 6)


def test_a_connection_that_breaks_is_tried_again() -> None:
    def answer(number: int, method: str) -> Reply:
        return Reply(200, hang_up=True) if number < 3 else Reply(200, b"pixels")

    with faulty_server(answer) as server:
        assert store_at(server.endpoint).get("a.tif") == b"pixels"


def test_a_silent_store_is_given_up_in_bounded_time() -> None:
    with faulty_server(lambda number, method: Reply(200, b"x", silent_s=60)) as server:
        begin = time.monotonic()
        with pytest.raises(StorageFault, match="unreachable"):
            store_at(server.endpoint, retries=3, timeout_s=0.5).get("a.tif")
        assert time.monotonic() - begin < 3


@pytest.mark.parametrize(
    ("there", "created"), [(b"ours", Created.NEW), (b"other", Created.EXISTS)], ids=["own", "another's"]
)
def test_a_put_whose_reply_got_lost_knows_its_own_object_from_another_s(
    there: bytes, created: Created
) -> None:
    def answer(number: int, method: str) -> Reply:
        if method == "GET":
            return Reply(200, there)
        return Reply(200, hang_up=True) if number == 1 else error(412, "PreconditionFailed")

    with faulty_server(answer) as server:
        assert store_at(server.endpoint).put_new("part", b"ours") is created
        assert [condition for *_, condition in server.requests] == ["*", "*", None]


def test_a_put_that_finds_an_object_at_once_did_not_write_it_whatever_it_holds() -> None:
    with faulty_server(lambda number, method: error(412, "PreconditionFailed")) as server:
        assert store_at(server.endpoint).put_new("part", b"ours") is Created.EXISTS
        assert len(server.requests) == 1


@pytest.mark.parametrize("gone", [error(404, "NoSuchKey"), error(403, "AccessDenied")])
def test_a_lost_put_whose_object_cannot_be_read_is_not_taken_for_one_s_own(gone: Reply) -> None:
    def answer(number: int, method: str) -> Reply:
        if method == "GET":
            return gone
        return Reply(200, hang_up=True) if number == 1 else error(412, "PreconditionFailed")

    with faulty_server(answer) as server:
        assert store_at(server.endpoint).put_new("part", b"ours") is Created.EXISTS


def test_a_conflict_of_two_writers_is_tried_again_until_it_is_decided() -> None:
    def answer(number: int, method: str) -> Reply:
        return error(409, "ConditionalRequestConflict") if number < 3 else Reply(200)

    with faulty_server(answer) as server:
        assert store_at(server.endpoint).put_new("part", b"x") is Created.NEW
        assert len(server.requests) == 3


@pytest.mark.parametrize(
    "reply",
    [
        error(403, "InvalidAccessKeyId"),
        error(403, "SignatureDoesNotMatch"),
        error(403, "ExpiredToken"),
        error(400, "ExpiredToken"),
        error(403, "RequestTimeTooSkewed"),
        error(401, "Unauthorized"),
        Reply(403, b"<html>go away</html>"),
    ],
)
def test_every_kind_of_refused_credentials_stops_the_run(reply: Reply) -> None:
    with (
        faulty_server(lambda number, method: reply) as server,
        pytest.raises(CredentialsFault, match="AWS_ACCESS_KEY_ID") as refused,
    ):
        store_at(server.endpoint).get("a.tif")
    assert SECRET not in str(refused.value)
    assert "Debug source" not in str(refused.value)


def test_a_clock_that_is_too_far_off_for_the_store_is_named() -> None:
    with (
        faulty_server(lambda number, method: error(403, "RequestTimeTooSkewed")) as server,
        pytest.raises(
            CredentialsFault, match="this machine's clock is wrong, set it and run the same command again"
        ),
    ):
        store_at(server.endpoint).get("a.tif")


@each_operation
def test_refused_credentials_stop_the_run_in_every_operation(operation: Callable[[Store], object]) -> None:
    with (
        faulty_server(lambda number, method: error(403, "SignatureDoesNotMatch")) as server,
        pytest.raises(CredentialsFault, match="SignatureDoesNotMatch: said the server"),
    ):
        operation(store_at(server.endpoint))


def test_one_object_refused_is_denied_and_not_the_end() -> None:
    with faulty_server(lambda number, method: error(403, "AccessDenied")) as server:
        store = store_at(server.endpoint)
        ((key, outcome),) = store.get_many(["a.tif"], ahead=1)
        assert (key, type(outcome)) == ("a.tif", Denied)
        with pytest.raises(Denied, match="AccessDenied"):
            store.size_of("a.tif")
        for operation in ("list", "put", "put_new", "delete"):
            with pytest.raises(CredentialsFault):
                OPERATIONS[operation](store)


def test_an_archived_object_is_denied() -> None:
    with (
        faulty_server(lambda number, method: error(403, "InvalidObjectState", "storage class")) as server,
        pytest.raises(Denied, match="InvalidObjectState: storage class"),
    ):
        store_at(server.endpoint).get("a.tif")


def test_absent_needs_the_code_that_says_so() -> None:
    with faulty_server(lambda number, method: error(404, "NoSuchKey")) as server:
        with pytest.raises(Absent):
            store_at(server.endpoint).get("a.tif")
        assert store_at(server.endpoint).size_of("a.tif") is None


@pytest.mark.parametrize(
    "reply", [Reply(404, b"<html>nginx</html>"), Reply(404), Reply(400, b"what?"), error(404, "NoSuchBucket")]
)
def test_the_404_of_another_server_or_of_a_bucket_makes_no_file_missing(reply: Reply) -> None:
    with faulty_server(lambda number, method: reply) as server:
        store = store_at(server.endpoint)
        for operation in ("get", "size_of", "list", "put_new"):
            with pytest.raises(StorageFault, match=r"storage\.endpoint"):
                OPERATIONS[operation](store)


def listing(*keys: str, more: bool = False) -> Reply:
    contents = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
        f"<ETag>&quot;abc&quot;</ETag><Size>1</Size></Contents>"
        for key in keys
    )
    end = "<NextContinuationToken>next</NextContinuationToken>" if more else ""
    told = f"<IsTruncated>{str(more).lower()}</IsTruncated>{end}{contents}"
    return Reply(200, f"<ListBucketResult>{told}</ListBucketResult>".encode())


@pytest.mark.parametrize("kind", ["cut", "silent", "hung up", "throttled"])
def test_a_listing_that_fails_for_a_while_is_asked_for_again(kind: str) -> None:
    whole = listing("run/a.tif", "run/b.tif")
    broken = {
        "cut": dataclasses.replace(whole, body=whole.body[:-90], announced=len(whole.body)),
        "silent": dataclasses.replace(whole, silent_s=60),
        "hung up": Reply(200, hang_up=True),
        "throttled": SLOW_DOWN,
    }[kind]
    with faulty_server(lambda number, method: broken if number == 1 else whole) as server:
        store = store_at(server.endpoint, timeout_s=0.5)
        assert list(store.list()) == [[Listed("a.tif", 1, "abc"), Listed("b.tif", 1, "abc")]]
        assert len(server.requests) == 2


def test_a_listing_that_is_always_cut_short_is_no_shorter_listing() -> None:
    with (
        faulty_server(lambda number, method: Reply(200, listing("run/a.tif").body, announced=999)) as server,
        pytest.raises(StorageFault, match="before its announced length"),
    ):
        list(store_at(server.endpoint, retries=2).list())
    assert len(server.requests) == 3


def test_a_listing_goes_on_after_the_last_key_that_it_gave() -> None:
    """The second page breaks off: the first is not given again, and no key is left out."""
    names = [f"run/{number:04d}.tif" for number in range(1500)]

    def answer(number: int, method: str) -> Reply:
        if number == 1:
            return listing(*names[:1000], more=True)
        rest = listing(*names[1000:])
        return (
            dataclasses.replace(rest, body=rest.body[:5000], announced=len(rest.body))
            if number == 2
            else rest
        )

    with faulty_server(answer) as server:
        given = [listed.key for batch in store_at(server.endpoint).list() for listed in batch]
        assert given == [name.removeprefix("run/") for name in names]
        assert "start-after=run%2F0999.tif" in server.requests[2][1]


def test_the_marker_of_the_prefix_itself_is_no_object() -> None:
    with faulty_server(lambda number, method: listing("run/", "run/a.tif")) as server:
        assert list(store_at(server.endpoint).list()) == [[Listed("a.tif", 1, "abc")]]


def test_one_key_that_is_no_path_does_not_hide_the_others() -> None:
    whole = listing("run/a.tif", "run/b//c.tif", "run//d.tif", "run/../e.tif", "run/f.tif")
    with faulty_server(lambda number, method: whole) as server:
        given = [listed for batch in store_at(server.endpoint).list() for listed in batch]
    assert given == [Listed(key, 1, "abc") for key in ("a.tif", "b//c.tif", "/d.tif", "../e.tif", "f.tif")]
    assert [addressable(listed.key) for listed in given] == [True, False, False, False, True]
    # In a bucket no key with a control character can be asked for; in a folder it is a name like others.
    for key in ("new\nline.tif", "a\tb.tif", "a/\x7f.tif"):
        assert (addressable(key, "s3://bucket/run"), addressable(key, "/data/run")) == (False, True)


def test_a_bucket_of_another_region_says_which_setting_is_wrong() -> None:
    with (
        faulty_server(lambda number, method: error(301, "PermanentRedirect")) as server,
        pytest.raises(StorageFault, match=r"not in the region 'us-east-1'.*storage\.region"),
    ):
        store_at(server.endpoint).get("a.tif")


@each_operation
def test_an_endpoint_nobody_listens_on_is_unreachable_in_bounded_time(
    operation: Callable[[Store], object],
) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{held.getsockname()[1]}"
        begin = time.monotonic()
        with pytest.raises(StorageFault, match=f"unreachable, {endpoint}"):
            operation(store_at(endpoint, retries=3))
    assert time.monotonic() - begin < 5


def test_a_host_without_an_address_is_unreachable() -> None:
    with pytest.raises(StorageFault, match=r"unreachable, http://no-such-host\.invalid:9000"):
        store_at("http://no-such-host.invalid:9000", retries=1).get("a.tif")


def test_the_default_patience_with_a_dead_endpoint_is_at_most_half_a_minute() -> None:
    options = StorageOptions()
    from cellcount_core.stores.s3_client import pauses

    assert sum(pauses(options)) <= options.timeout_s == 30
    assert len(list(pauses(options))) == options.retries


def test_no_credentials_at_all_is_said_before_any_request(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", f"{tmp_path}/none")
    monkeypatch.setenv("AWS_CONFIG_FILE", f"{tmp_path}/none")
    with faulty_server(lambda number, method: Reply(200, b"x")) as server:
        with pytest.raises(CredentialsFault, match="no credentials were found"):
            store_at(server.endpoint).get("a.tif")
        assert server.requests == []
        public = open_store("s3://plates", StorageOptions(server.endpoint, anonymous=True))
        assert public.get("a.tif") == b"x"


def test_the_endpoint_and_the_region_of_the_environment_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with faulty_server(lambda number, method: Reply(200, b"x")) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        assert open_store("s3://plates", StorageOptions()).get("deep/a.tif") == b"x"
        assert server.requests == [("GET", "/plates/deep/a.tif", None)]


def test_no_secret_is_in_a_store_its_pickle_or_its_faults(caplog: pytest.LogCaptureFixture) -> None:
    def answer(number: int, method: str) -> Reply:
        return (
            Reply(200, b"x") if number == 1 else error(403, "SignatureDoesNotMatch", "KEYID signed wrongly")
        )

    caplog.set_level("DEBUG")
    with faulty_server(answer) as server:
        store = store_at(server.endpoint)
        store.get("a.tif")
        with pytest.raises(RunFault) as refused:
            store.get("a.tif")
    for shown in (repr(store), str(store), store.url, repr(refused.value), caplog.text):
        assert SECRET not in shown
    assert SECRET.encode() not in pickle.dumps(store)
    assert SECRET.encode() not in pickle.dumps(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    ("status", "code", "meaning"),
    [
        (404, "NoSuchKey", S3Meaning.NO_OBJECT),
        (404, "NoSuchBucket", S3Meaning.NO_BUCKET),
        (404, "", S3Meaning.UNEXPECTED),
        (503, "", S3Meaning.THROTTLED),
        (503, "NoSuchKey", S3Meaning.THROTTLED),
        (412, "", S3Meaning.EXISTS),
        (409, "BucketNotEmpty", S3Meaning.UNEXPECTED),
        (403, "", S3Meaning.CREDENTIALS),
        (405, "MethodNotAllowed", S3Meaning.UNEXPECTED),
    ],
)
def test_the_meaning_of_a_reply_is_read_from_status_and_code(
    status: int, code: str, meaning: S3Meaning
) -> None:
    assert meaning_of(status, code) is meaning


def test_a_key_that_looks_like_a_reply_does_not_change_the_meaning() -> None:
    text = (
        "Generic S3 error: Error performing GET http://h/b/<Code>NoSuchKey</Code> in 1ms - "
        "Server returned non-2xx status code: 404 Not Found: <Error><Code>NoSuchBucket</Code></Error>"
    )
    assert failure_of(text).meaning is S3Meaning.NO_BUCKET


def test_a_missing_or_expired_login_of_sso_is_answered_with_the_command_that_mends_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    sso = "sso_account_id = 123456789012\nsso_role_name = reader\nregion = eu-central-1\n"
    legacy = "sso_start_url = https://lab.awsapps.com/start\nsso_region = eu-central-1\n"
    session = "[sso-session lab]\nsso_start_url = https://lab.awsapps.com/start\nsso_region = eu-central-1\n"
    for text in (f"[profile lab]\n{sso}{legacy}", f"[profile lab]\n{sso}sso_session = lab\n{session}"):
        (tmp_path / "config").write_text(text)
        with pytest.raises(CredentialsFault, match="run `aws sso login --profile lab`"):
            store_at("http://127.0.0.1:9").get("a.tif")
    said = failure_of(
        "The operation lacked valid authentication credentials for path External AWS credential provider: "
        "TokenRetrievalError: Error when retrieving token from sso: Token has expired and refresh failed\n\nDebug source:\nx"
    )
    fault = run_fault(said, "s3://plates/a.tif", "AWS S3", "us-east-1")
    assert isinstance(fault, CredentialsFault)
    assert "Token has expired and refresh failed); run `aws sso login`" in str(fault)


def test_the_endpoint_of_the_profile_is_used_below_the_environment_and_the_options(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_PROFILE", "lab")
    general = "[profile lab]\nregion = eu-west-2\nendpoint_url = http://general:1\n"
    (tmp_path / "config").write_text(general)
    assert place_of(StorageOptions()) == AwsPlace("http://general:1", "eu-west-2")
    (tmp_path / "config").write_text(
        f"{general}services = mine\n[services mine]\ns3 =\n  endpoint_url = http://s3:2\n"
    )
    assert place_of(StorageOptions()) == AwsPlace("http://s3:2", "eu-west-2")
    assert place_of(StorageOptions("http://given:3", region="r")) == AwsPlace("http://given:3", "r")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://environment:4")
    assert place_of(StorageOptions()).endpoint == "http://environment:4"
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
    assert place_of(StorageOptions()).endpoint is None
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    assert place_of(StorageOptions()) == AwsPlace(None, "us-east-1")
