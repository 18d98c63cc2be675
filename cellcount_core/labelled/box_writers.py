"""Boxes written as other tools read them: COCO, Pascal VOC and YOLO. What is written is read back by labelled/box_formats.py."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from xml.sax.saxutils import escape

import numpy as np
import yaml
from numpy.typing import NDArray

from cellcount_core.domain.errors import ConfigFault, nearest

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
            "<annotation>", f"  <filename>{escape(PurePosixPath(image.name).name)}</filename>",
            f"  <size><width>{image.width}</width><height>{image.height}</height><depth>3</depth></size>",
        ]  # fmt: skip
        for (y0, x0, y1, x1), name in zip(image.boxes.tolist(), image.classes, strict=True):
            (left, right), (top, bottom) = _whole(x0, x1, image.width), _whole(y0, y1, image.height)
            lines += [
                f"  <object><name>{escape(name)}</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>",
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
                f"{seen[key]} and {image.name} would both be written to {key}: images of one name in two folders need COCO (--to coco)"
            )
        seen[key] = image.name
        yield image, key


WRITERS: Mapping[str, Callable[[Iterable[BoxedFile], tuple[str, ...]], Written]] = {
    "coco": _coco,
    "voc": _voc,
    "yolo": _yolo,
}
"""Every format that boxes are written in."""
