"""COCO instance annotations: a JSON of images and of objects as polygons or run lengths."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.evaluation.labelled import Entry, Labels, plane_of, read_pixels, stack_masks
from cellcount_core.evaluation.loaders.rle import Mask, decode_counts, mask_of_polygon, mask_of_runs
from cellcount_core.pipeline.pixels import Pixels

Json = Mapping[str, object]

FOLDER = "annotations"
_SPLIT = re.compile(r"(?:^|[_-])(train|val|valid|validation|test)(?:\d*)(?:$|[_-])")


def list_entries(path: Path) -> list[Entry]:
    """Entries of a JSON file, or of every JSON of a folder or of its `annotations/`; their split stands in their names.

    Every annotation is one object, crowds too (several tools mark all run lengths so). Images are looked for beside the file,
    in images/ and in folders named by the split. Raises ConfigFault naming file, image and annotation.
    """
    files = annotation_files(path) if path.is_dir() else [path]
    if not files:
        raise ConfigFault(f"{path}: no JSON with the keys images and annotations")
    splits = [_split_of(file) for file in files] if len(files) > 1 else [""]
    return [entry for file, split in zip(files, splits, strict=True) for entry in _entries(file, split)]


def annotation_files(folder: Path) -> list[Path]:
    """The JSON files of a folder or of its annotations/."""
    inside = folder / FOLDER
    return sorted((inside if inside.is_dir() else folder).glob("*.json"))


def _split_of(path: Path) -> str:
    found = _SPLIT.search(path.stem)
    return found.group(1) if found else path.stem


def _entries(path: Path, split: str) -> list[Entry]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
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
        objects: dict[object, list[Json]] = defaultdict(list)
        for annotation in data["annotations"]:
            objects[annotation["image_id"]].append(annotation)
        strange = sorted(str(number) for number in set(objects) - {image["id"] for image in data["images"]})
        if strange:
            raise ConfigFault(f"{path}: annotations of image {strange[0]}, which `images` does not list")
        return [
            Entry(
                Path(image["file_name"]).stem,
                partial(_read, path, split or _split_of(path), image, objects[image["id"]]),
                split=split,
                group=str(image.get("group", "")),
            )
            for image in data["images"]
        ]
    except (KeyError, TypeError) as error:
        raise ConfigFault(
            f"{path}: images need id and file_name, annotations image_id (missing: {error})"
        ) from error


def _read(path: Path, split: str, image: Json, objects: Sequence[Json]) -> tuple[Pixels, Labels]:
    file = _find(path, split, str(image["file_name"]))
    pixels = read_pixels(file)
    height, width = plane_of(pixels).shape
    shape = (height, width)
    stated = (image.get("height", shape[0]), image.get("width", shape[1]))
    if stated[0] != shape[0] or stated[1] != shape[1]:
        raise ConfigFault(
            f"{file}: {shape[0]} x {shape[1]} px (height, width), {path.name} says {stated[0]} x {stated[1]}"
        )
    return pixels, stack_masks([_mask(path, each, shape) for each in objects], shape)


def _find(path: Path, split: str, name: str) -> Path:
    roots = [path.parent, path.parent.parent] if path.parent.name == FOLDER else [path.parent]
    tried = [root / part / name for root in roots for part in ("", "images", split, f"images/{split}")]
    found = next((candidate for candidate in tried if candidate.is_file()), None)
    if found is None:
        raise ConfigFault(
            f"{tried[0]}: not there, nor in {', '.join(str(each.parent) for each in tried[1:4])}"
        )
    return found


def _mask(path: Path, annotation: Json, shape: tuple[int, int]) -> Mask:
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


def _mask_of_runs(drawn: Json, shape: tuple[int, int]) -> Mask:
    size, counts = drawn["size"], drawn["counts"]
    if not isinstance(size, list) or tuple(size) != shape:
        raise ValueError(f"size {size}, the image is {list(shape)} (height, width)")
    if isinstance(counts, str):
        return mask_of_runs(decode_counts(counts), shape)
    if not isinstance(counts, list):
        raise TypeError(f"counts {type(counts).__name__}; a text or a list of whole numbers expected")
    return mask_of_runs([int(count) for count in counts], shape)
