"""The table of tables: what became of every plate and content, night by night.

It is a series of immutable files, `nights/ledger/000001.json` and up, one an event, each made by conditional put. Their
numbers are their order; no clock is asked. `nights/datasets.parquet` and `.csv` are views of it, replaced whole.
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
    """What became of a plate's content."""

    COUNTED = "counted"
    FAILED = "failed"
    LATE = "late"
    LEFT = "left"
    SUPERSEDED = "superseded"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the ledger; field names, and those of its statistics, are the columns of datasets.parquet.

    `plate` names the plate: its path below the root, "<path>@<root>" where another root has a plate there too. `source` is where it
    lay (URL of its folder), which may change when a root is moved. `content` is its content identity, `output` the folder of its tables
    below the nightly's output. Fields are counted by status; numbers are None where nothing was counted. `started` is when
    counting began, for `late` when this content was first seen. `seconds` and `fields_now` are of this night alone:
    `detail` says what became of it and of fields that were not counted, `doubts` what its plan and its rows warn of, a line a sentence,
    `doubt` is the code of what is doubtful about the plate as a whole (`doubt` in plates.parquet).
    `fields_now` were counted in it, the others had been by a night that was cut short. Where a plate only gained wells,
    `extends` is the content whose tables this output adds those wells to, and the numbers are those of the added wells. `statistics`
    are what the plate's task counted and what is watched, by name.
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
        """As plain data, each statistic by its own name."""
        data = asdict(self)
        ended = {"seconds": data.pop("seconds")}
        return {**data, **data.pop("statistics"), **ended}


def _schema(events: Iterable[Event]) -> pa.Schema:
    """The columns of datasets.parquet: those of every event, and the statistics of these."""
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
    """The events of one nightly's output, in order; `append` is the only way to add one."""

    def __init__(self, store: Store) -> None:
        """Read all there is. Raises LedgerFault for a number that is missing or a file that is no event."""
        self._store = store
        self.events: list[Event] = []
        self._of: dict[str, list[Event]] = {}
        for event in _read(store):
            self._note(event)

    def append(self, event: Event) -> None:
        """Commit `event` under the next number. Raises OutputFault where somebody else took it: two nights at once."""
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
        """As `current`, of one plate."""
        return current(self._of.get(plate, ()))

    def live(self, plate: str) -> list[Event]:
        """See the function of this name."""
        return live(self._of.get(plate, ()))

    def known(self, path: str) -> dict[str, list[Event]]:
        """The plates that lay at `path` below some root, by name, each with what is current of it."""
        return {
            plate: current(events)
            for plate, events in self._of.items()
            if (plate == path or plate.startswith(f"{path}@")) and events[-1].source.endswith(f"/{path}")
        }

    def current(self) -> list[Event]:
        """The last event of each plate and content, by plate; what was late, left or failed is gone once the content changed."""
        return current(self.events)

    def write_views(self) -> None:
        """Replace datasets.parquet and datasets.csv by the state of now."""
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
    """Of one plate's events those whose outputs together are the plate as counted last: one, and one a time it gained wells."""
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
        raise LedgerFault(f"{store.url}: {key} is no event of the table of tables: {error}") from None
