"""The curves of a run: a CSV that grows line by line, and a picture of it."""

from __future__ import annotations

import csv
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CSV_FILE = "curves.csv"
PNG_FILE = "curves.png"

_WHOLE = (
    ("whole_f1", "o-", "F1 at IoU 0.5"),
    ("whole_ap", "o-", "AP at IoU 0.5"),
    ("whole_bias", "o--", "count bias"),
)


@dataclass(frozen=True, slots=True)
class Point:
    """Means since the point before: `seconds` of training since the start, loss and pixel accuracy (0..1).

    `whole_f1`, `whole_ap` (at IoU 0.5) and `whole_bias` (of the count) are of whole images, where they were counted at this
    step; else None, in the CSV an empty cell.
    """

    step: int
    seconds: float
    learning_rate: float
    loss: float
    accuracy: float
    validation_loss: float
    validation_accuracy: float
    whole_f1: float | None = None
    whole_ap: float | None = None
    whole_bias: float | None = None


def read_curve(work_dir: Path) -> list[Point]:
    """The points written so far."""
    path = work_dir / CSV_FILE
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return [_point(row) for row in csv.DictReader(stream)]


def _point(row: dict[str, str]) -> Point:
    names = [field.name for field in fields(Point)]
    whole = [float(row[name]) if row.get(name) else None for name in names[7:]]
    return Point(int(row["step"]), *(float(row[name]) for name in names[1:7]), *whole)


def write_curve(work_dir: Path, points: list[Point]) -> None:
    """Write curves.csv and curves.png: losses, accuracies, and below them the whole images, where any were counted."""
    with (work_dir / CSV_FILE).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow([f.name for f in fields(Point)])
        writer.writerows(astuple(point) for point in points)
    _draw(work_dir / PNG_FILE, points)


def _draw(path: Path, points: list[Point]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    counted = [point for point in points if point.whole_f1 is not None]
    panels = 3 if counted else 2
    figure = Figure(figsize=(7, 3 * panels), layout="constrained")
    FigureCanvasAgg(figure)
    axes: list[Axes] = list(figure.subplots(panels, 1, sharex=True))
    steps = [point.step for point in points]
    for panel, name in zip(axes, ("loss", "accuracy"), strict=False):
        panel.plot(steps, [getattr(point, name) for point in points], label="training")
        panel.plot(steps, [getattr(point, f"validation_{name}") for point in points], label="validation")
        panel.set_ylabel("loss" if name == "loss" else "pixel accuracy")
    if counted:
        steps = [point.step for point in counted]
        for name, style, label in _WHOLE:
            axes[2].plot(steps, [float(getattr(point, name)) for point in counted], style, label=label)
        axes[2].set_ylim(-0.5, 1.02)
        axes[2].set_ylabel("whole images")
    for panel in axes:
        panel.grid(alpha=0.3)
        panel.legend()
    axes[-1].set_xlabel("step")
    figure.savefig(path, dpi=120)
