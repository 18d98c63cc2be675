"""Files of boxes: Pascal VOC, COCO and YOLO, read as they stand.

- Pascal VOC: an XML an image, in `Annotations/` beside `JPEGImages/` (or `images/`), or beside the image; `ImageSets/Main/<split>.txt`
- COCO: a JSON of images, categories and annotations, each with a `bbox` (x, y, width, height)
- YOLO: a text file an image, in `labels/` beside `images/`, or beside the image; its classes in `data.yaml` or `classes.txt`

Nothing is judged here but what cannot be read: labelled/boxes.py does that for all formats alike.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import yaml

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.labelled.annotations import annotation_files, find_image, split_of
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


@dataclass(frozen=True, slots=True)
class BoxSheet:
    """The boxes of one image as a file has them.

    `image` is the image file, None if there is none. `stated` is the (height, width) that the file says the image has, None if it
    says nothing. `relative` says that corners are parts of the image's sides.
    """

    id: str
    label: str
    image: Path | None
    boxes: tuple[DrawnBox, ...]
    stated: tuple[int, int] | None = None
    split: str = ""
    group: str = ""
    relative: bool = False


@dataclass(frozen=True, slots=True)
class Broken:
    """Something in a file that cannot be read: where it is and what is wrong; `box` says whether it is one box only."""

    where: str
    what: str
    box: bool = False


@dataclass(slots=True)
class BoxFiles:
    """What a data set of boxes holds, as it stands: images with boxes, image files without any label, what cannot be read, and the classes
    in their order if the data names them."""

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
        images = _images(inside, [*(part / name for name in _IMAGE_FOLDERS), part, inside])
        splits = _voc_splits(part, files)
        used: set[Path] = set()
        for path in sorted(inside.glob("*.xml")):
            sheet = _voc_sheet(path, images, splits.get(path.stem, split), counting, files)
            if sheet is not None:
                files.sheets.append(sheet)
                used |= {sheet.image} if sheet.image is not None else set()
            else:
                used |= {images[path.stem]} if path.stem in images else set()
        files.unlabelled += [path for path in images.values() if path not in used]
    return files


def has_voc(folder: Path) -> bool:
    """Whether a folder holds XML files, itself or in one called Annotations."""
    return _has(folder, ".xml") or any(_has(folder / name, ".xml") for name in _XML_FOLDERS)


def _voc_splits(folder: Path, files: BoxFiles) -> dict[str, str]:
    """The split of each image by its name, from train.txt, val.txt and so on; trainval.txt, which joins two, is left out."""
    found: dict[str, str] = {}
    for path in sorted((folder / _LISTS).glob("*.txt")):
        if path.stem in _SPLITS:
            lines = _lines(path, files)
            found |= {line.split()[0]: path.stem for line in lines if line.strip()}
    return found


def _lines(path: Path, files: BoxFiles) -> list[str]:
    """The lines of a text file; none, and it is told, if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        files.broken.append(Broken(str(path), f"not a text in UTF-8: {error}"))
        return []


def _voc_sheet(
    path: Path, images: Mapping[str, Path], split: str, counting: Counting, files: BoxFiles
) -> BoxSheet | None:
    found = _VocReader()
    try:
        read_xml(path.name, path.read_bytes(), found.start, found.end)
    except (Unreadable, OSError) as error:
        files.broken.append(
            Broken(str(path), error.why if isinstance(error, Unreadable) else str(error.strerror))
        )
        return None
    if not found.is_annotation:
        files.broken.append(Broken(str(path), "its root is not <annotation>"))
        return None
    before, after = _ADDED[counting]
    boxes = []
    for number, (name, texts) in enumerate(found.objects, 1):
        where = f"{path.name}, object {number}"
        try:
            x0, y0, x1, y1 = (float(texts[key]) for key in ("xmin", "ymin", "xmax", "ymax"))
        except (KeyError, ValueError) as error:
            files.broken.append(Broken(where, f"<bndbox> with four numbers expected ({error})", box=True))
            continue
        boxes.append(DrawnBox((y0 + before, x0 + before, y1 + after, x1 + after), name, where))
    named = Path(found.filename.replace("\\", "/")).stem
    image = images.get(path.stem) or images.get(named)
    return BoxSheet(path.stem, str(path), image, tuple(boxes), found.stated, split)


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


def read_coco(path: Path) -> BoxFiles:
    """Read COCO: a JSON file, or every one of a folder or of its `annotations/`; a file's name gives its split."""
    files = BoxFiles("coco")
    found = annotation_files(path) if path.is_dir() else [path]
    classes: dict[str, None] = {}
    for file in found:
        split = split_of(file) if len(found) > 1 else ""
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            files.broken.append(Broken(str(file), f"cannot be read: {error.strerror}"))
            continue
        except ValueError as error:
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
    names: dict[object, str] = {}
    for category in data["categories"]:
        if isinstance(category, dict) and isinstance(category.get("id"), int | str) and "name" in category:
            names[category["id"]] = str(category["name"])
        else:
            files.broken.append(
                Broken(str(path), f"a category with id and name expected (got {category!r:.60})")
            )
    classes |= dict.fromkeys(names.values())
    boxes: dict[object, list[DrawnBox]] = defaultdict(list)
    for number, annotation in enumerate(data["annotations"], 1):
        where = f"{path.name}, annotation {annotation.get('id', number) if isinstance(annotation, dict) else number}"
        read = _coco_box(annotation)
        if read is None:
            what = f"image_id, category_id and a bbox of four numbers expected (got {annotation!r:.100})"
            files.broken.append(Broken(where, what, box=True))
            continue
        of, place, corners = read
        boxes[of].append(DrawnBox(corners, names.get(place, f"category {place}"), where))
    for image in data["images"]:
        if (
            not isinstance(image, dict)
            or not isinstance(image.get("id"), int | str)
            or "file_name" not in image
        ):
            files.broken.append(
                Broken(str(path), f"an image with id and file_name expected (got {image!r:.60})")
            )
            continue
        files.sheets.append(_coco_sheet(path, split, image, boxes.pop(image["id"], [])))
    for strange, drawn in boxes.items():
        label = f"{path.name}, image_id {strange}"
        files.sheets.append(BoxSheet(str(strange), label, None, tuple(drawn), split=split))


def _coco_box(annotation: object) -> tuple[int | str, int | str, Corners] | None:
    """The image, the category and the corners of an annotation; None if it does not say them."""
    if not isinstance(annotation, dict):
        return None
    image, category, sides = (annotation.get(name) for name in ("image_id", "category_id", "bbox"))
    if not isinstance(image, int | str) or not isinstance(category, int | str) or not isinstance(sides, list):
        return None
    try:
        x, y, width, height = map(float, sides)
    except (TypeError, ValueError):
        return None
    return image, category, (y, x, y + height, x + width)


def _coco_sheet(path: Path, split: str, image: Mapping[str, object], boxes: Sequence[DrawnBox]) -> BoxSheet:
    name = str(image["file_name"])
    try:
        file: Path | None = find_image(path, split or split_of(path), name)
    except ConfigFault:
        file = None
    height, width = image.get("height"), image.get("width")
    stated = None
    if isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0:
        stated = (height, width)
    group = str(image.get("group", ""))
    named = str(Path(name).with_suffix(""))
    return BoxSheet(named, f"{path.name}, {name}", file, tuple(boxes), stated, split, group)


_YOLO_IMAGES, _YOLO_LABELS = "images", "labels"
_YOLO_CLASSES = ("classes.txt", "obj.names", "_darknet.labels", "labels.txt")


def read_yolo(folder: Path) -> BoxFiles:
    """Read YOLO: `images/` with `labels/`, whole or a folder a split, or text files beside the images."""
    files = BoxFiles("yolo")
    files.classes = _yolo_classes(folder, files)
    for labels, image_folders, split in _yolo_parts(folder):
        images = _images(labels, image_folders)
        used = set()
        for path in sorted(labels.glob("*.txt")):
            if path.name in _YOLO_CLASSES:
                continue
            image = images.get(path.stem)
            used |= {image} if image is not None else set()
            files.sheets.append(_yolo_sheet(path, image, split, files))
        files.unlabelled += [path for path in images.values() if path not in used]
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
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
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


def _yolo_classes(folder: Path, files: BoxFiles) -> tuple[str, ...]:
    """The classes in their order, from data.yaml or a list of names; () if there is none."""
    for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            files.broken.append(Broken(str(path), f"not YAML: {' '.join(str(error).split())[:120]}"))
            continue
        names = data.get("names") if isinstance(data, dict) else None
        if isinstance(names, list):
            return tuple(str(name) for name in names)
        if isinstance(names, dict) and set(names) == set(range(len(names))):
            return tuple(str(names[number]) for number in range(len(names)))
    for where in (folder, folder / _YOLO_LABELS):
        for name in _YOLO_CLASSES:
            if (where / name).is_file():
                return tuple(line.strip() for line in _lines(where / name, files) if line.strip())
    return ()


def _yolo_sheet(path: Path, image: Path | None, split: str, files: BoxFiles) -> BoxSheet:
    boxes = []
    for number, line in enumerate(_lines(path, files), 1):
        if not line.strip():
            continue
        where = f"{path.name}, line {number}"
        try:
            place, *values = line.split()
            named = _class_name(int(place), files.classes)
            boxes.append(DrawnBox(_yolo_corners([float(value) for value in values]), named, where))
        except ValueError:
            what = f"a class number and four numbers expected (got {line.strip()!r:.60})"
            files.broken.append(Broken(where, what, box=True))
    return BoxSheet(path.stem, str(path), image, tuple(boxes), split=split, relative=True)


def _class_name(place: int, classes: tuple[str, ...]) -> str:
    return classes[place] if 0 <= place < len(classes) else str(place)


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


def _images(labels: Path, folders: Iterable[Path]) -> dict[str, Path]:
    """Image files by their names without ending: those beside the labels, and those of the first of `folders` that has some."""
    for folder in folders:
        found = {
            path.stem: path
            for path in sorted(folder.iterdir() if folder.is_dir() else ())
            if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
        }
        if found:
            return found
    return {}
