"""Boxes written as other tools read them: COCO, Pascal VOC and YOLO; among others those of the objects of a run.

What is written can be read back (labelled/boxes.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
import yaml
from numpy.typing import NDArray

from cellcount_core.domain.columns import SOURCE, STATUS, Schema
from cellcount_core.domain.errors import ConfigFault, Status, nearest
from cellcount_core.output.runfile import RunFile, read_run
from cellcount_core.output.schema import read_table_bytes
from cellcount_core.reduce.ledger import fields_parts
from cellcount_core.stores.base import Store
from cellcount_core.tasks.boxes.columns import corner_columns

_DIGITS = 2
_RELATIVE_DIGITS = 6


@dataclass(frozen=True, slots=True, eq=False)
class BoxedFile:
    """An image file with its boxes: its name as it is written, its sides in px, boxes (n, 4) y0 x0 y1 x1, their classes and scores (n,)."""

    name: str
    height: int
    width: int
    boxes: NDArray[np.float64]
    classes: Sequence[str]
    scores: Sequence[float | None]


Written = Iterator[tuple[str, bytes]]
"""Names of files and their content."""


def write_boxes(kind: str, images: Iterable[BoxedFile], classes: Sequence[str]) -> Written:
    """The files of a data set of this kind. `classes` are all there are, in their order.

    Raises ConfigFault naming the nearest known kind if it is not one, or if two images would be written to one file.
    """
    if kind not in WRITERS:
        raise ConfigFault(
            f"boxes cannot be written as {kind!r}{nearest(kind, WRITERS)}; {', '.join(WRITERS)} expected"
        )
    return WRITERS[kind](images, tuple(classes))


def _coco(images: Iterable[BoxedFile], classes: tuple[str, ...]) -> Written:
    """One JSON. Coordinates and areas are rounded to a hundredth of a pixel."""
    told: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for number, image in enumerate(images, 1):
        told.append({"id": number, "file_name": image.name, "width": image.width, "height": image.height})
        for (y0, x0, y1, x1), name, score in zip(
            image.boxes.tolist(), image.classes, image.scores, strict=True
        ):
            annotation: dict[str, object] = {
                "id": len(annotations) + 1, "image_id": number, "category_id": classes.index(name) + 1,
                "bbox": [round(value, _DIGITS) for value in (x0, y0, x1 - x0, y1 - y0)],
                "area": round((x1 - x0) * (y1 - y0), _DIGITS), "iscrowd": 0,
            }  # fmt: skip
            annotations.append(annotation if score is None else {**annotation, "score": round(score, 4)})
    categories = [{"id": number, "name": name} for number, name in enumerate(classes, 1)]
    data = {"images": told, "annotations": annotations, "categories": categories}
    yield "boxes.json", (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode()


def _voc(images: Iterable[BoxedFile], classes: tuple[str, ...]) -> Written:
    """One XML an image. Corners are edges in px from the image's corner, as labelImg writes them, in whole px."""
    for image, key in _named(images, ".xml"):
        lines = [
            "<annotation>", f"  <filename>{escape(PurePosixPath(image.name).name, quote=False)}</filename>",
            f"  <size><width>{image.width}</width><height>{image.height}</height><depth>3</depth></size>",
        ]  # fmt: skip
        for (y0, x0, y1, x1), name in zip(image.boxes.tolist(), image.classes, strict=True):
            (left, right), (top, bottom) = _whole(x0, x1, image.width), _whole(y0, y1, image.height)
            lines += [
                f"  <object><name>{escape(name, quote=False)}</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>",
                f"    <bndbox><xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>",
            ]
        yield f"Annotations/{key}", "\n".join([*lines, "</annotation>", ""]).encode()


def _whole(low: float, high: float, side: int) -> tuple[int, int]:
    """Both edges in whole px, at least one apart and within the image."""
    start = min(round(low), side - 1)
    return start, max(round(high), start + 1)


def _yolo(images: Iterable[BoxedFile], classes: tuple[str, ...]) -> Written:
    """One text file an image, and data.yaml with the classes."""
    for image, key in _named(images, ".txt"):
        sides = np.array([image.height, image.width] * 2, np.float64)
        lines = []
        for corners, name in zip(image.boxes / sides, image.classes, strict=True):
            y0, x0, y1, x1 = corners.tolist()
            values = ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0)
            lines.append(
                " ".join([str(classes.index(name)), *(f"{value:.{_RELATIVE_DIGITS}f}" for value in values)])
            )
        yield f"labels/{key}", "\n".join([*lines, ""]).encode() if lines else b""
    names = dict(enumerate(classes))
    yield "data.yaml", yaml.safe_dump({"names": names}, sort_keys=False, allow_unicode=True).encode()


def _named(images: Iterable[BoxedFile], suffix: str) -> Iterator[tuple[BoxedFile, str]]:
    """The images, each with the name of its file: the image's own name with another ending."""
    seen: dict[str, str] = {}
    for image in images:
        key = PurePosixPath(image.name).stem + suffix
        if key in seen:
            raise ConfigFault(
                f"{seen[key]} and {image.name} would both be written to {key}: images of one name need COCO (--to coco)"
            )
        seen[key] = image.name
        yield image, key


WRITERS: Mapping[str, Callable[[Iterable[BoxedFile], tuple[str, ...]], Written]] = {
    "coco": _coco,
    "voc": _voc,
    "yolo": _yolo,
}
"""Every format that boxes are written in."""


@dataclass(slots=True)
class RunBoxes:
    """The boxes of the objects of a run.

    `classes` are all there are; objects without a class have the name of the run's objects. `left_out` counts the fields that were not
    counted, once `images` has been gone through.
    """

    store: Store
    run: RunFile
    left_out: int = 0

    @property
    def classes(self) -> tuple[str, ...]:
        """All classes, in their order."""
        return self.run.schema.classes or (self.run.schema.object_name,)

    def images(self) -> Iterator[BoxedFile]:
        """The counted fields in key order, each under the name of its first file, relative to the run's input.

        Raises LedgerFault if a shard is not counted yet, or its objects are not there.
        """
        for part in fields_parts(self.store, self.run):
            objects = (
                read_table_bytes(part.objects_key, self.store.get(part.objects_key))
                if part.objects_key
                else None
            )
            start = 0
            for row in part.table.select(_of_field(self.run.schema)).to_pylist():
                if row[STATUS.name] != Status.OK or objects is None:
                    self.left_out += 1
                    continue
                number = row[self.run.schema.object_count]
                yield self._image(row, objects.slice(start, number))
                start += number

    def _image(self, row: Mapping[str, object], objects: pa.Table) -> BoxedFile:
        name = self.run.schema.object_name
        corners = [objects.column(column).to_numpy() for column in corner_columns(name)]
        # A tile is not found: how sure its class is, is all that there is to say of it.
        score = next(one for one in ("score", "class_probability") if one in objects.column_names)
        sources, height, width = row[SOURCE.name], row["height_px"], row["width_px"]
        assert isinstance(sources, list) and isinstance(height, int) and isinstance(width, int)
        return BoxedFile(
            sources[0],
            height,
            width,
            np.stack(corners, axis=1).astype(np.float64).reshape(-1, 4),
            [one or name for one in objects.column("class").to_pylist()],
            objects.column(score).to_pylist(),
        )


def _of_field(schema: Schema) -> list[str]:
    return [STATUS.name, SOURCE.name, "height_px", "width_px", schema.object_count]


def boxes_of_run(store: Store) -> RunBoxes:
    """The boxes of a run's objects. Raises ConfigFault if its task finds no objects, OutputFault if `store` holds no run."""
    run = read_run(store)
    if not run.schema.objects:
        raise ConfigFault(
            f"{store.url}: a run of the task {run.schema.task!r}, which finds no objects: there are no boxes"
        )
    return RunBoxes(store, run)
