"""Data sets with annotation formats of their own: COCO instances and Pascal VOC segmentation.

- COCO: a JSON of images and of objects, each a polygon or run lengths, plain or compressed (pycocotools, common/maskApi.c)
- Pascal VOC: `JPEGImages/`, `SegmentationObject/` (palette PNG), `ImageSets/Segmentation/<split>.txt`
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.labelled.folders import by_stem
from cellcount_core.labelled.image import LabelledEntry, plane_of, read_pixels, same_size
from cellcount_core.labelled.label_files import Labels, read_indices, stack_masks
from cellcount_core.pipeline.pixels import Pixels

Mask = NDArray[np.bool_]
JsonObject = Mapping[str, object]

_ANNOTATIONS = "annotations"
_SPLIT_IN_NAME = re.compile(r"(?:^|[_-])(train|val|valid|validation|test)(?:\d*)(?:$|[_-])")


def list_coco(path: Path) -> list[LabelledEntry]:
    """List the images of a COCO JSON file, or of every JSON file of a folder or of its `annotations/`. A file's name
    gives its split.

    Every annotation is one object, even if it is marked as a crowd, because several tools mark all run lengths so.
    Images are looked for beside the file, in images/, and in folders named after the split. Raises ConfigFault naming
    file, image and annotation if something is wrong.
    """
    files = annotation_files(path) if path.is_dir() else [path]
    if not files:
        raise ConfigFault(f"{path}: no JSON with the keys images and annotations")
    splits = [split_of(file) for file in files] if len(files) > 1 else [""]
    return [entry for file, split in zip(files, splits, strict=True) for entry in _coco_entries(file, split)]


def annotation_files(folder: Path) -> list[Path]:
    """The JSON files of a folder, or of its annotations/ if it has one."""
    inside = folder / _ANNOTATIONS
    return sorted((inside if inside.is_dir() else folder).glob("*.json"))


def split_of(path: Path) -> str:
    """The split that the name of a JSON file gives ("instances_train2017.json"); its whole name if it gives none."""
    found = _SPLIT_IN_NAME.search(path.stem)
    return found.group(1) if found else path.stem


def _coco_entries(path: Path, split: str) -> list[LabelledEntry]:
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigFault(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigFault(f"{path}: not JSON: {error}") from error
    if (
        not isinstance(data, dict)
        or not isinstance(data.get("images"), list)
        or not isinstance(data.get("annotations"), list)
    ):
        raise ConfigFault(f"{path}: expected COCO's lists `images` and `annotations`")
    try:
        objects: dict[object, list[JsonObject]] = defaultdict(list)
        for annotation in data["annotations"]:
            objects[annotation["image_id"]].append(annotation)
        strange = sorted(str(number) for number in set(objects) - {image["id"] for image in data["images"]})
        if strange:
            raise ConfigFault(f"{path}: annotations of image {strange[0]}, which `images` does not list")
        return [
            LabelledEntry(
                Path(image["file_name"]).stem,
                partial(_read_coco, path, split or split_of(path), image, objects[image["id"]]),
                split=split,
                group=str(image.get("group", "")),
                file=str(image["file_name"]),
            )
            for image in data["images"]
        ]
    except (KeyError, TypeError) as error:
        raise ConfigFault(
            f"{path}: images need id and file_name, annotations image_id (missing: {error})"
        ) from error


def _read_coco(
    path: Path, split: str, image: JsonObject, objects: Sequence[JsonObject], roles: Sequence[str]
) -> tuple[Pixels, Labels]:
    file = find_image(path, split, str(image["file_name"]))
    pixels = read_pixels(file, roles)
    height, width = plane_of(pixels).shape
    shape = (height, width)
    stated = (image.get("height", shape[0]), image.get("width", shape[1]))
    if stated[0] != shape[0] or stated[1] != shape[1]:
        raise ConfigFault(
            f"{file}: {shape[0]} x {shape[1]} px (height, width), {path.name} says {stated[0]} x {stated[1]}"
        )
    return pixels, stack_masks([_mask(path, each, shape) for each in objects], shape)


def find_image(path: Path, split: str, name: str) -> Path:
    """The image of a name in the JSON file `path`: beside it, in images/, or in folders named after the split.

    Raises ConfigFault naming the places if it is nowhere.
    """
    roots = [path.parent, path.parent.parent] if path.parent.name == _ANNOTATIONS else [path.parent]
    tried = [root / part / name for root in roots for part in ("", "images", split, f"images/{split}")]
    found = next((candidate for candidate in tried if candidate.is_file()), None)
    if found is None:
        raise ConfigFault(
            f"{tried[0]}: not there, nor in {', '.join(str(each.parent) for each in tried[1:4])}"
        )
    return found


def _mask(path: Path, annotation: JsonObject, shape: tuple[int, int]) -> Mask:
    drawn = annotation.get("segmentation")
    try:
        if isinstance(drawn, dict):
            return _mask_of_runs(drawn, shape)
        if isinstance(drawn, list) and drawn:
            parts = [mask_of_polygon([float(value) for value in part], shape) for part in drawn]
            return np.asarray(np.logical_or.reduce(parts), np.bool_)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigFault(f"{path}: annotation {annotation.get('id')}: segmentation: {error}") from error
    raise ConfigFault(
        f"{path}: annotation {annotation.get('id')}: no segmentation; polygons or run lengths expected (a box gives no outline)"
    )


def _mask_of_runs(drawn: JsonObject, shape: tuple[int, int]) -> Mask:
    size, counts = drawn["size"], drawn["counts"]
    if not isinstance(size, list) or tuple(size) != shape:
        raise ValueError(f"size {size}, the image is {list(shape)} (height, width)")
    if isinstance(counts, str):
        return mask_of_runs(decode_counts(counts), shape)
    if not isinstance(counts, list):
        raise TypeError(f"counts {type(counts).__name__}; a text or a list of whole numbers expected")
    return mask_of_runs([int(count) for count in counts], shape)


def decode_counts(text: str) -> list[int]:
    """Decode COCO's compressed run lengths: five bits a character, sign extended. From the fourth number on they are
    differences.

    Raises ValueError if the text ends inside a number or holds a character that cannot be part of one.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            raise ValueError(f"character {character!r} in compressed run lengths")
        value |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:
            continue
        if code & 0x10:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("compressed run lengths end inside a number")
    return counts


def mask_of_runs(counts: Sequence[int], shape: tuple[int, int]) -> Mask:
    """The mask (H, W) bool of run lengths that run down the columns and begin with background.

    Raises ValueError if they do not add up to the image. Here the first column has the second pixel set, the second
    column the first:

    >>> mask_of_runs([1, 2, 1], (2, 2)).astype(int).tolist()
    [[0, 1], [1, 0]]
    """
    height, width = shape
    if min(counts, default=0) < 0 or sum(counts) != height * width:
        raise ValueError(
            f"run lengths of {sum(counts)} pixels; {height} x {width} = {height * width} expected"
        )
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(width, height).T


def mask_of_polygon(points: Sequence[float], shape: tuple[int, int]) -> Mask:
    """The mask (H, W) bool of the pixels whose centres lie inside a polygon [x0, y0, x1, y1, …], in px from the
    image's corner.

    Raises ValueError if it has fewer than three points.
    """
    if len(points) < 6 or len(points) % 2:
        raise ValueError(
            f"a polygon of {len(points)} numbers; an x and a y of at least three points expected"
        )
    corners = np.asarray(points, np.float64).reshape(-1, 2)
    height, width = shape
    left, top = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, (width, height))
    right, bottom = np.clip(np.ceil(corners.max(axis=0)).astype(int), 0, (width, height))
    x, y = np.arange(left, right) + 0.5, np.arange(top, bottom) + 0.5
    inside = np.zeros((bottom - top, right - left), bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        rows = np.flatnonzero((y0 <= y) != (y1 <= y))
        crossing = x0 + (y[rows] - y0) * ((x1 - x0) / (y1 - y0)) if rows.size else y[rows]
        inside[rows] ^= x[None, :] > crossing[:, None]
    mask = np.zeros(shape, bool)
    mask[top:bottom, left:right] = inside
    return mask


VOC_IMAGES = "JPEGImages"
VOC_OBJECTS = "SegmentationObject"
_VOC_LISTS = Path("ImageSets") / "Segmentation"
_VOC_VOID = 255
"""Index of the rim that the annotators left undecided. It counts as background."""


def list_voc(folder: Path) -> list[LabelledEntry]:
    """List the images that have an object mask. Raises ConfigFault if there are only boxes, or if an image or a mask
    is missing."""
    if not (folder / VOC_OBJECTS).is_dir():
        boxes = (
            " (Annotations/ has boxes, which give no outlines)" if (folder / "Annotations").is_dir() else ""
        )
        raise ConfigFault(f"{folder / VOC_OBJECTS}: not there; a palette PNG an image is expected{boxes}")
    if not (folder / VOC_IMAGES).is_dir():
        raise ConfigFault(f"{folder / VOC_IMAGES}: not there")
    images, masks = by_stem(folder / VOC_IMAGES), by_stem(folder / VOC_OBJECTS)
    splits = _voc_splits(folder)
    for stem in {**splits, **masks}:
        if stem not in images:
            raise ConfigFault(
                f"{folder / VOC_IMAGES / stem}.jpg: not there, though {VOC_OBJECTS} or a list of images names it"
            )
        if stem not in masks:
            raise ConfigFault(
                f"{folder / VOC_OBJECTS / stem}.png: not there, though a list of images names it"
            )
    return [
        LabelledEntry(
            stem,
            partial(_read_voc, images[stem], masks[stem]),
            split=splits.get(stem, ""),
            file=str(images[stem]),
        )
        for stem in sorted(masks)
    ]


def _voc_splits(folder: Path) -> dict[str, str]:
    """The split of each image, from the lists train.txt, val.txt and so on. trainval.txt, which joins two lists, is
    left out."""
    return {
        line.split()[0]: path.stem
        for path in sorted((folder / _VOC_LISTS).glob("*.txt"))
        if path.stem != "trainval"
        for line in path.read_text(encoding="utf-8-sig").splitlines()
        if line.strip()
    }


def _read_voc(image: Path, mask: Path, roles: Sequence[str]) -> tuple[Pixels, Labels]:
    pixels, labels = same_size(read_pixels(image, roles), read_indices(mask), mask)
    return pixels, np.where(labels == _VOC_VOID, 0, labels).astype(np.int32)
