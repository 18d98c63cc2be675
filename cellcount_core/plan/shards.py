"""Sorted fields cut into shards: by number of fields and by bytes, streaming."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cellcount_core.domain.config import ExecutionConfig
from cellcount_core.domain.fields import PlannedField, Shard


@dataclass(frozen=True, slots=True)
class ShardLimits:
    """A shard has at most `fields` fields and, unless it has only one, at most `size` bytes to read."""

    fields: int
    size: int


def shard_limits(execution: ExecutionConfig) -> ShardLimits:
    """The limits that `execution` asks for."""
    return ShardLimits(execution.shard_fields, int(execution.shard_mib * 2**20))


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
