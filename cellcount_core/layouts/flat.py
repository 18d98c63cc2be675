"""Any folder of images: the folder is the plate, the file's name is the well, and each file is one site."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cellcount_core.domain.fields import FieldKey, Parsed
from cellcount_core.layouts.base import (
    Ignored,
    Layout,
    LayoutKind,
    LayoutSettings,
    Traits,
    ignored_name,
    parent,
    stem,
)


class FlatSettings(LayoutSettings):
    """Any folder of images, with its subfolders: the folder is the plate, the file's name is the well, and each file is one site."""

    kind: Literal["flat"] = "flat"


@dataclass(frozen=True, slots=True)
class Flat(Layout):
    """Plate: the folder relative to the input (`root` for the input itself). Well: the file name without extension.

    Site and time point are 1, and names do not tell channels. Each image of an array file (.npz, .npy) is a field, and its site is its
    index + 1. Names are kept as they are: "b2.png" is well "b2".
    """

    root: str

    def parse(self, key: str) -> Parsed | Ignored | None:
        """Never None: any name of an image is accepted."""
        if (ignored := ignored_name(key)) is not None:
            return ignored
        folder = parent(key)
        return Parsed(FieldKey(folder or self.root, stem(key), 1, 1), folder=folder)


def _build(_: FlatSettings, root: str) -> Flat:
    return Flat(root)


KIND = LayoutKind("flat", FlatSettings, _build, Traits(slices_are_fields=True, reads_any_name=True))
