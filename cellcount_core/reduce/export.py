"""The plain table of a run's results: `index,count`, or whatever its task answers of a field."""

from __future__ import annotations

import csv
import io

from cellcount_core.domain.columns import Column, Kind, Schema
from cellcount_core.domain.totals import element_names
from cellcount_core.reduce.ledger import fields_parts
from cellcount_core.stores.base import Store
from cellcount_core.tables.runfile import read_run


def results_csv(store: Store) -> str:
    """`index` and the results of the run's task, a row a field in key order, `index` from 0: `index,count` where objects are counted.

    For one stack of images the index is that of the image in the stack. The results of a field that could not be counted are
    empty, never 0; why it is stands in the fields table. A list of numbers has a column for each of its classes.

    Raises OutputFault if `store` is no output, LedgerFault if a shard is not counted yet.
    """
    run = read_run(store)
    columns = [run.schema.field(name) for name in run.schema.results]
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(["index", *(name for column in columns for name in _names(column, run.schema))])
    index = 0
    for part in fields_parts(store, run):
        for row in part.table.select([column.name for column in columns]).to_pylist():
            cells = [cell for column in columns for cell in _cells(row[column.name], column, run.schema)]
            writer.writerow([index, *cells])
            index += 1
    return sink.getvalue()


def _names(column: Column, schema: Schema) -> list[str]:
    return element_names(column.name, schema.classes) if column.kind is Kind.FLOATS else [column.name]


def _cells(value: object, column: Column, schema: Schema) -> list[object]:
    if column.kind is not Kind.FLOATS:
        return [value]
    return list(value) if isinstance(value, list) else [None] * len(schema.classes)
