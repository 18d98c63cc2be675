"""Some rows of a committed shard done once more: the part with them in it takes the place of the part that stands (ADR 0008).

A reader finds the shard committed at every moment: the new objects part is written under a name that holds its digest, then the
fields part is replaced whole. A crash in between leaves the old shard or the new one. The objects part that nothing names any
more is left to `sweep`, for only the holder of the output's lease may remove one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cellcount_core.domain.columns import FIELD_ID, STATUS
from cellcount_core.domain.errors import LedgerFault, Status
from cellcount_core.domain.receipts import Commit
from cellcount_core.stores.base import Absent, Store
from cellcount_core.tables.parts import (
    OBJECT_DIGESTS_KEY,
    OBJECTS,
    OBJECTS_PART_KEY,
    OBJECTS_SHA_KEY,
    ROWS_KEY,
    FieldsPart,
    Part,
    content_key,
    fields_key,
    object_counts,
    read_fields_part,
    rows_digest,
    split_digests,
)
from cellcount_core.tables.schema import read_table_bytes, schema_texts, table_bytes, with_texts


def amend_part(store: Store, part: Part) -> Commit:
    """Put the rows of `part`, some fields of a committed shard, in the place of those that stand, with their objects.

    Rows that are ok are never replaced. ALREADY where nothing is to be replaced, or where somebody else replaced the part
    meanwhile. Raises LedgerFault where the shard is not committed, its parts contradict each other, or it has no such field.
    """
    key = fields_key(part.number)
    body = _read(store, key)
    standing = read_fields_part(key, body)
    if part.objects is None:
        fields = _taken(standing.table, part.fields, _rows_taken(standing, part))
        if rows_digest(fields) == standing.rows_sha256:
            return Commit.ALREADY
        return _put_fields(store, key, body, with_texts(fields, {ROWS_KEY: rows_digest(fields)}))
    if not standing.objects_key:
        raise LedgerFault(f"{key}: names no objects part, and the run's task has objects")
    try:
        objects_body = _read(store, standing.objects_key)
    except LedgerFault:
        if _read(store, key) != body:
            return Commit.ALREADY
        raise
    if hashlib.sha256(objects_body).hexdigest() != standing.objects_sha256:
        raise LedgerFault(f"{standing.objects_key}: is not the objects part that {key} was written with")
    taken = _rows_taken(standing, part)
    fields = _taken(standing.table, part.fields, taken)
    if rows_digest(fields) == standing.rows_sha256:
        return Commit.ALREADY
    objects = _taken(
        read_table_bytes(standing.objects_key, objects_body),
        read_table_bytes(key, part.objects),
        _object_rows_taken(standing.table, part, taken),
    )
    new_objects = table_bytes(objects)
    chosen = content_key(part.number, new_objects)
    digests = [*standing.object_digests, *split_digests(schema_texts(part.fields.schema))]
    texts = {
        ROWS_KEY: rows_digest(fields),
        OBJECTS_PART_KEY: chosen.removeprefix(f"{OBJECTS}/"),
        OBJECTS_SHA_KEY: hashlib.sha256(new_objects).hexdigest(),
        OBJECT_DIGESTS_KEY: "".join(digests[index] for index in taken),
    }
    store.put(chosen, new_objects)
    return _put_fields(store, key, body, with_texts(fields, texts))


def _put_fields(store: Store, key: str, before: bytes, fields: pa.Table) -> Commit:
    """Replace the fields part that had the bytes `before`, unless somebody else did so meanwhile."""
    if _read(store, key) != before:
        return Commit.ALREADY
    store.put(key, table_bytes(fields))
    return Commit.WRITTEN


def _read(store: Store, key: str) -> bytes:
    try:
        return store.get(key)
    except Absent:
        raise LedgerFault(f"{key}: is not there; expected a shard that was counted before") from None


def _rows_taken(standing: FieldsPart, part: Part) -> list[int]:
    """For each field of the shard the row it gets: of the standing table, or (counted on behind it) of the new one."""
    ids = standing.table.column(FIELD_ID.name).to_pylist()
    places = {field_id: place for place, field_id in enumerate(ids)}
    settled = pc.equal(standing.table.column(STATUS.name), Status.OK.value).to_pylist()
    taken = list(range(len(ids)))
    for number, field_id in enumerate(part.fields.column(FIELD_ID.name).to_pylist()):
        if field_id not in places:
            raise LedgerFault(f"{standing.key}: has no row of field {field_id}")
        if not settled[places[field_id]]:
            taken[places[field_id]] = len(ids) + number
    return taken


def _object_rows_taken(standing: pa.Table, part: Part, taken: Sequence[int]) -> list[int]:
    counts = [count for table in (standing, part.fields) for count in object_counts(table, part.object_count)]
    spans = list(pairwise([0, *accumulate(counts)]))
    pieces = [np.arange(*spans[index]) for index in taken]
    rows: list[int] = np.concatenate(pieces).tolist() if pieces else []
    return rows


def _taken(standing: pa.Table, new: pa.Table, rows: Sequence[int]) -> pa.Table:
    """These rows of the two tables, one behind the other, with the metadata of the first."""
    both = pa.concat_tables([standing, new]).combine_chunks()
    return both.take(pa.array(rows, type=pa.int64())).replace_schema_metadata(standing.schema.metadata)
