"""Plate maps as PNG: a heat map for each plate of any format, and bars for images whose names are not wells."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from io import BytesIO

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from cellcount_core.domain.plates import row_name
from cellcount_core.report.platelayout import DrawnWell, ImageBars, Panel, PlateGrid, PlateMap, WellState

_COLOURS = "viridis"
_UNMEASURED, _UNCOUNTED, _EDGE = "#ececec", "#ffffff", "#c8c8c8"
_FAULT = "#b3261e"
_TEXT_WELLS = 96
_DPI = 120
_PANEL_INCHES = 9.0
_NAME_LETTERS = 40
_LARGE, _ABREAST, _SMALL_INCHES = 4, 4, 3.0
_MOST_GRIDS, _MOST_BARS = 48, 6


def plate_map_png(plate_map: PlateMap) -> bytes:
    """Draw the panels as PNG, with one colour scale for all. Equal maps give equal bytes.

    The colours are viridis, whose order readers with any colour vision can see. A well with some fields
    that were not counted has a red corner, a well without any count is crossed out, and a well that was
    not measured is blank. Up to four plates are drawn below each other, with numbers in the wells if there
    are at most 96; more plates are drawn small, four side by side. At most 48 plates (or 6 panels of bars)
    are drawn; if there are more, the last line says so.
    """
    bars = any(isinstance(panel, ImageBars) for panel in plate_map.panels)
    panels = plate_map.panels[: _MOST_BARS if bars else _MOST_GRIDS]
    across = 1 if bars or len(panels) <= _LARGE else _ABREAST
    # Counts start at 0, so that equal colours mean equal numbers in every plate map of a screen of like plates.
    norm = Normalize(min(0.0, plate_map.low), max(plate_map.high, 1e-9))
    figure = (
        _draw_small(panels, norm, plate_map.label)
        if across > 1
        else _draw_large(panels, norm, plate_map.label)
    )
    left_out = len(plate_map.panels) - len(panels)
    if left_out:
        figure.supxlabel(f"{len(panels)} of {len(plate_map.panels)} plates shown", fontsize=10)
    return figure_png(figure)


def figure_png(figure: Figure) -> bytes:
    """Encode the figure as PNG without software name and date, so that equal figures give equal bytes."""
    out = BytesIO()
    with warnings.catch_warnings():
        # A letter that the font has not (of a name in Chinese, say) is drawn as a box.
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _draw_large(panels: Sequence[Panel], norm: Normalize, label: str) -> Figure:
    heights = [_height(panel) for panel in panels]
    figure = Figure(figsize=(_PANEL_INCHES, sum(heights) or 1.0), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    if panels:
        grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)
        for axes, panel in zip(grid[:, 0], panels, strict=True):
            if isinstance(panel, PlateGrid):
                _draw_wells(axes, panel, norm)
                _write_names(axes, panel)
                if len(panel.cells) <= _TEXT_WELLS:
                    _write_values(axes, panel, norm)
                _draw_legend(axes, panel)
                figure.colorbar(ScalarMappable(norm, _COLOURS), ax=axes, label=label, shrink=0.85, pad=0.02)
            else:
                _draw_bars(axes, panel, label)
    return figure


def _draw_small(panels: Sequence[Panel], norm: Normalize, label: str) -> Figure:
    down = -(-len(panels) // _ABREAST)
    figure = Figure(
        figsize=(_SMALL_INCHES * _ABREAST + 0.8, _SMALL_INCHES * 0.8 * down), dpi=_DPI, layout="constrained"
    )
    FigureCanvasAgg(figure)
    grid = figure.subplots(down, _ABREAST, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, panel in zip(grid.flat, panels, strict=False):
        if isinstance(panel, PlateGrid):
            _draw_wells(axes, panel, norm)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_title(panel.title, fontsize=8, loc="left", pad=3)
    figure.colorbar(ScalarMappable(norm, _COLOURS), ax=grid, label=label, shrink=min(1.0, 2 / down), pad=0.02)
    return figure


def _height(panel: Panel) -> float:
    if isinstance(panel, ImageBars):
        return 1.4 + 0.19 * max(3, len(panel.bars))
    return 1.3 + (_PANEL_INCHES - 1.8) * panel.rows / panel.columns


def _draw_wells(axes: Axes, panel: PlateGrid, norm: Normalize) -> None:
    """Colours, lines between wells, and the marks of what was not counted."""
    colours = np.array([_colour(cell, norm) for cell in panel.cells]).reshape(panel.rows, panel.columns, 4)
    axes.imshow(colours, interpolation="nearest", aspect="equal")
    line = 0.8 if panel.columns <= 12 else 0.4
    axes.hlines(np.arange(panel.rows + 1) - 0.5, -0.5, panel.columns - 0.5, "white", linewidth=line)
    axes.vlines(np.arange(panel.columns + 1) - 0.5, -0.5, panel.rows - 0.5, "white", linewidth=line)
    axes.set_xlim(-0.5, panel.columns - 0.5)
    axes.set_ylim(panel.rows - 0.5, -0.5)
    for spine in axes.spines.values():
        spine.set_color(_EDGE)
    for cell in panel.cells:
        _draw_mark(axes, cell)


def _colour(cell: DrawnWell, norm: Normalize) -> tuple[float, float, float, float]:
    if cell.value is not None:
        red, green, blue, alpha = colormaps[_COLOURS](norm(cell.value))
        return red, green, blue, alpha
    return to_rgba(_UNMEASURED if cell.state is WellState.UNMEASURED else _UNCOUNTED)


def _draw_mark(axes: Axes, cell: DrawnWell) -> None:
    x, y = cell.position.column, cell.position.row
    if cell.state is WellState.UNCOUNTED:
        axes.plot([x - 0.35, x + 0.35], [y - 0.35, y + 0.35], color=_FAULT, linewidth=1.2)
        axes.plot([x - 0.35, x + 0.35], [y + 0.35, y - 0.35], color=_FAULT, linewidth=1.2)
    elif cell.state is WellState.PARTIAL:
        corner = [(x + 0.16, y - 0.47), (x + 0.47, y - 0.47), (x + 0.47, y - 0.16)]
        axes.fill(*zip(*corner, strict=True), facecolor=_FAULT, linewidth=0)


def _write_names(axes: Axes, panel: PlateGrid) -> None:
    step = 1 if panel.columns <= 24 else 2
    axes.set_xticks(range(0, panel.columns, step), [str(c + 1) for c in range(0, panel.columns, step)])
    axes.set_yticks(range(0, panel.rows, step), [row_name(r) for r in range(0, panel.rows, step)])
    axes.tick_params(length=0, labelsize=9 if panel.columns <= 24 else 7, labeltop=True, labelbottom=False)
    axes.set_title(panel.title, fontsize=12, fontweight="bold", loc="left", pad=8)


def _write_values(axes: Axes, panel: PlateGrid, norm: Normalize) -> None:
    size = min(13.0, 9.5 * 12 / panel.columns)
    for cell in panel.cells:
        if cell.value is not None:
            red, green, blue, _ = _colour(cell, norm)
            dark = 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.5
            axes.text(
                cell.position.column,
                cell.position.row,
                _number(cell.value),
                ha="center",
                va="center",
                fontsize=size,
                color="white" if dark else "black",
            )


def _number(value: float) -> str:
    if float(value).is_integer():
        return f"{value:.0f}"
    return f"{value:.3g}"


def _draw_legend(axes: Axes, panel: PlateGrid) -> None:
    marks = {
        WellState.PARTIAL: Patch(facecolor=_FAULT, edgecolor="white"),
        WellState.UNCOUNTED: Patch(facecolor=_UNCOUNTED, edgecolor=_FAULT, hatch="xx", linewidth=0.6),
        WellState.UNMEASURED: Patch(facecolor=_UNMEASURED, edgecolor=_EDGE),
    }
    numbers = {state: sum(cell.state is state for cell in panel.cells) for state in marks}
    shown = [state for state in marks if numbers[state]]
    patches = [marks[state] for state in shown]
    texts = [f"{state.value} ({_wells(numbers[state])})" for state in shown]
    if blank := sum(cell.value is None and cell.fields_ok > 0 for cell in panel.cells):
        patches.append(Patch(facecolor=_UNCOUNTED, edgecolor=_EDGE))
        texts.append(f"counted, no value ({_wells(blank)})")
    if patches:
        axes.legend(
            patches,
            texts,
            loc="upper left",
            bbox_to_anchor=(0, -0.01),
            ncols=3,
            frameon=False,
            fontsize=9,
            handlelength=1.2,
            borderaxespad=0.3,
        )


def _wells(number: int) -> str:
    return "1 well" if number == 1 else f"{number} wells"


def _draw_bars(axes: Axes, panel: ImageBars, label: str) -> None:
    places = np.arange(len(panel.bars))
    values = [bar.value or 0.0 for bar in panel.bars]
    axes.barh(places, values, color=colormaps[_COLOURS](0.35), height=0.75)
    for place, bar in zip(places, panel.bars, strict=True):
        text, colour = ("not counted", _FAULT) if bar.value is None else (_number(bar.value), "black")
        axes.annotate(
            text,
            (bar.value or 0.0, float(place)),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=colour,
        )
    axes.set_yticks(places, [_short(bar.name) for bar in panel.bars], fontsize=8)
    axes.set_ylim(len(panel.bars) - 0.4, -0.6)
    axes.margins(x=0.08)
    if any(bar.value for bar in panel.bars):
        axes.set_xlim(left=0)
    else:
        axes.set_xlim(0, 1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel(label.replace("per well", "per image"))
    notes = [f"the {len(panel.bars)} highest of {panel.images}"] if len(panel.bars) < panel.images else []
    notes += [f"{panel.uncounted} not counted"] if panel.uncounted else []
    more = f" ({'; '.join(notes)})" if notes else ""
    axes.set_title(panel.title + more, fontsize=12, fontweight="bold", loc="left")


def _short(name: str) -> str:
    return name if len(name) <= _NAME_LETTERS else "…" + name[1 - _NAME_LETTERS :]
