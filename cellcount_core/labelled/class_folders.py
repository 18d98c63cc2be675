"""Images in a folder for each class: `control/*.tif`, `knock-down/*.tif`; or `TRAIN/<class>/` beside `TEST/<class>/`.

Hidden files and folders, those that macOS leaves behind (`._x.tif`, `.DS_Store`, `__MACOSX`), empty files and files that are no images are left
out and counted, and so are images that lie beside the class folders, which have no class. What is damaged is named. A table `groups.csv` (columns file and group, or original) beside the folders says which images belong
together; otherwise each is a group of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cellcount_core.domain.errors import ConfigFault, nearest
from cellcount_core.labelled.folders import SPLITS, read_rows
from cellcount_core.labelled.image import IMAGE_SUFFIXES
from cellcount_core.labelled.whole import WholeEntry

CLASS = "class"
GROUPS = "groups.csv"
_GROUP_COLUMNS = ("group", "original", "photo")
_LEFT_BEHIND = ("__MACOSX", "Thumbs.db", "desktop.ini")
FEWEST = 2
"""So many classes, and images of each, a training needs."""

BESIDE = "beside the class folders"
"""Why an image is left out that lies in no class folder: nothing says which class it has."""

_NAMED = 5
"""So many damaged files are named one by one."""


@dataclass(frozen=True, slots=True)
class ClassFolders:
    """What lies in class folders: the images, and what was left out and why, as numbers by kind ("hidden", "empty", "not an image", "beside the class folders")."""

    path: Path
    entries: tuple[WholeEntry, ...]
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, in the order of their names."""
        return tuple(sorted({entry.values[CLASS] for entry in self.entries}))

    def lines(self) -> list[str]:
        """What is there, in words: images of each class, groups, and what was left out."""
        numbers = Counter(entry.values[CLASS] for entry in self.entries)
        groups = len({entry.group or entry.id for entry in self.entries})
        told = [
            f"{self.path}: {len(self.entries)} images: {', '.join(f'{count} {name}' for name, count in sorted(numbers.items()))}"
        ]
        told.append(
            f"{groups} groups by {GROUPS}: a group stays on one side of every split"
            if groups < len(self.entries)
            else f"every image is a group of its own: no {GROUPS} says which come from one photo"
        )
        if self.left_out:
            told.append(
                "left out: " + ", ".join(f"{count} {why}" for why, count in sorted(self.left_out.items()))
            )
        return told


def list_class_folders(
    path: Path, classes: Sequence[str] = (), groups: Path | None = None, *, least: int = FEWEST
) -> ClassFolders:
    """List the images of class folders. `classes` are those expected (() for all there are), `groups` the table of groups (None: groups.csv).

    Raises ConfigFault naming the folder, file or row: a class without a folder, less than `least` classes or images of one (two, so that what
    trains can be measured too; of 1, where nothing trains, a class may have none), a folder that holds further folders, or
    a table that names a file that is not there or another class than the folder's.
    """
    if not path.is_dir():
        raise ConfigFault(f"{path}: no such folder; a folder with one folder for each class expected")
    left_out: Counter[str] = Counter()
    entries = [
        entry for split, folder in _parts(path, left_out) for entry in _entries(path, split, folder, left_out)
    ]
    found = sorted({folder.name for _, folder in _parts(path, Counter())})
    _check_classes(path, classes, found, Counter(entry.values[CLASS] for entry in entries), least)
    wanted = set(classes or found)
    kept = [entry for entry in entries if entry.values[CLASS] in wanted]
    if len(kept) < len(entries):
        left_out["of other classes"] += len(entries) - len(kept)
    table = groups or path / GROUPS
    if groups is not None and not table.is_file():
        raise ConfigFault(f"{table}: not there; a CSV with the columns file and group expected")
    return ClassFolders(path, tuple(_grouped(path, table, kept) if table.is_file() else kept), left_out)


def _parts(path: Path, left_out: Counter[str]) -> list[tuple[str, Path]]:
    """The class folders with the split that they are in; "" if the data has none."""
    folders = _folders(path, left_out)
    inner = [folder for folder in folders if folder.name.casefold() in SPLITS]
    if inner and len(inner) == len(folders):
        return [(folder.name.casefold(), each) for folder in inner for each in _folders(folder, left_out)]
    return [("", folder) for folder in folders]


def _folders(path: Path, left_out: Counter[str]) -> list[Path]:
    found = []
    for each in sorted(path.iterdir()):
        if each.is_dir() and _is_hidden(each):
            left_out["hidden"] += 1
        elif each.is_dir():
            found.append(each)
        elif each.suffix.lower() in IMAGE_SUFFIXES and not _is_hidden(each):
            left_out[BESIDE] += 1
    return found


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".") or path.name in _LEFT_BEHIND


def _entries(root: Path, split: str, folder: Path, left_out: Counter[str]) -> list[WholeEntry]:
    found = []
    for path in sorted(folder.iterdir()):
        if _is_hidden(path):
            left_out["hidden"] += 1
        elif path.is_dir():
            raise ConfigFault(
                f"{path}: a folder inside the class folder {folder.name!r}; images expected there (classes are the folders directly in {root}, "
                f"or in {', '.join(name for name in SPLITS[:2])}/)"
            )
        elif path.suffix.lower() not in IMAGE_SUFFIXES:
            left_out["not an image"] += 1
        elif path.stat().st_size == 0:
            left_out["empty"] += 1
        else:
            name = path.relative_to(root).as_posix()
            found.append(WholeEntry(name, path, {CLASS: folder.name}, split))
    return found


def _check_classes(
    path: Path, classes: Sequence[str], found: Sequence[str], numbers: Counter[str], least: int
) -> None:
    for name in classes:
        if name not in found:
            raise ConfigFault(
                f"{path}: no folder for the class {name!r}{nearest(name, found) or '; there is none at all'}"
            )
    wanted = list(classes or found)
    if wanted and not any(numbers[name] for name in wanted):
        raise ConfigFault(
            f"{path}: none of the class folders ({', '.join(wanted)}) has an image (hidden and empty files do not count)"
        )
    if len(wanted) < least:
        raise ConfigFault(
            f"{path}: {len(wanted)} class folders ({', '.join(wanted) or 'none'}); {least} or more expected"
        )
    for name in wanted:
        if numbers[name] < least and least >= FEWEST:
            what = "no image" if not numbers[name] else "a single image"
            raise ConfigFault(
                f"{path}: the class {name!r} has {what}: what trains cannot be measured too, so two or more are needed (hidden and empty files "
                "do not count)"
            )


def _grouped(path: Path, table: Path, entries: Sequence[WholeEntry]) -> list[WholeEntry]:
    rows = read_rows(table)
    if not rows:
        raise ConfigFault(f"{table}: no row")
    column = next((name for name in _GROUP_COLUMNS if name in rows[0]), None)
    if "file" not in rows[0] or column is None:
        raise ConfigFault(
            f"{table}: columns {', '.join(rows[0])}; file and one of {', '.join(_GROUP_COLUMNS)} expected"
        )
    known = {entry.id: entry for entry in entries}
    group: dict[str, str] = {}
    for row in rows:
        name = Path(row["file"]).as_posix()
        if name in group:
            raise ConfigFault(f"{table}: row {row.number}: {name!r} is in the table twice")
        if name not in known and not (path / name).exists():
            raise ConfigFault(f"{table}: row {row.number}: {name!r} is not there{_meant(name, list(known))}")
        if name in known and row.get(CLASS) and row[CLASS] != known[name].values[CLASS]:
            raise ConfigFault(
                f"{table}: row {row.number}: {name!r} is of class {row[CLASS]!r} here and lies in the folder {known[name].values[CLASS]!r}: one "
                "and the same expected"
            )
        group[name] = row[column]
    lacking = [name for name in known if not group.get(name)]
    if lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise ConfigFault(
            f"{table}: no group for {lacking[0]!r}{more}: every image needs one, or none has any"
        )
    return [replace(entry, group=group[entry.id]) for entry in entries]


def _meant(name: str, known: Sequence[str]) -> str:
    """What a file that is not there may have been meant to be. A name alone may stand for one file in each class folder."""
    ends = [each for each in known if each.endswith(f"/{name}")]
    if ends:
        return f": the path from the data's folder on expected, {' or '.join(map(repr, ends[:_NAMED]))}"
    return nearest(name, known)
