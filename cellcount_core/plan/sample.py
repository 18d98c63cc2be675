"""A bounded sample of the fields of a plan, the same for every order of the listing and every cut into shards."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from hashlib import blake2b

from cellcount_core.domain.fields import PlannedField

PLATES = 64
"""Plates that are sampled at most; their fields are chosen by the hash of their names."""

FIELDS_A_PLATE = 16
FIELDS = 256
"""Fields that are sampled at most, in all."""

_FEWEST = 3

_Entry = tuple[int, str, PlannedField]


class Sampler:
    """Keeps some of the fields that stream by, in key order; holds a few hundred at most."""

    def __init__(self) -> None:
        self._plates: list[tuple[int, str, list[_Entry]]] = []
        self._plate: str | None = None
        self._held: list[_Entry] = []

    def watch(self, fields: Iterable[PlannedField]) -> Iterator[PlannedField]:
        """The same fields. Those that planning already gave up are not sampled."""
        for planned in fields:
            if planned.key.plate != self._plate:
                self._close_plate()
                self._plate = planned.key.plate
            if planned.reason is None:
                # The heap's smallest is what leaves: the entry of the largest hash.
                entry = (-int(planned.key.field_id, 16), planned.key.field_id, planned)
                push = heapq.heappush if len(self._held) < FIELDS_A_PLATE else heapq.heappushpop
                push(self._held, entry)
            yield planned
        self._close_plate()

    def fields(self) -> list[PlannedField]:
        """The sample, in key order: fewer fields a plate where there are many plates."""
        share = max(_FEWEST, FIELDS // max(1, len(self._plates)))
        kept = [entry for _, _, held in self._plates for entry in sorted(held, reverse=True)[:share]]
        return sorted((planned for _, _, planned in kept), key=lambda planned: planned.key)

    def _close_plate(self) -> None:
        if self._plate is not None and self._held:
            number = int.from_bytes(blake2b(self._plate.encode(), digest_size=8).digest(), "big")
            push = heapq.heappush if len(self._plates) < PLATES else heapq.heappushpop
            push(self._plates, (-number, self._plate, self._held))
        self._held = []
