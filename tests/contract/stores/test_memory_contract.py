"""fsspec's memory file system keeps the store contract."""

from __future__ import annotations

import pytest

from cellcount_core.stores.base import StorageOptions
from cellcount_core.stores.open import open_store
from tests.contract.stores.store_contract import OpenRoot, StoreContract


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def open_root(self) -> OpenRoot:
        return lambda name: open_store(f"memory://{name}", StorageOptions(schemes=("memory",)))
