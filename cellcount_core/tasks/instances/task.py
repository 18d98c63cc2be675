"""Counting objects: nuclei, cells or whatever a package's network tells from the background.

`InstancesSection` is what a package says about it in its manifest, and `InstancesHead` turns maps into label images and measurements: at
once, or block by block if a field is too large for that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cellcount_core.domain.columns import Column
from cellcount_core.domain.doubts import Doubt
from cellcount_core.domain.statistics import Moments, is_out_of_domain
from cellcount_core.images.imagefile import Plane
from cellcount_core.images.normalise import Normalisation
from cellcount_core.models.package import Package
from cellcount_core.objects.blocks import BlockObjects, separate_blocks
from cellcount_core.objects.labels import ObjectPixels, number_in_raster_order, paste, renumber
from cellcount_core.objects.measure import ObjectTable, join_tables, measure
from cellcount_core.objects.outline import (
    MARGIN,
    GrownSeparator,
    Outline,
    bounded_by_light,
    labels_to_original,
    map_to_original,
    objects_to_original,
    window_to_original,
)
from cellcount_core.objects.separators import Separator, build_separator
from cellcount_core.output.rows import ObjectColumn
from cellcount_core.tasks.instances.columns import (
    COUNT,
    FIELD,
    TWO_SIZES,
    CountedObjects,
    object_columns,
    object_moments,
    object_values,
)
from cellcount_core.tasks.instances.domain_features import domain_features
from cellcount_core.tasks.object_size.estimate import estimate_with
from cellcount_core.tasks.object_size.looks import tells_sizes
from cellcount_core.tasks.object_size.second_look import look_from_farther, speaks_of_larger
from cellcount_core.tasks.task import (
    CanvasMaps,
    Found,
    MapArray,
    Maps,
    Objects,
    Preparation,
    Scoring,
    Shape,
    SizeEstimate,
    TaskColumns,
    TaskSection,
    View,
    read_section,
)


class InstancesSection(TaskSection):
    """The section `instances` of a package's manifest.

    `maps` names the network's output channels. A canvas is padded to multiples of `stride` (px), and a tile's maps are valid at least
    `receptive_radius` px away from a cut edge. `separator` is a kind of separator with its numbers, and `sizing` those of its numbers that
    differ when objects are looked at only for their size.
    """

    maps: Annotated[tuple[str, ...], Field(min_length=1)]
    stride: Annotated[int, Field(ge=1)]
    receptive_radius: Annotated[int, Field(ge=0)]
    separator: dict[str, object]
    sizing: dict[str, object] = Field(default_factory=dict)


def section_of(package: Package) -> InstancesSection:
    """The section of a package. Raises ModelFault naming the key that is wrong."""
    return read_section(InstancesSection, package)


FOREGROUND = "foreground"
"""Name of a map that is a probability. If a package's first map has another name, its objects get no score."""

_TEARING = 0.03
"""Share of full scale: with more noise than this, single pixels do not show where an object ends."""

_HALO = 128
"""First guess, in px at the model's scale, of how far objects reach over a block's edge; blocks widen it if it is too small."""


@dataclass(frozen=True, slots=True, eq=False)
class _Counted:
    """The objects of a field, and its label image if it is kept.

    `sizes` says how many objects of which size there are, if they were counted at two scales.
    """

    table: ObjectTable
    labels: NDArray[np.integer] | None
    warnings: tuple[str, ...]
    features: tuple[float, ...] | None = None
    sizes: str | None = None


class InstancesHead:
    """Finds objects by a package whose network says which pixels are foreground.

    It has no state, so fields may be given from several threads. Raises ModelFault if the package's section is wrong.
    """

    def __init__(self, package: Package) -> None:
        self.package = package
        self.section: InstancesSection = section_of(package)
        self.separator: Separator = build_separator(self.section.separator)

    def find(self, view: View) -> Found:
        """The objects of a field: counted, measured, and numbered in raster order."""
        height, width = view.maps.shape
        at_once = height * width <= view.run.whole_limit
        return self._found(view, _at_once(view, self) if at_once else _by_blocks(view, self))

    def size(self, planes: tuple[Plane, ...], maps: CanvasMaps) -> SizeEstimate:
        """How large the objects of an image are, estimated by the network itself."""
        return estimate_with(planes, self.package, self.section, maps)

    def _found(self, view: View, counted: _Counted) -> Found:
        package, table = self.package, counted.table
        domain, interval, unlike = package.domain, None, None
        if domain is not None and counted.features is not None:
            unlike = domain.unlikeness(counted.features)
        # The errors of a field unlike those that the interval was calibrated on are not known.
        if package.interval is not None and not is_out_of_domain(unlike):
            interval = package.interval.around(table.count)
        seen = CountedObjects(table, view.shape, interval, counted.sizes)
        declared = object_columns(package.object_name, view.measured)
        levels = table.mean_intensity.get(view.counted[0])
        objects = Objects(
            count=table.count,
            area_px=seen.area,
            diameter_px=float(np.median(table.equivalent_diameter)) if table.count else None,
            level=float(np.median(levels)) if levels is not None and table.count else None,
            rows=partial(_rows, table, package.object_name, view.um_per_px, declared),
        )
        return Found(
            {made.column.name: made.value(seen) for made in (*FIELD, TWO_SIZES)},
            objects,
            counted.labels,
            warnings=counted.warnings,
            features=counted.features,
            unlike=unlike,
        )


def _rows(
    table: ObjectTable, object_name: str, um_per_px: float | None, declared: tuple[Column, ...]
) -> tuple[Mapping[str, ObjectColumn], Mapping[str, Moments]]:
    columns = object_values(table, object_name, um_per_px)
    return columns, object_moments(columns, declared)


def _at_once(view: View, head: InstancesHead) -> _Counted:
    maps, shape, separator = view.maps, view.shape, head.separator
    with view.clock("infer"):
        whole = maps.whole()
    with view.clock("separate"):
        labels = separate_whole(separator, whole)
        twice = look_from_farther(maps, whole, labels, separator, head.package, shape)
    near = labels if twice is None or not twice.near.any() else twice.near
    with view.clock("quality"):
        features = domain_features(maps.canvas(), whole, near) if tells_sizes(head.package) else None
    with view.clock("separate"):
        plane = view.seen[0]
        if twice is None:
            drawn = _drawn_whole(labels, whole, plane, maps.norm, separator)
        else:
            drawn = _seen(ObjectPixels.of(twice.labels), (0, 0), plane, maps.norm, separator)
    with view.clock("measure"):
        score = map_to_original(whole[..., 0], shape) if _scored(head.package) else None
        table = measure(drawn, _measured(view), score_map=score)
    warnings = () if twice is None else (Doubt.TWO_SIZES,)
    labels_whole = drawn if view.run.labels == "tiff" else None
    return _Counted(table, labels_whole, warnings, features, None if twice is None else twice.sizes)


def separate_whole(separator: Separator, maps: MapArray) -> NDArray[np.int32]:
    """Label image (h, w) int32 of the maps (h, w, K) of a whole field, at the model's scale."""
    return separator.separate(maps, separator.fit([maps]))


def label_whole(separator: Separator, maps: MapArray, plane: Plane, norm: Normalisation) -> NDArray[np.int32]:
    """The label image (H, W) of a field from its maps (h, w, K) at the model's scale, as if the field was counted at once.

    `plane` (H, W) is the raw counted plane, `norm` its levels.
    """
    return _drawn_whole(separate_whole(separator, maps), maps, plane, norm, separator)


def _drawn_whole(
    labels: NDArray[np.int32], maps: MapArray, plane: Plane, norm: Normalisation, separator: Separator
) -> NDArray[np.int32]:
    """Objects separated (h, w) in the maps (h, w, K) of a whole field, drawn in its counted plane (H, W)."""
    shape = (plane.shape[0], plane.shape[1])
    if separator.outline is None:
        return _without_debris(labels_to_original(labels, shape), (0, 0), norm)
    return _seen(
        objects_to_original(labels, maps[..., 0], separator.outline, shape), (0, 0), plane, norm, separator
    )


def _by_blocks(view: View, head: InstancesHead) -> _Counted:
    maps, shape = view.maps, view.shape
    with view.clock("infer"):
        params = head.separator.fit(maps.cores())
    canvas = np.zeros(shape, np.uint32) if view.run.labels == "tiff" else None
    nothing = np.zeros((0, 0), np.int32)
    tables = [_measured_window(nothing, (0, 0), view, head)]
    warnings: set[str] = set()
    before = 0
    model_shape = maps.shape
    separator = _drawn(head.separator)
    blocks = separate_blocks(model_shape, maps.window, separator, params, block=view.run.block, halo=_HALO)
    for found in _timed(blocks, view):
        warnings.update(found.warnings)
        if not found.count:
            continue
        with view.clock("separate"):
            window, corner = _around(maps, found)
            if speaks_of_larger(window, head.package):
                warnings.add(Doubt.TOO_LARGE)
            outline = _outline(window, corner, model_shape, separator.outline)
            objects, origin = window_to_original(found.labels, found.origin, model_shape, shape, outline)
            labels = _seen(objects, origin, view.seen[0], maps.norm, head.separator)
        with view.clock("measure"):
            tables.append(_measured_window(labels, origin, view, head))
        if canvas is not None:
            paste(canvas, labels, origin, before)
        before += tables[-1].count
    table, lookup = join_tables(tables)
    labels_whole = renumber(canvas, lookup) if canvas is not None else None
    return _Counted(table, labels_whole, tuple(sorted(warnings)))


def _shown_calm(plane: Plane, origin: Shape, size: Shape, norm: Normalisation) -> Plane:
    """A window of a plane, of `size` (h, w) from `origin` (y, x); a 3 x 3 mean if noise would tear an object's edge."""
    (y, x), (height, width) = origin, size
    if norm.noise <= _TEARING * abs(norm.range) or not height or not width:
        return plane[y : y + height, x : x + width]
    top, left = max(0, y - 1), max(0, x - 1)
    around = plane[top : y + height + 1, left : x + width + 1].astype(np.float32)
    calm = np.asarray(cv2.blur(around, (3, 3), borderType=cv2.BORDER_REPLICATE))
    return calm[y - top : y - top + height, x - left : x - left + width]


def _seen(
    objects: ObjectPixels, origin: Shape, plane: Plane, norm: Normalisation, separator: Separator
) -> NDArray[np.int32]:
    """A window's objects (h, w) as the counted plane shows them, numbered in raster order.

    They are bounded by their light if they have an outline, and debris is left out.
    """
    if separator.outline is not None:
        shown = _shown_calm(plane, origin, objects.shape, norm)
        objects = bounded_by_light(objects, shown, norm.background, norm.range)
    return _without_debris(objects.painted(), origin, norm)


def _without_debris(labels: NDArray[np.int32], origin: Shape, norm: Normalisation) -> NDArray[np.int32]:
    if norm.debris is None:
        return labels
    odd = norm.debris.owning(labels, origin)
    return number_in_raster_order(np.where(odd[labels], 0, labels))


def _drawn(separator: Separator) -> Separator:
    """The separator for objects that are brought to the original image: grown if it draws outlines."""
    return separator if separator.outline is None else GrownSeparator(separator)


def _around(maps: Maps, found: BlockObjects) -> tuple[MapArray, Shape]:
    """The maps under the objects of a block and as far around them as their outline is read, and their (y, x)."""
    (height, width), (y, x), around = maps.shape, found.origin, MARGIN + 1
    y0, x0 = max(0, y - around), max(0, x - around)
    y1 = min(height, y + found.labels.shape[0] + around)
    x1 = min(width, x + found.labels.shape[1] + around)
    return maps.window(y0, y1, x0, x1), (y0, x0)


def _outline(window: MapArray, corner: Shape, model_shape: Shape, level: float | None) -> Outline | None:
    """What the objects of a block are drawn to: map 0 of the window around them."""
    if level is None:
        return None
    # Maps of a window come with all channels: only the first is held on to.
    return Outline(np.ascontiguousarray(window[..., 0]), corner, model_shape, level)


def _timed(blocks: Iterator[BlockObjects], view: View) -> Iterator[BlockObjects]:
    """Yield the blocks, adding the time spent on each (and on its maps, which are made on demand) to the stage "separate"."""
    while True:
        with view.clock("separate"):
            block = next(blocks, None)
        if block is None:
            return
        yield block


def _measured_window(
    labels: NDArray[np.int32], origin: Shape, view: View, head: InstancesHead
) -> ObjectTable:
    (y, x), shape = origin, view.shape
    window = (slice(y, y + labels.shape[0]), slice(x, x + labels.shape[1]))
    cropped = {name: plane[window] for name, plane in _measured(view).items()}
    score = (
        _score_window(view.maps, labels.shape, origin, shape)
        if _scored(head.package) and labels.size
        else None
    )
    return measure(labels, cropped, score_map=score, origin=origin, field_shape=shape)


def _score_window(maps: Maps, size: Shape, origin: Shape, shape: Shape) -> NDArray[np.float32]:
    """Map 0 under a window of the original image, at the original scale."""
    rows = _shown(origin[0], size[0], maps.shape[0], shape[0])
    columns = _shown(origin[1], size[1], maps.shape[1], shape[1])
    found = maps.window(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)
    score: NDArray[np.float32] = found[rows - rows[0]][:, columns - columns[0], 0]
    return score


def _shown(start: int, length: int, n: int, full: int) -> NDArray[np.int64]:
    """Pixels of an axis of `n` that `length` of its `full` original pixels show, from `start` (see objects/outline.py)."""
    return (2 * np.arange(start, start + length, dtype=np.int64) + 1) * n // (2 * full)


def _measured(view: View) -> dict[str, Plane]:
    return {name: view.planes[name] for name in view.measured if name in view.planes}


def _scored(package: Package) -> bool:
    return package.maps[0] == FOREGROUND


class Instances:
    """The task of counting objects, each with its outline and measurements."""

    name = "instances"
    learning = "cellcount_core.tasks.instances.learn:InstancesLearning"
    preparation = Preparation.OBJECT_SIZE
    example: ClassVar[Mapping[str, object]] = {
        "maps": ["foreground"], "stride": 1, "receptive_radius": 0, "separator": {"kind": "components"},
    }  # fmt: skip

    def columns(self, package: Package, measured: tuple[str, ...]) -> TaskColumns:
        """The count with its interval, and the place, shape and intensities of every object."""
        return TaskColumns(
            field=tuple(made.column for made in FIELD),
            results=(COUNT,),
            scale=(TWO_SIZES.column,),
            objects=object_columns(package.object_name, measured),
            object_count=COUNT,
        )

    def head(self, package: Package) -> InstancesHead:
        """Raises ModelFault if the package's section is wrong or names no separator."""
        return InstancesHead(package)

    def scoring(self, _: Package) -> Scoring:
        """Compares counted objects with those of label images."""
        from cellcount_core.tasks.instances.score import LabelScoring

        return LabelScoring()

    def side(self, _: Package) -> int:
        """0: fields are not resized to a number of pixels."""
        return 0
