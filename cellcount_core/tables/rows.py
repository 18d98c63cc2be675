"""What a worker knows of a field and of its objects, and the tables made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
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
from cellcount_core.domain.moments import Moments
from cellcount_core.domain.totals import known
from cellcount_core.tables.schema import TableName, check_required, table_from_rows, table_schema

KEY_COLUMNS = tuple(names(KEY))
"""Names of the columns that say which field a row is of."""

ObjectColumn = NDArray[np.generic] | Sequence[str | None]


@dataclass(frozen=True, slots=True)
class FieldRow:
    """One row of the fields table: the ledger's own columns, and the values of the others by the names that the run's schema has.

    A column without a value is null, and so is a nan. `moments` are those of the measured columns of the field's objects, by
    the column's full name ("Nuclei_AreaShape_Area"). `fields_table` checks values and moments against the schema.

    Raises ValueError unless exactly the rows that are not ok have a reason, one of that status, or if `domain.doubts` has no
    sentence for a warning.
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
    """The objects of one field: columns of n values by the names of the run's schema, the key columns apart.

    Columns that are not there are null, and so is a nan in a float column.
    """

    key: FieldKey
    columns: Mapping[str, ObjectColumn]

    @property
    def count(self) -> int:
        """Number of objects."""
        return len(self.columns[OBJECT_NUMBER.name])


def fields_table(rows: Sequence[FieldRow], schema: Schema, fingerprint: str) -> pa.Table:
    """The fields table of `rows`, in their order.

    Raises ValueError if a row has a value or moments of a column that the schema does not have, or if what is null unless a field
    is ok contradicts its status.
    """
    columns = {column.name: column for column in schema.fields}
    measured = names(schema.measured)
    plain = [_field_values(row, columns, measured) for row in rows]
    return table_from_rows(plain, table_schema(TableName.FIELDS, schema, fingerprint))


def key_values(key: FieldKey) -> dict[str, Value]:
    """The key of a field as the columns of every table have it."""
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

    Raises ValueError if a field has a column that the schema does not have, columns of different length, or lacks a required one.
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
