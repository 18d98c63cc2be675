"""Inputs whose images are arrays of many objects: what a layout says about them, and what it is given for that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from cellcount_core.domain.errors import Reason
from cellcount_core.domain.fields import FieldKey
from cellcount_core.domain.ngff import GROUP_V2, ZarrArray
from cellcount_core.domain.plates import PlateFacts
from cellcount_core.layouts.base import Ignored
from cellcount_core.stores.base import Listed, Store


@dataclass(slots=True)
class Nodes:
    """The metadata objects of a listing, by folder and name. Chunks are not in it."""

    _by_folder: dict[str, dict[str, Listed]] = field(default_factory=dict)
    _children: dict[str, set[str]] = field(default_factory=dict)
    number: int = 0

    def add(self, folder: str, name: str, listed: Listed) -> None:
        """Take a metadata object. One that only says that its folder is a group is not kept."""
        if name != GROUP_V2:
            self._by_folder.setdefault(folder, {})[name] = listed
        self.number += 1
        below = folder
        while below:
            above, _, child = below.rpartition("/")
            known = self._children.setdefault(above, set())
            if child in known:
                return
            known.add(child)
            below = above

    def at(self, folder: str) -> Mapping[str, Listed]:
        """The metadata objects of a folder by their names."""
        return self._by_folder.get(folder, {})

    def children(self, folder: str) -> frozenset[str]:
        """Names of the folders directly below that hold metadata, however deep."""
        return frozenset(self._children.get(folder, ()))

    def holds(self, folder: str) -> bool:
        """Whether there is metadata in or below a folder."""
        return folder in self._by_folder or folder in self._children


@dataclass(frozen=True, slots=True)
class ArrayAt:
    """An image: the field of its first time point, the folder of its plate, and its array.

    `path` is that of the array, `metadata` are the objects that describe it, `axes` the names of its axes ("t", "c", "z", "y",
    "x") and `channels` those of its channels. `array` is None if the image cannot be counted; `reason` and `detail` then say why.
    """

    field: FieldKey
    folder: str
    path: str
    metadata: tuple[Listed, ...] = ()
    array: ZarrArray | None = None
    axes: tuple[str, ...] = ()
    channels: tuple[str, ...] = ("",)
    reason: Reason | None = None
    detail: str = ""


class Arrays(Protocol):
    """What a layout of arrays says about an input."""

    def node(self, key: str) -> tuple[str, str] | Ignored | None:
        """Folder and name of a metadata object; `Ignored` for an object that no counted array can need; None for what may be a chunk."""
        ...

    def walk(self, store: Store, nodes: Nodes) -> Iterator[ArrayAt | PlateFacts | str]:
        """Yield every image of the input, what is stated about its plates, and warnings about its metadata, in words. Reads metadata
        from `store`.

        Raises ConfigFault if the input cannot be counted as it is, and the store's faults.
        """
        ...
