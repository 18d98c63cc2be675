"""S3 against a real server: wrong keys, a missing bucket, a key that may only read; obstore and s3fs say the same."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import pytest

from cellcount_core.domain.errors import CredentialsFault, StorageFault
from cellcount_core.stores.base import Absent, StorageOptions, Store
from cellcount_core.stores.generic import GenericStore
from cellcount_core.stores.open import open_store
from tests.s3_server import S3Server

Opener = Callable[[str], Store]


@pytest.fixture
def options(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> StorageOptions:
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    return StorageOptions(endpoint=s3_server.endpoint, retries=2, timeout_s=10)


@pytest.fixture(params=["obstore", "s3fs"])
def opened(request: pytest.FixtureRequest, options: StorageOptions) -> Opener:
    if request.param == "obstore":
        return lambda url: open_store(url, options)
    return lambda url: GenericStore(url, options)


def test_a_wrong_secret_and_an_unknown_key_are_credentials_faults(
    s3_server: S3Server, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3_server.make_bucket("keys")
    opened(bucket).put("a", b"x")
    for name, value in (("AWS_SECRET_ACCESS_KEY", "wrong"), ("AWS_ACCESS_KEY_ID", "UNKNOWN")):
        monkeypatch.setenv(name, value)
        store = opened(bucket)
        for operation in (
            lambda store: store.get("a"),
            lambda store: list(store.list()),
            lambda store: store.put("b", b"x"),
            lambda store: store.put_new("b", b"x"),
        ):
            with pytest.raises(CredentialsFault, match=r"refuses the credentials|may not be"):
                operation(store)


def test_a_missing_bucket_is_a_storage_fault_that_names_it(opened: Opener) -> None:
    store = opened("s3://no-such-bucket/plate")
    with pytest.raises(StorageFault, match=r"no-such-bucket.*no such bucket"):
        store.get("a")
    with pytest.raises(StorageFault, match=r"no-such-bucket.*no such bucket"):
        list(store.list())


def test_a_key_that_may_only_read_reads_and_is_stopped_at_the_first_write(
    s3_server: S3Server, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3_server.make_bucket("readonly")
    opened(bucket).put("a", b"x")
    for name, value in s3_server.ro_environment().items():
        monkeypatch.setenv(name, value)
    store = opened(bucket)
    assert store.get("a") == b"x"
    assert [found.key for batch in store.list() for found in batch] == ["a"]
    for write in (store.put, store.put_new):
        with pytest.raises(CredentialsFault, match=r"readonly/b"):
            write("b", b"x")
    with pytest.raises(Absent):
        store.get("b")


def test_a_store_that_cannot_sign_is_refused(s3_server: S3Server) -> None:
    bucket = s3_server.make_bucket("keys")
    store = open_store(bucket, StorageOptions(s3_server.endpoint, anonymous=True, retries=0))
    with pytest.raises(CredentialsFault):
        list(store.list())


def test_no_secret_is_in_the_pickle_of_a_store_in_use(s3_server: S3Server, opened: Opener) -> None:
    store = opened(s3_server.make_bucket("keys"))
    store.put("c", b"x")
    for shown in (pickle.dumps(store), repr(store).encode(), store.url.encode()):
        assert s3_server.secret_key.encode() not in shown
        assert s3_server.access_key.encode() not in shown


def test_an_object_is_put_in_the_folder_that_its_url_says(
    options: StorageOptions, s3_server: S3Server
) -> None:
    s3_server.make_bucket("nested")
    open_store("s3://nested/2026/run", options).put_new("fields/part-0", b"x")
    assert open_store("s3://nested/2026", options).get("run/fields/part-0") == b"x"
    assert GenericStore("s3://nested", options).get("2026/run/fields/part-0") == b"x"
