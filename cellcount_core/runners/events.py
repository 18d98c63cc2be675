"""What a run tells while it works, how far it has come, and the timings it leaves in `run/timings/`, beside the results and never part of one."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Protocol

from cellcount_core.domain.errors import RunFault
from cellcount_core.domain.fields import Receipt
from cellcount_core.runners.pool import Death, Task
from cellcount_core.stores.base import Store


@dataclass(slots=True)
class Progress:
    """What has been done in this run so far (fields committed by earlier runs are not in it).

    `in_hand` are the fields that are counted and not committed yet. `notes` are those of workers that the user was told.
    """

    shards: int = 0
    objects: int = 0
    pixels: int = 0
    deaths: int = 0
    in_hand: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    notes: set[str] = field(default_factory=set)

    def add(self, receipt: Receipt) -> None:
        """Count a committed shard."""
        self.shards += 1
        self.objects += receipt.objects
        self.pixels += receipt.pixels
        self.statuses.update(receipt.statuses)
        self.reasons.update(receipt.reasons)


class Events(Protocol):
    """Who is told. Called from the driver's thread."""

    def stage(self, text: str) -> None:
        """A new stage of the job began."""
        ...

    def begin(self, fields: int, already: int, run: str) -> None:
        """Counting begins: `fields` expected in all, `already` of them committed by an earlier run; `run` is the fingerprint."""
        ...

    def receipt(self, receipt: Receipt, progress: Progress) -> None:
        """A shard was committed."""
        ...

    def death(self, task: Task, death: Death) -> None:
        """An attempt gave no receipt."""
        ...

    def tick(self, progress: Progress) -> None:
        """About a second passed."""
        ...

    def warn(self, text: str) -> None:
        """Something a user should know."""
        ...


class PassedOn:
    """Passes everything on to `events`; what looks at some of it on the way derives from this."""

    def __init__(self, events: Events) -> None:
        self._events = events

    def stage(self, text: str) -> None:
        """Passed on."""
        self._events.stage(text)

    def begin(self, fields: int, already: int, run: str) -> None:
        """Passed on."""
        self._events.begin(fields, already, run)

    def receipt(self, receipt: Receipt, progress: Progress) -> None:
        """Passed on."""
        self._events.receipt(receipt, progress)

    def death(self, task: Task, death: Death) -> None:
        """Passed on."""
        self._events.death(task, death)

    def tick(self, progress: Progress) -> None:
        """Passed on."""
        self._events.tick(progress)

    def warn(self, text: str) -> None:
        """Passed on."""
        self._events.warn(text)


class Watched(PassedOn):
    """Asks `guards` after each shard and about once a second: what one of them raises ends the run."""

    def __init__(self, events: Events, *guards: Callable[[Progress], None]) -> None:
        super().__init__(events)
        self._guards = guards

    def receipt(self, receipt: Receipt, progress: Progress) -> None:
        """Passed on, then the guards are asked."""
        super().receipt(receipt, progress)
        self._ask(progress)

    def tick(self, progress: Progress) -> None:
        """Passed on, then the guards are asked."""
        super().tick(progress)
        self._ask(progress)

    def _ask(self, progress: Progress) -> None:
        for guard in self._guards:
            guard(progress)


_FILE_SHARDS = 4096
"""Receipts of so many shards make a file, so that a run of any length keeps no more in memory: as text, some 2 MB of it."""


class TimedEvents(PassedOn):
    """Passes events on and writes the receipts and deaths among them, and which runner it was ("ray" or "serial"), to
    `run/timings/<start>-<pid>.json` of `output` (the next files of a long run: `…-1.json`, `…-2.json`).

    Where the output takes no more files, why the run stopped says so, or the reduction's own puts: a second fault here
    would hide the first, so none is raised.
    """

    def __init__(
        self, events: Events, output: Store, runner: str, *, file_shards: int = _FILE_SHARDS
    ) -> None:
        super().__init__(events)
        self._output = output
        self._runner = runner
        self._file_shards = file_shards
        # A receipt as text takes a quarter of what it takes as dicts and floats.
        self._shards: list[str] = []
        self._deaths: list[str] = []
        self._files = 0
        self._began = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())

    def receipt(self, receipt: Receipt, progress: Progress) -> None:
        """Kept and passed on."""
        self._shards.append(json.dumps({**asdict(receipt), "commit": receipt.commit.value}))
        if len(self._shards) >= self._file_shards:
            self.flush()
        self._events.receipt(receipt, progress)

    def death(self, task: Task, death: Death) -> None:
        """Kept and passed on."""
        lost = {
            "shard": task.shard.number,
            "mode": task.mode.value,
            "reason": death.reason.value,
            "detail": death.detail,
        }
        self._deaths.append(json.dumps(lost))
        self._events.death(task, death)

    def flush(self) -> None:
        """Write what is kept, if there is any, and forget it."""
        if not self._shards and not self._deaths:
            return
        shards, deaths = (", ".join(texts) for texts in (self._shards, self._deaths))
        began, runner = json.dumps(self._began), json.dumps(self._runner)
        record = f'{{"began": {began}, "runner": {runner}, "shards": [{shards}], "deaths": [{deaths}]}}\n'
        with suppress(RunFault):
            name = f"{self._began}-{os.getpid()}" + (f"-{self._files}" if self._files else "")
            self._output.put(f"run/timings/{name}.json", record.encode())
        self._files += 1
        self._shards, self._deaths = [], []
