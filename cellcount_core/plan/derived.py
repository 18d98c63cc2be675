"""Masks, outlines and flow fields that other programs left beside the images: recognised by name or, if a name is ambiguous, by content.

The pixels of a label map are pieces of one value each, with nothing between them. Only a few files are read to see that: those whose
name extends the name of an image beside them ("a_result.tif" beside "a.tif"), those with the same name ("a.png" beside "a.tif"), and
those that say "mask" and have no image beside them. The order of the listing does not change which files are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import groupby
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.errors import FieldFault
from cellcount_core.layouts.base import derived_why, extension, mask_name, mask_within
from cellcount_core.plan.rows import Row
from cellcount_core.stores.base import Absent, Denied, Store

MOST_KINDS = 16
"""Kinds of names ("_result", "_nuc#") of which files are read: the most frequent ones."""

MOST_READ = 64
"""Files of one kind that are read where one of the first two is a mask; those beyond are masks if all of these are."""

_SEPARATORS = "_-. ("


@dataclass(frozen=True, slots=True)
class Suspect:
    """A file that may be a mask. `kind` is what its name adds to the name of `beside`, the image whose name it extends or shares.

    `named` says whether the name itself says mask, label, outline or the like. Only then may `beside` be None.
    """

    row: Row
    kind: str
    named: bool
    beside: Row | None


@dataclass(slots=True)
class _Kind:
    """The suspects of one kind: how many, and those of the smallest hashes, at most `MOST_READ`."""

    files: int = 0
    held: dict[str, Suspect] = field(default_factory=dict)

    def add(self, suspect: Suspect) -> None:
        self.files += 1
        self.held[blake2b(suspect.row.key.encode(), digest_size=8).hexdigest()] = suspect
        if len(self.held) > MOST_READ:
            del self.held[max(self.held)]


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Which suspects are masks: all of some kinds, and single files of kinds that hold both masks and images."""

    kinds: frozenset[str]
    keys: frozenset[str]

    def why(self, suspect: Suspect) -> str:
        """Why the file is left out, or "" if it is an image."""
        certain = suspect.named and suspect.beside is not None
        if certain or suspect.kind in self.kinds or suspect.row.key in self.keys:
            return derived_why(suspect.kind)
        return ""


def suspects(rows: Iterable[Row]) -> Iterator[Row | Suspect]:
    """Yield `rows` in their order, with those that may be masks as suspects.

    The rows must be sorted, and of a layout that takes the plate from the folder and the well from the file's name. A name that extends
    another one then follows it, so only the chain of shorter names is kept in memory.
    """
    chain: list[Row] = []
    for _, group in groupby(rows, attrgetter("plate", "well")):
        files = list(group)
        first = files[0]
        while chain and not (chain[-1].plate == first.plate and first.well.startswith(chain[-1].well)):
            chain.pop()
        # Of a name that says mask itself ("label_A01.tif", a folder "labels") none is the extension: what follows may be images too.
        shorter = (
            one
            for one in reversed(chain)
            if first.well[len(one.well)] in _SEPARATORS and not mask_name(one.key)
        )
        beside = next(shorter, None)
        for row in files:
            yield _suspected(row, files, beside)
        chain.append(first)


def judged(rows: Iterable[Row | Suspect], store: Store, max_pixels: int) -> Verdicts | None:
    """Decide which of the suspects among `rows` are masks; None if there are no suspects. Reads some files of `store`.

    A file that cannot be read or decoded is treated as an image, so that counting reports what is wrong with it.
    """
    kinds: dict[str, _Kind] = {}
    any_at_all = False
    for row in rows:
        if isinstance(row, Suspect):
            any_at_all = True
            if not (row.named and row.beside is not None):
                kinds.setdefault(row.kind, _Kind()).add(row)
    if not any_at_all:
        return None
    whole: set[str] = set()
    keys: set[str] = set()
    most = sorted(kinds, key=lambda kind: (-kinds[kind].files, kind))[:MOST_KINDS]
    for kind in most:
        held = [suspect for _, suspect in sorted(kinds[kind].held.items())]
        if not any(_is_drawn(suspect, store, max_pixels) for suspect in held[:2]):
            continue
        drawn = {suspect.row.key: _is_drawn(suspect, store, max_pixels) for suspect in held}
        if False in drawn.values():
            keys |= {key for key, yes in drawn.items() if yes}
        else:
            whole.add(kind)
    return Verdicts(frozenset(whole), frozenset(keys))


def _suspected(row: Row, files: list[Row], beside: Row | None) -> Row | Suspect:
    named = mask_name(row.key) or ("" if beside is not None else mask_within(row.key))
    if beside is not None:
        addition = re.sub(r"[0-9]+", "#", row.well[len(beside.well) :])
        return Suspect(row, named or addition, bool(named), beside)
    if named:
        return Suspect(row, named, True, None)
    other = next((one for one in files if one.key != row.key), None)
    if other is not None:
        return Suspect(row, f".{extension(row.key)} beside .{extension(other.key)}", False, other)
    return row


def _is_drawn(suspect: Suspect, store: Store, max_pixels: int) -> bool | None:
    """Whether the suspect is a label map and as large as the image beside it, which is not one; None if nothing is drawn in it."""
    pixels = _pixels(suspect.row, store, max_pixels)
    if pixels is None:
        return False
    # Late, as in `_pixels`: most listings have nothing to look into.
    from cellcount_core.images.quality import is_label_map

    drawn = is_label_map(pixels)
    if not drawn or suspect.beside is None:
        return drawn
    image = _pixels(suspect.beside, store, max_pixels)
    return image is None or (image.shape[:2] == pixels.shape[:2] and not is_label_map(image))


def _pixels(row: Row, store: Store, max_pixels: int) -> NDArray[np.generic] | None:
    """The first plane, (H, W) or (H, W, 3); None if the file cannot be read."""
    if row.reason or not row.size:
        return None
    # Only where there is something to look into: reading images takes long to load.
    from cellcount_core.images.decode import open_image
    from cellcount_core.images.imagefile import COLOURS

    try:
        file = open_image(store.get(row.key), row.key, max_pixels=max_pixels)
        channels = file.channels if tuple(file.channels) == COLOURS else file.channels[:1]
        planes = [file.read(channel, 0, max(row.slice_index, 0)) for channel in channels]
    except (FieldFault, Absent, Denied):
        return None
    return np.dstack(planes) if len(planes) > 1 else planes[0]
