"""Rows of the fields and objects tables: what a worker knows of a field, the Arrow tables made of it, and digests of rows.

A digest depends on the rows and their order alone. Each column is hashed as a stream of nulls, values, lengths and text, so neither the
cut into batches nor the compression nor the version of the Parquet writer can change it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cellcount_core.domain.columns import (
    DETAIL,
    KEY,
    MOMENTS,
    OBJECT_NUMBER,
    REASON,
    SOURCE,
    STATUS,
    WARNINGS,
    Z_MODE,
    Column,
    Kind,
    Null,
    Schema,
    Value,
    names,
)
from cellcount_core.domain.doubts import unknown_codes
from cellcount_core.domain.errors import Reason, Status, nearest
from cellcount_core.domain.fields import FieldKey
from cellcount_core.domain.fingerprint import canonical_json
from cellcount_core.domain.statistics import Moments
from cellcount_core.domain.totals import known
from cellcount_core.output.schema import TableName, check_required, table_from_rows, table_schema

KEY_COLUMNS = tuple(names(KEY))
"""Names of the columns that say which field a row is of."""

ObjectColumn = NDArray[np.generic] | Sequence[str | None]


@dataclass(frozen=True, slots=True)
class FieldRow:
    """One row of the fields table: the columns of the ledger, and the `values` of the others by their names in the run's schema.

    A column without a value is null, and so is a nan. `moments` are those of the measured columns of the field's objects, by the full name of
    the column ("Nuclei_AreaShape_Area"). `fields_table` checks both against the schema.

    Raises ValueError if status and reason contradict each other (exactly the rows that are not ok have a reason, of the same status), or if
    `domain.doubts` has no sentence for a warning.
    """

    key: FieldKey
    z_mode: str
    status: Status
    reason: Reason | None = None
    detail: str = ""
    source: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    values: Mapping[str, Value] = field(default_factory=dict)
    moments: Mapping[str, Moments] = field(default_factory=dict)

    def __post_init__(self) -> None:
        expected = Status.OK if self.reason is None else self.reason.status
        if self.status is not expected:
            raise ValueError(f"{self.key}: status {self.status.value} does not go with reason {self.reason}")
        if unknown := unknown_codes(self.warnings):
            raise ValueError(f"{self.key}: domain/doubts.py has no sentence for {', '.join(unknown)}")


@dataclass(frozen=True, slots=True)
class ObjectRows:
    """The objects of one field: columns of n values by their names in the run's schema, without the key columns.

    Columns that are left out are null, and so is a nan in a float column.
    """

    key: FieldKey
    columns: Mapping[str, ObjectColumn]

    @property
    def count(self) -> int:
        """Number of objects (n)."""
        return len(self.columns[OBJECT_NUMBER.name])


def fields_table(rows: Sequence[FieldRow], schema: Schema, fingerprint: str) -> pa.Table:
    """The fields table of `rows`, in their order.

    Raises ValueError if a row has a value or moments of a column that the schema lacks, or if a column that only counted fields may have
    contradicts the row's status.
    """
    columns = {column.name: column for column in schema.fields}
    measured = names(schema.measured)
    plain = [_field_values(row, columns, measured) for row in rows]
    return table_from_rows(plain, table_schema(TableName.FIELDS, schema, fingerprint))


def key_values(key: FieldKey) -> dict[str, Value]:
    """The key of a field, by the column names that every table has."""
    return dict(zip(KEY_COLUMNS, (key.plate, key.well, key.site, key.timepoint, key.field_id), strict=True))


def _field_values(row: FieldRow, columns: Mapping[str, Column], measured: Sequence[str]) -> dict[str, Value]:
    values: dict[str, Value] = {
        **key_values(row.key),
        Z_MODE.name: row.z_mode,
        STATUS.name: row.status.value,
        REASON.name: row.reason.value if row.reason else None,
        DETAIL.name: row.detail or None,
        SOURCE.name: list(row.source),
        WARNINGS.name: list(row.warnings),
    }
    for name, value in row.values.items():
        if name not in columns:
            raise ValueError(f"{name} is not a column of a field{nearest(name, columns)}")
        values[name] = _cell(value, columns[name].kind)
    for column in columns.values():
        there = values.get(column.name) is not None
        if column.null is Null.UNLESS_OK and there != (row.status is Status.OK):
            found = values.get(column.name)
            raise ValueError(f"{row.key}: status {row.status.value} does not go with {column.name} {found}")
    for name, moments in row.moments.items():
        if name not in measured:
            raise ValueError(f"{name} is not a measured column{nearest(name, measured)}")
        parts = (moments.n, moments.mean, moments.m2, moments.low, moments.high)
        for prefix, part in zip(MOMENTS, parts, strict=True):
            values[f"{prefix}_{name}"] = part if prefix == "n" else known(part)
    return values


def _cell(value: Value, kind: Kind) -> Value:
    if kind is Kind.FLOAT and value is not None:
        assert isinstance(value, int | float)
        return known(value)
    return list(value) if isinstance(value, tuple) else value


def objects_table(objects: Sequence[ObjectRows], schema: Schema, fingerprint: str) -> pa.Table:
    """The objects table of some fields, in their order.

    Raises ValueError if a field has a column that the schema lacks, has columns of different length, or lacks a required one.
    """
    written = table_schema(TableName.OBJECTS, schema, fingerprint)
    for rows in objects:
        _check_columns(rows, written.names)
    arrays: list[pa.Array] = []
    for arrow in written:
        pieces = [_object_piece(rows, arrow) for rows in objects]
        arrays.append(pa.concat_arrays(pieces) if pieces else pa.array([], type=arrow.type))
    table = pa.Table.from_arrays(arrays, schema=written)
    check_required(table)
    return table


def _check_columns(rows: ObjectRows, written: Sequence[str]) -> None:
    for name, values in rows.columns.items():
        if name in KEY_COLUMNS or name not in written:
            raise ValueError(f"{name} is not a column of an object{nearest(name, written)}")
        if len(values) != rows.count:
            raise ValueError(f"{rows.key}: {name} has {len(values)} values for {rows.count} objects")


def _object_piece(rows: ObjectRows, arrow: pa.Field) -> pa.Array:
    if arrow.name in KEY_COLUMNS:
        return pa.repeat(pa.scalar(key_values(rows.key)[arrow.name], type=arrow.type), rows.count)
    column = rows.columns.get(arrow.name)
    if column is None:
        return pa.nulls(rows.count, type=arrow.type)
    if isinstance(column, np.ndarray) and column.dtype.kind == "f":
        return pa.array(column.astype(np.float64), type=arrow.type, mask=np.isnan(column))
    return pa.array(column, type=arrow.type)


_KEYS = {column.name for column in KEY}


class RowDigest:
    """Running SHA-256 of the rows of a table. Update it with pieces in row order."""

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
        """The digest (64 hex digits) of all rows so far."""
        columns = {
            name: [hasher.hexdigest() for hasher in hashers] for name, hashers in self._columns.items()
        }
        return hashlib.sha256(canonical_json({"rows": self._rows, "columns": columns}).encode()).hexdigest()


def object_digests(table: pa.Table, counts: Sequence[int]) -> list[str]:
    """For each field a digest (32 hex digits) of its rows of the objects table, without the key columns.

    `table` holds the objects of all fields in order; `counts` says how many each field has.
    Raises ValueError if the counts do not add up to the number of rows.
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
        for name, (valid, values) in plain:
            hasher.update(f"{name}\x1f{count}\x1f".encode())
            hasher.update(valid[start : start + count].tobytes())
            hasher.update(_row_bytes(values, start, start + count))
        digests.append(hasher.hexdigest())
        start += count
    return digests


class ObjectsDigest:
    """Running SHA-256 over the object digests of fields, which must come in key order."""

    def __init__(self) -> None:
        self._hasher = hashlib.sha256()

    def update(self, field_ids: Sequence[str], digests: Sequence[str]) -> None:
        """Add fields. Raises ValueError if there are not as many digests as fields."""
        for field_id, digest in zip(field_ids, digests, strict=True):
            self._hasher.update(f"{field_id}\x1f{digest}\n".encode())

    def hexdigest(self) -> str:
        """The digest (64 hex digits) of all objects so far."""
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
