"""Separation for networks with two maps: the foreground, and the distance to the object's boundary, normalised to 0..1.

Where the distance is high lies an object's *core*. Cores are found at rising levels, as branches of a tree: a core that
falls into two or more prominent ones at a higher level is replaced by them. Then every foreground pixel goes to the nearest
core of its own connected piece of foreground. The time is linear in pixels, and the labels of a piece depend on that piece alone.

Objects smaller than a whole one can be are dropped, unless the image's edge cuts them: a part of an object is small.

For speed, only thresholding looks at whole images. Levels are applied only to the pixels of cores with more than one peak, which are
few; all else works on runs; and distances are measured only in the bounding boxes of pieces with more than one core. (Many long
pieces side by side would have overlapping boxes and be measured repeatedly; cells are not like that.)
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.errors import ModelFault
from cellcount_core.objects.labels import (
    Indices,
    Runs,
    connected,
    first_of_equal,
    first_of_runs,
    gaps,
    join_runs,
    paint,
    raster_numbers,
    runs_of,
)

_LEVEL_STEP = 0.12
_LEVEL_END = 0.86

_STEPS = 16
"""Two peaks of a core are compared along a straight line if they are at most this many px apart along each axis."""

_LEAST_HEIGHT = np.finfo(np.float32).tiny


@dataclass(frozen=True, slots=True)
class CoreParams:
    """Numbers fitted when the network was trained.

    `foreground`: pixels with a higher probability belong to objects.
    `core`: pixels with a larger distance (0..1) belong to cores.
    `prominence`: how far a branch must rise above the level at which it parts from its sibling.
    `core_area` (px): the smallest branch.
    `peak`: a piece of foreground whose distance nowhere reaches this is no object.
    `min_area` (px): the smallest object.
    `certain`: a probability that an object reaches somewhere; noise and fibres do not.
    `edge_area` (px): the smallest object that touches the image's edge and somewhere reaches the probability `edge_peak`; None: `min_area`.
    `outline`: the probability at which outlines are drawn once objects are found (outline.py); None: `foreground`.
    """

    foreground: float = 0.5
    core: float = 0.4
    prominence: float = 0.08
    core_area: float = 3.0
    peak: float = 0.3
    min_area: float = 12.0
    certain: float = 0.0
    edge_area: float | None = None
    edge_peak: float = 0.98
    outline: float | None = None


def separate(maps: NDArray[np.float32], params: CoreParams) -> NDArray[np.int32]:
    """Label image (H, W) int32 of maps (H, W, K); map 0 is the foreground and map 1 the distance, both in 0..1.

    Further maps are ignored. Objects are numbered 1..n in raster order of their first pixel. Raises ModelFault for
    fewer than two maps.
    """
    if maps.ndim != 3 or maps.shape[-1] < 2:
        raise ModelFault(
            f"separator 'cores' needs the maps (H, W, 2): foreground and distance (got {maps.shape})"
        )
    shape = (maps.shape[0], maps.shape[1])
    if 0 in shape:
        return np.zeros(shape, np.int32)
    foreground, distance = (_framed(maps[..., index]) for index in (0, 1))
    inside = foreground > params.foreground
    pieces = _pieces(inside)
    if not pieces.starts.size:
        return np.zeros(shape, np.int32)
    objects = _grow(pieces, _find_cores(distance, inside, params), distance, params.peak)
    if not objects.starts.size:
        return np.zeros(shape, np.int32)
    pixels = objects.pixels()
    numbers = raster_numbers(objects, _kept(objects, pixels, foreground, params))
    # Without the frame: one pixel less for each row above.
    above = objects.starts // inside.shape[1]
    pixels -= np.repeat(above, objects.lengths)
    return paint(Runs(objects.starts - above, objects.lengths, objects.owners), numbers, shape, pixels)


def _levels(first: float) -> list[float]:
    return [
        first + _LEVEL_STEP * step for step in range(1, 1 + int(max(0.0, _LEVEL_END - first) / _LEVEL_STEP))
    ]


def _needed(params: CoreParams) -> NDArray[np.float32]:
    """The height (n,) that a branch must reach at each level."""
    return (np.asarray(_levels(params.core), np.float64) + params.prominence).astype(np.float32)


def _framed(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """A copy of a map (H, W) with one more column at the right and row at the bottom, filled with -inf: (H + 1, W + 1).

    A contiguous copy is several times faster to look at than one channel between others. With the frame no run continues in the
    next row, and every pixel has neighbours: the row above the first one is the last.
    """
    framed = np.empty((values.shape[0] + 1, values.shape[1] + 1), np.float32)
    framed[:-1, :-1] = values
    framed[-1] = framed[:, -1] = -np.inf
    return framed


def _pieces(inside: NDArray[np.bool_]) -> Runs:
    """The runs of a framed image (H, W), owned by the connected components 1..n that they lie in."""
    runs = runs_of(inside)
    return runs.owned(connected(runs, inside.shape[1])) if runs.starts.size else runs


def _find_cores(distance: NDArray[np.float32], inside: NDArray[np.bool_], params: CoreParams) -> Runs:
    """Cores as runs that do not overlap.

    These are the parts of the foreground above the level `core`; parts that split into prominent branches at a higher level are replaced
    by these branches.
    """
    high = distance > params.core
    high &= inside
    cores = _pieces(high)
    pixels = cores.pixels()
    heights = distance.ravel()[pixels]
    peaks = _peaks(cores, pixels, heights, distance, high, params)
    if peaks.size < 2 or not _levels(params.core):
        return cores
    several = _may_part(cores, peaks, distance, high, params)[cores.owners]
    if not several.any():
        return cores
    count = int(cores.owners.max()) + 1
    looked_at = np.repeat(several, cores.lengths)
    branches = _split(pixels[looked_at], heights[looked_at], params, inside.shape)
    return join_runs([cores.taken(~several), branches.owned(branches.owners + count)])


def _peaks(
    cores: Runs,
    pixels: Indices,
    heights: NDArray[np.float32],
    distance: NDArray[np.float32],
    high: NDArray[np.bool_],
    params: CoreParams,
) -> Indices:
    """Flat indices of the pixels of cores that no side neighbour in a core exceeds and that are high enough to be a branch's peak.

    Every prominent branch at any level holds one. `pixels` (n,) are those of the cores, `heights` (n,) the distance there, and `high`
    (H, W) says where cores are.
    """
    least = max(np.float32(params.core + _LEVEL_STEP + params.prominence), _LEAST_HEIGHT)
    # In a row only: what stands beside a pixel in the list, but for those at a run's end.
    ends = np.cumsum(cores.lengths)[:-1] - 1
    higher, lower = np.greater(heights[1:], heights[:-1]), np.greater(heights[:-1], heights[1:])
    higher[ends] = lower[ends] = False
    top = heights >= least
    top[:-1] &= ~higher
    top[1:] &= ~lower
    places, own = pixels[top], heights[top]
    # What is left is few, and is looked at in the rows above and below.
    for step in (-high.shape[1], high.shape[1]):
        beside = places + step
        kept = (own >= distance.ravel()[beside]) | ~high.ravel()[beside]
        places, own = places[kept], own[kept]
    return places


def _may_part(
    cores: Runs,
    peaks: Indices,
    distance: NDArray[np.float32],
    high: NDArray[np.bool_],
    params: CoreParams,
) -> NDArray[np.bool_]:
    """Which cores (n + 1,) may split into prominent branches at some level, given their peaks (p,) in raster order.

    A peak is no branch beside the core's highest peak if a path between the two stays above every level at which it could be one; most
    often the straight line does.
    """
    core_of_peak = cores.owners[np.searchsorted(cores.starts, peaks, side="right") - 1]
    heights = distance.ravel()[peaks]
    order = np.lexsort((-heights, core_of_peak))
    first = first_of_equal(core_of_peak[order])
    top = peaks[np.repeat(order[first], gaps(first, peaks.size))]
    at, own = peaks[order], heights[order]
    width = high.shape[1]
    y, x, top_y, top_x = at // width, at % width, top // width, top % width
    steps = np.arange(_STEPS + 1)[:, None]
    # With at most so many steps neither goes on by more than one, and of two that both do the column goes first.
    rows = y + (2 * (top_y - y) * steps + _STEPS) // (2 * _STEPS)
    columns = x + (2 * (top_x - x) * steps + _STEPS) // (2 * _STEPS)
    path = np.concatenate([rows * width + columns, rows[:-1] * width + columns[1:]])
    levels = np.asarray(_levels(params.core), np.float32)
    level = levels[np.searchsorted(_needed(params), own, side="right") - 1]
    joined = (high.ravel()[path] & (distance.ravel()[path] > level)).all(axis=0)
    joined &= np.maximum(np.abs(top_y - y), np.abs(top_x - x)) <= _STEPS
    joined[first] = False
    held = np.bincount(core_of_peak[order[~joined]], minlength=int(cores.owners.max()) + 1)
    return np.greater(held, 1)


def _split(places: Indices, heights: NDArray[np.float32], params: CoreParams, shape: tuple[int, int]) -> Runs:
    """Cores made of n > 0 pixels, which are those of whole cores at the first level.

    `places` (n,) are flat indices in raster order in a framed image of `shape`, `heights` (n,) the distance there.
    """
    width = shape[1]
    # The frame's row parts a level from the next.
    spacing = shape[0] * width
    needed = _needed(params)
    # Where nothing rises high enough nothing is prominent.
    levels = _levels(params.core)[: int(np.searchsorted(needed, heights.max(), side="right"))]
    layers = [np.arange(places.size), *(np.flatnonzero(heights > level) for level in levels)]
    pixel = np.concatenate(layers)
    at = places[pixel] + np.repeat(np.arange(len(layers)) * spacing, [layer.size for layer in layers])
    first = first_of_runs(at)
    runs = Runs(at[first], gaps(first, at.size), np.zeros(first.size, np.intp))
    tops = np.maximum.reduceat(heights[pixel], first)
    runs = runs.owned(connected(runs, width))
    tree = _Tree.of(runs, spacing)
    needed = np.append(np.float32(np.inf), needed)
    prominent = np.zeros(tree.layers.size, np.bool_)
    prominent[runs.owners[tops >= needed[tree.layers[runs.owners]]]] = True
    prominent &= np.bincount(runs.owners, runs.lengths) >= params.core_area
    chosen = runs.taken(tree.cores(prominent)[runs.owners])
    return Runs(chosen.starts % spacing, chosen.lengths, chosen.owners)


@dataclass(frozen=True, slots=True, eq=False)
class _Tree:
    """The connected components above rising levels.

    `layers` (n + 1,) is the level of each component, `outer` (n + 1,) the component of the level below that it lies in. There is no
    component 0.
    """

    layers: Indices
    outer: Indices

    @staticmethod
    def of(runs: Runs, spacing: int) -> _Tree:
        """Build it from runs in raster order that are owned by their components; levels follow each other at a distance of `spacing`."""
        count = int(runs.owners.max())
        first_run = np.empty(count + 1, np.intp)
        # Where a number occurs more than once the last assignment stands: the first run.
        first_run[runs.owners[::-1]] = np.arange(runs.owners.size - 1, -1, -1)
        layers, outer = np.full(count + 1, -1), np.zeros(count + 1, np.intp)
        starts = runs.starts[first_run[1:]]
        layers[1:] = starts // spacing
        outer[1:] = runs.owners[np.searchsorted(runs.starts, starts - spacing, side="right") - 1]
        return _Tree(layers, outer)

    def cores(self, prominent: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which components (n + 1,) are cores: those of the lowest level, and instead of one that splits into prominent
        branches these branches.
        """
        chosen: NDArray[np.bool_] = np.equal(self.layers, 0)
        # The core that a component lies in, or lay in before a split left it over. What is left over is not prominent, and
        # nothing in it is at a higher level.
        core = np.arange(self.layers.size)
        order = np.argsort(self.layers, kind="stable")
        bounds = np.searchsorted(self.layers[order], np.arange(1, int(self.layers.max()) + 2))
        for begin, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            these = order[begin:end]
            parents, rises = core[self.outer[these]], prominent[these]
            splits = rises & (np.bincount(parents[rises], minlength=core.size)[parents] >= 2)
            core[these] = np.where(splits, these, parents)
            chosen[these[splits]] = True
            chosen[parents[splits]] = False
        return chosen


def _grow(pieces: Runs, cores: Runs, distance: NDArray[np.float32], peak: float) -> Runs:
    """The foreground's runs, owned by their objects; numbers may have gaps, and an object's runs are in raster order.

    A piece with one core is one object. A piece without a core is one if its distance reaches `peak`. In all others every pixel
    goes to its nearest core.
    """
    count = int(pieces.owners.max()) + 1
    piece_of_core = np.zeros(int(cores.owners.max(initial=0)) + 1, np.intp)
    piece_of_core[cores.owners] = pieces.owners[
        np.searchsorted(pieces.starts, cores.starts, side="right") - 1
    ]
    held = np.bincount(piece_of_core, minlength=count)
    held[0] = 0
    bare = pieces.taken((held == 0)[pieces.owners])
    reach = _tops(bare, bare.pixels(), distance) >= np.float32(peak)
    rises = _owning(bare, reach, count)
    several = held > 1
    objects = [pieces.taken(((held == 1) | rises)[pieces.owners])]
    if several.any():
        divided = _nearest_cores(
            pieces.taken(several[pieces.owners]),
            cores.taken(several[piece_of_core[cores.owners]]),
            piece_of_core,
            distance.shape[1],
        )
        objects.append(divided.owned(divided.owners + count))
    return join_runs(objects)


def _tops(runs: Runs, pixels: Indices, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The largest value of a framed map in each of the runs (r,), whose pixels are given."""
    if not runs.starts.size:
        return np.zeros(0, np.float32)
    tops: NDArray[np.float32] = np.maximum.reduceat(values.ravel()[pixels], runs.offsets()[:-1])
    return tops


def _kept(
    objects: Runs, pixels: Indices, foreground: NDArray[np.float32], params: CoreParams
) -> NDArray[np.bool_]:
    """Which owners (n + 1,) of runs are objects: certain somewhere, and large enough or cut by the image's edge.

    An object is taken to be cut if it touches the edge, has `edge_area` px and reaches the probability `edge_peak`.
    """
    areas = np.bincount(objects.owners, objects.lengths)
    kept = areas >= params.min_area
    if params.certain <= 0 and params.edge_area is None:
        return kept
    tops = _tops(objects, pixels, foreground)
    if params.edge_area is not None:
        height, width = foreground.shape
        y, x = np.divmod(objects.starts, width)
        at_edge = (y == 0) | (y == height - 2) | (x == 0) | (x + objects.lengths == width - 1)
        cut = _owning(objects, at_edge, areas.size) & (areas >= params.edge_area)
        kept |= cut & _owning(objects, tops >= np.float32(params.edge_peak), areas.size)
    if params.certain > 0:
        kept &= _owning(objects, tops >= np.float32(params.certain), areas.size)
    return kept


def _owning(runs: Runs, which: NDArray[np.bool_], count: int) -> NDArray[np.bool_]:
    """Which owners (`count`,) own at least one of the chosen runs."""
    owning = np.zeros(count, np.bool_)
    owning[runs.owners[which]] = True
    return owning


def _nearest_cores(pieces: Runs, cores: Runs, piece_of_core: Indices, width: int) -> Runs:
    """The runs of pieces, cut where the nearest core of the same piece changes, and owned by these cores.

    Every piece holds a core, and every core lies in a piece. Distances are measured piece by piece in its bounding box, so no core of
    another piece can be nearer.
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
    """Where each group of runs ends in the list of all pixels; the groups begin at the runs `first`."""
    return [*offsets[first[1:]].tolist(), int(offsets[-1])]


def _in_boxes(
    runs: Runs, first: Indices, top: Indices, left: Indices, across: Indices, width: int
) -> Indices:
    """Flat index of every pixel within the box of its group; boxes begin at (`top`, `left`) and are `across` wide."""
    group = np.repeat(np.arange(first.size), gaps(first, runs.starts.size))
    y, x = np.divmod(runs.starts, width)
    starts = (y - top[group]) * across[group] + x - left[group]
    return Runs(starts, runs.lengths, runs.owners).pixels()


def _cut(runs: Runs, offsets: Indices, owners: NDArray[np.int32]) -> Runs:
    """Runs cut where the owner of their pixels changes; `owners` (n,) is in the order of `Runs.pixels`."""
    begins = np.empty(owners.size, np.bool_)
    np.not_equal(owners[1:], owners[:-1], out=begins[1:])
    begins[offsets[:-1]] = True
    first = np.flatnonzero(begins)
    run = np.zeros(first.size, np.intp)
    run[np.searchsorted(first, offsets[1:-1])] = 1
    run = np.cumsum(run)
    return Runs(
        runs.starts[run] + first - offsets[run],
        gaps(first, owners.size),
        owners[first].astype(np.intp),
    )
