"""Timings of a driver session: `run/timings/…`, beside the results and never part of one."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import asdict

from cellcount_core.domain.errors import RunFault
from cellcount_core.domain.receipts import Receipt
from cellcount_core.runners.events import Events, PassedOn, Tally
from cellcount_core.runners.pool import Death, Task
from cellcount_core.stores.base import Store

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

    def receipt(self, receipt: Receipt, tally: Tally) -> None:
        """Kept and passed on."""
        self._shards.append(json.dumps({**asdict(receipt), "commit": receipt.commit.value}))
        if len(self._shards) >= self._file_shards:
            self.flush()
        self._events.receipt(receipt, tally)

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
