"""The fields parts of an output in order, each proven to be one of its run."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import dropwhile

from cellcount_core.domain.errors import LedgerFault
from cellcount_core.output.parts import (
    FieldsPart,
    committed_parts,
    fields_key,
    half_updated,
    measures_of,
    read_fields_part,
    rows_digest,
)
from cellcount_core.output.runfile import RunFile
from cellcount_core.stores.base import Store

_AHEAD = 8
_NAMED = 5


def uncommitted(store: Store, shards: int) -> list[int]:
    """Numbers of the shards that are not committed, in order; empty only if all are.

    One listing is made. Listings may lag behind puts, so the parts that it lacks are looked up one by one, up to the first that is really
    not there; for those after it the listing is trusted.
    """
    listed = committed_parts(store)
    unlisted = (number for number in range(shards) if number not in listed)
    return list(dropwhile(lambda number: store.size_of(fields_key(number)) is not None, unlisted))


def fields_parts(store: Store, run: RunFile) -> Iterator[FieldsPart]:
    """The fields parts of all shards in order, which is the order of keys. A few are held in memory at a time.

    Raises LedgerFault if a shard is not counted yet, or if a part is damaged or belongs to another run or shard.
    """
    lacking = uncommitted(store, run.numbers.shards)
    if lacking:
        some = ", ".join(fields_key(number) for number in lacking[:_NAMED]) + (
            ", …" if len(lacking) > _NAMED else ""
        )
        raise LedgerFault(
            f"{store.url}: {len(lacking)} of {run.numbers.shards} shards are not counted yet ({some}); run the same command again"
        )
    keys = [fields_key(number) for number in range(run.numbers.shards)]
    for number, (key, body) in enumerate(store.get_many(keys, ahead=_AHEAD)):
        if not isinstance(body, bytes):
            raise LedgerFault(f"{store.url}: {body}")
        part = read_fields_part(key, body)
        try:
            check_identity(part, run, number)
        except LedgerFault as fault:
            raise LedgerFault(f"{fault}{half_updated(store)}") from None
        yield part


def check_identity(part: FieldsPart, run: RunFile, number: int) -> None:
    """Raises LedgerFault if a part does not belong to shard `number` of `run`, or if its rows were changed."""
    if part.fingerprint != run.fingerprint:
        raise LedgerFault(
            f"{part.key}: belongs to run {part.fingerprint[:12]}, this output to run {run.fingerprint[:12]}"
        )
    if part.number != number:
        raise LedgerFault(f"{part.key}: holds shard {part.number}, expected {number}")
    if part.measures != (expected := measures_of(run.schema)):
        raise LedgerFault(f"{part.key}: measures {part.measures}, the run {expected}")
    if rows_digest(part.table) != part.rows_sha256:
        raise LedgerFault(f"{part.key}: was changed: its rows are not those it was written with")
