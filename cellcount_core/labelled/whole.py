"""Images of which something is said as a whole: a class, patterns, numbers of cells. They are read when they are looked at, and not kept.

A data set of them may be larger than memory. What is decoded is kept where it is used (training/whole.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.images.imagefile import Plane
from cellcount_core.labelled.image import Files, first_file, of_roles, read_files
from cellcount_core.pipeline.pixels import Pixels
from cellcount_core.tasks.task import Truth

_NAMED = 5

_IN_HAND = 16
"""Decoded images that are remembered: those whose planes, pixel size and depth are asked for one after the other."""


@dataclass(frozen=True, slots=True)
class WholeImage:
    """One image in files, with `values` that are true of it as a whole, by name: `{"class": "MONOCYTE"}`. It has no known object size.

    `files` is its file, or the files of its channels by role. Whatever asks for pixels may raise ConfigFault naming the file that cannot be
    read.
    """

    id: str
    files: Files
    roles: tuple[str, ...]
    values: Mapping[str, str]
    group: str = ""
    modality: str = ""
    diameter_px: float = 0.0

    @property
    def planes(self) -> Mapping[str, Plane]:
        """The channels (H, W) in raw units, by role."""
        return self._pixels.planes

    @property
    def um_per_px(self) -> float | None:
        """The pixel size that the file states."""
        return self._pixels.um_per_px

    @property
    def bit_max(self) -> int:
        """The largest value that the file's pixels can take."""
        return self._pixels.bit_max

    @property
    def _pixels(self) -> Pixels:
        return _decoded(self.paths, tuple(self.files) if isinstance(self.files, Mapping) else (), self.roles)

    @property
    def truth(self) -> Truth:
        """What is true of the image: its values."""
        return Truth(self.id, self.modality, values=self.values)

    @property
    def paths(self) -> tuple[Path, ...]:
        """All of its files."""
        return (self.files,) if isinstance(self.files, Path) else tuple(self.files.values())

    @property
    def content(self) -> bytes:
        """The SHA-256 of its files, which stands for its pixels. Raises ConfigFault if one cannot be read."""
        found = hashlib.sha256()
        for path in self.paths:
            try:
                found.update(hashlib.sha256(path.read_bytes()).digest())
            except OSError as error:
                raise ConfigFault(f"{path}: cannot be read: {error.strerror}") from error
        return found.digest()


@lru_cache(maxsize=_IN_HAND)
def _decoded(paths: tuple[Path, ...], named: tuple[str, ...], roles: tuple[str, ...]) -> Pixels:
    files: Files = dict(zip(named, paths, strict=True)) if named else paths[0]
    return of_roles(read_files(files, roles), roles or ("",), str(first_file(files)))


@dataclass(frozen=True, slots=True)
class WholeEntry:
    """An image that a data set lists, with what is true of it. `split`, `modality` and `group` are "" if the data gives none."""

    id: str
    files: Files
    values: Mapping[str, str]
    split: str = ""
    modality: str = ""
    group: str = ""

    def load(self, roles: Sequence[str] = ()) -> WholeImage:
        """The image; its pixels are read when they are asked for."""
        return WholeImage(
            self.id, self.files, tuple(roles), self.values, self.group or self.id, self.modality
        )

    def of_group(self, group: str) -> WholeEntry:
        """The same image in another group."""
        return replace(self, group=group)


def unreadable(entries: Sequence[WholeEntry], roles: Sequence[str]) -> dict[str, ConfigFault]:
    """Decode every image once: the fault of each that cannot be, or has other channels than `roles`, by its id."""
    faults = {}
    for entry in entries:
        try:
            entry.load(roles).bit_max  # noqa: B018
        except ConfigFault as fault:
            faults[entry.id] = fault
    return faults


def in_words(faults: Iterable[ConfigFault]) -> str:
    """The faults of images in one sentence, the first five by themselves."""
    told = list(map(str, faults))
    more = f"; and {len(told) - _NAMED} more" if len(told) > _NAMED else ""
    return (
        f"{len(told)} image{'s' if len(told) != 1 else ''} cannot be read: {'; '.join(told[:_NAMED])}{more}"
    )
