"""The images of a comparison, in a file that every system's process reads: NumPy and OpenCV only, whatever its environment."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

PARTS = ("train", "fit", "val")
"""`train` trains, `fit` (a tenth of the training groups) fits thresholds, `val` is only measured."""

Plane = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class Entry:
    """One labelled image: its files, and the part of the comparison it belongs to."""

    id: str
    file: str
    label: str
    part: str

    def plane(self) -> Plane:
        """The image (H, W) in its own units; colours as OpenCV weighs them. Raises OSError where it cannot be decoded."""
        image = _read(self.file)
        return cast("Plane", cv2.cvtColor(image[..., :3], cv2.COLOR_BGR2GRAY)) if image.ndim == 3 else image

    def labels(self) -> NDArray[np.int32]:
        """The label image (H, W): 0 is background, 1..n the objects."""
        return _read(self.label).astype(np.int32)


def _read(path: str) -> Plane:
    image = cv2.imread(path, cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype not in (np.uint8, np.uint16):
        raise OSError(f"{path}: not there, or not an 8- or 16-bit image that OpenCV decodes")
    return cast("Plane", image)


def write(path: Path, entries: Sequence[Entry]) -> None:
    """Write the entries as JSON."""
    path.write_text(json.dumps([asdict(entry) for entry in entries], indent=1), encoding="utf-8")


def read(path: Path, part: str) -> list[Entry]:
    """The entries of one part, in the order of the file. Raises ValueError for a part that is none of `PARTS`."""
    if part not in PARTS:
        raise ValueError(f"part {part!r}: one of {PARTS} expected")
    rows = json.loads(path.read_text(encoding="utf-8"))
    return [entry for entry in (Entry(**row) for row in rows) if entry.part == part]
