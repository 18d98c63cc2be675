"""Stores whose operations take turns: every interleaving of workers, and a death before any operation, can be tried."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from cellcount_core.stores.base import Store


class Killed(BaseException):
    """The worker dies here."""


@dataclass
class Turns:
    """Lets several threads do one store operation at a time, in an order given beforehand."""

    order: Iterator[int]
    waiting: set[int] = field(default_factory=set)
    alive: set[int] = field(default_factory=set)
    turn: int | None = None
    changed: threading.Condition = field(default_factory=threading.Condition)

    def take(self, worker: int) -> None:
        with self.changed:
            self.waiting.add(worker)
            self._choose()
            assert self.changed.wait_for(lambda: self.turn == worker, timeout=120)

    def give(self, worker: int) -> None:
        with self.changed:
            self.waiting.discard(worker)
            self.turn = None

    def leave(self, worker: int) -> None:
        with self.changed:
            self.alive.discard(worker)
            self.waiting.discard(worker)
            self._choose()

    def _choose(self) -> None:
        if self.turn is None and self.waiting and self.waiting == self.alive:
            ready = sorted(self.waiting)
            self.turn = ready[next(self.order, 0) % len(ready)]
            self.changed.notify_all()


@dataclass
class SteppedStore:
    """A store whose every operation waits for its worker's turn; the operation `dies_at` is never done."""

    store: Store
    turns: Turns
    worker: int
    dies_at: int | None
    steps: int = 0

    def __getattr__(self, name: str) -> object:
        operation = getattr(self.store, name)

        def stepped(*arguments: object) -> object:
            self.turns.take(self.worker)
            try:
                self.steps += 1
                if self.steps - 1 == self.dies_at:
                    raise Killed
                return operation(*arguments)
            finally:
                self.turns.give(self.worker)

        return stepped
