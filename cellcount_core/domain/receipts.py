"""What comes back from a worker for one shard: a few hundred bytes, never images or tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Commit(StrEnum):
    """Whether this call wrote the part or found it written."""

    WRITTEN = "written"
    ALREADY = "already"
    PROBED = "probed"


@dataclass(frozen=True, slots=True)
class Receipt:
    """The outcome of one shard.

    `statuses` and `reasons` count fields, `objects` the counted objects, `pixels` the decoded pixels of counted channels.
    `seconds` is wall time; `stage_seconds` the busy time by stage, summed over threads.
    `plates` are those of the shard's fields; the driver, which has the shard, writes them in. `notes` are what the worker found
    and a user should know; each is told with one receipt only.
    `bytes_read` are those of the shard's files. `retries` of requests to a store, and the seconds in which the device worked
    (`device_busy_s`) or waited for tiles (`device_idle_s`), are those of the worker since its last receipt, whatever shard they were for.
    """

    shard: int
    commit: Commit
    statuses: dict[str, int]
    reasons: dict[str, int]
    objects: int
    pixels: int
    seconds: float
    stage_seconds: dict[str, float] = field(default_factory=dict)
    host: str = ""
    pid: int = 0
    plates: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    bytes_read: int = 0
    retries: int = 0
    device_busy_s: float = 0.0
    device_idle_s: float = 0.0
