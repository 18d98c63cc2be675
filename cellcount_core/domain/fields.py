"""Fields, the files they are counted from, shards, and what comes back from a worker for a shard.

A field is what is counted, a shard is the list of fields that a worker does at a time, a receipt is the outcome of one shard.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b, sha256

from cellcount_core.domain.errors import Reason
from cellcount_core.domain.plates import Position


@dataclass(frozen=True, slots=True, order=True)
class FieldKey:
    """One image position. The order of keys is the order of rows in every table.

    `well` is a plate position ("B02") where the layout knows one, else the image's name. `site` and `timepoint`
    count as the instrument counts (mostly from 1; 1 where there is none).
    """

    plate: str
    well: str
    site: int
    timepoint: int

    @property
    def field_id(self) -> str:
        """Stable 16-digit hex name of this key: equal keys give equal names on every machine."""
        text = "\x1f".join((self.plate, self.well, str(self.site), str(self.timepoint)))
        return blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True, order=True)
class SourcePart:
    """One object of a source that is read from several: its key, and its size in bytes."""

    key: str
    size: int


@dataclass(frozen=True, slots=True, order=True)
class Source:
    """What one channel and plane of a field is read from: one object, or the chunks of an array with the objects that describe it.

    `channel` is the name the layout read from the file's name, "" where the name carries none. `plane` is the z plane
    as the instrument counts it (0 where there is none). `index` selects one image of a stack file (-1: the whole file).
    `size` is in bytes; `etag` is the store's name of the content, "" where it has none. Where there are `parts`, `key` is the path
    of the array, `size` that of all parts, and `etag` a digest of their keys, sizes and tags.
    """

    channel: str
    plane: int
    key: str
    index: int = -1
    size: int = 0
    etag: str = ""
    parts: tuple[SourcePart, ...] = ()

    @property
    def objects(self) -> tuple[SourcePart, ...]:
        """The objects to read."""
        return self.parts or (SourcePart(self.key, self.size),)


def parts_tag(objects: Iterable[tuple[str, int, str]]) -> str:
    """The tag of a source of several parts, from their keys, sizes and tags: another one for any other content of any of them."""
    digest = sha256()
    for key, size, etag in sorted(objects):
        digest.update(f"{key}\0{size}\0{etag}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Selection:
    """A channel to read: `name` as tables call it, `channel` as the plan does ("" where file names carry none)."""

    name: str
    channel: str


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a layout reads from one key.

    `folder` is where the files of one acquisition of the plate lie together, "" for the input itself and where names alone tell the plate. Files of
    one plate name in several such folders belong to several plates.
    """

    field: FieldKey
    channel: str = ""
    plane: int = 0
    folder: str = ""


@dataclass(frozen=True, slots=True)
class PlannedField:
    """One expected field with the files to read for it.

    `reason` is set where planning already knows that the field cannot be counted (its row carries it); `detail` says why.
    `um_per_px` (size of a pixel) and `position` (of its centre on the stage) are what the instrument's metadata files state, None
    where they do not.
    """

    key: FieldKey
    sources: tuple[Source, ...]
    reason: Reason | None = None
    detail: str = ""
    um_per_px: float | None = None
    position: Position | None = None

    @property
    def size(self) -> int:
        """Bytes to read for this field."""
        return sum(source.size for source in self.sources) if self.reason is None else 0

    @property
    def objects(self) -> tuple[SourcePart, ...]:
        """The objects to read for this field, each once, in the order of its sources."""
        if self.reason is not None:
            return ()
        return tuple(dict.fromkeys(part for source in self.sources for part in source.objects))


@dataclass(frozen=True, slots=True)
class Shard:
    """A list of fields in key order; what one worker does at a time and commits as one part."""

    number: int
    fields: tuple[PlannedField, ...]

    @property
    def plates(self) -> tuple[str, ...]:
        """The plates its fields are of, in their order."""
        return tuple(dict.fromkeys(planned.key.plate for planned in self.fields))

    @property
    def part(self) -> str:
        """File name of this shard's parts."""
        return part_name(self.number)


def part_name(number: int) -> str:
    """File name of the part of shard `number`; names sort as the numbers do up to a million shards."""
    return f"part-{number:06d}.parquet"


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
