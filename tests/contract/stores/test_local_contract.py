"""A local folder keeps the store contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellcount_core.stores.base import StorageOptions
from cellcount_core.stores.open import open_store
from tests.contract.stores.store_contract import OpenRoot, StoreContract


class TestLocalStore(StoreContract):
    @pytest.fixture
    def open_root(self, tmp_path: Path) -> OpenRoot:
        return lambda name: open_store(tmp_path / name, StorageOptions())
