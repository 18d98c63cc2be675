"""Files of boxes: Pascal VOC, COCO and YOLO, read as they stand.

- Pascal VOC: an XML an image, in `Annotations/` beside `JPEGImages/` (or `images/`), or beside the image; `ImageSets/Main/<split>.txt`
- COCO: a JSON (see labelled/box_coco.py)
- YOLO: a text file an image, in `labels/` beside `images/`, or beside the image; its classes in `data.yaml` or `classes.txt`

Nothing is judged here but what cannot be read, or read in two ways: labelled/boxes.py does that for all formats alike.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal

import yaml

from cellcount_core.labelled.image import IMAGE_SUFFIXES
from cellcount_core.layouts.metadata import Unreadable, read_xml

Corners = tuple[float, float, float, float]
"""y0, x0, y1, x1."""

Counting = Literal["edges", "from_0", "from_1"]
"""What the corners in Pascal VOC files are: edges of the box in px from the image's corner (labelImg, Label Studio, Roboflow), or the
first and the last pixel of the box, counted from 0 or (as in the original data set) from 1."""

_ADDED: Mapping[str, tuple[int, int]] = {"edges": (0, 0), "from_0": (0, 1), "from_1": (-1, 0)}
"""What turns the first and the last corner into edges."""


@dataclass(frozen=True, slots=True)
class DrawnBox:
    """A box as a file has it: its corners in px (or in parts of the image's sides), its class, and its place in the file for messages."""

    corners: Corners
    name: str
    where: str


BrokenKind = Literal["unreadable", "ambiguous", "crowd"]
"""What is wrong with something in a file: it cannot be read, it can be read in two ways, or it is a box around many objects."""


@dataclass(frozen=True, slots=True)
class Broken:
    """Something in a file that is no use as it stands: where it is, what is wrong, and the kind of that."""

    where: str
    what: str
    kind: BrokenKind = "unreadable"


@dataclass(frozen=True, slots=True)
class BoxSheet:
    """The boxes of one image as a file has them.

    `image` is the image file, None if there is none. `stated` is the (height, width) that the file says the image has, None if it
    says nothing. `relative` says that corners are parts of the image's sides. `broken` is what makes the sheet no full account of the
    image's objects.
    """

    id: str
    label: str
    image: Path | None
    boxes: tuple[DrawnBox, ...]
    stated: tuple[int, int] | None = None
    split: str = ""
    group: str = ""
    relative: bool = False
    broken: tuple[Broken, ...] = ()


@dataclass(slots=True)
class BoxFiles:
    """What a data set of boxes holds, as it stands: images with boxes, image files without any label, what is broken and belongs to no
    image, and the classes in their order if the data names them."""

    kind: str
    sheets: list[BoxSheet] = field(default_factory=list)
    unlabelled: list[Path] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    classes: tuple[str, ...] = ()


_SPLITS = ("train", "val", "valid", "validation", "test")
_IMAGE_FOLDERS = ("JPEGImages", "images", "Images", "JPEGimages")
_XML_FOLDERS = ("Annotations", "annotations", "xml", "xmls")
_LISTS = Path("ImageSets") / "Main"


def read_voc(folder: Path, counting: Counting = "edges") -> BoxFiles:
    """Read Pascal VOC: every XML file of the folder, or of `train/`, `val/` … in it."""
    files = BoxFiles("voc")
    for part, split in _parts(folder, has_voc):
        inside = next((part / name for name in _XML_FOLDERS if _has(part / name, ".xml")), part)
        images = _images([*(part / name for name in _IMAGE_FOLDERS), part, inside])
        splits = _voc_splits(part, files)
        used: set[Path] = set()
        for path in sorted(inside.glob("*.xml")):
            listed = splits.get(path.stem, {})
            sheet = _voc_sheet(path, images, next(iter(listed.values()), split), counting)
            if len(listed) > 1:
                twice = Broken(
                    str(path), f"the lists {' and '.join(map(str, listed))} both name it", "ambiguous"
                )
                sheet = replace(sheet, broken=(*sheet.broken, twice))
            files.sheets.append(sheet)
            used |= _claimed(sheet, images, path.stem)
        files.unlabelled += [path for each in images.values() for path in each if path not in used]
        if inside != part:
            _tell_unread(inside, ".xml", (), files)
    return files


def has_voc(folder: Path) -> bool:
    """Whether a folder holds XML files, itself or in one called Annotations."""
    return _has(folder, ".xml") or any(_has(folder / name, ".xml") for name in _XML_FOLDERS)


def _voc_splits(folder: Path, files: BoxFiles) -> dict[str, dict[str, str]]:
    """For each image, by its name without ending, the lists that name it with the split of each, from train.txt, val.txt and so on;
    trainval.txt, which joins two, is left out."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for path in sorted((folder / _LISTS).glob("*.txt")):
        if path.stem in _SPLITS:
            lines = _lines(path)
            if isinstance(lines, Broken):
                files.broken.append(lines)
                continue
            for line in filter(str.strip, lines):
                found[_without_ending(line.split()[0])][path.name] = path.stem
    return found


def _without_ending(name: str) -> str:
    """A name without its ending if that is one of image files."""
    path = PurePosixPath(name)
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else name


def _lines(path: Path) -> list[str] | Broken:
    """The lines of a text file, or why it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        return Broken(str(path), f"cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        return Broken(str(path), f"not a text in UTF-8: {error}")


def _voc_sheet(path: Path, images: Mapping[str, list[Path]], split: str, counting: Counting) -> BoxSheet:
    found = _VocReader()
    broken: list[Broken] = []
    try:
        read_xml(path.name, path.read_bytes(), found.start, found.end)
        if not found.is_annotation:
            broken.append(Broken(str(path), "its root is not <annotation>"))
    except (Unreadable, OSError) as error:
        found.objects.clear()
        broken.append(Broken(str(path), error.why if isinstance(error, Unreadable) else str(error.strerror)))
    before, after = _ADDED[counting]
    boxes = []
    for number, (name, texts) in enumerate(found.objects, 1):
        where = f"{path.name}, object {number}"
        try:
            x0, y0, x1, y1 = (float(texts[key]) for key in ("xmin", "ymin", "xmax", "ymax"))
        except (KeyError, ValueError) as error:
            broken.append(Broken(where, f"<bndbox> with four numbers expected ({error})"))
            continue
        boxes.append(DrawnBox((y0 + before, x0 + before, y1 + after, x1 + after), name, where))
    named = PureWindowsPath(found.filename)
    candidates = images.get(path.stem) or images.get(named.stem, [])
    image = _only(str(path), candidates, named.name, broken)
    return BoxSheet(path.stem, str(path), image, tuple(boxes), found.stated, split, broken=tuple(broken))


def _only(where: str, candidates: Sequence[Path], named: str, broken: list[Broken]) -> Path | None:
    """The image file that a file of boxes is of: the only one, or the one it names. The first one, and it is told, if nothing decides."""
    if len(candidates) < 2:
        return candidates[0] if candidates else None
    found = [path for path in candidates if path.name == named]
    if not found:
        names = " and ".join(path.name for path in candidates)
        broken.append(
            Broken(
                where, f"{names} both have its name, and it says of neither that it is its image", "ambiguous"
            )
        )
    return [*found, *candidates][0]


def _claimed(sheet: BoxSheet, images: Mapping[str, list[Path]], stem: str) -> set[Path]:
    """The image files of which a sheet speaks: all of its name where it cannot be told which one."""
    if any(each.kind == "ambiguous" for each in sheet.broken):
        return {*images.get(stem, []), *([sheet.image] if sheet.image is not None else [])}
    return {sheet.image} if sheet.image is not None else set()


def _tell_unread(folder: Path, suffix: str, read: Sequence[str], files: BoxFiles) -> None:
    """Tell of files in folders of `folder` that nobody reads; `read` are the names of those that are read."""
    for inner in sorted(path for path in folder.iterdir() if path.is_dir() and path.name not in read):
        number = sum(1 for _ in inner.rglob(f"*{suffix}"))
        if number:
            what = f"{number} {suffix} files in a folder of {folder.name}/ are not read; put them beside the others"
            files.broken.append(Broken(str(inner), what))


class _VocReader:
    """Collects what an XML file says: the image's name and size, and each object's class and corners."""

    def __init__(self) -> None:
        self.objects: list[tuple[str, dict[str, str]]] = []
        self.filename = ""
        self.is_annotation = False
        self._path: list[str] = []
        self._size: dict[str, str] = {}

    @property
    def stated(self) -> tuple[int, int] | None:
        """(height, width); None where the file has none, or 0, as some tools write."""
        try:
            height, width = (int(float(self._size[key])) for key in ("height", "width"))
        except (KeyError, ValueError):
            return None
        return (height, width) if height > 0 and width > 0 else None

    def start(self, name: str, _: Mapping[str, str]) -> None:
        """An element begins."""
        self._path.append(name)
        if self._path == ["annotation"]:
            self.is_annotation = True
        if self._path == ["annotation", "object"]:
            self.objects.append(("", {}))

    def end(self, name: str, text: str) -> None:
        """An element ends; `text` is what stood in it."""
        match self._path:
            case ["annotation", "filename"]:
                self.filename = text.strip()
            case ["annotation", "size", side]:
                self._size[side] = text.strip()
            case ["annotation", "object", "name"]:
                self.objects[-1] = (text.strip(), self.objects[-1][1])
            case ["annotation", "object", "bndbox", corner]:
                self.objects[-1][1][corner] = text.strip()
            case _:
                pass
        self._path.pop()


_YOLO_IMAGES, _YOLO_LABELS = "images", "labels"
_YOLO_CLASSES = ("classes.txt", "obj.names", "_darknet.labels", "labels.txt")


def read_yolo(folder: Path) -> BoxFiles:
    """Read YOLO: `images/` with `labels/`, whole or a folder a split, or text files beside the images."""
    files = BoxFiles("yolo")
    names = _yolo_classes(folder, files)
    files.classes = tuple(dict.fromkeys(names[number] for number in sorted(names)))
    for labels, image_folders, split in _yolo_parts(folder):
        images = _images(image_folders)
        used: set[Path] = set()
        for path in sorted(labels.glob("*.txt")):
            if path.name in _YOLO_CLASSES:
                continue
            sheet = _yolo_sheet(path, images.get(path.stem, []), split, names)
            files.sheets.append(sheet)
            used |= _claimed(sheet, images, path.stem)
        files.unlabelled += [path for each in images.values() for path in each if path not in used]
        if labels != folder:
            _tell_unread(labels, ".txt", _SPLITS if labels.name == _YOLO_LABELS else (), files)
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
    inner = [labels / name for name in _SPLITS if _has(labels / name, ".txt")]
    for each in inner:
        yield each, [folder / _YOLO_IMAGES / each.name], each.name
    for name in _SPLITS:
        if _has(folder / name / _YOLO_LABELS, ".txt"):
            yield folder / name / _YOLO_LABELS, [folder / name / _YOLO_IMAGES], name
    if _has(labels, ".txt"):
        yield labels, [folder / _YOLO_IMAGES, folder], ""
    elif not inner and _has(folder, ".txt"):
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
    lines = _lines(path)
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
    image = _only(str(path), candidates, "", broken)
    lines = _lines(path)
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


def _parts(folder: Path, holds: Callable[[Path], bool]) -> list[tuple[Path, str]]:
    """The folder itself, or those in it that are named after a split, with the split."""
    inner = [(folder / name, name) for name in _SPLITS if (folder / name).is_dir() and holds(folder / name)]
    return [*inner, *([(folder, "")] if holds(folder) or not inner else [])]


def _has(folder: Path, suffix: str) -> bool:
    return folder.is_dir() and any(path.suffix == suffix for path in folder.iterdir())


def _images(folders: Iterable[Path]) -> dict[str, list[Path]]:
    """The image files of the first of `folders` that has some, by their names without ending."""
    for folder in folders:
        found: dict[str, list[Path]] = defaultdict(list)
        for path in sorted(folder.iterdir() if folder.is_dir() else ()):
            if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
                found[path.stem].append(path)
        if found:
            return found
    return {}
