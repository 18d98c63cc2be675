"""Labelled images to train on and to measure with: a folder with `index.csv`, or an NPZ archive."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.errors import ConfigFault, nearest
from cellcount_core.images.imagefile import Plane

INDEX = "index.csv"


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """One image with its label image.

    `plane` (H, W) in raw units, `labels` (H, W) int32 with 0 as background and 1..n as objects. `group` names what must
    stay on one side of a split; `diameter_px` is the median equivalent diameter (0.0 where there is no object).
    """

    id: str
    plane: Plane
    labels: NDArray[np.int32]
    group: str
    modality: str
    diameter_px: float


def load_folder(folder: Path, *, split: str = "", modality: Sequence[str] = ()) -> list[LabelledImage]:
    """Images of a folder whose `index.csv` has the columns id, file, label and, if wanted, split, modality, group.

    `split` and `modality` choose rows ("" and (): all). Colour images become grey. Raises ConfigFault naming file and value.
    """
    index = folder / INDEX
    if not index.is_file():
        raise ConfigFault(f"{index}: not there; a labelled folder needs it with the columns id, file, label")
    with index.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    for column in ("id", "file", "label"):
        if not rows or column not in rows[0]:
            raise ConfigFault(f"{index}: no column {column!r}{nearest(column, rows[0] if rows else [])}")
    chosen = [
        row
        for row in rows
        if (not split or row.get("split") == split) and (not modality or row.get("modality") in modality)
    ]
    if not chosen:
        known = (
            sorted({row.get("split", "") for row in rows}),
            sorted({row.get("modality", "") for row in rows}),
        )
        raise ConfigFault(
            f"{index}: no row with split {split!r} and modality {list(modality)}; splits {known[0]}, modalities {known[1]}"
        )
    return [_load_row(folder, row) for row in chosen]


def _load_row(folder: Path, row: dict[str, str]) -> LabelledImage:
    plane = read_plane(folder / row["file"])
    labels = read_plane(folder / row["label"]).astype(np.int32)
    if plane.shape != labels.shape:
        raise ConfigFault(f"{folder / row['label']}: labels are {labels.shape}, the image {plane.shape}")
    return LabelledImage(
        row["id"],
        plane,
        labels,
        row.get("group") or row["id"],
        row.get("modality", ""),
        median_diameter(labels),
    )


def read_plane(path: Path) -> Plane:
    """An image file as (H, W) in its own units; colours as OpenCV weighs them. Raises ConfigFault naming the file."""
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise ConfigFault(f"{path}: cannot be read: {error.strerror}") from error
    image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    if image is None:
        raise ConfigFault(f"{path}: not an image that can be decoded (PNG, TIFF and JPEG can)")
    if image.ndim == 3:
        image = cv2.cvtColor(image[..., :3], cv2.COLOR_BGR2GRAY)
    return np.asarray(image)


def load_npz(path: Path) -> list[LabelledImage]:
    """Images of an archive with `X` (N, H, W[, 1]) and masks or label images `y` of the same shape.

    A `y` of two values, whatever they are, is a mask: its objects are the connected components. Raises ConfigFault naming
    what is missing.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            missing = [name for name in ("X", "y") if name not in stored]
            if missing:
                raise ConfigFault(f"{path}: no array {missing[0]!r} (it holds {sorted(stored)})")
            images, masks = stored["X"], stored["y"]
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigFault):
            raise
        raise ConfigFault(f"{path}: not an NPZ archive: {error}") from error
    images, masks = _drop_channel(images), _drop_channel(masks)
    if images.ndim != 3 or images.shape != masks.shape:
        raise ConfigFault(
            f"{path}: X and y must both be (N, H, W) or (N, H, W, 1) (got {images.shape} and {masks.shape})"
        )
    binary = len(np.unique(masks)) <= 2
    labels = [_components(mask) if binary else mask.astype(np.int32) for mask in masks]
    return [
        LabelledImage(f"{index:06d}", plane, label, f"{index:06d}", "", median_diameter(label))
        for index, (plane, label) in enumerate(zip(images, labels, strict=True))
    ]


def _drop_channel(array: NDArray[np.generic]) -> NDArray[np.generic]:
    return array[..., 0] if array.ndim == 4 and array.shape[-1] == 1 else array


def _components(mask: NDArray[np.generic]) -> NDArray[np.int32]:
    return np.asarray(
        cv2.connectedComponents((mask.astype(np.float32) > 0.5).astype(np.uint8))[1], dtype=np.int32
    )


def median_diameter(labels: NDArray[np.int32]) -> float:
    """Median equivalent diameter in px of the objects of a label image; 0.0 where there is none."""
    areas = np.bincount(labels.ravel())[1:]
    areas = areas[areas > 0]
    return float(np.median(2 * np.sqrt(areas / np.pi))) if areas.size else 0.0
