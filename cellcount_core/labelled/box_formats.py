"""What is read from files of boxes, whatever their format, and how the readers find the images that belong to them.

The formats are Pascal VOC (box_voc.py), COCO (box_coco.py) and YOLO (box_yolo.py). A reader says only what cannot be read, or can be read in
two ways; boxes.py judges everything else for all formats alike.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cellcount_core.labelled.image import IMAGE_SUFFIXES

Corners = tuple[float, float, float, float]
"""y0, x0, y1, x1."""


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


SPLITS = ("train", "val", "valid", "validation", "test")


def lines_of(path: Path) -> list[str] | Broken:
    """The lines of a text file, or why it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        return Broken(str(path), f"cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        return Broken(str(path), f"not a text in UTF-8: {error}")


def only_image(where: str, candidates: Sequence[Path], named: str, broken: list[Broken]) -> Path | None:
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


def claimed_images(sheet: BoxSheet, images: Mapping[str, list[Path]], stem: str) -> set[Path]:
    """The image files of which a sheet speaks: all of its name where it cannot be told which one."""
    if any(each.kind == "ambiguous" for each in sheet.broken):
        return {*images.get(stem, []), *([sheet.image] if sheet.image is not None else [])}
    return {sheet.image} if sheet.image is not None else set()


def tell_unread(folder: Path, suffix: str, read: Sequence[str], files: BoxFiles) -> None:
    """Tell of files in folders of `folder` that nobody reads; `read` are the names of those that are read."""
    for inner in sorted(path for path in folder.iterdir() if path.is_dir() and path.name not in read):
        number = sum(1 for _ in inner.rglob(f"*{suffix}"))
        if number:
            what = f"{number} {suffix} files in a folder of {folder.name}/ are not read; put them beside the others"
            files.broken.append(Broken(str(inner), what))


def parts_of(folder: Path, fits: Callable[[Path], bool]) -> list[tuple[Path, str]]:
    """The folder itself, or those in it that are named after a split, with the split."""
    inner = [(folder / name, name) for name in SPLITS if (folder / name).is_dir() and fits(folder / name)]
    return [*inner, *([(folder, "")] if fits(folder) or not inner else [])]


def holds(folder: Path, suffix: str) -> bool:
    """Whether a folder is there and holds files with this ending."""
    return folder.is_dir() and any(path.suffix == suffix for path in folder.iterdir())


def images_by_name(folders: Iterable[Path]) -> dict[str, list[Path]]:
    """The image files of the first of `folders` that has some, by their names without ending."""
    for folder in folders:
        found: dict[str, list[Path]] = defaultdict(list)
        for path in sorted(folder.iterdir() if folder.is_dir() else ()):
            if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
                found[path.stem].append(path)
        if found:
            return found
    return {}
