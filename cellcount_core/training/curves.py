"""The curves of a run: a CSV that grows line by line, and a picture of it."""

from __future__ import annotations

import csv
from dataclasses import astuple, dataclass, fields
from pathlib import Path

CSV_FILE = "curves.csv"
PNG_FILE = "curves.png"


@dataclass(frozen=True, slots=True)
class Point:
    """Means since the point before: `seconds` of training since the start, loss and pixel accuracy (0..1)."""

    step: int
    seconds: float
    learning_rate: float
    loss: float
    accuracy: float
    validation_loss: float
    validation_accuracy: float


def read_curve(work_dir: Path) -> list[Point]:
    """The points written so far."""
    path = work_dir / CSV_FILE
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return [
            Point(int(row["step"]), *(float(row[f.name]) for f in fields(Point)[1:]))
            for row in csv.DictReader(stream)
        ]


def write_curve(work_dir: Path, points: list[Point]) -> None:
    """Write curves.csv and curves.png (losses above, accuracies below, training and validation in one plot)."""
    with (work_dir / CSV_FILE).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow([f.name for f in fields(Point)])
        writer.writerows(astuple(point) for point in points)
    _draw(work_dir / PNG_FILE, points)


def _draw(path: Path, points: list[Point]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 6), layout="constrained")
    FigureCanvasAgg(figure)
    steps = [point.step for point in points]
    upper, lower = figure.subplots(2, 1, sharex=True)
    for axes, name in ((upper, "loss"), (lower, "accuracy")):
        axes.plot(steps, [getattr(point, name) for point in points], label="training")
        axes.plot(steps, [getattr(point, f"validation_{name}") for point in points], label="validation")
        axes.set_ylabel("loss" if name == "loss" else "pixel accuracy")
        axes.grid(alpha=0.3)
        axes.legend()
    lower.set_xlabel("step")
    figure.savefig(path, dpi=120)
