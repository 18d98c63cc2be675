"""Masks, outlines and flow fields that other programs left beside the images: told by name and, where a name may mean either, by content.

A label map is told from an image by its pixels: pieces of one value each, with nothing between them. Only few files are read
for it, those whose name extends that of an image beside them ("a_result.tif" beside "a.tif"), that share it ("a.png" beside
"a.tif"), or that say "mask" without an image beside them; the same few for every order of the listing.
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
    """A file that may be a mask. `kind` is what its name adds to that of `beside`, the image whose name it extends or shares.

    `named`: the name itself says mask, label, outline or the like. Only such a file may have no image beside it.
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
    """Which suspects are masks: whole kinds, and single keys of kinds that hold both."""

    kinds: frozenset[str]
    keys: frozenset[str]

    def why(self, suspect: Suspect) -> str:
        """Why it is left out; "" for an image."""
        certain = suspect.named and suspect.beside is not None
        if certain or suspect.kind in self.kinds or suspect.row.key in self.keys:
            return derived_why(suspect.kind)
        return ""


def suspects(rows: Iterable[Row]) -> Iterator[Row | Suspect]:
    """`rows` in their order, those that may be masks as suspects.

    The rows are sorted, and of a layout that takes the plate from the folder and the well from the file's name: names that
    extend another then follow it, so that no more than the chain of shorter names is held.
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
    """Which of the suspects among `rows` are masks; None where there is no suspect. Reads some files of `store`.

    What cannot be read or decoded is taken for an image: counting says what is wrong with it.
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
    """Whether the suspect is a label map of the size of the image beside it, and that one is none; None where nothing is drawn in it."""
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
    """The first plane, (H, W) or (H, W, 3); None for what cannot be read."""
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
