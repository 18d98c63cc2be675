"""Arrow schemas of the four tables, made from a run's `Schema`, and the one place that turns a table into Parquet bytes.

Every writer goes through `TableWriter`. Its settings and row groups are fixed, and it writes no time and no host, so equal rows give equal
bytes. The metadata of each column holds its unit, its meaning and its rule of merging; the metadata of the table says which run it is of.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum

import pyarrow as pa
import pyarrow.parquet as pq

from cellcount_core.domain.columns import (
    VERSION_3,
    Column,
    Kind,
    Merge,
    Schema,
    Value,
    fields_columns,
    objects_columns,
)
from cellcount_core.domain.errors import LedgerFault
from cellcount_core.domain.total_columns import plates_columns, wells_columns

ROW_GROUP = 65_536
"""Rows a row group; the cut depends on the number of rows alone, never on how they arrived."""

_LEVEL = 3
_ARROW = {
    Kind.STRING: pa.string(),
    Kind.STRINGS: pa.list_(pa.field("element", pa.string(), nullable=False)),
    Kind.INT: pa.int64(),
    Kind.INTS: pa.list_(pa.field("element", pa.int64(), nullable=False)),
    Kind.FLOAT: pa.float64(),
    Kind.FLOATS: pa.list_(pa.field("element", pa.float64(), nullable=False)),
    Kind.BOOL: pa.bool_(),
}

VERSION_KEY = "cellcount.schema_version"
TABLE_KEY = "cellcount.table"
FINGERPRINT_KEY = "cellcount.fingerprint"
OBJECT_NAME_KEY = "cellcount.object_name"
CHANNELS_KEY = "cellcount.channels"
TASK_KEY = "cellcount.task"
CLASSES_KEY = "cellcount.classes"


class TableName(StrEnum):
    """The four tables of an output."""

    FIELDS = "fields"
    OBJECTS = "objects"
    WELLS = "wells"
    PLATES = "plates"


def columns_of(table: TableName, schema: Schema) -> tuple[Column, ...]:
    """The columns of a table, in order."""
    match table:
        case TableName.FIELDS:
            return fields_columns(schema)
        case TableName.OBJECTS:
            return objects_columns(schema)
        case TableName.WELLS:
            return wells_columns(schema)
        case TableName.PLATES:
            return plates_columns(schema)


def table_schema(table: TableName, schema: Schema, fingerprint: str) -> pa.Schema:
    """The Arrow schema of a table. Column metadata hold what is declared of the column, table metadata which run and task it is of.

    Columns that are never null are declared non-nullable.
    """
    arrow = [
        pa.field(
            column.name, _ARROW[column.kind], nullable=not column.required, metadata=_said(column, schema)
        )
        for column in columns_of(table, schema)
    ]
    texts = {
        TABLE_KEY: table.value,
        VERSION_KEY: str(schema.version),
        FINGERPRINT_KEY: fingerprint,
        OBJECT_NAME_KEY: schema.object_name,
        CHANNELS_KEY: json.dumps(schema.channels, ensure_ascii=False),
    }
    if schema.version > VERSION_3:
        texts[TASK_KEY] = schema.task
        texts[CLASSES_KEY] = json.dumps(schema.classes, ensure_ascii=False)
    return pa.schema(arrow, metadata=texts)


def _said(column: Column, schema: Schema) -> dict[str, str]:
    texts = {"unit": column.unit, "meaning": column.meaning}
    if column.merge is not Merge.NONE and schema.version > VERSION_3:
        texts["merge"] = column.merge.value
        if column.of:
            texts["of"] = json.dumps(column.of, ensure_ascii=False)
    return texts


def schema_texts(schema: pa.Schema) -> dict[str, str]:
    """The schema's own metadata as text."""
    return {
        key.decode(errors="replace"): value.decode(errors="replace")
        for key, value in (schema.metadata or {}).items()
    }


def with_texts(table: pa.Table, texts: Mapping[str, str]) -> pa.Table:
    """The table with `texts` added to the metadata of its schema."""
    return table.replace_schema_metadata({**schema_texts(table.schema), **texts})


def table_from_rows(rows: Sequence[Mapping[str, Value]], schema: pa.Schema) -> pa.Table:
    """A table of `rows`. A column that a row lacks is null there.

    Raises ValueError, naming the column, if a row has one that the schema lacks or has no value where one is required.
    """
    known = set(schema.names)
    for row in rows:
        if not known.issuperset(row):
            raise ValueError(f"no such column: {', '.join(sorted(set(row) - known))}")
    arrays = [pa.array([row.get(field.name) for row in rows], type=field.type) for field in schema]
    table = pa.Table.from_arrays(arrays, schema=schema)
    check_required(table)
    return table


def check_required(table: pa.Table) -> None:
    """Raises ValueError naming the first required column that holds a null."""
    for field in table.schema:
        if not field.nullable and table.column(field.name).null_count:
            raise ValueError(
                f"column {field.name} must never be null, and {table.column(field.name).null_count} are"
            )


class TableWriter:
    """Writes one Parquet file in memory. The rows may arrive in pieces of any size."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._sink = pa.BufferOutputStream()
        texts = [field.name for field in schema if pa.types.is_string(field.type)]
        self._writer = pq.ParquetWriter(
            self._sink,
            schema,
            version="2.6",
            data_page_version="1.0",
            compression="zstd",
            compression_level=_LEVEL,
            use_dictionary=texts,
            write_statistics=True,
            write_page_checksum=True,
        )
        self._waiting: list[pa.Table] = []
        self._rows = 0

    def write(self, table: pa.Table) -> None:
        """Add rows. Raises ValueError if a required column holds a null."""
        check_required(table)
        self._waiting.append(table)
        self._rows += table.num_rows
        while self._rows >= ROW_GROUP:
            self._flush(ROW_GROUP)

    def finish(self) -> bytes:
        """The bytes of the whole file. Nothing can be written after."""
        if self._rows:
            self._flush(self._rows)
        self._writer.close()
        return bytes(self._sink.getvalue())

    def _flush(self, rows: int) -> None:
        # Pages follow the chunks they are written from: one chunk, or equal rows would not give equal bytes.
        waiting = pa.concat_tables(self._waiting).combine_chunks()
        self._writer.write_table(waiting.slice(0, rows).combine_chunks(), row_group_size=ROW_GROUP)
        self._waiting = [waiting.slice(rows)]
        self._rows -= rows


def table_bytes(table: pa.Table) -> bytes:
    """The table as a Parquet file. Equal tables with equal metadata give equal bytes.

    Raises ValueError if a required column holds a null.
    """
    writer = TableWriter(table.schema)
    writer.write(table)
    return writer.finish()


def read_table_bytes(key: str, body: bytes) -> pa.Table:
    """The table in a Parquet file of this package; page checksums and text are verified.

    Raises LedgerFault naming `key` if the bytes are not a whole Parquet file.
    """
    # Arrow's threads may still be at work when a short command ends, which then aborts (apache/arrow issue 34314): nothing here starts them.
    try:
        table = pq.ParquetFile(pa.BufferReader(body), page_checksum_verification=True).read(use_threads=False)
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise LedgerFault(f"{key}: is not a whole Parquet file: {_first_line(error)}") from error
    return table


def misfits(table: pa.Table, schema: pa.Schema) -> Iterator[str]:
    """What is wrong with the names, types and nulls of a table's columns, one sentence each; nothing if they fit the schema."""
    if table.schema.names != schema.names:
        extra = sorted(set(table.schema.names) - set(schema.names))
        lacking = sorted(set(schema.names) - set(table.schema.names))
        yield f"has other columns than the run's schema asks for: too many {extra}, too few {lacking}"
        return
    for field in schema:
        found = table.schema.field(field.name).type
        if found != field.type:
            yield f"column {field.name} is {found}, expected {field.type}"
        nulls = table.column(field.name).null_count
        if nulls and not field.nullable:
            yield f"column {field.name} must never be null, and {nulls} of its rows are"


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
