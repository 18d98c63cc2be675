"""Sorted fields cut into shards: by number of fields and by bytes, streaming.

A small run is cut finely: so that all workers have something to do, and a stop loses little.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from cellcount_core.config import ExecutionConfig
from cellcount_core.domain.fields import PlannedField, Shard

_MOST_FIELDS = 64
_SHARDS_A_WORKER, _LEAST_SHARDS = 4, 16
_WORKERS_ELSEWHERE = 32
"""Workers of a cluster that is not asked yet when a run is planned."""


@dataclass(frozen=True, slots=True)
class ShardLimits:
    """A shard has at most `fields` fields and, unless it has only one, at most `size` bytes to read.

    `least`: there are to be so many shards where there are as many fields.
    """

    fields: int
    size: int
    least: int = 1

    @property
    def enough(self) -> int:
        """Fields from which on there are `least` shards of `fields` fields."""
        return self.fields * self.least

    def fitting(self, fields: int) -> ShardLimits:
        """The limits for a run of so many fields."""
        return replace(self, fields=max(1, min(self.fields, fields // self.least)))


def shard_limits(execution: ExecutionConfig) -> ShardLimits:
    """The limits that `execution` asks for. The tables are the same for any: only the cut into parts follows them.

    With `shard_fields` "auto" there are four shards for every worker that there may be, and 16 at least.
    """
    size = int(execution.shard_mib * 2**20)
    if execution.shard_fields != "auto":
        return ShardLimits(execution.shard_fields, size)
    workers = execution.actors
    if workers == "auto":
        workers = _WORKERS_ELSEWHERE if execution.address else usable_cores()
    return ShardLimits(_MOST_FIELDS, size, max(_LEAST_SHARDS, _SHARDS_A_WORKER * workers))


def usable_cores() -> int:
    """Cores that this process may use: fewer than the machine has under a batch system or `taskset`."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def cut_shards(fields: Iterable[PlannedField], limits: ShardLimits) -> Iterator[Shard]:
    """Every field in exactly one shard, in order; shards are numbered from 0.

    A file that holds several fields (an array file) counts once a shard, as it is read once.
    """
    held: list[PlannedField] = []
    keys: set[str] = set()
    size = number = 0
    for planned in fields:
        more = bytes_to_read(planned, keys)
        if held and (len(held) >= limits.fields or size + more > limits.size):
            yield Shard(number, tuple(held))
            number += 1
            held, keys, size = [], set(), 0
            more = bytes_to_read(planned, keys)
        held.append(planned)
        keys.update(source.key for source in planned.sources)
        size += more
    if held:
        yield Shard(number, tuple(held))


def bytes_to_read(planned: PlannedField, read: set[str]) -> int:
    """Bytes of the field's files that are not among those already `read`; 0 for a field that is not counted."""
    if planned.reason is not None:
        return 0
    sizes = {source.key: source.size for source in planned.sources if source.key not in read}
    return sum(sizes.values())
