"""The labelled images an evaluation is made on, and what is said of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cellcount_core.domain.errors import ConfigFault, nearest
from cellcount_core.labelled.dataset import Listing, choose, list_labelled
from cellcount_core.labelled.image import Entry

ALL = "all"
HELD_OUT = "val"
"""The split that is taken where none is named and the data has it: what trained a model does not measure it."""


@dataclass(frozen=True, slots=True)
class Data:
    """Labelled images, not yet read, with their origin: `path` as it was given, its layout `kind`, the `split` ("" where all
    were taken) and the modalities asked for (() for all)."""

    path: str
    kind: str
    split: str
    modality: tuple[str, ...]
    entries: tuple[Entry, ...]


def list_data(path: Path, *, split: str | None, modality: Sequence[str], limit: int | None) -> Data:
    """The labelled images of a folder or file in any layout that training knows.

    `split` None is "val" where the data has it and else everything, "all" is everything; `modality` () is every modality;
    `limit` images, evenly spread, are kept. Raises ConfigFault naming path, value, what was expected and what there is.
    """
    if not path.exists():
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise ConfigFault(
            f"{path}: there is no such folder or file; expected labelled images (a folder with index.csv, an .npz archive, …)"
            f"{nearest(path.name, beside)}"
        )
    listing = list_labelled(path)
    chosen = _default_split(listing) if split is None else "" if split == ALL else split
    entries = choose(listing, chosen, modality)
    if limit is not None and limit < len(entries):
        entries = [entries[at * len(entries) // limit] for at in range(limit)]
    return Data(str(path), listing.kind, chosen, tuple(modality), tuple(entries))


def _default_split(listing: Listing) -> str:
    return HELD_OUT if any(entry.split == HELD_OUT for entry in listing.entries) else ""
