"""The ledger of a nightly (the table of tables): what became of every plate and every content of it, night by
night.

It is a series of files that never change, `nights/ledger/000001.json` and so on, one for each event, each
created by a conditional put. Their numbers are their order; no clock is used. `nights/datasets.parquet`
and `.csv` are views of it and are rewritten whole.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum

import pyarrow as pa
import pyarrow.parquet as pq

from cellcount_core.domain.errors import LedgerFault, OutputFault
from cellcount_core.stores.base import Absent, Created, Denied, Store

LEDGER = "nights/ledger"
DATASETS = "nights/datasets"
_AHEAD = 32


class PlateStatus(StrEnum):
    """What became of a content of a plate."""

    COUNTED = "counted"
    FAILED = "failed"
    LATE = "late"
    LEFT = "left"
    SUPERSEDED = "superseded"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the ledger. The names of its fields and of its statistics are the columns of
    datasets.parquet.

    - `plate`: its path below the root, or "<path>@<root>" if another root has a plate at that path too.
    - `source`: the URL of its folder, which may change when a root is moved.
    - `content`: its content identity. `output`: the folder of its tables, below the nightly's output.
    - `fields`, `ok`, `failed`, `missing`, `skipped`: numbers of fields in all and by status; None if nothing was counted.
    - `fields_now`: the fields that were counted in this night; the others had been counted by a night that was cut short.
    - `started`: when counting began; for `late`, when this content was first seen. `seconds`: how long this night took for it.
    - `detail`: what became of it, and of the fields that were not counted.
    - `doubts`: what its plan and its rows warn of, one sentence a line.
    - `doubt`: the code of what is doubtful about the plate as a whole (`doubt` in plates.parquet).
    - `extends`: if the plate only gained wells, the content to whose tables this output adds those wells; all numbers are then those of the added wells.
    - `statistics`: what the plate's task counted and what is watched, by name.
    """

    night: str
    plate: str
    source: str
    content: str
    status: PlateStatus
    started: str
    detail: str = ""
    output: str = ""
    fingerprint: str = ""
    extends: str = ""
    doubts: str = ""
    doubt: str = ""
    files: int = 0
    bytes: int = 0
    fields: int | None = None
    ok: int | None = None
    failed: int | None = None
    missing: int | None = None
    skipped: int | None = None
    fields_now: int | None = None
    statistics: Mapping[str, int | float | None] = field(default_factory=dict, hash=False)
    seconds: float | None = None

    def plain(self) -> dict[str, object]:
        """As plain data, with each statistic under its own name."""
        data = asdict(self)
        ended = {"seconds": data.pop("seconds")}
        return {**data, **data.pop("statistics"), **ended}


def _schema(events: Iterable[Event]) -> pa.Schema:
    """The columns of datasets.parquet: those that every event has, and the statistics of these events."""
    kinds: dict[str, pa.DataType] = {}
    for event in events:
        for name, value in event.statistics.items():
            kinds.setdefault(name, pa.int64())
            if isinstance(value, float):
                kinds[name] = pa.float64()
    statistics = [pa.field(name, kind) for name, kind in kinds.items()]
    return pa.schema([*_COLUMNS, *statistics, pa.field("seconds", pa.float64())])


_COLUMNS = (
        *(
            pa.field(name, pa.string(), nullable=False)
            for name in ("night", "plate", "source", "content", "status", "started", "detail", "output", "fingerprint", "extends", "doubts", "doubt")
        ),
        *(pa.field(name, pa.int64(), nullable=False) for name in ("files", "bytes")),
        *(
            pa.field(name, pa.int64())
            for name in ("fields", "ok", "failed", "missing", "skipped", "fields_now")
        ),
)  # fmt: skip


class Ledger:
    """The events of one nightly's output, in order. They are added with `append` only."""

    def __init__(self, store: Store) -> None:
        """Read all events. Raises LedgerFault if a number is missing or a file is not an event."""
        self._store = store
        self.events: list[Event] = []
        self._of: dict[str, list[Event]] = {}
        for event in _read(store):
            self._note(event)

    def append(self, event: Event) -> None:
        """Add `event` under the next number. Raises OutputFault if another night took that number: only one
        may work on an output at a time.
        """
        key, body = _key(len(self.events) + 1), _body(event)
        if self._store.put_new(key, body) is Created.EXISTS and self._store.get(key) != body:
            raise OutputFault(
                f"{self._store.url}: {key} was written by another night; only one may work on this output at a time"
            )
        self._note(event)

    def _note(self, event: Event) -> None:
        self.events.append(event)
        self._of.setdefault(event.plate, []).append(event)

    def states(self, plate: str) -> list[Event]:
        """As `current`, for one plate."""
        return current(self._of.get(plate, ()))

    def live(self, plate: str) -> list[Event]:
        """As the function `live`, for the plate of this name."""
        return live(self._of.get(plate, ()))

    def known(self, path: str) -> dict[str, list[Event]]:
        """The plates that lay at `path` below some root, by name, each with its current events."""
        return {
            plate: current(events)
            for plate, events in self._of.items()
            if (plate == path or plate.startswith(f"{path}@")) and events[-1].source.endswith(f"/{path}")
        }

    def current(self) -> list[Event]:
        """The last event of each plate and content, sorted by plate. Contents that were late, left or failed
        are dropped once the plate has another content.
        """
        return current(self.events)

    def write_views(self) -> None:
        """Rewrite datasets.parquet and datasets.csv with the current state."""
        events = self.current()
        schema = _schema(events)
        table = pa.Table.from_pylist([event.plain() for event in events], schema=schema)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        self._store.put(f"{DATASETS}.parquet", sink.getvalue().to_pybytes())
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(schema.names)
        writer.writerows([row[name] for name in schema.names] for row in table.to_pylist())
        self._store.put(f"{DATASETS}.csv", text.getvalue().encode())


def current(events: Sequence[Event]) -> list[Event]:
    """See Ledger.current."""
    plates: dict[str, dict[str, Event]] = {}
    lasting = {PlateStatus.COUNTED, PlateStatus.SUPERSEDED, PlateStatus.DELETED}
    for event in events:
        known = plates.setdefault(event.plate, {})
        plates[event.plate] = {
            content: old
            for content, old in known.items()
            if old.status in lasting and content != event.content
        } | {event.content: event}
    return [event for _, known in sorted(plates.items()) for event in known.values()]


def live(events: Sequence[Event]) -> list[Event]:
    """Those events of one plate whose outputs together are the plate as it was counted last: one event, and
    one more for each time the plate gained wells.
    """
    counted = {event.content: event for event in current(events) if event.status is PlateStatus.COUNTED}
    chain: list[Event] = []
    following = list(counted)[-1:]
    while following and (event := counted.pop(following[0], None)) is not None:
        chain.insert(0, event)
        following = [event.extends] if event.extends else []
    return chain


def _key(number: int) -> str:
    return f"{LEDGER}/{number:06d}.json"


def _body(event: Event) -> bytes:
    return (json.dumps(event.plain(), ensure_ascii=False, allow_nan=False) + "\n").encode()


def _read(store: Store) -> Iterable[Event]:
    keys = sorted(
        (one.key for batch in store.list(LEDGER) for one in batch if one.key.endswith(".json")),
        key=lambda key: (len(key), key),
    )
    expected = [_key(number + 1) for number in range(len(keys))]
    if keys != expected:
        odd = next(there for there, should in zip(keys, expected, strict=True) if there != should)
        raise LedgerFault(
            f"{store.url}: {odd} is out of turn; a line of the table of tables was removed or added by hand"
        )
    for key, body in store.get_many(keys, ahead=_AHEAD):
        if isinstance(body, Absent | Denied):
            raise LedgerFault(f"{store.url}: {key} cannot be read: {body}")
        yield _parse(store, key, body)


def _parse(store: Store, key: str, body: bytes) -> Event:
    known = {one.name for one in fields(Event)}
    try:
        data = json.loads(body)
        # Numbers of other names are statistics, of whatever was counted; what else a later version may write is left alone.
        values = {name: value for name, value in data.items() if name in known}
        statistics = {
            name: value
            for name, value in data.items()
            if name not in known and (value is None or isinstance(value, int | float))
        }
        return Event(**{**values, "status": PlateStatus(values["status"]), "statistics": statistics})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise LedgerFault(f"{store.url}: {key} is not an event of the table of tables: {error}") from None
