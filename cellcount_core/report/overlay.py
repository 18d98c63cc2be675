"""Overlays: the image in grey with the outline of every counted object, and sheets of several of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from textwrap import fill

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cellcount_core.images.normalise import estimate
from cellcount_core.objects.labels import inner_edge
from cellcount_core.report.colouring import PALETTE, neighbour_colours
from cellcount_core.report.platemap import figure_png

_SMALLEST, _LARGEST = 900, 1600
_GAMMA = 0.7
_DARKER_SIGMAS = 3.0
_PERCENTILE = 99.7
_LINE_PX = 2
_DPI = 100
_BAND_PX = 44
_BAR_SHARE = 0.2
_PAPER, _INK = "#16181d", "#f2f2f2"
_ROUND = (1, 2, 5)
_NOTE_WIDTH = 40
"""Characters in a line of a note, which a tile is wide enough for. Matplotlib's own wrapping goes by the whole sheet."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One picture of a contact sheet. `image` is (H, W, 3) uint8; None shows `note` instead ("truncated file")."""

    title: str
    image: NDArray[np.uint8] | None
    note: str = ""


def grey_image(plane: NDArray[np.generic]) -> NDArray[np.uint8]:
    """The plane (H, W) of any integer or float type as grey (H, W) uint8 for looking at.

    From a little below the background to the bright end of the objects, and never less than twelve times the noise: an
    empty field is shown dark, not as noise at full scale. An image with dark objects is shown from their dark end upwards.
    """
    levels = estimate(plane, percentile=_PERCENTILE, polarity="auto")
    if levels.inverted:
        low = levels.background + levels.range
        levels = replace(levels, background=low, range=-levels.range)
    low = levels.background - _DARKER_SIGMAS * levels.noise
    span = levels.background + levels.range - low
    share = np.clip((plane.astype(np.float32) - np.float32(low)) / np.float32(span), 0.0, 1.0)
    return np.asarray(np.rint(255.0 * share**_GAMMA), np.uint8)


def overlay_image(plane: NDArray[np.generic], labels: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Grey image with the outline of each object: (h, w, 3) uint8 RGB, enlarged or reduced for the screen.

    `labels` is (H, W) as `plane`, 0 for the background. An outline lies inside its object and neighbours differ in colour, so
    that touching objects can be told apart. Small fields are enlarged by a whole factor; the longer side of large ones
    is reduced to 1600 px.

    Raises ValueError where the shapes differ.
    """
    if plane.shape != labels.shape:
        raise ValueError(f"plane and labels must have one shape (got {plane.shape} and {labels.shape})")
    size = overlay_size(plane.shape)
    grey = cv2.resize(grey_image(plane), size, interpolation=_smooth(plane.shape, size))
    shown = np.asarray(cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST), np.int32)
    image = np.repeat(grey[:, :, None], 3, axis=2)
    colours = np.array(PALETTE, np.uint8)[neighbour_colours(labels) % len(PALETTE)]
    edge = inner_edge(shown, _LINE_PX if size[0] > plane.shape[1] else 1)
    image[edge] = colours[shown[edge]]
    return np.asarray(image, np.uint8)


def overlay_size(shape: tuple[int, ...]) -> tuple[int, int]:
    """Width and height (px) at which a field (H, W) is shown."""
    longest = max(shape)
    if longest > _LARGEST:
        return max(1, round(shape[1] * _LARGEST / longest)), max(1, round(shape[0] * _LARGEST / longest))
    factor = max(1, ceil(_SMALLEST / longest))
    return shape[1] * factor, shape[0] * factor


def overlay_png(
    plane: NDArray[np.generic], labels: NDArray[np.int32], *, caption: str, um_per_px: float | None = None
) -> bytes:
    """The overlay as PNG with a band below it: `caption` and count on the left, a scale bar on the right.

    `um_per_px` is the pixel size of `plane`; without it there is no scale bar. Raises ValueError where the shapes differ.
    """
    image = overlay_image(plane, labels)
    height, width = image.shape[:2]
    figure = Figure(figsize=(width / _DPI, (height + _BAND_PX) / _DPI), dpi=_DPI, facecolor=_PAPER)
    FigureCanvasAgg(figure)
    figure.figimage(image, 0, _BAND_PX, origin="upper")
    middle = _BAND_PX / 2 / (height + _BAND_PX)
    number = int(np.count_nonzero(np.unique(labels)))
    text = f"{caption}   {number} object{'' if number == 1 else 's'}"
    figure.text(12 / width, middle, text, color=_INK, fontsize=11, va="center")
    if um_per_px is not None:
        _draw_scale_bar(figure, width, height, um_per_px * plane.shape[1] / width)
    return figure_png(figure)


def contact_sheet(tiles: Sequence[Tile], *, title: str = "", columns: int = 3) -> bytes:
    """The tiles in reading order as one PNG, each below its title; a tile without an image shows its note."""
    across = max(1, min(columns, len(tiles)))
    down = max(1, ceil(len(tiles) / across))
    figure = Figure(
        figsize=(4.6 * across, 4.95 * down + 0.5 * bool(title)),
        dpi=150,
        facecolor=_PAPER,
        layout="constrained",
    )
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title, color=_INK, fontsize=14, fontweight="bold", ha="left", x=0.015)
    grid = figure.subplots(down, across, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, tile in zip(grid.flat, tiles, strict=False):
        _draw_tile(axes, tile)
    return figure_png(figure)


def round_length(um: float) -> float:
    """The largest of 1, 2, 5, 10, 20, 50, … (and 0.5, 0.2, …) that is not above `um` (> 0)."""
    power = 10.0 ** np.floor(np.log10(um))
    return float(max(step * power for step in _ROUND if step * power <= um * (1 + 1e-9)))


def _smooth(shape: tuple[int, ...], size: tuple[int, int]) -> int:
    return cv2.INTER_AREA if size[0] < shape[1] else cv2.INTER_CUBIC


def _draw_scale_bar(figure: Figure, width: int, height: int, um_per_shown_px: float) -> None:
    length = round_length(_BAR_SHARE * width * um_per_shown_px)
    share = length / um_per_shown_px / width
    total, right = height + _BAND_PX, 1 - 12 / width
    axes = figure.add_axes((right - share, 8 / total, share, 4 / total))
    axes.set_facecolor(_INK)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    figure.text(
        right - share / 2, 15 / total, f"{length:g} µm", color=_INK, fontsize=10, ha="center", va="bottom"
    )


def _draw_tile(axes: Axes, tile: Tile) -> None:
    axes.set_title(tile.title, color=_INK, fontsize=10, loc="left")
    if tile.image is not None:
        axes.imshow(tile.image, interpolation="antialiased")
        return
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_aspect("equal")
    axes.fill([0, 1, 1, 0], [0, 0, 1, 1], facecolor="#24272e", edgecolor="#5a5f6b", hatch="//", linewidth=0.8)
    note = axes.text(
        0.5, 0.5, fill(tile.note, _NOTE_WIDTH), color=_INK, fontsize=11, ha="center", va="center",
        bbox={"facecolor": _PAPER, "edgecolor": "none", "pad": 8},
    )  # fmt: skip
    note.set_in_layout(False)
