"""Boxes in Pascal VOC, read as they stand: an XML an image, in `Annotations/` beside `JPEGImages/` (or `images/`), or beside the image;
`ImageSets/Main/<split>.txt` names the images of a split.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal

from cellcount_core.labelled.box_formats import (
    SPLITS,
    BoxFiles,
    BoxSheet,
    Broken,
    DrawnBox,
    claimed_images,
    holds,
    images_by_name,
    lines_of,
    only_image,
    parts_of,
    tell_unread,
)
from cellcount_core.labelled.image import IMAGE_SUFFIXES
from cellcount_core.layouts.metadata import Unreadable, read_xml

Counting = Literal["edges", "from_0", "from_1"]
"""What the corners in Pascal VOC files are: edges of the box in px from the image's corner (labelImg, Label Studio, Roboflow), or the
first and the last pixel of the box, counted from 0 or (as in the original data set) from 1."""

_ADDED: Mapping[str, tuple[int, int]] = {"edges": (0, 0), "from_0": (0, 1), "from_1": (-1, 0)}
"""What turns the first and the last corner into edges."""


_IMAGE_FOLDERS = ("JPEGImages", "images", "Images", "JPEGimages")
_XML_FOLDERS = ("Annotations", "annotations", "xml", "xmls")
_LISTS = Path("ImageSets") / "Main"


def read_voc(folder: Path, counting: Counting = "edges") -> BoxFiles:
    """Read Pascal VOC: every XML file of the folder, or of `train/`, `val/` … in it."""
    files = BoxFiles("voc")
    for part, split in parts_of(folder, has_voc):
        inside = next((part / name for name in _XML_FOLDERS if holds(part / name, ".xml")), part)
        images = images_by_name([*(part / name for name in _IMAGE_FOLDERS), part, inside])
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
            used |= claimed_images(sheet, images, path.stem)
        files.unlabelled += [path for each in images.values() for path in each if path not in used]
        if inside != part:
            tell_unread(inside, ".xml", (), files)
    return files


def has_voc(folder: Path) -> bool:
    """Whether a folder holds XML files, itself or in one called Annotations."""
    return holds(folder, ".xml") or any(holds(folder / name, ".xml") for name in _XML_FOLDERS)


def _voc_splits(folder: Path, files: BoxFiles) -> dict[str, dict[str, str]]:
    """For each image, by its name without ending, the lists that name it with the split of each, from train.txt, val.txt and so on;
    trainval.txt, which joins two, is left out."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for path in sorted((folder / _LISTS).glob("*.txt")):
        if path.stem in SPLITS:
            lines = lines_of(path)
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
    image = only_image(str(path), candidates, named.name, broken)
    return BoxSheet(path.stem, str(path), image, tuple(boxes), found.stated, split, broken=tuple(broken))


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
