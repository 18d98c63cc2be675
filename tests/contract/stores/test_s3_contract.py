"""S3 keeps the store contract, through obstore and through s3fs, against a real server on loopback."""

from __future__ import annotations

import pytest

from cellcount_core.stores.base import StorageOptions
from cellcount_core.stores.generic import GenericStore
from cellcount_core.stores.open import open_store
from tests.contract.stores.store_contract import OpenRoot, StoreContract
from tests.s3_server import S3Server


@pytest.fixture
def options(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> StorageOptions:
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    s3_server.make_bucket("contract")
    return StorageOptions(endpoint=s3_server.endpoint, retries=4, timeout_s=20)


class TestS3ThroughObstore(StoreContract):
    races = 1  # the server makes the losers of a race wait in steps of a second

    @pytest.fixture
    def open_root(self, options: StorageOptions) -> OpenRoot:
        return lambda name: open_store(f"s3://contract/obstore/{name}", options)


class TestS3ThroughS3fs(StoreContract):
    races = 1
    many = 300  # each put is slow through s3fs; batches are bounded by GenericStore itself

    @pytest.fixture
    def open_root(self, options: StorageOptions) -> OpenRoot:
        return lambda name: GenericStore(f"s3://contract/s3fs/{name}", options)
