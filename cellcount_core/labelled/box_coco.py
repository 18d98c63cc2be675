"""Boxes in COCO, read as they stand: a JSON of images, categories and annotations, each with a `bbox` (x, y, width, height).

Ids are compared as text, so that 1 and "1", which tools write for each other, are one.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PureWindowsPath

from cellcount_core.domain.errors import ConfigFault, nearest
from cellcount_core.labelled.annotations import annotation_files, find_image, split_of
from cellcount_core.labelled.box_formats import BoxFiles, BoxSheet, Broken, DrawnBox


def read_coco(path: Path) -> BoxFiles:
    """Read COCO: a JSON file, or every one of a folder or of its `annotations/`; a file's name gives its split."""
    files = BoxFiles("coco")
    found = annotation_files(path) if path.is_dir() else [path]
    classes: dict[str, None] = {}
    for file in found:
        split = split_of(file) if len(found) > 1 else ""
        try:
            data = json.loads(file.read_text(encoding="utf-8-sig"))
        except OSError as error:
            files.broken.append(Broken(str(file), f"cannot be read: {error.strerror}"))
            continue
        except (ValueError, RecursionError) as error:
            files.broken.append(Broken(str(file), f"not JSON: {error}"))
            continue
        if not isinstance(data, dict) or not all(isinstance(data.get(key), list) for key in _COCO_LISTS):
            files.broken.append(Broken(str(file), f"the lists {', '.join(_COCO_LISTS)} expected"))
            continue
        _read_coco_file(file, split, data, files, classes)
    files.classes = tuple(classes)
    return files


_COCO_LISTS = ("images", "annotations", "categories")


def _read_coco_file(
    path: Path, split: str, data: Mapping[str, list[object]], files: BoxFiles, classes: dict[str, None]
) -> None:
    names = _coco_names(path, data["categories"], files)
    classes |= {name: None for each in names.values() for name in each}
    boxes: dict[str, list[DrawnBox]] = defaultdict(list)
    broken: dict[str, list[Broken]] = defaultdict(list)
    for number, annotation in enumerate(data["annotations"], 1):
        where = f"{path.name}, annotation {annotation.get('id', number) if isinstance(annotation, dict) else number}"
        of = _id(annotation.get("image_id")) if isinstance(annotation, dict) else None
        if not isinstance(annotation, dict) or of is None:
            files.broken.append(Broken(where, f"an image_id expected (got {annotation!r:.100})"))
            continue
        box = _coco_box(annotation, names, where)
        if isinstance(box, Broken):
            broken[of].append(box)
            continue
        boxes[of].append(box)
        if annotation.get("iscrowd") in (1, True, "1"):
            broken[of].append(Broken(where, f"{box.name} with iscrowd: 1", "crowd"))
    ids: Counter[str] = Counter()
    sheets: list[tuple[str, BoxSheet]] = []
    for image in data["images"]:
        number_of = _id(image.get("id")) if isinstance(image, dict) else None
        name = image.get("file_name") if isinstance(image, dict) else None
        if not isinstance(image, dict) or number_of is None or not isinstance(name, str) or not _last(name):
            files.broken.append(
                Broken(str(path), f"an image with id and file_name expected (got {image!r:.60})")
            )
            continue
        ids[number_of] += 1
        own = _coco_sheet(path, split, image, boxes.get(number_of, []), broken.get(number_of, []))
        sheets.append((number_of, own))
    for number_of, sheet in sheets:
        twins = [other.id for number, other in sheets if number == number_of] if ids[number_of] > 1 else []
        told = f"images {' and '.join(twins[:4])} have one id ({number_of})"
        same = (Broken(sheet.label, told, "ambiguous"),) if twins else ()
        files.sheets.append(replace(sheet, broken=(*sheet.broken, *same)))
    for strange in {**boxes, **broken}:
        if strange not in ids:
            label = f"{path.name}, image_id {strange}"
            drawn, wrong = tuple(boxes.get(strange, [])), tuple(broken.get(strange, []))
            files.sheets.append(BoxSheet(strange, label, None, drawn, split=split, broken=wrong))


def _coco_names(path: Path, categories: Sequence[object], files: BoxFiles) -> dict[str, tuple[str, ...]]:
    """The names of each category by its id; more than one, and it is told, if two categories have one id."""
    names: dict[str, tuple[str, ...]] = {}
    for category in categories:
        number = _id(category.get("id")) if isinstance(category, dict) else None
        if not isinstance(category, dict) or number is None or "name" not in category:
            files.broken.append(
                Broken(str(path), f"a category with id and name expected (got {category!r:.60})")
            )
            continue
        name = str(category["name"])
        before = names.get(number, ())
        if name not in before:
            names[number] = (*before, name)
    for number, several in names.items():
        if len(several) > 1:
            told = f"the categories {' and '.join(several)} have one id ({number})"
            files.broken.append(Broken(str(path), told, "ambiguous"))
    return names


def _id(value: object) -> str | None:
    """An id as text, so that 1 and "1", which tools write for each other, are one; None if it is neither a whole number nor a text."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() if isinstance(value, int | str) and not isinstance(value, bool) else None


def _coco_box(
    annotation: Mapping[str, object], names: Mapping[str, tuple[str, ...]], where: str
) -> DrawnBox | Broken:
    """The box of an annotation, or what is wrong with it."""
    category, sides = _id(annotation.get("category_id")), annotation.get("bbox")
    try:
        x, y, width, height = map(float, sides if isinstance(sides, list) else ())
    except (TypeError, ValueError, OverflowError):
        return Broken(where, f"a bbox of four numbers expected (got {sides!r:.100})")
    if category is None:
        return Broken(where, f"a category_id expected (got {annotation.get('category_id')!r:.60})")
    name = names.get(category, ())
    if len(name) != 1:
        why = (
            f"has the names {' and '.join(name)}" if name else f"is not in the list{nearest(category, names)}"
        )
        return Broken(where, f"category {category} {why}", "ambiguous" if name else "unreadable")
    if (degrees := _rotation(annotation)) % 180:
        return Broken(
            where,
            f"a box turned by {degrees:g} degrees (attributes.rotation, as CVAT writes it); upright boxes expected",
        )
    return DrawnBox((y, x, y + height, x + width), name[0], where)


def _rotation(annotation: Mapping[str, object]) -> float:
    """By how many degrees CVAT says that a box is turned; 0 if nothing is said."""
    attributes = annotation.get("attributes")
    said = attributes.get("rotation") if isinstance(attributes, dict) else None
    try:
        degrees = float(said) if isinstance(said, int | float | str) else 0.0
    except ValueError:
        return 0.0
    return degrees if math.isfinite(degrees) else 0.0


_LEAST_SIDE = 10
"""Px from which on an image is too large for boxes that all lie within its first pixel."""


def _in_parts(boxes: Sequence[DrawnBox], stated: tuple[int, int] | None) -> list[Broken]:
    """What is wrong with boxes that are given in parts of the image's sides, as YOLO has them, instead of in px."""
    within = all(0 <= value <= 1 for box in boxes for value in box.corners)
    has_area = any(box.corners[2] > box.corners[0] and box.corners[3] > box.corners[1] for box in boxes)
    if not (within and has_area) or (stated is not None and min(stated) < _LEAST_SIDE):
        return []
    y0, x0, y1, x1 = boxes[0].corners
    told = f"all boxes lie within the first pixel, as parts of the image's sides would ({x0:g}, {y0:g}, {x1 - x0:g}, {y1 - y0:g}); px expected"
    return [Broken(boxes[0].where, told)]


def _last(name: str) -> str:
    """The last part of a path as Windows or anybody else writes it; "" if it has none."""
    return PureWindowsPath(name).name


def _coco_sheet(
    path: Path,
    split: str,
    image: Mapping[str, object],
    boxes: Sequence[DrawnBox],
    broken: Sequence[Broken],
) -> BoxSheet:
    written = str(image["file_name"])
    name = written.replace("\\", "/")
    # Of a path on the machine where the boxes were drawn only the last part says anything here.
    is_elsewhere = PureWindowsPath(written).drive or name.startswith("/")
    file = _found(path, split, name) or (_found(path, split, _last(name)) if is_elsewhere else None)
    name = _last(name) if is_elsewhere else name
    height, width = image.get("height"), image.get("width")
    stated = None
    if isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0:
        stated = (height, width)
    group = str(image.get("group", ""))
    named = str(Path(name).with_suffix(""))
    wrong = (*broken, *_in_parts(boxes, stated))
    return BoxSheet(named, f"{path.name}, {name}", file, tuple(boxes), stated, split, group, broken=wrong)


def _found(path: Path, split: str, name: str) -> Path | None:
    try:
        return find_image(path, split or split_of(path), name)
    except (ConfigFault, OSError, ValueError):
        return None
