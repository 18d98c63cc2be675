"""Separation for networks with two heads: foreground, and normalised distance to the object's boundary.

Where the distance is high lies an object's *core*. Cores are found at rising levels, as branches of a tree: a core that
falls into two or more prominent ones at a higher level is replaced by them. Then every foreground pixel goes to the nearest
core of its own connected piece of foreground. Linear in pixels; the labels of one piece depend on that piece alone.

What is smaller than a whole object can be is dropped, but for what the image's edge cuts: a part of an object is small.

Whole images are only thresholded. Levels look at the pixels of those cores that have more than one peak, which are
few, everything else at runs, and distances are measured in the boxes of those pieces alone that hold more than one core. (Were
there many long pieces side by side, their boxes would overlap and be measured as often; objects of cells are not like that.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import cv2
import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.errors import ModelFault, nearest
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
"""Px to a side or down at most over which two peaks of a core are looked at along a straight line."""

_LEAST_HEIGHT = np.finfo(np.float32).tiny


@dataclass(frozen=True, slots=True)
class CoreParams:
    """What is fitted when a network was trained.

    `foreground`: probability above which a pixel belongs to an object. `core`: distance (0..1) above which it belongs to a
    core. `prominence`: by how much a branch must rise above the level where it parts from its sibling. `core_area` (px): the
    smallest branch. `peak`: a piece of foreground whose distance nowhere reaches it is no object. `min_area` (px): the
    smallest object. `certain`: probability that an object somewhere reaches; noise and fibres do not. `edge_area` (px): the smallest one that touches the edge of the image and somewhere reaches the
    probability `edge_peak`; None: `min_area`. `outline`: probability that objects are drawn to once they are found (see
    outline.py), None: `foreground`.
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


_OPTIONAL = ("edge_area", "outline")
"""Parameters that may be None: not stated."""


def separate(maps: NDArray[np.float32], params: CoreParams | Mapping[str, object]) -> NDArray[np.int32]:
    """Label image (H, W) int32 of maps (H, W, K), map 0 the foreground and map 1 the distance, both in 0..1.

    Further maps are not looked at. Objects are numbered 1..n in raster order of their first pixel. Raises ModelFault for
    parameters that `CoreParams` does not have or that are no numbers, and for maps with fewer than two channels.
    """
    fitted = params if isinstance(params, CoreParams) else parse_params(params)
    if maps.ndim != 3 or maps.shape[-1] < 2:
        raise ModelFault(
            f"separator 'cores' needs the maps (H, W, 2): foreground and distance (got {maps.shape})"
        )
    shape = (maps.shape[0], maps.shape[1])
    if 0 in shape:
        return np.zeros(shape, np.int32)
    foreground, distance = (_framed(maps[..., index]) for index in (0, 1))
    inside = foreground > fitted.foreground
    pieces = _pieces(inside)
    if not pieces.starts.size:
        return np.zeros(shape, np.int32)
    objects = _grow(pieces, _find_cores(distance, inside, fitted), distance, fitted.peak)
    if not objects.starts.size:
        return np.zeros(shape, np.int32)
    pixels = objects.pixels()
    numbers = raster_numbers(objects, _kept(objects, pixels, foreground, fitted))
    # Without the frame: one pixel less for each row above.
    above = objects.starts // inside.shape[1]
    pixels -= np.repeat(above, objects.lengths)
    return paint(Runs(objects.starts - above, objects.lengths, objects.owners), numbers, shape, pixels)


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


def _needed(params: CoreParams) -> NDArray[np.float32]:
    """The height (n,) that branches at each level rise to."""
    return (np.asarray(_levels(params.core), np.float64) + params.prominence).astype(np.float32)


def _framed(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """A map (H, W) by itself, with a column at the right and a row below that are above no level: (H + 1, W + 1).

    Between the other maps each look at it costs several times as much. With the frame no run goes on in the next row, and every pixel
    of the map has neighbours: the row above the first is the last.
    """
    framed = np.empty((values.shape[0] + 1, values.shape[1] + 1), np.float32)
    framed[:-1, :-1] = values
    framed[-1] = framed[:, -1] = -np.inf
    return framed


def _pieces(inside: NDArray[np.bool_]) -> Runs:
    """The runs of a framed image (H, W), with the connected components that they lie in, 1..n, as owners."""
    runs = runs_of(inside)
    return runs.owned(connected(runs, inside.shape[1])) if runs.starts.size else runs


def _find_cores(distance: NDArray[np.float32], inside: NDArray[np.bool_], params: CoreParams) -> Runs:
    """Cores as runs, no two of which overlap: what of the foreground is above the level `core`, and of what splits into
    prominent branches at a higher one, these."""
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
    """Flat indices of those pixels of cores that no side neighbour in a core rises above, and that rise enough to be those of
    branches: every prominent branch at any level holds one.

    `pixels` (n,) are those of the cores, `heights` (n,) the distance there, and `high` (H, W) is where cores are.
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
    """Which cores (n + 1,) some level may part into prominent branches, given their peaks (p,) in raster order.

    A peak is no branch beside the core's highest one where a path between the two stays above every level at which it could be: most
    often the straight one does.
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
    """Cores of n > 0 pixels, which are those of whole cores at the first level: `places` (n,) are their flat indices in raster
    order in a framed image of `shape`, `heights` (n,) the distance there."""
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
    """The connected components above rising levels: `layers` (n + 1,) a component's level, and `outer` (n + 1,) the component
    of the level below that it lies in. There is no component 0."""

    layers: Indices
    outer: Indices

    @staticmethod
    def of(runs: Runs, spacing: int) -> _Tree:
        """From runs in raster order, one level's `spacing` after the last one's, owned by their components."""
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
        """Which components (n + 1,) are cores: those of the lowest level, but in place of one that falls into prominent
        branches these."""
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
    """The foreground's runs with their objects as owners, numbered with gaps; an object's runs are in raster order.

    A piece with one core is one object. So is one without any, if its distance rises to `peak`. In all others every pixel
    gets its nearest core.
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

    Those that the edge cuts touch it, have `edge_area` px and reach the probability `edge_peak`.
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
    """Which owners (`count`,) have one of some of the runs."""
    owning = np.zeros(count, np.bool_)
    owning[runs.owners[which]] = True
    return owning


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
    group = np.repeat(np.arange(first.size), gaps(first, runs.starts.size))
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
        gaps(first, owners.size),
        owners[first].astype(np.intp),
    )
