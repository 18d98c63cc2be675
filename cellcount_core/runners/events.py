"""What a run tells on its way, and the tally it tells it with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from cellcount_core.domain.receipts import Receipt
from cellcount_core.runners.pool import Death, Task


@dataclass(slots=True)
class Tally:
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

    def receipt(self, receipt: Receipt, tally: Tally) -> None:
        """A shard was committed."""
        ...

    def death(self, task: Task, death: Death) -> None:
        """An attempt gave no receipt."""
        ...

    def tick(self, tally: Tally) -> None:
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

    def receipt(self, receipt: Receipt, tally: Tally) -> None:
        """Passed on."""
        self._events.receipt(receipt, tally)

    def death(self, task: Task, death: Death) -> None:
        """Passed on."""
        self._events.death(task, death)

    def tick(self, tally: Tally) -> None:
        """Passed on."""
        self._events.tick(tally)

    def warn(self, text: str) -> None:
        """Passed on."""
        self._events.warn(text)


class Watched(PassedOn):
    """Asks `guards` after each shard and about once a second: what one of them raises ends the run."""

    def __init__(self, events: Events, *guards: Callable[[Tally], None]) -> None:
        super().__init__(events)
        self._guards = guards

    def receipt(self, receipt: Receipt, tally: Tally) -> None:
        """Passed on, then the guards are asked."""
        super().receipt(receipt, tally)
        self._ask(tally)

    def tick(self, tally: Tally) -> None:
        """Passed on, then the guards are asked."""
        super().tick(tally)
        self._ask(tally)

    def _ask(self, tally: Tally) -> None:
        for guard in self._guards:
            guard(tally)
