"""The two files of a shard, how they are committed, and how some of their rows are replaced later.

A task without objects has the first file alone.

A shard's *fields part* is its commit: it is created last, once, and counting never replaces it. It names its *objects part* (file and
SHA-256), and objects parts are never replaced. So a fields part always names an objects part that is there, with exactly those bytes,
whatever workers race and wherever one of them dies:

- The objects part is written before the fields part, so it is there when the fields part appears.
- It is written with a conditional create. If one with the same bytes is there already, it is shared. If one with other bytes is there
  and the shard is not committed, that one is an orphan: of a crash, or of a worker that was believed dead and counted other fields as
  failed. Ours then goes beside it, under a name that holds its digest, so that a fields part which another worker is writing at this
  moment still finds the objects part that it names.
- A file is removed only once the fields part stands, and only if that does not name it. The worker that won removes the orphan, the one
  that lost removes what it wrote. A crash before that leaves a file that no fields part names. `sweep` removes it when the run is
  reduced; every shard then has its fields part, so nothing can come to name the file.

In the normal case a commit is two puts and no other call.

`amend_part` replaces rows of a committed shard, where failed fields are tried again (ADR 0008). A reader finds the shard committed at every
moment: the new objects part is written under a name that holds its digest, then the fields part is replaced whole. A crash in between
leaves the old shard or the new one. The objects part that nothing names any more is left to `sweep`, because only the holder of the
output's lease may remove a file.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cellcount_core.domain.columns import FIELD_ID, STATUS, Schema
from cellcount_core.domain.errors import LedgerFault, Status
from cellcount_core.domain.fields import Commit, part_name
from cellcount_core.output.rows import (
    FieldRow,
    ObjectRows,
    RowDigest,
    fields_table,
    object_digests,
    objects_table,
)
from cellcount_core.output.schema import (
    CHANNELS_KEY,
    FINGERPRINT_KEY,
    OBJECT_NAME_KEY,
    read_table_bytes,
    schema_texts,
    table_bytes,
    with_texts,
)
from cellcount_core.stores.base import Absent, Created, Store

FIELDS = "fields"
OBJECTS = "objects"

SHARD_KEY = "cellcount.shard"
ROWS_KEY = "cellcount.rows_sha256"
OBJECTS_PART_KEY = "cellcount.objects_part"
OBJECTS_SHA_KEY = "cellcount.objects_sha256"
OBJECT_DIGESTS_KEY = "cellcount.object_digests"

UPDATE = "run/update"
READY = "ready.json"
"""Where an updated run is made below its output, and the file there that says that it is whole and being put in place."""

_DIGEST_DIGITS = 32
_FIELDS_NAME = re.compile(r"^fields/part-(\d{6,})\.parquet$")
_OBJECTS_DIGEST = re.compile(r"-[0-9a-f]{16}(?=\.parquet$)")
_OBJECTS_NAME = re.compile(r"^objects/part-\d{6,}(-[0-9a-f]{16})?\.parquet$")


@dataclass(frozen=True, slots=True)
class Part:
    """What a worker commits for one shard: the bytes of the objects part (None for a task without objects), and the fields table.

    `object_count` names the column that says how many objects a field has, "" for a task without objects.
    """

    number: int
    objects: bytes | None
    fields: pa.Table
    object_count: str


@dataclass(frozen=True, slots=True)
class FieldsPart:
    """A fields part that was read: its table, and what its metadata says.

    `rows_sha256` is the digest of the rows it was written with. `object_digests` holds one digest for each row; a field that was not counted
    has that of no objects. For a task without objects it is empty, as are `objects_key` and `objects_sha256`. `measures` says in words what
    was looked for, and in which channels.
    """

    key: str
    number: int
    fingerprint: str
    measures: str
    table: pa.Table
    rows_sha256: str
    objects_key: str
    objects_sha256: str
    object_digests: tuple[str, ...]


def half_updated(store: Store) -> str:
    """A hint for messages: an update was killed while it was put in place, which explains an output that contradicts itself.

    "" if there is no such update.
    """
    if store.size_of(f"{UPDATE}/{READY}") is None:
        return ""
    return f"; an update was interrupted while it was put in place: `cellcount count {store.url} --update` ends it"


def fields_key(number: int) -> str:
    """The key of a shard's fields part."""
    return f"{FIELDS}/{part_name(number)}"


def objects_key(number: int) -> str:
    """The usual key of a shard's objects part; after a crash another one may be used (`content_key`)."""
    return f"{OBJECTS}/{part_name(number)}"


def content_key(number: int, body: bytes) -> str:
    """The key under which exactly these bytes stand as the objects part of a shard, whatever stands at its usual key."""
    digest = hashlib.sha256(body).hexdigest()
    return f"{objects_key(number).removesuffix('.parquet')}-{digest[:16]}.parquet"


def split_digests(texts: Mapping[str, str]) -> tuple[str, ...]:
    """The object digests in the metadata of a fields table, one for each row; () for a task without objects."""
    digits = texts.get(OBJECT_DIGESTS_KEY, "")
    return tuple(digits[start : start + _DIGEST_DIGITS] for start in range(0, len(digits), _DIGEST_DIGITS))


def build_part(
    number: int, rows: Sequence[FieldRow], objects: Sequence[ObjectRows], schema: Schema, fingerprint: str
) -> Part:
    """The part of shard `number`: `rows` of all its fields in key order, and `objects` of those that are ok, in the same order.

    Raises ValueError if rows and objects contradict each other or the schema.
    """
    written = fields_table(rows, schema, fingerprint)
    if not schema.objects:
        return part_of_tables(number, written, None, schema)
    by_key = {counted.key: counted.count for counted in objects}
    in_order = [row.key for row in rows if row.key in by_key]
    if in_order != [counted.key for counted in objects]:
        raise ValueError(f"shard {number}: the objects are not those of its fields, in their order")
    for row, counted in zip(rows, object_counts(written, schema.object_count), strict=True):
        if counted != by_key.get(row.key, 0):
            raise ValueError(f"{row.key}: counted {counted}, but has {by_key.get(row.key, 0)} objects")
    return part_of_tables(number, written, objects_table(objects, schema, fingerprint), schema)


def part_of_tables(number: int, field_rows: pa.Table, object_rows: pa.Table | None, schema: Schema) -> Part:
    """The part of shard `number` from its tables: one row for each field in key order, and the objects of those fields in that order, None
    for a task without objects.

    Raises ValueError if the number of objects is not what the fields count.
    """
    texts = {SHARD_KEY: str(number), ROWS_KEY: rows_digest(field_rows)}
    if object_rows is None:
        return Part(number, None, with_texts(field_rows, texts), "")
    body = table_bytes(with_texts(object_rows, {SHARD_KEY: str(number)}))
    counts = object_counts(field_rows, schema.object_count)
    texts |= {
        OBJECTS_SHA_KEY: hashlib.sha256(body).hexdigest(),
        OBJECT_DIGESTS_KEY: "".join(object_digests(object_rows, counts)),
    }
    return Part(number, body, with_texts(field_rows, texts), schema.object_count)


def object_counts(fields: pa.Table, column: str) -> list[int]:
    """How many objects each field of a fields table has, from the named column; 0 everywhere if the name is ""."""
    if not column:
        return [0] * fields.num_rows
    return [count or 0 for count in fields.column(column).to_pylist()]


def rows_digest(table: pa.Table) -> str:
    """SHA-256 (64 hex digits) of the rows of one part."""
    digest = RowDigest()
    digest.update(table)
    return digest.hexdigest()


def commit_part(store: Store, part: Part) -> Commit:
    """Commit the part of a shard. The docstring of this module gives the order of the steps and the reasons for it.

    ALREADY if the shard is committed; nothing is changed then.
    """
    if part.objects is None:
        put = store.put_new(fields_key(part.number), table_bytes(part.fields))
        return Commit.WRITTEN if put is Created.NEW else Commit.ALREADY
    slot = objects_key(part.number)
    created = store.put_new(slot, part.objects) is Created.NEW
    chosen = slot
    if not created and not _same(store, slot, part.objects):
        if store.size_of(fields_key(part.number)) is not None:
            return Commit.ALREADY
        chosen = content_key(part.number, part.objects)
        # The name says the content, so this replaces nothing but the same bytes.
        store.put(chosen, part.objects)
        created = True
    fields = table_bytes(with_texts(part.fields, {OBJECTS_PART_KEY: chosen.removeprefix(f"{OBJECTS}/")}))
    if store.put_new(fields_key(part.number), fields) is Created.NEW:
        if chosen != slot:
            store.delete(slot)
        return Commit.WRITTEN
    if created:
        standing = read_fields_part(fields_key(part.number), store.get(fields_key(part.number)))
        if (standing.objects_key, standing.objects_sha256) != (
            chosen,
            hashlib.sha256(part.objects).hexdigest(),
        ):
            store.delete(chosen)
    return Commit.ALREADY


def _same(store: Store, key: str, body: bytes) -> bool:
    try:
        return store.get(key) == body
    except Absent:
        # Removed by the worker that won in between: the shard is committed, or will be found so.
        return False


def committed_parts(store: Store) -> set[int]:
    """Numbers of the shards that are committed, from one listing of `fields/`."""
    numbers: set[int] = set()
    for batch in store.list(FIELDS):
        for listed in batch:
            match = _FIELDS_NAME.match(listed.key)
            if match:
                numbers.add(int(match.group(1)))
    return numbers


def read_fields_part(key: str, body: bytes) -> FieldsPart:
    """A fields part from its bytes. Raises LedgerFault naming `key` if it is not a fields part of this version."""
    table = read_table_bytes(key, body)
    texts = schema_texts(table.schema)
    try:
        number = int(texts[SHARD_KEY])
        fingerprint, rows, digests = texts[FINGERPRINT_KEY], texts[ROWS_KEY], split_digests(texts)
        name, sha = "", ""
        if OBJECT_DIGESTS_KEY in texts:
            name, sha = f"{OBJECTS}/{texts[OBJECTS_PART_KEY]}", texts[OBJECTS_SHA_KEY]
        measures = _measures(texts[OBJECT_NAME_KEY], json.loads(texts[CHANNELS_KEY]))
    except (KeyError, ValueError) as error:
        raise LedgerFault(f"{key}: its metadata is not that of a fields part ({error})") from error
    if FIELD_ID.name not in table.schema.names or (name and len(digests) != table.num_rows):
        raise LedgerFault(f"{key}: has {table.num_rows} rows and {len(digests)} digests of their objects")
    return FieldsPart(key, number, fingerprint, measures, table, rows, name, sha, digests)


def measures_of(schema: Schema) -> str:
    """What a run looks for, in words, as `FieldsPart.measures` has it."""
    return _measures(schema.object_name, schema.channels)


def _measures(object_name: str, channels: Sequence[str]) -> str:
    return f"{object_name or 'fields'} in {', '.join(channels) or 'no channel'}"


def sweep(store: Store, named: Iterable[str], replaced: Iterable[str] = ()) -> list[str]:
    """Remove the objects parts that are not in `named` (orphans of crashes), and return their keys, sorted.

    `named` are the objects parts that the fields parts name. A listing may lag behind recent puts, so two more kinds of keys are looked up: the
    usual key of each shard whose objects stand elsewhere, and the objects parts that were `replaced`. Call it only when every shard is
    committed. Files of other names are left alone.
    """
    keep = set(named)
    listed = {one.key for batch in store.list(OBJECTS) for one in batch}
    likely = {*replaced, *(_OBJECTS_DIGEST.sub("", key) for key in keep)} - listed - keep
    there = listed | {key for key in likely if store.size_of(key) is not None}
    orphans = sorted(key for key in there if _OBJECTS_NAME.match(key) and key not in keep)
    for key in orphans:
        store.delete(key)
    return orphans


def strangers(store: Store, named: Iterable[str], shards: int) -> list[str]:
    """Keys below `fields/` and `objects/` that do not belong to a run of `shards` shards, sorted.

    `named` are the objects parts that the fields parts name.
    """
    own = {fields_key(number) for number in range(shards)} | set(named)
    found = [listed.key for folder in (FIELDS, OBJECTS) for batch in store.list(folder) for listed in batch]
    return sorted(key for key in found if key not in own)


def amend_part(store: Store, part: Part) -> Commit:
    """Replace rows of a committed shard, and their objects, by those of `part`, which holds some of the shard's fields.

    Rows that are ok are never replaced. ALREADY if there is nothing to replace, or if somebody else replaced the part meanwhile.
    Raises LedgerFault if the shard is not committed, if its parts contradict each other, or if it has no such field.
    """
    key = fields_key(part.number)
    body = _standing(store, key)
    standing = read_fields_part(key, body)
    if part.objects is None:
        fields = _rows_at(standing.table, part.fields, _rows_taken(standing, part))
        if rows_digest(fields) == standing.rows_sha256:
            return Commit.ALREADY
        return _put_fields(store, key, body, with_texts(fields, {ROWS_KEY: rows_digest(fields)}))
    if not standing.objects_key:
        raise LedgerFault(f"{key}: names no objects part, and the run's task has objects")
    try:
        objects_body = _standing(store, standing.objects_key)
    except LedgerFault:
        if _standing(store, key) != body:
            return Commit.ALREADY
        raise
    if hashlib.sha256(objects_body).hexdigest() != standing.objects_sha256:
        raise LedgerFault(f"{standing.objects_key}: is not the objects part that {key} was written with")
    taken = _rows_taken(standing, part)
    fields = _rows_at(standing.table, part.fields, taken)
    if rows_digest(fields) == standing.rows_sha256:
        return Commit.ALREADY
    objects = _rows_at(
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
    if _standing(store, key) != before:
        return Commit.ALREADY
    store.put(key, table_bytes(fields))
    return Commit.WRITTEN


def _standing(store: Store, key: str) -> bytes:
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


def _rows_at(standing: pa.Table, new: pa.Table, rows: Sequence[int]) -> pa.Table:
    """These rows of the two tables, one behind the other, with the metadata of the first."""
    both = pa.concat_tables([standing, new]).combine_chunks()
    return both.take(pa.array(rows, type=pa.int64())).replace_schema_metadata(standing.schema.metadata)
