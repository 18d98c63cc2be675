"""What an output folder says of itself: the run it belongs to, and its fields parts in order."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import dropwhile

from cellcount_core.domain.columns import SCHEMA_VERSION, Features
from cellcount_core.domain.errors import LedgerFault, OutputFault
from cellcount_core.stores.base import Absent, Denied, Store
from cellcount_core.tables.parts import (
    FieldsPart,
    committed_parts,
    fields_key,
    half_updated,
    read_fields_part,
    rows_digest,
)

RUN_KEY = "run/run.json"
_AHEAD = 8
_NAMED = 5


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What the tables need to know of a run; `plan_sha256` is that of run/plan.parquet.

    `model` is the name of its package, `noun` what its fields are called: images where the layout knows no wells.
    """

    fingerprint: str
    features: Features
    shards: int
    fields: int
    plan_sha256: str
    model: str
    noun: str


def read_run(store: Store) -> RunInfo:
    """The run that the output in `store` belongs to.

    Raises OutputFault where there is none, or one of another schema version.
    """
    try:
        body = store.get(RUN_KEY)
    except (Absent, Denied) as error:
        raise OutputFault(
            f"{store.url}: is not the output of a run, {RUN_KEY} cannot be read ({error}); expected the OUTPUT of `cellcount count`"
        ) from error
    try:
        data = json.loads(body)
        version = int(data["schema_version"])
        features, numbers = data["features"], data["numbers"]
        info = RunInfo(
            fingerprint=str(data["fingerprint"]),
            features=Features(
                str(features["object_name"]), tuple(str(name) for name in features["channels"])
            ),
            shards=int(numbers["shards"]),
            fields=int(numbers["fields"]),
            plan_sha256=str(data["plan_sha256"]),
            model=str(data["model"]["name"]),
            noun="image" if data["run"].get("layout", {}).get("kind") == "flat" else "field",
        )
    except (ValueError, KeyError, TypeError) as error:
        raise OutputFault(
            f"{store.url}: {RUN_KEY} is not a run file of this version of cellcount: {error!r}"
        ) from error
    if version != SCHEMA_VERSION:
        raise OutputFault(
            f"{store.url}: written with schema version {version}, this cellcount reads version {SCHEMA_VERSION}"
        )
    return info


def uncommitted(store: Store, shards: int) -> list[int]:
    """Numbers of the shards that are not committed, in order; empty only where all are.

    One listing. Listings may lag behind puts, so the parts that it lacks are looked at one by one, up to the first that is not
    there; of those behind that one the listing is believed.
    """
    listed = committed_parts(store)
    unlisted = (number for number in range(shards) if number not in listed)
    return list(dropwhile(lambda number: store.size_of(fields_key(number)) is not None, unlisted))


def fields_parts(store: Store, run: RunInfo) -> Iterator[FieldsPart]:
    """The fields parts of all shards in order, which is the order of keys; a few are held at a time.

    Raises LedgerFault where a shard is not counted yet, or a part is damaged or belongs to another run or shard.
    """
    lacking = uncommitted(store, run.shards)
    if lacking:
        some = ", ".join(fields_key(number) for number in lacking[:_NAMED]) + (
            ", …" if len(lacking) > _NAMED else ""
        )
        raise LedgerFault(
            f"{store.url}: {len(lacking)} of {run.shards} shards are not counted yet ({some}); run the same command again"
        )
    keys = [fields_key(number) for number in range(run.shards)]
    for number, (key, body) in enumerate(store.get_many(keys, ahead=_AHEAD)):
        if not isinstance(body, bytes):
            raise LedgerFault(f"{store.url}: {body}")
        part = read_fields_part(key, body)
        try:
            check_identity(part, run, number)
        except LedgerFault as fault:
            raise LedgerFault(f"{fault}{half_updated(store)}") from None
        yield part


def check_identity(part: FieldsPart, run: RunInfo, number: int) -> None:
    """Raise LedgerFault where a part does not belong to shard `number` of `run`, or its rows were changed."""
    if part.fingerprint != run.fingerprint:
        raise LedgerFault(
            f"{part.key}: belongs to run {part.fingerprint[:12]}, this output to run {run.fingerprint[:12]}"
        )
    if part.number != number:
        raise LedgerFault(f"{part.key}: holds shard {part.number}, expected {number}")
    if part.features != run.features:
        raise LedgerFault(f"{part.key}: measures {part.features}, the run {run.features}")
    if rows_digest(part.table) != part.rows_sha256:
        raise LedgerFault(f"{part.key}: was changed: its rows are not those it was written with")
