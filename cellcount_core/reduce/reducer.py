"""From the fields parts to wells, plates and summary.

The parts are read in shard order, which is the order of keys, so the fields of a group follow each other. Memory holds a few parts, one
well, one row for each plate and the compressed wells table, however many fields there are. Objects parts are not read: the fields
parts hold the moments and digests that are needed of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter

import pyarrow as pa

from cellcount_core.domain.columns import DETAIL, FIELD_ID, REASON, SITE, WARNINGS, WELL, Value
from cellcount_core.domain.doubts import EXAMPLE_TOLD, Doubt
from cellcount_core.domain.errors import LedgerFault
from cellcount_core.domain.fields import FieldKey
from cellcount_core.output.labels import LABELS
from cellcount_core.output.parts import FIELDS, OBJECTS, sweep
from cellcount_core.output.rows import ObjectsDigest, RowDigest
from cellcount_core.output.runfile import RunFile, read_run
from cellcount_core.output.schema import TableName, TableWriter, table_bytes, table_from_rows, table_schema
from cellcount_core.reduce.groups import (
    CountedField,
    PlateTotals,
    counted_fields,
    empty_tally,
    plate_row,
    plates_in_doubt,
    well_rows,
    wells,
)
from cellcount_core.reduce.ledger import fields_parts
from cellcount_core.reduce.summary import ALL, Summary, summarise, summary_csv, summary_json
from cellcount_core.stores.base import Store
from cellcount_core.stores.local import remove_abandoned

WELLS_KEY = "wells.parquet"
PLATES_KEY = "plates.parquet"
SUMMARY_JSON_KEY = "summary.json"
SUMMARY_CSV_KEY = "summary.csv"

_FOLDERS = ("run", FIELDS, OBJECTS, LABELS)
"""Where a run puts files, besides the root of its output."""

_WELL_ROWS = 4096
"""Rows of the wells table made into Arrow at once."""


@dataclass(frozen=True, slots=True)
class Reduced:
    """The reduced tables of a run: bytes of the files by key, in the order in which they are written, and the summary that they stand for.

    `objects_parts` are the objects parts that the fields parts name.
    """

    files: dict[str, bytes]
    summary: Summary
    objects_parts: tuple[str, ...]


def reduce_run(store: Store, replaced: Iterable[str] = ()) -> Summary:
    """Write wells.parquet, plates.parquet, summary.csv and summary.json of a finished run, and remove what crashes left behind.

    `replaced` are objects parts that no fields part names any more; they are removed even if no listing shows them.
    Raises OutputFault if `store` holds no run, LedgerFault if a shard is not counted yet or a part is damaged.
    """
    reduced = reduce_tables(store)
    sweep(store, reduced.objects_parts, replaced)
    remove_abandoned(store, _FOLDERS)
    for key, body in reduced.files.items():
        store.put(key, body)
    return reduced.summary


def reduce_tables(store: Store) -> Reduced:
    """What `reduce_run` would write, without writing it. Raises the same faults."""
    run = read_run(store)
    reading = _Reading(store, run)
    every_plate: list[PlateTotals] = []
    everything = PlateTotals(ALL, empty_tally(run.schema))
    wells_file = TableWriter(table_schema(TableName.WELLS, run.schema, run.fingerprint))
    for plate in _plates(reading.fields(), run, wells_file):
        every_plate.append(plate)
        everything.merge(plate)
    wells_body = wells_file.finish()
    doubts = plates_in_doubt(every_plate)
    plates_body = _plates_bytes(every_plate, doubts, run)
    digests = {
        "wells": hashlib.sha256(wells_body).hexdigest(),
        "plates": hashlib.sha256(plates_body).hexdigest(),
        "fields_rows": reading.rows.hexdigest(),
    }
    if run.schema.objects:
        digests["objects_rows"] = reading.objects.hexdigest()
    summary = summarise(run, every_plate, everything, doubts, digests, reading.examples)
    files = {
        WELLS_KEY: wells_body,
        PLATES_KEY: plates_body,
        SUMMARY_CSV_KEY: summary_csv(every_plate, everything, doubts, run.schema),
        SUMMARY_JSON_KEY: summary_json(summary),
    }
    return Reduced(files, summary, tuple(reading.objects_parts))


@dataclass(slots=True)
class _Reading:
    """The fields of all parts as one stream, digested and checked for their order on the way."""

    store: Store
    run: RunFile
    rows: RowDigest = field(default_factory=RowDigest)
    objects: ObjectsDigest = field(default_factory=ObjectsDigest)
    objects_parts: list[str] = field(default_factory=list)
    examples: dict[str, str] = field(default_factory=dict)

    def fields(self) -> Iterator[CountedField]:
        last: FieldKey | None = None
        for part in fields_parts(self.store, self.run):
            for counted in counted_fields(part, self.run.schema):
                if last is not None and counted.key <= last:
                    again = "twice" if counted.key == last else "out of order"
                    raise LedgerFault(f"{part.key}: {counted.key} comes {again}")
                last = counted.key
                yield counted
            self.rows.update(part.table)
            if part.objects_key:
                self.objects.update(part.table.column(FIELD_ID.name).to_pylist(), part.object_digests)
                self.objects_parts.append(part.objects_key)
            self._note_examples(part.table)

    def _note_examples(self, table: pa.Table) -> None:
        for reason, detail in zip(
            table.column(REASON.name).to_pylist(), table.column(DETAIL.name).to_pylist(), strict=True
        ):
            if reason is not None and detail:
                self.examples.setdefault(reason, str(detail).removesuffix(f" [{reason}]"))
        names = [column.name for column in (WELL, SITE, WARNINGS)]
        for well, site, warnings in zip(*(table.column(name).to_pylist() for name in names), strict=True):
            for code, _, about in (warning.partition(":") for warning in warnings):
                if about and code in EXAMPLE_TOLD and code not in self.examples:
                    self.examples[code] = f"well {well!r}, site {site}: {about}"


def _plates(fields: Iterator[CountedField], run: RunFile, wells_file: TableWriter) -> Iterator[PlateTotals]:
    schema = table_schema(TableName.WELLS, run.schema, run.fingerprint)
    waiting: list[dict[str, Value]] = []
    for name, group in groupby(wells(fields, run.schema), key=attrgetter("plate")):
        plate = PlateTotals(name, empty_tally(run.schema))
        for well in group:
            plate.add(well)
            waiting += well_rows(well)
            if len(waiting) >= _WELL_ROWS:
                wells_file.write(table_from_rows(waiting, schema))
                waiting = []
        yield plate
    wells_file.write(table_from_rows(waiting, schema))


def _plates_bytes(plates: list[PlateTotals], doubts: Mapping[str, Doubt], run: RunFile) -> bytes:
    schema = table_schema(TableName.PLATES, run.schema, run.fingerprint)
    return table_bytes(table_from_rows([plate_row(plate, doubts) for plate in plates], schema))
