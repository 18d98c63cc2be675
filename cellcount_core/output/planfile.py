"""Fields cut into shards, and `run/plan.parquet`, which holds them: a row for each source of a field, a row group for each shard.

Shards can therefore be read one at a time. A small run is cut finely, so that all workers have something to do and a stop loses little. A
field without a source has one row, with a null key. The file's metadata holds the schema version, the fingerprint and the digest of the
listing. What the instrument's metadata files state of plates stands in the file's metadata too, and in three more columns; the plan of an
input without such files has neither. What a plate map says of a field's well is one more column, of runs that have a map.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cellcount_core.config import ExecutionConfig
from cellcount_core.domain.columns import FIELD_ID, PLATE, SCHEMA_VERSION, SITE, TIMEPOINT, WELL
from cellcount_core.domain.errors import OutputFault, Reason
from cellcount_core.domain.fields import FieldKey, Label, PlannedField, Shard, Source, SourcePart
from cellcount_core.domain.fingerprint import canonical_json
from cellcount_core.domain.plates import PlateFacts, Position

_MOST_FIELDS = 64
_SHARDS_A_WORKER, _LEAST_SHARDS = 4, 16
_WORKERS_ELSEWHERE = 32
"""Workers assumed of a cluster, which is not asked when a run is planned."""


@dataclass(frozen=True, slots=True)
class ShardLimits:
    """The largest shard: at most `fields` fields and, unless it has only one field, at most `size` bytes to read.

    A run of many fields is cut into at least `least` shards.
    """

    fields: int
    size: int
    least: int = 1

    @property
    def enough(self) -> int:
        """The number of fields that fills `least` shards of `fields` fields."""
        return self.fields * self.least

    def fitting(self, fields: int) -> ShardLimits:
        """The limits for a run of this many fields."""
        return replace(self, fields=max(1, min(self.fields, fields // self.least)))


def shard_limits(execution: ExecutionConfig) -> ShardLimits:
    """The limits that the execution settings ask for. They change the cut into parts, never a value in a table.

    With `shard_fields` "auto" there are four shards for every worker that there may be, and at least 16.
    """
    size = int(execution.shard_mib * 2**20)
    if execution.shard_fields != "auto":
        return ShardLimits(execution.shard_fields, size)
    workers = execution.actors
    if workers == "auto":
        workers = _WORKERS_ELSEWHERE if execution.address else usable_cores()
    return ShardLimits(_MOST_FIELDS, size, max(_LEAST_SHARDS, _SHARDS_A_WORKER * workers))


def usable_cores() -> int:
    """The number of cores that this process may use. A batch system or `taskset` may allow fewer than the machine has."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def cut_shards(fields: Iterable[PlannedField], limits: ShardLimits) -> Iterator[Shard]:
    """The fields in shards: each field in exactly one, in order. Shards are numbered from 0.

    A file that holds several fields (an array file) counts once for each shard, because it is read once.
    """
    held: list[PlannedField] = []
    read: set[SourcePart] = set()
    size = number = 0
    for planned in fields:
        more = bytes_to_read(planned, read)
        if held and (len(held) >= limits.fields or size + more > limits.size):
            yield Shard(number, tuple(held))
            number += 1
            held, read, size = [], set(), 0
            more = bytes_to_read(planned, read)
        held.append(planned)
        read.update(planned.objects)
        size += more
    if held:
        yield Shard(number, tuple(held))


def bytes_to_read(planned: PlannedField, read: set[SourcePart]) -> int:
    """Bytes of the field's stored objects that are not in `read` yet; 0 for a field that cannot be counted."""
    return sum(part.size for part in planned.objects if part not in read)


PLAN_KEY = "run/plan.parquet"

SCHEMA = pa.schema(
    [
        pa.field("shard", pa.int64(), nullable=False),
        pa.field(FIELD_ID.name, pa.string(), nullable=False),
        pa.field(PLATE.name, pa.string(), nullable=False),
        pa.field(WELL.name, pa.string(), nullable=False),
        pa.field(SITE.name, pa.int64(), nullable=False),
        pa.field(TIMEPOINT.name, pa.int64(), nullable=False),
        pa.field("channel", pa.string()),
        pa.field("plane", pa.int64()),
        pa.field("key", pa.string()),
        pa.field("index", pa.int64()),
        pa.field("bytes", pa.int64()),
        pa.field("etag", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
    ]
)
"""Columns of the plan. `index` is -1 for a whole file; `reason` and `detail` are null for a field that can be counted."""

WITH_FACTS = pa.schema(
    [
        *SCHEMA,
        pa.field("um_per_px", pa.float64()),
        pa.field("x_um", pa.float64()),
        pa.field("y_um", pa.float64()),
    ]
)
"""Columns of a plan of plates of which metadata files state something."""

WITH_PARTS = pa.schema(
    [
        *WITH_FACTS,
        pa.field("parts", pa.list_(pa.struct([pa.field("key", pa.string()), pa.field("bytes", pa.int64())]))),
    ]
)
"""Columns of a plan of images that are arrays: `parts` are the objects of a source, null where it is a file."""

WITH_LABELS = pa.schema([*WITH_PARTS, pa.field("labels", pa.string())])
"""Columns of a plan with a plate map: `labels` is what it says of the field's well, a JSON object by column; null if it does not name the well."""

_SCHEMAS = (SCHEMA, WITH_FACTS, WITH_PARTS, WITH_LABELS)
"""Each has the columns of the one before it, and more."""

FACTS_META = b"cellcount.plates"
FINGERPRINT_META = b"cellcount.fingerprint"
LISTING_META = b"cellcount.listing_digest"
VERSION_META = b"cellcount.schema_version"

NO_FACTS: Mapping[str, PlateFacts] = {}

_NO_SOURCE = (None, None, None, None, None, None)
_Line = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Written:
    """What `write_plan` wrote: the number of shards, the digest of the listing, and the fingerprint."""

    shards: int
    listing_digest: str
    fingerprint: str


def write_plan(
    path: Path,
    shards: Iterable[Shard],
    name_of: Callable[[str], str],
    facts: Mapping[str, PlateFacts] = NO_FACTS,
    schema: pa.Schema | None = None,
) -> Written:
    """Write the plan to a local file, shard by shard. Equal plans give equal bytes.

    `facts` is what metadata files state, by plate. `schema` has the columns; if it is None, they are those that the facts need. `name_of` makes
    the fingerprint from the digest of the listing, a SHA-256 over the facts and over the rows without their shard. Neither the order of
    the listing nor the size of the shards can therefore change it.
    """
    if schema is None:
        schema = WITH_FACTS if facts else SCHEMA
    digest = hashlib.sha256()
    count = 0
    stated = canonical_json({plate: one.plain() for plate, one in facts.items()})
    if facts:
        digest.update(stated.encode())
    with pq.ParquetWriter(
        path, schema, compression="zstd", compression_level=3, use_dictionary=False, write_statistics=False
    ) as writer:
        for shard in shards:
            lines = [line for planned in shard.fields for line in _lines(planned, schema)]
            # The rows of a list without its brackets: the text does not tell where a shard ends.
            digest.update(json.dumps([line[1:] for line in lines])[1:-1].encode() + b", ")
            writer.write_table(_table(shard.number, lines, schema), row_group_size=len(lines))
            count += 1
        listing = digest.hexdigest()
        named = name_of(listing)
        writer.add_key_value_metadata(
            {
                VERSION_META.decode(): str(SCHEMA_VERSION),
                LISTING_META.decode(): listing,
                FINGERPRINT_META.decode(): named,
                **({FACTS_META.decode(): stated} if facts else {}),
            }
        )
    return Written(count, listing, named)


def read_shards(plan: Path | bytes, wanted: Container[int] | None = None) -> Iterator[Shard]:
    """The shards of a plan in order, one at a time; if `wanted` is given, only those whose numbers are in it.

    Raises OutputFault if the file is not a plan.
    """
    with _opened(plan) as file:
        for number in range(file.num_row_groups):
            if wanted is None or number in wanted:
                yield _shard(number, file.read_row_group(number, use_threads=False))


def shard_count(plan: Path | bytes) -> int:
    """The number of shards of a plan. Raises OutputFault if the file is not a plan."""
    with _opened(plan) as file:
        return int(file.num_row_groups)


def plan_fingerprint(plan: Path | bytes) -> str:
    """The fingerprint of the run that a plan was made for. Raises OutputFault if the file is not a plan."""
    with _opened(plan) as file:
        metadata = file.metadata.metadata or {}
        return bytes(metadata[FINGERPRINT_META]).decode()


def plate_shapes(plan: Path | bytes) -> dict[str, tuple[int, int]]:
    """Rows and columns of those plates of which metadata files state them, by the plates' names.

    Raises OutputFault where the file is not a plan.
    """
    with _opened(plan) as file:
        stated = json.loads((file.metadata.metadata or {}).get(FACTS_META, b"{}"))
    return {
        plate: (facts["rows"], facts["columns"])
        for plate, facts in stated.items()
        if facts["rows"] and facts["columns"]
    }


def _opened(plan: Path | bytes) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(pa.BufferReader(plan) if isinstance(plan, bytes) else plan)
    except (pa.ArrowException, OSError) as error:
        raise OutputFault(f"{PLAN_KEY}: not a readable plan: {error}") from error
    known = any(file.schema_arrow.equals(schema) for schema in _SCHEMAS)
    if not known or FINGERPRINT_META not in (file.metadata.metadata or {}):
        raise OutputFault(f"{PLAN_KEY}: not the plan of this version of cellcount")
    return file


def _lines(planned: PlannedField, schema: pa.Schema) -> Iterator[_Line]:
    key, position = planned.key, planned.position
    where = (key.field_id, key.plate, key.well, key.site, key.timepoint)
    end: _Line = (None, None) if planned.reason is None else (planned.reason.value, planned.detail)
    end += (planned.um_per_px, *((None, None) if position is None else (position.x_um, position.y_um)))
    wanted = len(schema) - 1
    labels = json.dumps(dict(planned.labels)) if planned.labels else None
    if not planned.sources:
        yield (*where, *_NO_SOURCE, *end, None, labels)[:wanted]
    for source in planned.sources:
        parts = [{"key": part.key, "bytes": part.size} for part in source.parts] or None
        file = (source.channel, source.plane, source.key, source.index, source.size, source.etag)
        yield (*where, *file, *end, parts, labels)[:wanted]


def _table(number: int, lines: list[_Line], schema: pa.Schema) -> pa.Table:
    columns = [[number] * len(lines), *zip(*lines, strict=True)]
    arrays = [pa.array(values, type=field.type) for values, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def _shard(number: int, table: pa.Table) -> Shard:
    lines = zip(*(column.to_pylist() for column in table.columns), strict=True)
    return Shard(number, tuple(_planned(list(group)) for _, group in groupby(lines, _field_id)))


def _field_id(line: _Line) -> object:
    return line[1]


def _planned(lines: list[_Line]) -> PlannedField:
    _, _, plate, well, site, timepoint = lines[0][:6]
    reason, detail, *stated = lines[0][12:]
    um_per_px, x_um, y_um = map(_real, stated[:3] or (None, None, None))
    return PlannedField(
        FieldKey(str(plate), str(well), _whole(site), _whole(timepoint)),
        tuple(_source(line) for line in lines if line[8] is not None),
        None if reason is None else Reason(str(reason)),
        "" if detail is None else str(detail),
        um_per_px,
        None if x_um is None or y_um is None else Position(x_um, y_um),
        _labels(lines[0][len(WITH_PARTS) :]),
    )


def _labels(values: _Line) -> tuple[Label, ...]:
    text = values[0] if values else None
    return tuple(json.loads(text).items()) if isinstance(text, str) else ()


def _source(line: _Line) -> Source:
    channel, plane, key, index, size, etag = line[6:12]
    return Source(
        str(channel), _whole(plane), str(key), _whole(index), _whole(size), str(etag), _parts(line[17:])
    )


def _parts(values: _Line) -> tuple[SourcePart, ...]:
    listed = values[0] if values else None
    return (
        tuple(SourcePart(part["key"], part["bytes"]) for part in listed) if isinstance(listed, list) else ()
    )


def _real(value: object) -> float | None:
    assert value is None or isinstance(value, float)
    return value


def _whole(value: object) -> int:
    assert isinstance(value, int)
    return value


_GONE = "it was there when this output was counted before, and is gone"

_Pair = tuple[PlannedField | None, PlannedField | None]


def with_gone(now: Iterable[PlannedField], before: Iterable[Shard]) -> Iterator[PlannedField]:
    """The fields of `now`, and those that had files in the plan `before` and are not in `now`: they are expected, and absent.

    Both must come in key order, and the result does too.
    """
    for old, new in paired(fields_of(before), now):
        if new is not None:
            yield new
        elif old is not None and old.sources:
            yield replace(old, reason=Reason.ABSENT, detail=_detail(old))


def is_gone(planned: PlannedField) -> bool:
    """Whether a field is in its plan only because its files were there once."""
    return planned.reason is Reason.ABSENT and bool(planned.sources) and planned.detail == _detail(planned)


def paired(before: Iterable[PlannedField], now: Iterable[PlannedField]) -> Iterator[_Pair]:
    """Pairs of the fields with the same key, None on the side that has none. Both must come in key order."""
    left, right = iter(before), iter(now)
    old, new = next(left, None), next(right, None)
    while old is not None or new is not None:
        if new is None or (old is not None and old.key < new.key):
            yield old, None
            old = next(left, None)
        elif old is None or new.key < old.key:
            yield None, new
            new = next(right, None)
        else:
            yield old, new
            old, new = next(left, None), next(right, None)


def fields_of(shards: Iterable[Shard]) -> Iterator[PlannedField]:
    """The fields of all shards, in key order."""
    for shard in shards:
        yield from shard.fields


def _detail(planned: PlannedField) -> str:
    return f"{planned.sources[0].key}: {_GONE}"
