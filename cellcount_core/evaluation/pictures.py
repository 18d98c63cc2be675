"""The pictures of an evaluation as PNG: true and counted outlines over an image, counted against true, and F1 by
object size."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator
from numpy.typing import NDArray

from cellcount_core.evaluation.assess import GroupFigures
from cellcount_core.evaluation.figures import SIZE_EDGES_PX, Floats, size_of
from cellcount_core.objects.labels import inner_edge
from cellcount_core.report.overlay import grey_image
from cellcount_core.report.platemap import figure_png
from cellcount_core.tasks.matching import ImageScore
from cellcount_core.tasks.task import Found, Truth

TRUE, COUNTED, BOTH = (255, 158, 27), (64, 170, 255), (255, 255, 255)
"""Colours (R, G, B) of outlines that are only true, only counted, or both. Orange, blue and white can be told apart
with any colour vision (after Okabe and Ito 2008); they are brightened for dark images."""

_SMALLEST, _LARGEST = 480, 960
_COMPRESSION = 6
"""The highest, 9, takes ten times as long and leaves an eighth less."""
_DIMMED = 0.72
"""The image is darkened by this factor, so that outlines stand out even where it is white."""


def outlines_png(plane: NDArray[np.generic], true: Truth, counted: Found) -> tuple[bytes, int, int]:
    """Draw what is true and what was found over the plane (H, W) in grey. Returns the PNG, and the picture's width and height in px.

    Label images are drawn as the outlines of their objects, which lie inside them; boxes as boxes. Small images are enlarged by a whole
    factor to about 480 px, large ones reduced to 960 px. Raises ValueError if a label image has another shape than the plane.
    """
    height, width = _size((plane.shape[0], plane.shape[1]))
    method = cv2.INTER_AREA if width < plane.shape[1] else cv2.INTER_CUBIC
    grey = cv2.resize(grey_image(plane), (width, height), interpolation=method)
    image = np.repeat((_DIMMED * np.asarray(grey, np.float32)).astype(np.uint8)[:, :, None], 3, axis=2)
    line = 2 if width > plane.shape[1] else 1
    is_true, is_counted = (_lines(layer, plane.shape, (height, width), line) for layer in (true, counted))
    image[is_true], image[is_counted], image[is_true & is_counted] = TRUE, COUNTED, BOTH
    done, encoded = cv2.imencode(".png", image[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, _COMPRESSION])
    if not done:
        raise ValueError(f"an image of shape {image.shape} could not be written as PNG")
    return encoded.tobytes(), width, height


def _lines(
    layer: Truth | Found, shape: tuple[int, ...], size: tuple[int, int], line: int
) -> NDArray[np.bool_]:
    """The pixels of a picture of `size` (height, width) on which the objects of a layer of `shape` (H, W) are drawn."""
    if layer.labels is not None:
        if layer.labels.shape != shape:
            raise ValueError(f"plane and labels must have one shape (got {shape} and {layer.labels.shape})")
        return inner_edge(_enlarged(np.asarray(layer.labels, np.int32), size[1], size[0]), line)
    drawn = np.zeros(size, np.uint8)
    factors = np.array([size[0] / shape[0], size[1] / shape[1]] * 2)
    for y0, x0, y1, x1 in (
        np.rint((np.zeros((0, 4)) if layer.boxes is None else layer.boxes) * factors).astype(int).tolist()
    ):
        cv2.rectangle(drawn, (x0, y0), (max(x0, x1 - 1), max(y0, y1 - 1)), 1, line)
    return drawn > 0


def _size(shape: tuple[int, int]) -> tuple[int, int]:
    longest = max(shape)
    factor = _LARGEST / longest if longest > _LARGEST else float(ceil(_SMALLEST / longest))
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def _enlarged(labels: NDArray[np.int32], width: int, height: int) -> NDArray[np.int32]:
    return np.asarray(cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST), np.int32)


_DPI = 130
_SIZE = (5.6, 4.7)
_LEGEND_COLUMNS = 3
_WIDE = 20.0
"""Counts are drawn on logarithmic axes if the largest is at least this many times the smallest."""

_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
_MARKERS = "osD^vP"
_LINE, _GREY = "#333333", "#8a8a8a"
_SIZE_TICKS = (4, 8, 12, 16, 24, 32, 48, 64, 96, 128)


def calibration_png(scores: Sequence[ImageScore]) -> bytes:
    """Counted against true objects, one point per image, with the line of equality and lines 10 % above and below it.

    If the counts span a factor of 20 or more, the axes are logarithmic above 10 and linear below, so that 0 can be
    shown.
    """
    figure, axes = _axes()
    true = np.array([score.true for score in scores], float)
    counted = np.array([score.counted for score in scores], float)
    top = max(1.0, float(true.max(initial=0)), float(counted.max(initial=0))) * 1.08
    some = np.concatenate([true[true > 0], counted[counted > 0]])
    if some.size and some.max() / some.min() >= _WIDE:
        for scale in (axes.set_xscale, axes.set_yscale):
            scale("symlog", linthresh=10, linscale=1.0)
        top *= 1.15
        ticks = [0.0, 5.0, *(step * 10.0**power for power in range(1, 7) for step in (1, 2, 5))]
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(FixedLocator([tick for tick in ticks if tick <= top]))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
            axis.set_minor_locator(NullLocator())
    line = np.linspace(0, top, 400)
    axes.fill_between(line, 0.9 * line, 1.1 * line, color=_GREY, alpha=0.16, linewidth=0, label="within 10 %")
    axes.plot(line, line, color=_LINE, linewidth=1, label="counted = true")
    for number, name in enumerate(sorted({score.modality for score in scores})):
        members = np.array([score.modality == name for score in scores])
        _scatter(axes, true[members], counted[members], number, name or "images")
    axes.set_xlim(-0.02 * min(top, 50), top)
    axes.set_ylim(-0.02 * min(top, 50), top)
    axes.set_xlabel("true objects")
    axes.set_ylabel("counted objects")
    axes.set_title("Counts, a point an image", loc="left", fontsize=11)
    figure.legend(frameon=False, fontsize=8.5, loc="outside lower center", ncols=_LEGEND_COLUMNS)
    return figure_png(figure)


def f1_by_size_png(scores: Sequence[ImageScore], groups: Sequence[GroupFigures]) -> bytes:
    """F1 at IoU 0.5 against the median true diameter: one point per image, and for each size bin the mean with its
    interval."""
    figure, axes = _axes()
    some = [score for score in scores if score.true]
    for number, name in enumerate(sorted({score.modality for score in some})):
        members = [score for score in some if score.modality == name]
        _scatter(
            axes,
            np.array([score.diameter_px for score in members]),
            np.array([score.matches[0].f1 for score in members]),
            number,
            name or "images",
        )
    _draw_bins(axes, some, groups)
    axes.set_xscale("log")
    axes.set_xticks(_SIZE_TICKS, [str(tick) for tick in _SIZE_TICKS])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_minor_locator(NullLocator())
    sizes = [score.diameter_px for score in some] or [float(SIZE_EDGES_PX[0])]
    axes.set_xlim(min(sizes) / 1.25, max(sizes) * 1.25)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("median diameter of the true objects, px")
    axes.set_ylabel("F1 at IoU 0.5")
    axes.set_title("F1 by object size", loc="left", fontsize=11)
    if some:
        figure.legend(frameon=False, fontsize=8.5, loc="outside lower center", ncols=_LEGEND_COLUMNS)
    else:
        axes.text(0.5, 0.5, "no image has an object", ha="center", color=_GREY, transform=axes.transAxes)
    return figure_png(figure)


def _draw_bins(axes: Axes, scores: Sequence[ImageScore], groups: Sequence[GroupFigures]) -> None:
    places, means, below, above = [], [], [], []
    for group in groups:
        members = [score.diameter_px for score in scores if size_of(score) == group.name]
        interval = group.figures["f1_50"]
        if not members or interval.value is None or interval.low is None or interval.high is None:
            continue
        places.append(float(np.exp(np.mean(np.log(members)))))
        means.append(interval.value)
        # Rounding may put a mean of equal values a hair outside of its interval.
        below.append(max(0.0, interval.value - interval.low))
        above.append(max(0.0, interval.high - interval.value))
    if places:
        axes.errorbar(
            places, means, yerr=[below, above], color=_LINE, marker="s", markersize=5, linewidth=1.2, capsize=3,
            label="mean of a size, 95 %",
        )  # fmt: skip


def _axes() -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.grid(visible=True, color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _scatter(axes: Axes, x: Floats, y: Floats, number: int, name: str) -> None:
    axes.scatter(
        x, y, s=22, color=_COLOURS[number % len(_COLOURS)], marker=_MARKERS[number % len(_MARKERS)],
        alpha=0.65, linewidths=0, label=_plain(name),
    )  # fmt: skip


def _plain(text: str) -> str:
    """The name as it stands: matplotlib would hide a leading underscore from the legend, and read a dollar sign as
    the start of a formula."""
    return " " + text.replace("$", r"\$")
