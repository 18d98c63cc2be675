"""Images with boxes around their objects: listed and checked as a whole, read one by one.

Every fault of a data set comes in one report. For each kind of fault a policy says whether the data is refused, what is faulty is left
out, or all is kept; what is left out is told too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cellcount_core.config import RunConfig
from cellcount_core.domain.delimited import TableRow
from cellcount_core.domain.doubts import Doubt
from cellcount_core.domain.errors import ConfigFault, FieldFault, likely, nearest
from cellcount_core.images.decode import open_image
from cellcount_core.images.imagefile import Plane
from cellcount_core.labelled.annotations import annotation_files
from cellcount_core.labelled.box_coco import read_coco
from cellcount_core.labelled.box_faults import (
    NEAR,
    POLICY,
    Action,
    BoxFault,
    BoxReport,
    FoundFault,
)
from cellcount_core.labelled.box_formats import SPLITS, BoxFiles, BoxSheet, Broken, DrawnBox
from cellcount_core.labelled.box_voc import Counting, has_voc, read_voc
from cellcount_core.labelled.box_yolo import has_yolo, read_yolo
from cellcount_core.labelled.folders import read_rows
from cellcount_core.labelled.image import of_roles, read_pixels
from cellcount_core.tasks.boxes.score import box_iou
from cellcount_core.tasks.task import Truth

AUTO = "auto"
BOX_KINDS = ("voc", "coco", "yolo")
"""The formats of boxes by name."""

_SHOWN = 10
_MAX_PIXELS = RunConfig().max_pixels
_ROUNDING = 0.51
"""Px by which a box may lie outside of its image where its file holds rounded parts of the sides."""


@dataclass(frozen=True, slots=True, eq=False)
class BoxedImage:
    """One image with boxes.

    `planes` are its raw channels (H, W) by name, in order. `boxes` (n, 4) float64 are y0 x0 y1 x1, half-open, in px, and `classes` the
    name of each one's class. `group` names what must stay on one side of a split. `diameter_px` is the median of the roots of the boxes'
    areas (0.0 without boxes). `um_per_px` and `bit_max` are what the file says, as for a field that is counted.
    """

    id: str
    planes: Mapping[str, Plane]
    boxes: NDArray[np.float64]
    classes: tuple[str, ...]
    group: str
    modality: str = ""
    um_per_px: float | None = None
    bit_max: int = 0

    @property
    def diameter_px(self) -> float:
        """See above."""
        if not len(self.boxes):
            return 0.0
        return float(np.median(np.sqrt((self.boxes[:, 2:] - self.boxes[:, :2]).prod(axis=1))))

    @property
    def truth(self) -> Truth:
        """What is true of the image: its boxes."""
        return Truth(self.id, self.modality, self.diameter_px, boxes=self.boxes, classes=self.classes)


@dataclass(frozen=True, slots=True, eq=False)
class BoxEntry:
    """An image that a data set lists and that has not been read yet, with its (height, width) and its boxes as `BoxedImage` has them."""

    id: str
    file: Path
    shape: tuple[int, int]
    boxes: NDArray[np.float64]
    classes: tuple[str, ...]
    split: str = ""
    group: str = ""
    modality: str = ""

    def load(self, roles: Sequence[str] = ()) -> BoxedImage:
        """Read the image: its red, green and blue if those are the `roles`, else its channels as a run reads them.

        Raises ConfigFault naming the file if it cannot be read, or has other channels.
        """
        pixels = read_pixels(self.file, roles)
        if roles:
            pixels = of_roles(pixels, roles, str(self.file))
        return BoxedImage(
            self.id,
            pixels.planes,
            self.boxes,
            self.classes,
            self.group or self.id,
            self.modality,
            pixels.um_per_px,
            pixels.bit_max,
        )


@dataclass(frozen=True, slots=True, eq=False)
class BoxData:
    """A data set of boxes: its images, not yet read, the classes in their order, and the report of its faults."""

    path: Path
    kind: str
    classes: tuple[str, ...]
    entries: tuple[BoxEntry, ...]
    report: BoxReport

    @property
    def has_splits(self) -> bool:
        """Whether the data says which images are for training and which for evaluation."""
        return any(entry.split for entry in self.entries)

    def chosen(self, split: str, modality: Sequence[str] = ()) -> list[BoxEntry]:
        """The images of a split and of some modalities ("" and (): all). Raises ConfigFault, naming the known ones, if none remains."""
        found = [
            e
            for e in self.entries
            if (not split or e.split == split) and (not modality or e.modality in modality)
        ]
        if not found:
            known = sorted({e.split for e in self.entries}), sorted({e.modality for e in self.entries})
            raise ConfigFault(
                f"{self.path}: no image of split {split!r} and modality {list(modality)}; splits {known[0]}, modalities {known[1]}"
            )
        return found


@dataclass(frozen=True, slots=True)
class BoxReading:
    """How a data set of boxes is read.

    `kind` is one of `BOX_KINDS` or "auto". `classes` are those that may occur, in their order; () takes those that the data names, or
    else those that occur, sorted. `policy` says what is done about each kind of fault. `counting` says what corners are in Pascal VOC
    files. `table` is a CSV with the split, group or modality of each `image` (its file name, or its name without ending).
    """

    kind: str = AUTO
    classes: Sequence[str] = ()
    policy: Mapping[BoxFault, Action] = field(default_factory=lambda: POLICY)
    counting: Counting = "edges"
    table: Path | None = None


AS_USUAL = BoxReading()


def list_boxes(path: Path, reading: BoxReading = AS_USUAL) -> BoxData:
    """List and check the images of a data set of boxes.

    Raises ConfigFault with the whole report if the policy refuses one of its faults, and ConfigFault naming path and value for data of no
    known format.
    """
    data = check_boxes(path, reading)
    if data.report.refused:
        lines = "\n".join(data.report.lines())
        raise ConfigFault(
            f"{path}: the data has faults that are refused; mend them, or leave out what is faulty (--skip-faulty, or data.faults)\n{lines}"
        )
    if not data.entries:
        raise ConfigFault(f"{path}: no image with boxes in it")
    return data


def check_boxes(path: Path, reading: BoxReading = AS_USUAL) -> BoxData:
    """As `list_boxes`, but faults that the policy refuses are only told in the report; what is faulty is then left out."""
    if not path.exists():
        raise ConfigFault(f"{path}: not there; a folder of boxes, or a COCO JSON, expected")
    chosen = guess_box_kind(path) if reading.kind == AUTO else reading.kind
    if chosen not in BOX_KINDS:
        raise ConfigFault(f"boxes of kind {chosen!r} are unknown{nearest(chosen, [*BOX_KINDS, AUTO])}")
    readers: Mapping[str, Callable[[Path], BoxFiles]] = {
        "voc": partial(read_voc, counting=reading.counting), "coco": read_coco, "yolo": read_yolo,
    }  # fmt: skip
    files = readers[chosen](path)
    known = (
        tuple(reading.classes)
        or files.classes
        or tuple(sorted({box.name for s in files.sheets for box in s.boxes if box.name}))
    )
    checker = _Checker(known, reading.policy)
    sheets = list(_each_image_once(files.sheets))
    entries = [entry for sheet in sheets if (entry := checker.entry(sheet)) is not None]
    for broken in files.broken:
        checker.tell(BoxFault(broken.kind), broken.where, broken.what)
    for image in files.unlabelled:
        checker.tell(BoxFault.NO_LABEL, str(image), "no file of boxes is of it")
    if reading.table is not None:
        images = [sheet.image for sheet in sheets if sheet.image is not None]
        entries = list(
            _with_table(entries, reading.table, [*images, *files.unlabelled], [s.id for s in sheets])
        )
    told = Counter(name for entry in entries for name in entry.classes)
    report = BoxReport(
        str(path), chosen, len(entries), {name: told[name] for name in known},
        dict(sorted(Counter(entry.split for entry in entries).items())), tuple(checker.faults),
    )  # fmt: skip
    return BoxData(path, chosen, known, tuple(entries), report)


def guess_box_kind(path: Path) -> str:
    """The format of boxes that a file or folder looks like. Raises ConfigFault if it looks like none."""
    if path.is_file():
        found = "coco" if path.suffix.lower() == ".json" else ""
    elif has_voc(path) or any(
        has_voc(each) for each in path.iterdir() if each.is_dir() and each.name in SPLITS
    ):
        found = "voc"
    elif annotation_files(path):
        found = "coco"
    else:
        found = "yolo" if has_yolo(path) else ""
    if not found:
        raise ConfigFault(
            f"{path}: looks like no boxes; Pascal VOC (XML files), COCO (a JSON) or YOLO (text files beside images) expected"
            + _deeper(path)
        )
    return found


def _deeper(path: Path) -> str:
    """Where the folders below hold boxes, in words; "" if none does."""
    folders = sorted(each for each in path.iterdir() if each.is_dir()) if path.is_dir() else []
    found = [each.name for each in folders if has_voc(each) or annotation_files(each) or has_yolo(each)]
    if not found:
        return ""
    shown = ", ".join(f"{name}/" for name in found[:_SHOWN]) + (" …" if len(found) > _SHOWN else "")
    return (
        f"; there are such files one folder down, in {shown}: name one of these, or call them after the splits ({', '.join(SPLITS)}), or put all "
        "files together"
    )


def _each_image_once(sheets: Sequence[BoxSheet]) -> Iterator[BoxSheet]:
    """The sheets, those broken that share their image file with another."""
    places = [None if sheet.image is None else sheet.image.resolve() for sheet in sheets]
    times = Counter(place for place in places if place is not None)
    for sheet, place in zip(sheets, places, strict=True):
        if place is not None and times[place] > 1:
            told = f"{place.name} is listed {times[place]} times"
            yield replace(sheet, broken=(*sheet.broken, Broken(sheet.label, told, "ambiguous")))
        else:
            yield sheet


class _Checker:
    """Turns what files say into entries, and collects what is wrong."""

    def __init__(self, classes: tuple[str, ...], policy: Mapping[BoxFault, Action]) -> None:
        self._classes = classes
        self._policy = policy
        self.faults: list[FoundFault] = []

    def tell(self, kind: BoxFault, where: str, what: str) -> bool:
        """Add a fault; returns whether what is faulty is left out."""
        action = self._policy[kind]
        self.faults.append(FoundFault(kind, where, what, action))
        return action != "keep"

    def entry(self, sheet: BoxSheet) -> BoxEntry | None:
        """The image of a sheet with the boxes that are left; None if the image is left out."""
        done = [
            self.tell(BoxFault(each.kind), f"{sheet.id}: {each.where}", each.what) for each in sheet.broken
        ]
        if sheet.image is None:
            self.tell(BoxFault.NO_IMAGE, sheet.label, f"{len(sheet.boxes)} boxes, and no image of that name")
            return None
        try:
            body = sheet.image.read_bytes()
            image = open_image(body, str(sheet.image), max_pixels=_MAX_PIXELS)
        except (FieldFault, OSError) as error:
            self.tell(
                BoxFault.UNREADABLE,
                str(sheet.image),
                error.detail if isinstance(error, FieldFault) else str(error),
            )
            return None
        shape = image.shape
        if Doubt.TURNED in image.warnings:
            what = (
                "its header asks viewers to turn or mirror it (Exif orientation); turn its pixels and draw the boxes again, or, if they were "
                "drawn on the pixels as stored, take that tag out of the file (exiftool -Orientation= FILE), or keep it in a recipe "
                "(data.faults: {turned: keep})"
            )
            done.append(self.tell(BoxFault.TURNED, str(sheet.image), what))
        if sheet.stated is not None and sheet.stated != shape:
            what = f"the image has {shape[1]} x {shape[0]} px, the file states {sheet.stated[1]} x {sheet.stated[0]}"
            if self.tell(BoxFault.SIZE, sheet.label, what):
                return None
        judged = [self._box(sheet, shape, box) for box in sheet.boxes]
        kept = self._once(sheet, [box for box in judged if isinstance(box, DrawnBox)])
        if any(done) or "image" in judged:
            return None
        boxes = np.array([box.corners for box in kept], np.float64).reshape(-1, 4)
        names = tuple(box.name for box in kept)
        return BoxEntry(sheet.id, sheet.image, shape, boxes, names, sheet.split, sheet.group)

    def _box(
        self, sheet: BoxSheet, shape: tuple[int, int], box: DrawnBox
    ) -> DrawnBox | Literal["box", "image"]:
        """The box in px of the image; or what is left out, the box or its whole image."""
        where = f"{sheet.id}: {box.where}"
        corners = np.array(box.corners, np.float64)
        limits = np.array([*shape, *shape], np.float64)
        if sheet.relative:
            corners = corners * limits
        if not np.isfinite(corners).all():
            self.tell(BoxFault.UNREADABLE, where, f"corners {_shown(corners)}; numbers expected")
            return "image"
        if (corners[2:] <= corners[:2]).any():
            self.tell(BoxFault.ZERO_AREA, where, f"{box.name} {_shown(corners)}")
            return "box"
        over = np.maximum(np.maximum(-corners, corners - limits), 0)
        allowed = _ROUNDING if sheet.relative else 0.0
        if over.max() > allowed and self.tell(
            BoxFault.OUTSIDE, where, f"{box.name} {_shown(corners)} in {shape[1]} x {shape[0]} px"
        ):
            corners = np.clip(corners, 0, limits)
        if sheet.relative:
            corners = np.clip(corners, 0, limits) if over.max() <= allowed else corners
        if (corners[2:] <= corners[:2]).any():
            return "box"
        if box.name not in self._classes:
            told = f"{box.name!r}{nearest(box.name, self._classes)}"
            return "image" if self.tell(BoxFault.UNKNOWN_CLASS, where, told) else "box"
        y0, x0, y1, x1 = corners.tolist()
        return replace(box, corners=(y0, x0, y1, x1))

    def _once(self, sheet: BoxSheet, boxes: list[DrawnBox]) -> list[DrawnBox]:
        """The boxes without those that are left out because they are there twice."""
        dropped: set[int] = set()
        corners = np.array([box.corners for box in boxes], np.float64).reshape(-1, 4)
        for first, second, iou in _same_place(corners):
            one, other = boxes[first], boxes[second]
            if one.name != other.name:
                kind = BoxFault.TWO_CLASSES
            else:
                kind = BoxFault.DUPLICATE if one.corners == other.corners else BoxFault.NEAR_DUPLICATE
            what = f"{one.name} {_shown(corners[first])} and {other.name} {_shown(corners[second])} (IoU {iou:.2f})"
            if self.tell(kind, f"{sheet.id}: {other.where}", what):
                dropped.add(second)
        return [box for number, box in enumerate(boxes) if number not in dropped]


_ROWS_AT_ONCE = 256


def _same_place(corners: NDArray[np.float64]) -> Iterator[tuple[int, int, float]]:
    """Pairs of boxes (n, 4) that overlap by `NEAR` or more, and by how much; memory grows with n, not with its square."""
    for start in range(0, len(corners), _ROWS_AT_ONCE):
        iou = box_iou(corners[start : start + _ROWS_AT_ONCE], corners)
        for row, second in np.argwhere(iou >= NEAR).tolist():
            if second > start + row:
                yield start + row, second, float(iou[row, second])


def _shown(corners: NDArray[np.float64]) -> str:
    y0, x0, y1, x1 = corners.tolist()
    return f"x {x0:g} to {x1:g}, y {y0:g} to {y1:g}"


def _with_table(
    entries: Sequence[BoxEntry], table: Path, images: Sequence[Path], ids: Sequence[str]
) -> Iterator[BoxEntry]:
    """The entries with split, group and modality from a table; those that it does not name are left as they are.

    `images` and `ids` are those of the whole data set, with what is left out. Raises ConfigFault if a row names none of them, or if two
    rows of one image differ.
    """
    rows = read_rows(table)
    if not rows or "image" not in rows[0]:
        raise ConfigFault(f"{table}: a column `image` with the names of image files expected")
    names = {path.name for path in images}
    stems = {path.stem for path in images} | set(ids)
    known: dict[str, TableRow] = {}
    strange: list[str] = []
    for row in rows:
        written = PureWindowsPath(row["image"])
        name = next((each for each in (row["image"], written.name) if each in names | stems), "")
        if not name and written.suffix and written.stem in stems:
            name = written.stem
        if not name:
            strange.append(row["image"])
        elif known.setdefault(name, row) != row:
            raise ConfigFault(f"{table}: two rows of {row['image']!r} differ; one row an image expected")
    if strange:
        shown = "; ".join(f"{name!r}{likely(name, names | stems)}" for name in strange[:_SHOWN])
        more = f" and {len(strange) - _SHOWN} more" if len(strange) > _SHOWN else ""
        raise ConfigFault(
            f"{table}: {len(strange)} of {len(rows)} rows name no image of the data: {shown}{more}; the data has "
            f"{', '.join(sorted(names)[:3])}{', …' if len(names) > 3 else ''}"
        )
    for entry in entries:
        row = (
            known.get(entry.file.name) or known.get(entry.id) or known.get(entry.file.stem) or TableRow({}, 0)
        )
        yield replace(
            entry,
            split=row.get("split") or entry.split,
            group=row.get("group") or entry.group,
            modality=row.get("modality") or entry.modality,
        )
