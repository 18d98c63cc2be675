"""Separation for networks with two heads: foreground, and normalised distance to the object's boundary.

Where the distance is high lies an object's *core*. Cores are found at rising levels, as branches of a tree: a core that
falls into two or more prominent ones at a higher level is replaced by them. Then every foreground pixel goes to the nearest
core of its own connected piece of foreground. Linear in pixels; the labels of one piece depend on that piece alone.

What is smaller than a whole object can be is dropped, but for what the image's edge cuts: a part of an object is small.

Whole images are only thresholded and labelled, in C. Levels look at the list of the pixels above the last one, everything
else at their runs, and distances are measured in the boxes of those pieces alone that hold more than one core. (Were there
many long pieces side by side, their boxes would overlap and be measured as often; objects of cells are not like that.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import cv2
import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.errors import ModelFault, nearest
from cellcount_core.objects.labels import raster_numbers
from cellcount_core.objects.runs import Indices, Runs, first_of_runs, join_runs, paint

_LEVEL_STEP = 0.12
_LEVEL_END = 0.86


@dataclass(frozen=True, slots=True)
class CoreParams:
    """What is fitted when a network was trained.

    `foreground`: probability above which a pixel belongs to an object. `core`: distance (0..1) above which it belongs to a
    core. `prominence`: by how much a branch must rise above the level where it parts from its sibling. `core_area` (px): the
    smallest branch. `peak`: a piece of foreground whose distance nowhere reaches it is no object. `min_area` (px): the
    smallest object. `edge_area` (px): the smallest one that touches the edge of the image and somewhere reaches the
    probability `edge_peak`; None: `min_area`. `outline`: probability that objects are drawn to once they are found (see
    outline.py), None: `foreground`.
    """

    foreground: float = 0.5
    core: float = 0.4
    prominence: float = 0.08
    core_area: float = 3.0
    peak: float = 0.3
    min_area: float = 12.0
    edge_area: float | None = None
    edge_peak: float = 0.98
    outline: float | None = None


_OPTIONAL = ("edge_area", "outline")
"""Parameters that may be None: not stated."""


@dataclass(frozen=True, slots=True, eq=False)
class _Level:
    """What of an image lies above a level, as runs in raster order that belong to connected components 1..`count` - 1.

    `outer` (r,) is the component of the level below that a run lies in, `tops` (r,) its greatest height.
    """

    runs: Runs
    outer: NDArray[np.int32]
    tops: NDArray[np.float32]
    count: int


@dataclass(frozen=True, slots=True, eq=False)
class _Cores:
    """Cores as runs, no two of which overlap, and the piece of foreground that each of the numbers lies in."""

    runs: Runs
    piece_of_core: Indices


class _Canvas:
    """Two images of the maps' size that every level is drawn on and labelled in.

    Fresh memory of this size costs as much as what is done in it. Rows are one pixel longer than the maps', so that no run
    goes on in the next row.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.mask = np.zeros((shape[0], shape[1] + 1), np.uint8)
        self.labels = np.zeros(self.mask.shape, np.int32)

    @property
    def width(self) -> int:
        """Pixels in a row of the canvas."""
        return self.mask.shape[1]

    def level(self, places: Indices, heights: NDArray[np.float32]) -> _Level:
        """Components of n > 0 pixels, which all lie within the components labelled last.

        `places` (n,) are flat indices in raster order, `heights` (n,) the distance there.
        """
        first = first_of_runs(places)
        starts = places[first]
        outer = self.labels.ravel()[starts]
        self.mask.fill(0)
        self.mask.ravel()[places] = 1
        # Of OpenCV's algorithms the fastest for side neighbours.
        count, _ = cv2.connectedComponentsWithAlgorithm(self.mask, 4, cv2.CV_32S, cv2.CCL_WU, self.labels)
        lengths = np.diff(first, append=places.size)
        runs = Runs(starts, lengths, self.labels.ravel()[starts].astype(np.intp))
        return _Level(runs, outer, np.maximum.reduceat(heights, first), count)


def separate(maps: NDArray[np.float32], params: Mapping[str, object]) -> NDArray[np.int32]:
    """Label image (H, W) int32 of maps (H, W, K), map 0 the foreground and map 1 the distance, both in 0..1.

    Further maps are not looked at. Objects are numbered 1..n in raster order of their first pixel. Raises ModelFault for
    parameters that `CoreParams` does not have or that are no numbers, and for maps with fewer than two channels.
    """
    fitted = parse_params(params)
    if maps.ndim != 3 or maps.shape[-1] < 2:
        raise ModelFault(
            f"separator 'cores' needs the maps (H, W, 2): foreground and distance (got {maps.shape})"
        )
    shape = (maps.shape[0], maps.shape[1])
    canvas = _Canvas(shape)
    found = _find_cores(maps, canvas, fitted)
    if found is None:
        return np.zeros(shape, np.int32)
    foreground, cores = found
    objects = _grow(foreground, cores, canvas.width, fitted.peak)
    numbers = raster_numbers(objects, fitted.min_area, _cut_by_edge(objects, maps, canvas.width, fitted))
    starts = objects.starts - objects.starts // canvas.width
    return paint(Runs(starts, objects.lengths, objects.owners), numbers, shape)


def parse_params(params: Mapping[str, object]) -> CoreParams:
    """Check a package's numbers. Raises ModelFault naming the parameter."""
    known = [field.name for field in fields(CoreParams)]
    numbers: dict[str, float] = {}
    for name, value in params.items():
        if name not in known:
            raise ModelFault(f"separator.{name}: no such parameter{nearest(name, known)}")
        if value is None and name in _OPTIONAL:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
            raise ModelFault(f"separator.{name}: expected a number (got {value!r})")
        numbers[name] = float(value)
    return CoreParams(**numbers)


def _levels(first: float) -> list[float]:
    return [
        first + _LEVEL_STEP * step for step in range(1, 1 + int(max(0.0, _LEVEL_END - first) / _LEVEL_STEP))
    ]


def _foreground(
    maps: NDArray[np.float32], canvas: _Canvas, threshold: float
) -> tuple[Indices, NDArray[np.float32]]:
    """Flat indices (n,) on the canvas of the foreground's pixels in raster order, and the distance there (n,)."""
    inside = canvas.mask[:, :-1].view(np.bool_)
    np.greater(maps[..., 0], threshold, out=inside)
    return np.flatnonzero(canvas.mask.view(np.bool_)), maps[..., 1][inside]


def _find_cores(
    maps: NDArray[np.float32], canvas: _Canvas, params: CoreParams
) -> tuple[_Level, _Cores] | None:
    """The foreground and the cores in it; None where there is no foreground."""
    places, heights = _foreground(maps, canvas, params.foreground)
    if places.size == 0:
        return None
    foreground = canvas.level(places, heights)
    above = np.flatnonzero(heights > params.core)
    if above.size == 0:
        nothing = np.zeros(0, np.intp)
        return foreground, _Cores(Runs(nothing, nothing, nothing), np.zeros(1, np.intp))
    places, heights = places[above], heights[above]
    return foreground, _split_cores(canvas, places, heights, params)


def _split_cores(
    canvas: _Canvas, places: Indices, heights: NDArray[np.float32], params: CoreParams
) -> _Cores:
    """Cores of the pixels above the lowest level, whose pieces of foreground `canvas` labelled last."""
    level = canvas.level(places, heights)
    piece_of_core = np.zeros(level.count, np.intp)
    piece_of_core[level.runs.owners] = level.outer
    found = [level.runs]
    split: list[Indices] = []
    # The core that a component of the last level lies in, or lay in before a split left it over. What is left over is not
    # prominent, and nothing in it is at a higher level: it is never looked at again.
    core_of_component = np.arange(level.count)
    for height in _levels(params.core):
        above = np.flatnonzero(heights > height)
        if above.size == 0 or not (level.tops >= height + params.prominence).any():
            break
        places, heights = places[above], heights[above]
        level = canvas.level(places, heights)
        branch_of_run = level.runs.owners
        parents = np.zeros(level.count, np.intp)
        parents[branch_of_run] = core_of_component[level.outer]
        prominent = np.zeros(level.count, np.bool_)
        prominent[branch_of_run[level.tops >= height + params.prominence]] = True
        prominent &= np.bincount(branch_of_run, level.runs.lengths) >= params.core_area
        children = np.bincount(parents[prominent], minlength=piece_of_core.size)
        splits = prominent & (children[parents] >= 2)
        chosen = np.flatnonzero(splits)
        core_of_component = parents
        if chosen.size:
            split.append(np.flatnonzero(children >= 2))
            first_new = piece_of_core.size
            piece_of_core = np.concatenate([piece_of_core, piece_of_core[parents[chosen]]])
            core_of_component[chosen] = np.arange(first_new, piece_of_core.size)
            branches = level.runs.taken(splits[branch_of_run])
            found.append(Runs(branches.starts, branches.lengths, core_of_component[branches.owners]))
    kept = np.ones(piece_of_core.size, np.bool_)
    for numbers in split:
        kept[numbers] = False
    runs = join_runs(found)
    return _Cores(runs.taken(kept[runs.owners]), np.where(kept, piece_of_core, 0))


def _grow(foreground: _Level, cores: _Cores, width: int, peak: float) -> Runs:
    """The foreground's runs with their objects as owners, numbered with gaps; an object's runs are in raster order.

    A piece with one core is one object. So is one without any, if its distance rises to `peak`. In all others every pixel
    gets its nearest core.
    """
    runs, count = foreground.runs, foreground.count
    held = np.bincount(cores.piece_of_core, minlength=count)
    held[0] = 0
    rises = np.zeros(count, np.bool_)
    rises[runs.owners[foreground.tops >= peak]] = True
    whole = (held == 1) | ((held == 0) & rises)
    objects = [runs.taken(whole[runs.owners])]
    if (held > 1).any():
        divided = _nearest_cores(
            runs.taken((held > 1)[runs.owners]),
            cores.runs.taken((held > 1)[cores.piece_of_core[cores.runs.owners]]),
            cores.piece_of_core,
            width,
        )
        objects.append(Runs(divided.starts, divided.lengths, divided.owners + count))
    return join_runs(objects)


def _cut_by_edge(
    objects: Runs, maps: NDArray[np.float32], width: int, params: CoreParams
) -> NDArray[np.bool_] | None:
    """Which owners of runs are parts of objects that the image's edge cuts; None where the package does not look for them.

    They touch the edge, have `edge_area` px and reach the probability `edge_peak`. `width` is that of the canvas.
    """
    if params.edge_area is None or not objects.starts.size:
        return None
    y, x = np.divmod(objects.starts, width)
    at_edge = (y == 0) | (y == maps.shape[0] - 1) | (x == 0) | (x + objects.lengths == maps.shape[1])
    areas = np.bincount(objects.owners, objects.lengths)
    cut = np.zeros(areas.size, np.bool_)
    cut[objects.owners[at_edge]] = True
    cut &= (areas >= params.edge_area) & (areas < params.min_area)
    parts = objects.taken(cut[objects.owners])
    y, x = np.divmod(parts.pixels(), width)
    certain = np.zeros(areas.size, np.bool_)
    certain[np.repeat(parts.owners, parts.lengths)[maps[y, x, 0] >= params.edge_peak]] = True
    return cut & certain


def _nearest_cores(pieces: Runs, cores: Runs, piece_of_core: Indices, width: int) -> Runs:
    """The runs of pieces cut where the nearest core of the same piece changes, with the cores as owners.

    Every piece holds a core, and every core lies in one of the pieces. Distances are measured piece by piece in its
    bounding box, so that no other piece's core can be nearer.
    """
    pieces, first = pieces.grouped(np.arange(int(pieces.owners.max()) + 1))
    cores, first_core = cores.grouped(piece_of_core)
    y, x = np.divmod(pieces.starts, width)
    bottom = np.maximum.reduceat(y, first) + 1
    top, left = np.minimum.reduceat(y, first), np.minimum.reduceat(x, first)
    across = np.maximum.reduceat(x + pieces.lengths, first) - left
    pixels = _in_boxes(pieces, first, top, left, across, width)
    core_pixels = _in_boxes(cores, first_core, top, left, across, width)
    core_of_pixel = np.repeat(cores.owners.astype(np.int32), cores.lengths)
    offsets = pieces.offsets()
    ends, core_ends = _ends(first, offsets), _ends(first_core, cores.offsets())
    nearest_core = np.empty(pixels.size, np.int32)
    start = core_start = 0
    for end, core_end, height, breadth in zip(
        ends, core_ends, (bottom - top).tolist(), across.tolist(), strict=True
    ):
        sources = core_pixels[core_start:core_end]
        outside = np.ones(height * breadth, np.uint8)
        outside[sources] = 0
        _, index = cv2.distanceTransformWithLabels(
            outside.reshape(height, breadth), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
        )
        flat = index.ravel()
        # OpenCV numbers the pixels of cores in an order of its own; each one's number leads to the core it lies in.
        core_of_source = np.zeros(sources.size + 1, np.int32)
        core_of_source[flat[sources]] = core_of_pixel[core_start:core_end]
        nearest_core[start:end] = core_of_source[flat[pixels[start:end]]]
        start, core_start = end, core_end
    return _cut(pieces, offsets, nearest_core)


def _ends(first: Indices, offsets: Indices) -> list[int]:
    """For groups of runs that begin at the runs `first`: where each ends in the list of all pixels."""
    return [*offsets[first[1:]].tolist(), int(offsets[-1])]


def _in_boxes(
    runs: Runs, first: Indices, top: Indices, left: Indices, across: Indices, width: int
) -> Indices:
    """The flat index of every pixel in the box of its group: boxes `across` wide that begin at (`top`, `left`)."""
    group = np.repeat(np.arange(first.size), np.diff(first, append=runs.starts.size))
    y, x = np.divmod(runs.starts, width)
    starts = (y - top[group]) * across[group] + x - left[group]
    return Runs(starts, runs.lengths, runs.owners).pixels()


def _cut(runs: Runs, offsets: Indices, owners: NDArray[np.int32]) -> Runs:
    """Runs cut where the owner of their pixels changes; `owners` (n,) in the order of `Runs.pixels`."""
    begins = np.empty(owners.size, np.bool_)
    np.not_equal(owners[1:], owners[:-1], out=begins[1:])
    begins[offsets[:-1]] = True
    first = np.flatnonzero(begins)
    run = np.zeros(first.size, np.intp)
    run[np.searchsorted(first, offsets[1:-1])] = 1
    run = np.cumsum(run)
    return Runs(
        runs.starts[run] + first - offsets[run],
        np.diff(first, append=owners.size),
        owners[first].astype(np.intp),
    )
