"""Finding objects as boxes with a class: cells that touch, overlap or cross, of which only a place, a size and a kind are asked.

A box network says where the middle of each object is, how high and wide it is, and of which class (section.py); decode.py reads
that from its maps. The number of objects of each class is a column of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cellcount_core.domain.doubts import Doubt
from cellcount_core.domain.statistics import is_out_of_domain
from cellcount_core.images.imagefile import Plane
from cellcount_core.models.package import Package
from cellcount_core.tasks.boxes.columns import (
    BoxTable,
    CountedBoxes,
    class_counts,
    field_columns,
    field_values,
    object_columns,
    object_rows,
)
from cellcount_core.tasks.boxes.decode import decode, decode_blocks
from cellcount_core.tasks.boxes.features import box_features
from cellcount_core.tasks.boxes.score import LOWEST, BoxScoring, FoundBoxes
from cellcount_core.tasks.boxes.section import Boxes, BoxesSection, boxes_section
from cellcount_core.tasks.boxes.size import estimate_boxes
from cellcount_core.tasks.instances.columns import COUNT
from cellcount_core.tasks.task import (
    CanvasMaps,
    Objects,
    Preparation,
    Shape,
    SizeEstimate,
    TaskColumns,
    View,
)

_CLOSE = 1 / 3
_CROWD_SHARE = 0.25
_CROWD = 10
"""A field is too dense if at least this share, of at least this many objects, has another one's middle within a third of its own size."""


class BoxesHead:
    """Finds boxes by a package whose section (or a part of it) is `section`.

    It has no state, so fields may be given from several threads.
    """

    def __init__(self, package: Package, section: BoxesSection) -> None:
        self.package = package
        self.section = section

    def find(self, view: View) -> FoundBoxes:
        """The boxes of a field, numbered in raster order of their upper left corners."""
        boxes = self.decoder(view)
        with view.clock("separate"):
            found = boxes(1.0)
        with view.clock("measure"):
            table = BoxTable(found, view.shape, self.section.classes, _intensities(found, view))
        return self.told(view, table, partial(boxes, LOWEST))

    def decoder(self, view: View) -> Callable[[float], Boxes]:
        """A function that gives the boxes of a field in px of its raw planes: those whose score reaches the threshold of their class,
        or the number given if that is less.
        """
        height, width = view.maps.shape
        if height * width <= view.run.whole_limit:
            with view.clock("infer"):
                maps = view.maps.whole()
            read = partial(decode, maps, self.section)
        else:
            read = partial(decode_blocks, view.maps, self.section, side=view.run.block)
        return lambda lowest: _in_order(_in_original(read(lowest=lowest), (height, width), view.shape))

    def told(self, view: View, table: BoxTable, ranked: Callable[[], Boxes]) -> FoundBoxes:
        """What the tables say of these boxes, and what is doubtful about them."""
        package, found = self.package, table.found
        with view.clock("quality"):
            features = box_features(view, found)
        unlike = None
        if package.domain is not None and features is not None:
            unlike = package.domain.unlikeness(features)
        interval = None
        # The errors of a field unlike those that the interval was calibrated on are not known.
        if package.interval is not None and not is_out_of_domain(unlike):
            interval = package.interval.around(found.count)
        level = table.intensity.get(view.counted[0])
        declared = object_columns(package.object_name, view.measured)
        objects = Objects(
            count=found.count,
            area_px=round(table.covered_px),
            diameter_px=float(np.median(np.sqrt(table.area))) if found.count else None,
            level=float(np.median(level)) if level is not None and level.size else None,
            rows=partial(object_rows, table, package.object_name, view.um_per_px, declared),
        )
        return FoundBoxes(
            field_values(CountedBoxes(table, interval)),
            objects,
            boxes=found.boxes,
            classes=found.classes,
            ranked=ranked,
            warnings=(Doubt.TOO_DENSE,) if too_dense(found) else (),
            features=features,
            unlike=unlike,
        )

    def size(self, planes: tuple[Plane, ...], maps: CanvasMaps) -> SizeEstimate:
        """How large the objects of an image are (the root of their boxes' areas), as the network itself says."""
        return estimate_boxes(planes, self.package, self.section, maps)


def _in_original(found: Boxes, model_shape: Shape, shape: Shape) -> Boxes:
    """Boxes at the model's scale, of a field of `model_shape`, in px of the field of `shape`, cut off at its edges."""
    scale = np.array([shape[0] / model_shape[0], shape[1] / model_shape[1]] * 2)
    limits = np.array([*shape, *shape], np.float64)
    boxes = np.clip(found.boxes * scale, 0, limits)
    # What scaling leaves of a box that ends at the edge is the edge.
    boxes = np.where(found.boxes >= np.array([*model_shape, *model_shape]), limits, boxes)
    return Boxes(boxes, found.classes, found.scores)


def _in_order(found: Boxes) -> Boxes:
    """In raster order of the pixels that their upper left corners lie in; of equal ones, the first class and the surest first."""
    y, x = np.floor(found.boxes[:, 0]), np.floor(found.boxes[:, 1])
    return found.taken(np.lexsort((-found.scores, found.classes, found.boxes[:, 1], found.boxes[:, 0], x, y)))


def _intensities(found: Boxes, view: View) -> Mapping[str, NDArray[np.float64]]:
    """The mean (n,) of each measured channel within each box; pixels count that have their middle in it, one at least."""
    boxes, (height, width) = found.boxes, view.shape
    y0, x0 = (np.minimum(np.ceil(boxes[:, at] - 0.5), side - 1) for at, side in ((0, height), (1, width)))
    y1, x1 = (np.ceil(boxes[:, at] - 0.5) for at in (2, 3))
    windows = [
        (slice(int(top), max(int(top) + 1, int(bottom))), slice(int(left), max(int(left) + 1, int(right))))
        for top, left, bottom, right in zip(y0, x0, y1, x1, strict=True)
    ]
    return {
        name: np.array([view.planes[name][window].mean(dtype=np.float64) for window in windows], np.float64)
        for name in view.measured
        if name in view.planes
    }


def too_dense(found: Boxes) -> bool:
    """Whether so many boxes lie on top of each other that objects hide others."""
    if found.count < _CROWD:
        return False
    away = np.asarray(cKDTree(found.centres).query(found.centres, k=2)[0])[:, 1]
    size = np.sqrt(np.maximum(found.sides.prod(axis=1), 1e-9))
    return bool((away < _CLOSE * size).mean() >= _CROWD_SHARE)


class BoxesTask:
    """The task of finding objects as boxes, each with a class."""

    name = "boxes"
    learning = "cellcount_core.tasks.boxes.learn:BoxesLearning"
    preparation = Preparation.OBJECT_SIZE
    example: ClassVar[Mapping[str, object]] = {
        "classes": ["round", "long"], "maps": ["centre_round", "centre_long", "height", "width"], "stride": 1, "receptive_radius": 0,
        "thresholds": {"round": 0.3, "long": 0.3},
    }  # fmt: skip

    def columns(self, package: Package, measured: tuple[str, ...]) -> TaskColumns:
        """The count with its interval, the count of each class, and the box, class and score of every object."""
        classes = boxes_section(package).classes
        return TaskColumns(
            field=field_columns(classes),
            results=(COUNT, *class_counts(classes)),
            objects=object_columns(package.object_name, measured),
            object_count=COUNT,
            classes=classes,
        )

    def head(self, package: Package) -> BoxesHead:
        """Raises ModelFault if the package's section is wrong."""
        return BoxesHead(package, boxes_section(package))

    def scoring(self, package: Package) -> BoxScoring:
        """Compares found boxes with true ones."""
        return BoxScoring(boxes_section(package).classes)

    def side(self, _: Package) -> int:
        """0: fields are not resized to a number of pixels."""
        return 0
