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
    """One image position. Keys sort as the rows of every table do.

    `well` is a plate position ("B02") if the layout knows wells, else the name of the image. `site` and `timepoint` are numbered as the
    instrument numbers them: mostly from 1, and 1 if it has none.
    """

    plate: str
    well: str
    site: int
    timepoint: int

    @property
    def field_id(self) -> str:
        """A stable name of 16 hex digits: equal keys have equal names on every machine."""
        text = "\x1f".join((self.plate, self.well, str(self.site), str(self.timepoint)))
        return blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True, order=True)
class SourcePart:
    """One stored object of a source that is read from several: its key, and its size in bytes."""

    key: str
    size: int


@dataclass(frozen=True, slots=True, order=True)
class Source:
    """What one channel and plane of a field is read from: one file, or the chunks of an array and the files that describe it.

    `channel` is the name that the layout read from the file's name, "" if the name holds none. `plane` is the z plane as the instrument
    numbers it, 0 if there is none. `index` selects one image of a stack file, from 0; -1 means the whole file. `size` is in bytes. `etag` is
    the store's name of the content, "" if it has none. If there are `parts`, `key` is the path of the array, `size` is that of all parts,
    and `etag` is a digest of their keys, sizes and tags.
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
        """The stored objects to read, one at least."""
        return self.parts or (SourcePart(self.key, self.size),)


def parts_tag(objects: Iterable[tuple[str, int, str]]) -> str:
    """The tag (32 hex digits) of a source of several parts, from the key, size and tag of each. If any of them has other content, the tag is another."""
    digest = sha256()
    for key, size, etag in sorted(objects):
        digest.update(f"{key}\0{size}\0{etag}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Selection:
    """A channel to read: `name` is what tables call it, `channel` what the plan calls it ("" if file names hold no channel)."""

    name: str
    channel: str


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a layout reads from one key.

    `folder` is where the files of one acquisition of the plate lie together; "" means the input itself, or that names alone tell the plate.
    If several such folders have files of one plate name, they are several plates. `numbered` is the running number of the well if names tell
    nothing else of it, else 0; the field's well is then `numbered_well(numbered)` until the plate's shape is known.
    """

    field: FieldKey
    channel: str = ""
    plane: int = 0
    folder: str = ""
    numbered: int = 0


Label = tuple[str, str | int | float | None]
"""What a plate map says of a well: the column of the tables, and its value."""


@dataclass(frozen=True, slots=True)
class PlannedField:
    """One expected field, with the files to read for it.

    `reason` is set if planning already knows that the field cannot be counted; the field's row will carry it, and `detail` explains it.
    `um_per_px` (the size of a pixel in µm) and `position` (of the field's centre on the stage) are what the instrument's metadata files
    state, None if they do not. `labels` are what the run's plate map says of the field's well; () without a map or a row of the well.
    """

    key: FieldKey
    sources: tuple[Source, ...]
    reason: Reason | None = None
    detail: str = ""
    um_per_px: float | None = None
    position: Position | None = None
    labels: tuple[Label, ...] = ()

    @property
    def size(self) -> int:
        """Bytes to read for this field; 0 if it cannot be counted."""
        return sum(source.size for source in self.sources) if self.reason is None else 0

    @property
    def objects(self) -> tuple[SourcePart, ...]:
        """The stored objects to read for this field, each once, in the order of its sources; () if it cannot be counted."""
        if self.reason is not None:
            return ()
        return tuple(dict.fromkeys(part for source in self.sources for part in source.objects))


@dataclass(frozen=True, slots=True)
class Shard:
    """A list of fields in key order. A worker does one shard at a time and commits it as one part."""

    number: int
    fields: tuple[PlannedField, ...]

    @property
    def plates(self) -> tuple[str, ...]:
        """The plates of its fields, each once, in order."""
        return tuple(dict.fromkeys(planned.key.plate for planned in self.fields))

    @property
    def part(self) -> str:
        """The file name of this shard's parts."""
        return part_name(self.number)


def part_name(number: int) -> str:
    """The file name of the part of shard `number`. Names sort as the numbers do, up to a million shards."""
    return f"part-{number:06d}.parquet"


class Commit(StrEnum):
    """Whether a call wrote the part, found it written already, or only tried the fields (PROBED)."""

    WRITTEN = "written"
    ALREADY = "already"
    PROBED = "probed"


@dataclass(frozen=True, slots=True)
class Receipt:
    """The outcome of one shard: a few hundred bytes, never images or tables.

    `statuses` and `reasons` count fields, `objects` the counted objects, `pixels` the decoded pixels of counted channels. `seconds` is wall
    time; `stage_seconds` is the busy time of each stage, summed over threads. `bytes_read` are the bytes of the shard's files. `plates` are
    those of the shard's fields; the driver fills them in. `notes` are what the worker found and a user should know, each told in one
    receipt only. `retries` of requests to a store, and the seconds in which the device worked (`device_busy_s`) or waited for tiles
    (`device_idle_s`), are those of the worker since its last receipt, whatever shard they were for.
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
