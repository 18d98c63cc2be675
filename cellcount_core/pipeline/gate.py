"""A bound on what a worker holds in memory at once."""

from __future__ import annotations

import threading
from collections import deque


class Gate:
    """Lets fields in while the sum of their weights stays below `limit`; one of that weight or more goes in alone.

    They go in in the order in which they came, so that a heavy one is not passed by light ones for ever.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._inside = 0
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    def enter(self, weight: int) -> None:
        """Wait until it is one's turn and there is room for `weight`."""
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            self._changed.wait_for(lambda: self._waiting[0] is ticket and self._room_for(weight))
            self._waiting.popleft()
            self._inside += weight
            self._changed.notify_all()

    def leave(self, weight: int) -> None:
        """Give the room back."""
        with self._changed:
            self._inside -= weight
            self._changed.notify_all()

    def _room_for(self, weight: int) -> bool:
        return self._inside == 0 or self._inside + weight <= self.limit
