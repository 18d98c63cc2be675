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
"""Receipts of so many shards make a file, so that a run of any length keeps no more in memory."""


class TimedEvents(PassedOn):
    """Passes events on and writes the receipts and deaths among them to `run/timings/<start>-<pid>.json` of `output` (the next files
    of a long run: `…-1.json`, `…-2.json`).

    Where the output takes no more files, why the run stopped says so, or the reduction's own puts: a second fault here
    would hide the first, so none is raised.
    """

    def __init__(self, events: Events, output: Store, *, file_shards: int = _FILE_SHARDS) -> None:
        super().__init__(events)
        self._output = output
        self._file_shards = file_shards
        self._shards: list[dict[str, object]] = []
        self._deaths: list[dict[str, object]] = []
        self._files = 0
        self._began = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())

    def receipt(self, receipt: Receipt, tally: Tally) -> None:
        """Kept and passed on."""
        self._shards.append({**asdict(receipt), "commit": receipt.commit.value})
        if len(self._shards) >= self._file_shards:
            self.flush()
        self._events.receipt(receipt, tally)

    def death(self, task: Task, death: Death) -> None:
        """Kept and passed on."""
        self._deaths.append(
            {
                "shard": task.shard.number,
                "mode": task.mode.value,
                "reason": death.reason.value,
                "detail": death.detail,
            }
        )
        self._events.death(task, death)

    def flush(self) -> None:
        """Write what is kept, if there is any, and forget it."""
        if not self._shards and not self._deaths:
            return
        record = {"began": self._began, "shards": self._shards, "deaths": self._deaths}
        with suppress(RunFault):
            name = f"{self._began}-{os.getpid()}" + (f"-{self._files}" if self._files else "")
            self._output.put(f"run/timings/{name}.json", (json.dumps(record) + "\n").encode())
        self._files += 1
        self._shards, self._deaths = [], []
