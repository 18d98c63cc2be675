"""Digests of rows, apart from how files hold them: equal rows in equal order give one digest, however they are cut.

Columns are hashed one by one as streams of nulls, values, lengths and text, so that nothing depends on batches, on
compression or on the Parquet writer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cellcount_core.domain.columns import KEY
from cellcount_core.domain.fingerprint import canonical_json

_KEYS = {column.name for column in KEY}


class RowDigest:
    """Running SHA-256 of a table's rows; update it with pieces in row order."""

    def __init__(self) -> None:
        self._columns: dict[str, list[hashlib._Hash]] = {}
        self._rows = 0

    def update(self, table: pa.Table) -> None:
        """Add the rows of `table`. All pieces must have the same columns."""
        self._rows += table.num_rows
        for name in table.schema.names:
            streams = list(_streams(table.column(name)))
            hashers = self._columns.setdefault(name, [hashlib.sha256() for _ in streams])
            for hasher, stream in zip(hashers, streams, strict=True):
                hasher.update(stream)

    def hexdigest(self) -> str:
        """The digest of all rows so far (64 hex digits)."""
        columns = {
            name: [hasher.hexdigest() for hasher in hashers] for name, hashers in self._columns.items()
        }
        return hashlib.sha256(canonical_json({"rows": self._rows, "columns": columns}).encode()).hexdigest()


def object_digests(table: pa.Table, counts: Sequence[int]) -> list[str]:
    """One digest (32 hex digits) a field over its rows of the objects table, the key columns apart.

    `table` holds the objects of all fields in order, `counts` how many each has; their sum is the number of rows.
    Raises ValueError where it is not.
    """
    if sum(counts) != table.num_rows:
        raise ValueError(
            f"the objects table has {table.num_rows} rows, the fields count {sum(counts)} objects"
        )
    names = [name for name in table.schema.names if name not in _KEYS]
    plain = [(name, _plain(table.column(name))) for name in names]
    digests: list[str] = []
    start = 0
    for count in counts:
        hasher = hashlib.blake2b(digest_size=16)
        for name, (known, values) in plain:
            hasher.update(f"{name}\x1f{count}\x1f".encode())
            hasher.update(known[start : start + count].tobytes())
            hasher.update(_row_bytes(values, start, start + count))
        digests.append(hasher.hexdigest())
        start += count
    return digests


class ObjectsDigest:
    """Running SHA-256 over the object digests of fields, in key order."""

    def __init__(self) -> None:
        self._hasher = hashlib.sha256()

    def update(self, field_ids: Sequence[str], digests: Sequence[str]) -> None:
        """Add fields. Raises ValueError where the two differ in length."""
        for field_id, digest in zip(field_ids, digests, strict=True):
            self._hasher.update(f"{field_id}\x1f{digest}\n".encode())

    def hexdigest(self) -> str:
        """The digest of all objects so far (64 hex digits)."""
        return self._hasher.hexdigest()


def _streams(column: pa.ChunkedArray) -> Iterator[bytes]:
    """The column as byte streams that can be concatenated piece by piece without ambiguity."""
    if pa.types.is_list(column.type):
        yield _known(column).tobytes()
        yield pc.list_value_length(column).fill_null(0).to_numpy().astype("<i8").tobytes()
        column = pc.list_flatten(column)
    if pa.types.is_string(column.type):
        texts = [text.encode() for text in column.fill_null("").to_pylist()]
        yield _known(column).tobytes()
        yield np.fromiter((len(text) for text in texts), dtype="<i8", count=len(texts)).tobytes()
        yield b"".join(texts)
        return
    known, values = _plain(column)
    yield known.tobytes()
    yield _row_bytes(values, 0, len(known))


def _plain(column: pa.ChunkedArray) -> tuple[NDArray[np.uint8], NDArray[np.generic] | list[str]]:
    known = _known(column)
    if pa.types.is_string(column.type):
        return known, column.fill_null("").to_pylist()
    if pa.types.is_boolean(column.type):
        return known, column.fill_null(False).to_numpy().astype(np.uint8)
    return known, column.fill_null(0).to_numpy().astype("<f8" if pa.types.is_floating(column.type) else "<i8")


def _known(column: pa.ChunkedArray) -> NDArray[np.uint8]:
    known: NDArray[np.uint8] = column.is_valid().to_numpy().astype(np.uint8)
    return known


def _row_bytes(values: NDArray[np.generic] | list[str], start: int, stop: int) -> bytes:
    if isinstance(values, list):
        return canonical_json(values[start:stop]).encode()
    return values[start:stop].tobytes()
