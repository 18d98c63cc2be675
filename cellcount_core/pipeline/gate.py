"""A bound on what a worker holds in memory at once."""

from __future__ import annotations

import threading


class Gate:
    """Lets fields in while the sum of their weights stays below `limit`; one heavier than that goes in alone."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._inside = 0
        self._changed = threading.Condition()

    def enter(self, weight: int) -> None:
        """Wait until there is room for `weight`."""
        with self._changed:
            self._changed.wait_for(lambda: self._inside == 0 or self._inside + weight <= self._limit)
            self._inside += weight

    def leave(self, weight: int) -> None:
        """Give the room back."""
        with self._changed:
            self._inside -= weight
            self._changed.notify_all()
