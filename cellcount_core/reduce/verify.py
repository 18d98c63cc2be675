"""The proof of the ledger: the plan joined with the parts, every digest, every row count, every reduced table.

Findings are collected and not raised, so that one report names everything that is wrong. A run without findings has every planned field
exactly once, each object in a field that counts it, and the tables that a fresh reduction gives.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

import pyarrow as pa
import pyarrow.parquet as pq

from cellcount_core.domain.columns import (
    FIELD_ID,
    MOMENTS,
    OBJECT_NUMBER,
    REASON,
    STATUS,
    WARNINGS,
    Column,
    Merge,
    Null,
    Schema,
)
from cellcount_core.domain.doubts import code_of, unknown_codes
from cellcount_core.domain.errors import LedgerFault, Reason, Status
from cellcount_core.domain.fields import FieldKey
from cellcount_core.output.parts import (
    READY,
    UPDATE,
    FieldsPart,
    fields_key,
    half_updated,
    object_counts,
    objects_key,
    read_fields_part,
    strangers,
)
from cellcount_core.output.planfile import PLAN_KEY
from cellcount_core.output.rows import KEY_COLUMNS, object_digests
from cellcount_core.output.runfile import RunFile, read_run
from cellcount_core.output.schema import (
    FINGERPRINT_KEY,
    TableName,
    misfits,
    read_table_bytes,
    schema_texts,
    table_bytes,
    table_schema,
)
from cellcount_core.reduce.ledger import check_identity
from cellcount_core.reduce.reducer import SUMMARY_JSON_KEY, reduce_tables
from cellcount_core.reduce.summary import summary_json, told_doubts
from cellcount_core.stores.base import Absent, Denied, Store

SHOWN = 100
"""Findings that a report holds; more are only counted."""

_AHEAD = 4
_PARQUET = ".parquet"

_Body = bytes | Absent | Denied


@dataclass(frozen=True, slots=True)
class Finding:
    """One contradiction: the file in which it was found, and what is wrong there."""

    key: str
    what: str

    def __str__(self) -> str:
        return f"{self.key}: {self.what}"


@dataclass(slots=True)
class VerifyReport:
    """What was compared and what was found wrong. `findings` holds the first SHOWN of `found`.

    `fields` counts the planned fields, `statuses` the rows in the parts, and `warnings` those that warn, by code. `told` are the warnings in
    words. `objects` is None for a task without objects.
    """

    fields: int = 0
    shards: int = 0
    objects: int | None = None
    statuses: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)
    told: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    found: int = 0

    @property
    def proven(self) -> bool:
        """Whether nothing was found wrong."""
        return self.found == 0

    def add(self, key: str, what: str) -> None:
        """Note a finding."""
        self.found += 1
        if len(self.findings) < SHOWN:
            self.findings.append(Finding(key, what))


@dataclass(frozen=True, slots=True)
class _Planned:
    """One field of the plan: its key columns, and the reason by which it was known not to be countable."""

    key: tuple[object, ...]
    reason: str | None


def verify(store: Store) -> VerifyReport:
    """Prove the output in `store`. Every part is read once; a few are held at a time.

    Raises OutputFault if `store` holds no run, LedgerFault if the plan cannot be read, so that there is nothing to compare with.
    """
    run = read_run(store)
    shards, objects = run.numbers.shards, bool(run.schema.objects)
    report = VerifyReport(shards=shards, objects=0 if objects else None)
    keys = [
        key
        for number in range(shards)
        for key in (fields_key(number), *([objects_key(number)] if objects else []))
    ]
    bodies = store.get_many(keys, ahead=_AHEAD)
    named: list[str] = []
    for number, planned in enumerate(_plan(store, run, report)):
        fields_at, fields_body = next(bodies)
        objects_body = next(bodies)[1] if objects else None
        report.fields += len(planned)
        part = _part(report, run, number, fields_at, fields_body)
        if part is None:
            continue
        counts = _check_fields(report, run.schema, part, planned)
        if objects_body is None:
            continue
        named.append(part.objects_key)
        if part.objects_key != objects_key(number):
            objects_body = _get(store, part.objects_key)
        _check_objects(report, run, part, counts, objects_body)
    if report.fields != run.numbers.fields:
        report.add(PLAN_KEY, f"plans {report.fields} fields, run.json names {run.numbers.fields}")
    if report.statuses.total() != report.fields:
        terms = " + ".join(f"{report.statuses[status.value]} {status.value}" for status in Status)
        report.add(PLAN_KEY, f"{report.fields} fields expected, the parts hold {terms}")
    for key in strangers(store, named, shards):
        report.add(key, "does not belong to this run; a reader of the folder would count it too")
    _check_reduced(report, store)
    if not report.proven and (why := half_updated(store)):
        report.findings.insert(0, Finding(f"{UPDATE}/{READY}", why.removeprefix("; ")))
        report.found += 1
    return report


def _plan(store: Store, run: RunFile, report: VerifyReport) -> Iterator[list[_Planned]]:
    """The planned fields of each shard of the run, in order."""
    body = _get(store, PLAN_KEY)
    if not isinstance(body, bytes):
        raise LedgerFault(f"{store.url}: {body}; without the plan nothing can be proven")
    if hashlib.sha256(body).hexdigest() != run.plan_sha256:
        report.add(PLAN_KEY, "was changed: its SHA-256 is not the one that run.json names")
    columns = ["shard", *KEY_COLUMNS, REASON.name]
    try:
        file = pq.ParquetFile(pa.BufferReader(body))
        if file.num_row_groups != run.numbers.shards:
            report.add(PLAN_KEY, f"holds {file.num_row_groups} shards, run.json names {run.numbers.shards}")
        for number in range(run.numbers.shards):
            rows = (
                file.read_row_group(number, columns=columns, use_threads=False)
                if number < file.num_row_groups
                else None
            )
            yield _planned(report, number, rows)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise LedgerFault(f"{store.url}: {PLAN_KEY} is not a readable plan: {error}") from error


def _planned(report: VerifyReport, number: int, rows: pa.Table | None) -> list[_Planned]:
    if rows is None:
        return []
    if set(rows.column("shard").to_pylist()) != {number}:
        report.add(PLAN_KEY, f"row group {number} is not that of shard {number}")
    lines = zip(_rows(rows, KEY_COLUMNS), rows.column(REASON.name).to_pylist(), strict=True)
    return [_Planned(key, reason) for (key, reason), _ in groupby(lines)]


def _get(store: Store, key: str) -> _Body:
    try:
        return store.get(key)
    except (Absent, Denied) as error:
        return error


def _part(report: VerifyReport, run: RunFile, number: int, key: str, body: _Body) -> FieldsPart | None:
    """The fields part, if it can be compared at all."""
    if not isinstance(body, bytes):
        report.add(key, "is not there: the shard is not counted yet; run the same command again")
        return None
    try:
        part = read_fields_part(key, body)
    except LedgerFault as fault:
        report.add(key, str(fault).removeprefix(f"{key}: "))
        return None
    try:
        check_identity(part, run, number)
    except LedgerFault as fault:
        report.add(key, str(fault).removeprefix(f"{key}: "))
    wrong = list(misfits(part.table, table_schema(TableName.FIELDS, run.schema, run.fingerprint)))
    for what in wrong:
        report.add(key, what)
    return None if wrong else part


def _check_fields(
    report: VerifyReport, schema: Schema, part: FieldsPart, planned: Sequence[_Planned]
) -> list[int]:
    """Compare the rows of a part with the plan and with themselves; returns how many objects each has."""
    keys = list(_rows(part.table, KEY_COLUMNS))
    statuses, reasons, warned = (
        part.table.column(column.name).to_pylist() for column in (STATUS, REASON, WARNINGS)
    )
    _check_keys(report, part.key, keys, [field.key for field in planned])
    by_reason = {field.key: field.reason for field in planned}
    report.statuses.update(statuses)
    for key, warnings in zip(keys, warned, strict=True):
        report.warnings.update({code_of(warning) for warning in warnings})
        for unknown in unknown_codes(warnings):
            report.add(part.key, f"{_name(key)}: warning {unknown!r} is unknown to this version")
    counts = object_counts(part.table, schema.object_count)
    rules = [column for column in schema.fields if column.null is Null.UNLESS_OK]
    values = [part.table.column(column.name).to_pylist() for column in rules]
    measured = [
        part.table.column(f"{MOMENTS[0]}_{column.name}").to_pylist()
        for column in schema.measured
        if column.required
    ]
    for index, (key, status, reason) in enumerate(zip(keys, statuses, reasons, strict=True)):
        row = dict(zip(rules, (column[index] for column in values), strict=True))
        for what in _contradictions(status, reason, by_reason.get(key), row):
            report.add(part.key, f"{_name(key)}: {what}")
        odd = {each[index] or 0 for each in measured} - {counts[index]}
        if odd:
            report.add(part.key, f"{_name(key)}: counts {counts[index]}, but measured {min(odd)} objects")
    return counts


def _check_keys(
    report: VerifyReport,
    part: str,
    found: Sequence[tuple[object, ...]],
    expected: Sequence[tuple[object, ...]],
) -> None:
    before = report.found
    times = Counter(found)
    for key in expected:
        if times[key] != 1:
            report.add(part, f"{_name(key)}: planned once, has {times[key]} rows")
    known = set(expected)
    for key in times:
        if key not in known:
            report.add(part, f"{_name(key)}: is not planned for this shard")
        elif FieldKey(str(key[0]), str(key[1]), _whole(key[2]), _whole(key[3])).field_id != key[4]:
            report.add(part, f"{_name(key)}: field_id {key[4]} is not that of its key")
    if report.found == before and list(found) != list(expected):
        report.add(part, "its rows are not in the order of the plan")


def _contradictions(
    status: str, reason: str | None, planned_reason: str | None, values: Mapping[Column, object]
) -> Iterator[str]:
    """What is wrong with a row; `values` are those that are null unless a field is ok."""
    if reason is not None and reason not in {known.value for known in Reason}:
        yield f"reason {reason!r} is unknown to this version"
        return
    implied = Status.OK if reason is None else Reason(reason).status
    if status != implied.value:
        yield f"status {status} does not go with reason {reason}, which is {implied.value}"
    for column, value in values.items():
        if (status == Status.OK.value) != (value is not None):
            yield f"status {status} does not go with {column.name} {value}"
        if column.merge is Merge.COUNT and isinstance(value, int) and value < 0:
            yield f"{column.name} {value} is below 0"
    if planned_reason is not None and reason != planned_reason:
        yield f"was planned as {planned_reason}, but has reason {reason}"


def _check_objects(
    report: VerifyReport, run: RunFile, part: FieldsPart, counts: Sequence[int], body: _Body
) -> None:
    key = part.objects_key
    if not isinstance(body, bytes):
        report.add(key, f"is not there, and {part.key} names it")
        return
    if hashlib.sha256(body).hexdigest() != part.objects_sha256:
        report.add(key, f"was changed: its SHA-256 is not the one that {part.key} names")
    try:
        table = read_table_bytes(key, body)
    except LedgerFault as fault:
        report.add(key, str(fault).removeprefix(f"{key}: "))
        return
    found = schema_texts(table.schema).get(FINGERPRINT_KEY, "")
    if found != run.fingerprint:
        report.add(key, f"belongs to run {found[:12]}, this output to run {run.fingerprint[:12]}")
    wrong = list(misfits(table, table_schema(TableName.OBJECTS, run.schema, run.fingerprint)))
    for what in wrong:
        report.add(key, what)
    if wrong:
        return
    report.objects = (report.objects or 0) + table.num_rows
    if _check_numbers(report, part, table, counts):
        fields = part.table.column(FIELD_ID.name).to_pylist()
        digests = zip(fields, part.object_digests, object_digests(table, counts), strict=True)
        for field_id, named, computed in digests:
            if named != computed:
                report.add(
                    key, f"field {field_id}: its objects are not those that {part.key} was written with"
                )


def _check_numbers(report: VerifyReport, part: FieldsPart, table: pa.Table, counts: Sequence[int]) -> bool:
    """Whether the objects are those of the fields, 1..n each, in their order."""
    keys: Iterator[tuple[object, ...]] = _rows(table, KEY_COLUMNS)
    numbers: dict[tuple[object, ...], list[object]] = {}
    for key, number in zip(keys, table.column(OBJECT_NUMBER.name).to_pylist(), strict=True):
        numbers.setdefault(key, []).append(number)
    expected = dict(zip(_rows(part.table, KEY_COLUMNS), counts, strict=True))
    if len(expected) != len(counts):
        # A field stands twice, which was found before: its objects cannot be told apart.
        return False
    before = report.found
    for key, count in expected.items():
        got = numbers.get(key, [])
        if len(got) != count:
            report.add(part.objects_key, f"{_name(key)}: has {len(got)} objects, its field counts {count}")
        elif got != list(range(1, count + 1)):
            report.add(part.objects_key, f"{_name(key)}: its objects are not numbered 1 to {count} in order")
    for key in numbers:
        if key not in expected:
            report.add(part.objects_key, f"{_name(key)}: has objects, but no row in {part.key}")
    if report.found == before and list(numbers) != [key for key, count in expected.items() if count]:
        report.add(part.objects_key, "its rows are not in the order of the fields")
    return report.found == before


def _check_reduced(report: VerifyReport, store: Store) -> None:
    try:
        fresh = reduce_tables(store)
    except LedgerFault as fault:
        if report.proven:
            report.add("fields", str(fault).removeprefix(f"{store.url}: "))
        return
    report.told = told_doubts(fresh.summary)
    digests = dict(fresh.summary.digests)
    for key, body in fresh.files.items():
        standing = _get(store, key)
        if key == SUMMARY_JSON_KEY:
            # It names the bytes of the tables as they stand, which come before it.
            body = summary_json(replace(fresh.summary, digests=digests))  # noqa: PLW2901
            if isinstance(standing, bytes):
                _check_warnings(report, standing)
        if not isinstance(standing, bytes):
            report.add(key, "is not there; run `cellcount reduce`")
        elif _same_values(key, standing, body):
            digests[key.removesuffix(_PARQUET)] = hashlib.sha256(standing).hexdigest()
        elif standing != body:
            report.add(key, "is not what the parts reduce to; `cellcount reduce` writes it again")


def _same_values(key: str, standing: bytes, fresh: bytes) -> bool:
    """Whether two files hold the same table though two versions of the Parquet library wrote them.

    False for files that one version wrote: those are the same byte for byte, or one of them was changed.
    """
    if not key.endswith(_PARQUET):
        return False
    try:
        # Written again by the present library: unlike a comparison of tables this takes NaN for itself.
        return _writer(standing) != _writer(fresh) and table_bytes(read_table_bytes(key, standing)) == fresh
    except (LedgerFault, pa.ArrowException, ValueError, OSError):
        return False


def _writer(body: bytes) -> str:
    """Name and version of the library that wrote a Parquet file."""
    return str(pq.read_metadata(pa.BufferReader(body)).created_by)


def _check_warnings(report: VerifyReport, summary: bytes) -> None:
    try:
        said = dict(json.loads(summary)["warnings"])
    except (ValueError, KeyError, TypeError) as error:
        report.add(SUMMARY_JSON_KEY, f"does not count the warnings: {error!r}")
        return
    for code in sorted({*said, *report.warnings}):
        if said.get(code, 0) != report.warnings[code]:
            what = f"{said.get(code, 0)} fields that warn of {code}, the rows have {report.warnings[code]}"
            report.add(SUMMARY_JSON_KEY, f"counts {what}")


def _rows(table: pa.Table, names: Sequence[str]) -> Iterator[tuple[object, ...]]:
    return zip(*(table.column(name).to_pylist() for name in names), strict=True)


def _name(key: tuple[object, ...]) -> str:
    plate, well, site, timepoint, _ = key
    return f"plate {plate}, well {well}, site {site}, time point {timepoint}"


def _whole(value: object) -> int:
    assert isinstance(value, int)
    return value
