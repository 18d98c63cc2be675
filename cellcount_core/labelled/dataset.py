"""Labelled images to train on and to evaluate with: which layout a path has, which images it holds, and reading them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from cellcount_core.domain.errors import ConfigFault, nearest
from cellcount_core.labelled.annotations import VOC_OBJECTS, annotation_files, list_coco, list_voc
from cellcount_core.labelled.box_faults import BoxFault, FoundFault
from cellcount_core.labelled.boxes import AS_USUAL, BoxedImage, BoxReading, list_boxes
from cellcount_core.labelled.class_folders import CLASS, list_class_folders
from cellcount_core.labelled.folders import (
    INDEX,
    image_folders,
    is_paired,
    list_archive,
    list_folder,
    list_masks,
    list_table,
    list_truths,
    split_folders,
)
from cellcount_core.labelled.image import Image_co, ImageEntry, LabelledEntry, LabelledImage, Pictured
from cellcount_core.labelled.patterns import PatternFault, PatternReading, ToldFault, list_patterns, skipping
from cellcount_core.labelled.whole import WholeImage
from cellcount_core.tasks.task import TruthKind

Image = TypeVar("Image", bound=Pictured)

AUTO = "auto"
KINDS: dict[str, Callable[[Path, Sequence[str]], list[LabelledEntry]]] = {
    "folder": list_folder,
    "npz": lambda path, _: list_archive(path),
    "coco": lambda path, _: list_coco(path),
    "voc": lambda path, _: list_voc(path),
    "masks": lambda path, _: list_masks(path),
    "table": list_table,
}
"""Every layout by its name, with the function that lists its images. It takes the path and the roles of the channels, which may lie in
files of their own."""


@dataclass(frozen=True, slots=True)
class Listing(Generic[Image_co]):
    """What a path holds: its layout (a name in `KINDS`) and its images, not yet read; and in words what was left out because it is faulty."""

    path: Path
    kind: str
    entries: tuple[ImageEntry[Image_co], ...]
    left_out: tuple[str, ...] = ()

    @property
    def has_splits(self) -> bool:
        """Whether the data says which images are for training and which for evaluation."""
        return any(entry.split for entry in self.entries)


def load_labelled(
    path: Path, kind: str = AUTO, split: str = "", modality: Sequence[str] = ()
) -> list[LabelledImage]:
    """Read the labelled images of `path`, whose layout is `kind`. `split` and `modality` choose among them ("" and
    (): all).

    Colour images become grey. A label image without any object is an empty image. Raises ConfigFault naming the file
    and what was expected of it.

    >>> image, *_ = load_labelled(made_up_labelled("labelled.npz", images=2))
    >>> image.plane.shape == image.labels.shape, image.labels.dtype.name
    (True, 'int32')
    """
    return [entry.load() for entry in choose(list_labelled(path, kind), split, modality)]


def list_labelled(path: Path, kind: str = AUTO, roles: Sequence[str] = ()) -> Listing[LabelledImage]:
    """List the images of `path` without reading them. `roles` are the channels that will be asked for; () is one, whatever its name.

    Raises ConfigFault if the layout is unknown or the files do not fit it.

    >>> found = list_labelled(made_up_labelled("labelled.npz", images=2))
    >>> found.kind, len(found.entries), found.has_splits
    ('npz', 2, False)
    """
    if kind != AUTO and kind not in KINDS:
        raise ConfigFault(f"data kind {kind!r} is unknown{nearest(kind, [*KINDS, AUTO])}")
    if not path.exists():
        raise ConfigFault(f"{path}: not there; {_expected(kind)} expected")
    chosen = guess_kind(path) if kind == AUTO else kind
    within = _only_file(path, chosen)
    entries = KINDS[chosen](within, roles)
    if not entries:
        raise ConfigFault(f"{within}: no labelled image in it")
    return Listing(path, chosen, tuple(entries))


Lists = Callable[[Path, Sequence[str], Sequence[str], BoxReading], Listing[Pictured]]

TRUTHS: Mapping[TruthKind, Lists] = {
    TruthKind.LABELS: lambda path, roles, _, __: list_labelled(path, AUTO, roles),
    TruthKind.BOXES: lambda path, _, classes, reading: _boxed(path, classes, reading),
    TruthKind.TABLE: lambda path, roles, columns, _: _in_a_table(path, roles, columns),
    TruthKind.PATTERNS: lambda *given: _patterned(*given),  # noqa: PLW0108 (is defined below)
}
"""How images are listed, by the form of what is said to be true of them: from the path, the roles of the channels, what the task asks
the truth for (`Scoring.names`), and how boxes are read."""


def list_images(
    path: Path,
    truth: TruthKind,
    roles: Sequence[str],
    names: Sequence[str] = (),
    reading: BoxReading = AS_USUAL,
) -> Listing[Pictured]:
    """List the images of `path` with their truths, without reading them. `names` is what the task asks them for (`Scoring.names`), and
    `reading` says how boxes are read.

    Raises ConfigFault if there is no such path, or it does not hold truths of that form.
    """
    if not path.exists():
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise ConfigFault(
            f"{path}: there is no such folder or file; expected {_TRUTHS_DESCRIBED[truth]}{nearest(path.name, beside)}"
        )
    return TRUTHS[truth](path, roles, names, reading)


def _in_a_table(path: Path, roles: Sequence[str], columns: Sequence[str]) -> Listing[WholeImage]:
    """The images of a table or a folder's index.csv; of class folders, where a class is all that is asked for. Raises ConfigFault if a folder is
    neither."""
    if not path.is_dir() or (path / INDEX).is_file():
        return Listing(path, "table", tuple(list_truths(path, roles, columns)))
    wanted = f"a CSV with the columns image and {' and '.join(columns)}"
    if tuple(columns) != (CLASS,):
        raise ConfigFault(f"{path}: no {INDEX} in it; {wanted} expected, or a folder with such an {INDEX}")
    try:
        found = list_class_folders(path, least=1)
    except ConfigFault as fault:
        raise ConfigFault(
            f"{fault}. Images in a folder for each class expected, or {wanted} in place of the folder"
        ) from fault
    return Listing(path, "class_folders", found.entries, tuple(found.lines()[2:]))


def _boxed(path: Path, classes: Sequence[str], reading: BoxReading) -> Listing[BoxedImage]:
    data = list_boxes(path, replace(reading, classes=classes))
    return Listing(data.path, data.kind, data.entries, _left_out(data.report.faults))


def _patterned(
    path: Path, roles: Sequence[str], names: Sequence[str], reading: BoxReading
) -> Listing[WholeImage]:
    faulty = reading.policy[BoxFault.NO_IMAGE] == "skip"
    policy = skipping(list(PatternFault) if faulty else ())
    data = list_patterns(path, roles, names, PatternReading(reading.table, policy))
    left_out = _left_out(data.report.faults)
    if left_out:
        left_out = (f"{data.report.images:,} of {data.report.rows:,} rows of {data.path} are left", *left_out)
    return Listing(data.path, "patterns", data.entries, left_out)


def _left_out(faults: Sequence[ToldFault | FoundFault]) -> tuple[str, ...]:
    """What faults were left out, a line for each kind with the first of them."""
    kinds: dict[PatternFault | BoxFault, list[ToldFault | FoundFault]] = {}
    for fault in faults:
        if fault.action == "skip":
            kinds.setdefault(fault.kind, []).append(fault)
    return tuple(
        f"left out: {len(own):,} x {kind.value}: {kind.told} ({own[0].where}: {own[0].what}{'; …' if len(own) > 1 else ''})"
        for kind, own in kinds.items()
    )


_TRUTHS_DESCRIBED = {
    TruthKind.LABELS: "labelled images (a folder with index.csv, an .npz archive, …)",
    TruthKind.BOXES: "images with boxes around their objects",
    TruthKind.PATTERNS: "images beside a CSV with the columns Id and Target, which names their patterns",
    TruthKind.TABLE: "a table with what is true of each image (a CSV or Parquet file, or a folder with index.csv; a folder for each class, where that is asked)",
}


def choose(listing: Listing[Image], split: str, modality: Sequence[str]) -> list[ImageEntry[Image]]:
    """The entries of a split and of some modalities ("" and (): all). Data that names no modality is taken for what is asked.

    Raises ConfigFault, naming the known ones, if none remains.
    """
    entries = listing.entries
    named = any(e.modality for e in entries)
    chosen = [
        e
        for e in entries
        if (not split or e.split == split) and (not modality or not named or e.modality in modality)
    ]
    if not chosen:
        known = sorted({e.split for e in entries}), sorted({e.modality for e in entries})
        raise ConfigFault(
            f"{listing.path}: no row with split {split!r} and modality {list(modality)}; splits {known[0]}, modalities {known[1]}"
        )
    return chosen


def load_folder(path: Path, *, split: str = "", modality: Sequence[str] = ()) -> list[LabelledImage]:
    """Read the labelled images of a folder of images and labels, as `load_labelled` does."""
    return load_labelled(path, "folder", split, modality)


def load_npz(path: Path) -> list[LabelledImage]:
    """Read the labelled images of an NPZ archive, as `load_labelled` does."""
    return load_labelled(path, "npz")


def guess_kind(path: Path) -> str:
    """The layout that a file or folder looks like. Raises ConfigFault if it looks like none of them.

    >>> guess_kind(made_up_labelled("labelled.npz", images=1))
    'npz'
    """
    if path.is_file():
        found = _FILES.get(path.suffix.lower())
    else:
        found = next((kind for kind, looks in _LOOKS if looks(path)), None)
    if found is None:
        raise ConfigFault(
            f"{path}: looks like no layout of labelled images; {_expected(AUTO)} expected, or say data.kind"
        )
    return found


def _is_coco(path: Path) -> bool:
    files = annotation_files(path)
    return bool(files) and _has_annotations(files[0])


def _has_annotations(path: Path) -> bool:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and {"images", "annotations"} <= set(data)


_FILES = {".npz": "npz", ".json": "coco", ".csv": "table", ".parquet": "table"}
_LOOKS: tuple[tuple[str, Callable[[Path], bool]], ...] = (
    (
        "folder",
        lambda path: (path / INDEX).is_file() or is_paired(path) or bool(split_folders(path)),
    ),
    ("voc", lambda path: (path / VOC_OBJECTS).is_dir()),
    ("coco", _is_coco),
    ("table", lambda path: len(_files_of(path, "table")) == 1),
    ("npz", lambda path: len(_files_of(path, "npz")) == 1),
    ("masks", lambda path: bool(image_folders(path))),
)
"""Tried in this order, because an index.csv is a table too, and train/images/ looks like a folder of the Data Science
Bowl."""


def _files_of(path: Path, kind: str) -> list[Path]:
    return sorted(each for each in path.iterdir() if _FILES.get(each.suffix.lower()) == kind)


def _only_file(path: Path, kind: str) -> Path:
    """The single file of a folder, for layouts that are one file. Raises ConfigFault if the folder holds none or
    several."""
    if kind not in ("npz", "table") or path.is_file():
        return path
    found = _files_of(path, kind)
    if len(found) != 1:
        raise ConfigFault(
            f"{path}: {len(found)} files for data.kind {kind!r}; one expected, or the file itself"
        )
    return found[0]


_DESCRIBED = {
    "folder": "a folder with index.csv, or with images/ and labels/",
    "npz": "an NPZ archive with X and y",
    "coco": "a COCO JSON",
    "voc": "a folder with JPEGImages/ and SegmentationObject/",
    "masks": "a folder of <id>/images/ and <id>/masks/",
    "table": "a CSV or Parquet table with the columns image (or one for each channel) and label",
}


def _expected(kind: str) -> str:
    return _DESCRIBED.get(kind) or ", ".join(_DESCRIBED.values())
