"""Exports of Columbus: `ImageIndex.ColumbusIDX.xml` and the TIFF or FLEX files that it names, of which each may hold many images.

The index has the structure of Harmony's (harmony.py), with a record for each image: Row and Col, FieldID, PlaneID, ChannelID and TimepointID,
all from 1, lengths in metres with y up, wells as six digits, and the file with its page (`URL@BufferNo`, from 0). Names of files say nothing,
so the index is a table: a file that it does not name is left out, and an image whose file is not there is missing. The file must lie below the
folder of the index; a URL that leads elsewhere is told and not opened. An image without a URL was not written.

Several indexes may lie in one input, one a plate; plates of one name are called `<plate>@<folder>`. (Bio-Formats' ColumbusReader.java; the
export of Zenodo 6327496 as others describe it. The tests' folders are synthetic.)
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.domain.fields import FieldKey, Parsed
from cellcount_core.domain.plates import PlateFacts
from cellcount_core.layouts.base import (
    Entry,
    Ignored,
    Layout,
    LayoutKind,
    LayoutSettings,
    Sidecar,
    Table,
    Traits,
    file_name,
    ignored_name,
    is_hidden,
    parent,
)
from cellcount_core.layouts.harmony import Index
from cellcount_core.layouts.metadata import Unreadable, Values, read_xml
from cellcount_core.stores.base import Absent, Denied, StorageOptions, Store

NAME = "imageindex.columbusidx.xml"
_MOST_BYTES = 512 * 2**20
_MOST_PAGES = 100_000


class ColumbusSettings(LayoutSettings):
    """Exports of Columbus: each `ImageIndex.ColumbusIDX.xml` of the input says which page of which file each image is."""

    kind: Literal["columbus"] = "columbus"


@dataclass(frozen=True, slots=True)
class Columbus(Layout):
    """The plate is the name in the index; `root` if it has none."""

    root: str

    def parse(self, key: str) -> Sidecar | Ignored | None:
        """The index, or None for an image: the index says what it is."""
        if file_name(key).lower() == NAME and not is_hidden(key):
            return Sidecar(parent(key), file_name(key), _MOST_BYTES)
        return ignored_name(key)

    def describe(self, sidecars: Mapping[str, bytes]) -> tuple[PlateFacts, ...]:
        """What each index states."""
        return tuple(_read(key, body)[0] for key, body in sorted(sidecars.items()))

    @property
    def table(self) -> Table:
        """The layout itself."""
        return self

    def entries(self, store: Store, options: StorageOptions) -> Iterator[Entry | PlateFacts]:
        """See `Table.entries`. All indexes are read before the first entry, because they may have plates of one name."""
        keys = sorted(
            listed.key for batch in store.list() for listed in batch if file_name(listed.key).lower() == NAME
        )
        if not keys:
            raise ConfigFault(
                f"{store.url}: has no ImageIndex.ColumbusIDX.xml, in which an export of Columbus says what its files are"
            )
        read = [_read_from(store, key) for key in keys]
        names = Counter(plate.name or self.root for plate, _ in read)
        for facts, images in read:
            name = facts.name or self.root
            plate = f"{name}@{facts.folder}" if names[name] > 1 and facts.folder else name
            for image in images:
                yield Entry(
                    image.key,
                    Parsed(replace(image.field, plate=plate), image.channel, image.plane),
                    page=image.page,
                )
            yield replace(facts, plate=plate, folder="", name="")


@dataclass(frozen=True, slots=True)
class _Image:
    """One record: the file, its page (-1 for the whole file), and what it shows."""

    key: str
    page: int
    field: FieldKey
    channel: str
    plane: int


@dataclass(slots=True)
class _BelowIndex:
    """Collects the images of one index whose files lie below it."""

    key: str
    found: list[_Image] = field(default_factory=list)

    def add(self, where: FieldKey, values: Mapping[str, str]) -> None:
        """Take one record. Those that lead elsewhere are told of by `Index`."""
        url = values.get("URL", "").replace("\\", "/")
        if not url or "://" in url or url.startswith("/") or ".." in url.split("/"):
            return
        numbers = Values(self.key, "an Image", values)
        page = numbers.whole("BufferNo", _MOST_PAGES, 0) if "BufferNo" in values else -1
        plane = numbers.whole("PlaneID", _MOST_PAGES) if values.get("PlaneID") else 0
        folder = parent(self.key)
        key = re.sub("/+", "/", f"{folder}/{url}" if folder else url)
        self.found.append(_Image(key, page, where, values.get("ChannelID", ""), plane))


def _read(key: str, body: bytes) -> tuple[PlateFacts, list[_Image]]:
    """What an index states, and its images. Raises Unreadable if it is none."""
    images = _BelowIndex(key)
    index = Index(key, images.add)
    read_xml(key, body, index.start, index.end)
    return index.facts(), images.found


def _read_from(store: Store, key: str) -> tuple[PlateFacts, list[_Image]]:
    """What an index of the input states, and its images. Raises ConfigFault if it cannot be read."""
    size = store.size_of(key)
    if size is not None and size > _MOST_BYTES:
        raise ConfigFault(
            f"{key}: has {size:,} bytes, more than the {_MOST_BYTES:,} up to which an index is read"
        )
    try:
        return _read(key, store.get(key))
    except (Absent, Denied, Unreadable) as fault:
        raise ConfigFault(str(fault)) from None


def _build(_: ColumbusSettings, root: str) -> Columbus:
    return Columbus(root)


KIND = LayoutKind("columbus", ColumbusSettings, _build, Traits(told_by_table=True, has_sidecars=True))
