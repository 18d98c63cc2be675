"""Boxes in YOLO, read as they stand: a text file an image, in `labels/` beside `images/`, or beside the image; the classes stand in
`data.yaml` or `classes.txt`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml

from cellcount_core.labelled.box_formats import (
    SPLITS,
    BoxFiles,
    BoxSheet,
    Broken,
    Corners,
    DrawnBox,
    claimed_images,
    holds,
    images_by_name,
    lines_of,
    only_image,
    tell_unread,
)

_YOLO_IMAGES, _YOLO_LABELS = "images", "labels"
_YOLO_CLASSES = ("classes.txt", "obj.names", "_darknet.labels", "labels.txt")


def read_yolo(folder: Path) -> BoxFiles:
    """Read YOLO: `images/` with `labels/`, whole or a folder a split, or text files beside the images."""
    files = BoxFiles("yolo")
    names = _yolo_classes(folder, files)
    files.classes = tuple(dict.fromkeys(names[number] for number in sorted(names)))
    for labels, image_folders, split in _yolo_parts(folder):
        images = images_by_name(image_folders)
        used: set[Path] = set()
        for path in sorted(labels.glob("*.txt")):
            if path.name in _YOLO_CLASSES:
                continue
            sheet = _yolo_sheet(path, images.get(path.stem, []), split, names)
            files.sheets.append(sheet)
            used |= claimed_images(sheet, images, path.stem)
        files.unlabelled += [path for each in images.values() for path in each if path not in used]
        if labels != folder:
            tell_unread(labels, ".txt", SPLITS if labels.name == _YOLO_LABELS else (), files)
    return files


def has_yolo(folder: Path) -> bool:
    """Whether a folder holds text files of boxes."""
    return any(
        path.name not in _YOLO_CLASSES and _looks_like_yolo(path)
        for labels, _, _ in _yolo_parts(folder)
        for path in sorted(labels.glob("*.txt"))[:20]
    )


def _looks_like_yolo(path: Path) -> bool:
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError):
        return False
    return all(len(parts) >= 5 and parts[0].isdecimal() for parts in lines[:5])


def _yolo_parts(folder: Path) -> Iterator[tuple[Path, list[Path], str]]:
    """The folders of text files, those of their images, and the split of each."""
    labels = folder / _YOLO_LABELS
    inner = [labels / name for name in SPLITS if holds(labels / name, ".txt")]
    for each in inner:
        yield each, [folder / _YOLO_IMAGES / each.name], each.name
    for name in SPLITS:
        if holds(folder / name / _YOLO_LABELS, ".txt"):
            yield folder / name / _YOLO_LABELS, [folder / name / _YOLO_IMAGES], name
    if holds(labels, ".txt"):
        yield labels, [folder / _YOLO_IMAGES, folder], ""
    elif not inner and holds(folder, ".txt"):
        yield folder, [folder], ""


def _yolo_classes(folder: Path, files: BoxFiles) -> dict[int, str]:
    """The name of each class by its number, from data.yaml or a list of names; empty if there is none."""
    for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
            files.broken.append(Broken(str(path), f"not YAML: {' '.join(str(error).split())[:120]}"))
            continue
        names = data.get("names") if isinstance(data, dict) else None
        if isinstance(names, list):
            return {number: str(name) for number, name in enumerate(names)}
        if isinstance(names, dict) and all(type(number) is int and number >= 0 for number in names):
            return {number: str(name) for number, name in names.items()}
        if names is not None:
            told = f"names: a list, or a name for each number from 0 on, expected (got {names!r:.60})"
            files.broken.append(Broken(str(path), told))
    for where in (folder, folder / _YOLO_LABELS):
        for name in _YOLO_CLASSES:
            if (where / name).is_file():
                return _listed_classes(where / name, files)
    return {}


def _listed_classes(path: Path, files: BoxFiles) -> dict[int, str]:
    """The names of a list, a line each. An empty line between them keeps its number, and is told."""
    lines = lines_of(path)
    if isinstance(lines, Broken):
        files.broken.append(lines)
        return {}
    last = max((number for number, line in enumerate(lines) if line.strip()), default=-1)
    for number, line in enumerate(lines[: last + 1]):
        if not line.strip():
            told = f"line {number + 1} is empty: is it class {number}, or has the next line that number?"
            files.broken.append(Broken(str(path), told, "ambiguous"))
    return {number: line.strip() for number, line in enumerate(lines) if line.strip()}


def _yolo_sheet(path: Path, candidates: Sequence[Path], split: str, names: Mapping[int, str]) -> BoxSheet:
    boxes = []
    broken: list[Broken] = []
    image = only_image(str(path), candidates, "", broken)
    lines = lines_of(path)
    if isinstance(lines, Broken):
        broken.append(lines)
        lines = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path.name}, line {number}"
        try:
            place, *values = line.split()
            named = _class_name(int(place), names)
            boxes.append(DrawnBox(_yolo_corners([float(value) for value in values]), named, where))
        except ValueError:
            what = f"a class number and four numbers expected (got {line.strip()!r:.60})"
            broken.append(Broken(where, what))
    return BoxSheet(
        path.stem, str(path), image, tuple(boxes), split=split, relative=True, broken=tuple(broken)
    )


def _class_name(place: int, names: Mapping[int, str]) -> str:
    if place < 0:
        raise ValueError(f"class {place}")
    return names.get(place, str(place))


def _yolo_corners(values: Sequence[float]) -> Corners:
    """Corners of a centre with sides (and perhaps a score), or of a polygon of three points or more."""
    if len(values) in (4, 5):
        x, y, width, height = values[:4]
        return y - height / 2, x - width / 2, y + height / 2, x + width / 2
    if len(values) < 6 or len(values) % 2:
        raise ValueError(f"{len(values)} numbers")
    return min(values[1::2]), min(values[::2]), max(values[1::2]), max(values[::2])
