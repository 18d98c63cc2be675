"""What a run tells while it works, its progress so far, and the timings that it writes to `run/timings/`.
Timings are never part of a result.
"""

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
from cellcount_core.runners.pool import Death, ShardTask
from cellcount_core.stores.base import Store


@dataclass(slots=True)
class Progress:
    """What this run has done so far, without the fields that earlier runs committed.

    `in_hand` are the fields that are counted but not committed yet. `notes` are the workers' notes that
    the user was already shown.
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
        """Add a committed shard."""
        self.shards += 1
        self.objects += receipt.objects
        self.pixels += receipt.pixels
        self.statuses.update(receipt.statuses)
        self.reasons.update(receipt.reasons)


class Events(Protocol):
    """Whoever is told what happens. All methods are called from the driver's thread."""

    def stage(self, text: str) -> None:
        """A new stage of the job began."""
        ...

    def begin(self, fields: int, already: int, run: str) -> None:
        """Counting begins. `fields` are expected in all, and `already` of them were committed by an earlier
        run; `run` is the fingerprint.
        """
        ...

    def receipt(self, receipt: Receipt, progress: Progress) -> None:
        """A shard was committed."""
        ...

    def death(self, task: ShardTask, death: Death) -> None:
        """An attempt ended without a receipt."""
        ...

    def tick(self, progress: Progress) -> None:
        """About a second has passed."""
        ...

    def warn(self, text: str) -> None:
        """Something that a user should know."""
        ...


class PassedOn:
    """Passes every event on to `events`. Classes that look at some events on the way derive from it."""

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

    def death(self, task: ShardTask, death: Death) -> None:
        """Passed on."""
        self._events.death(task, death)

    def tick(self, progress: Progress) -> None:
        """Passed on."""
        self._events.tick(progress)

    def warn(self, text: str) -> None:
        """Passed on."""
        self._events.warn(text)


class Watched(PassedOn):
    """Calls the `guards` after each shard and about once a second. An exception that one of them raises ends the run."""

    def __init__(self, events: Events, *guards: Callable[[Progress], None]) -> None:
        super().__init__(events)
        self._guards = guards

    def receipt(self, receipt: Receipt, progress: Progress) -> None:
        """Passed on; then the guards are called."""
        super().receipt(receipt, progress)
        self._ask(progress)

    def tick(self, progress: Progress) -> None:
        """Passed on; then the guards are called."""
        super().tick(progress)
        self._ask(progress)

    def _ask(self, progress: Progress) -> None:
        for guard in self._guards:
            guard(progress)


_FILE_SHARDS = 4096
"""Receipts of so many shards make a file, so that a run of any length keeps no more in memory: as text, some 2 MB of it."""


class TimedEvents(PassedOn):
    """Passes events on, and writes the receipts and deaths, and which runner it was ("ray" or "serial"), to
    `run/timings/<start>-<pid>.json` of `output`. A long run writes further files, `…-1.json`, `…-2.json`.

    If the output cannot be written any more, no fault is raised here, because the fault that stopped the
    run, or the puts of the reduction, will say so; a second fault would hide the first.
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

    def death(self, task: ShardTask, death: Death) -> None:
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
        """Write what was collected, if anything, and forget it."""
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
