"""Plates and tables on S3 for end-to-end tests: upload, count, read back."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cellcount_core.stores.base import StorageOptions, Store
from cellcount_core.stores.open import open_store
from tests.plates import Plate

Tables = dict[str, list[dict[str, object]] | bytes]

_OF_THE_FINGERPRINT = ("fingerprint", "digests")


def upload(plate: Plate, store: Store) -> None:
    """Put every file of the plate under its path below the plate's folder."""
    for path in sorted(plate.folder.rglob("*.TIF")):
        store.put(path.relative_to(plate.folder).as_posix(), path.read_bytes())


def keys(store: Store, prefix: str = "") -> list[str]:
    """All keys below a prefix, sorted."""
    return sorted(listed.key for batch in store.list(prefix) for listed in batch)


def tables(place: str | Path, endpoint: str | None = None) -> Tables:
    """Every table of an output on disk or S3, as rows in key order without metadata.

    Left out is what holds the fingerprint, which covers the tags of the input's objects and so differs between stores.
    """
    store = open_store(str(place), StorageOptions(endpoint=endpoint))
    found: Tables = {}
    for folder in ("fields", "objects"):
        parts = [_table(store, key) for key in keys(store, folder)]
        found[folder] = pa.concat_tables(parts).to_pylist()
    for name in ("wells.parquet", "plates.parquet"):
        found[name] = _table(store, name).to_pylist()
    found["summary.csv"] = store.get("summary.csv")
    summary = json.loads(store.get("summary.json"))
    found["summary.json"] = [{key: value for key, value in summary.items() if key not in _OF_THE_FINGERPRINT}]
    return found


def field_rows(
    place: str | Path, endpoint: str | None = None
) -> dict[tuple[str, int], tuple[str, str | None, int | None]]:
    """Status, reason and count of each field by (well, site); fails where a field has two rows."""
    rows = tables(place, endpoint)["fields"]
    assert isinstance(rows, list)
    found = {
        (str(row["Metadata_Well"]), int(str(row["Metadata_Site"]))): (
            row["status"],
            row["reason"],
            row["count"],
        )
        for row in rows
    }
    assert len(found) == len(rows)
    return found  # type: ignore[return-value]


def _table(store: Store, key: str) -> pa.Table:
    return pq.read_table(io.BytesIO(store.get(key))).replace_schema_metadata(None)
