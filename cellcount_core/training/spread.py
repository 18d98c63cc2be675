"""The figure by which trainings of one recipe are compared, as a picture: a point for each of them, a box, and their mean with its interval."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scipy import stats

from cellcount_core.models.package import load_package
from cellcount_core.tasks.task import task_of

_LEVEL = 0.95
_INK, _FILL = "#222222", "#cfe0f3"


@dataclass(frozen=True, slots=True)
class Spread:
    """What a figure came to: `values` (0..1) by the name of the training ("seed 0"), the name of the `figure`, and what was `trained`."""

    trained: str
    figure: str
    values: Mapping[str, float]

    @property
    def mean(self) -> float:
        """The mean of the values."""
        return statistics.fmean(self.values.values())

    def interval(self) -> tuple[float, float] | None:
        """Where the mean of many such trainings lies with 95 % (Student's t), within the 0 to 1 of such figures; None of a single training.

        >>> low, high = Spread("", "f1", {"seed 0": 0.8, "seed 1": 0.9, "seed 2": 0.85}).interval()
        >>> round(low, 3), round(high, 3)
        (0.726, 0.974)
        """
        count = len(self.values)
        if count < 2:
            return None
        far = (
            float(stats.t.ppf((1 + _LEVEL) / 2, count - 1))
            * statistics.stdev(self.values.values())
            / math.sqrt(count)
        )
        return max(0.0, self.mean - far), min(1.0, self.mean + far)

    def words(self) -> str:
        """The mean with its interval, in words."""
        ends = self.interval()
        told = f"mean {self.mean:.3f} of {len(self.values)}"
        return told if ends is None else f"{told} (95 %: {ends[0]:.3f} to {ends[1]:.3f})"


def headline_of(package: str) -> str:
    """The figure by which packages of the task are compared (`Scoring.headline`). Raises ModelFault if the package is faulty."""
    loaded = load_package(Path(package))
    return task_of(loaded).scoring(loaded).headline


def draw_spread(path: Path, spread: Spread) -> None:
    """Write the picture of a figure of one training or more (PNG): each training a point that bears its name, the box of their quartiles, and
    beside it the mean with its interval."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    values = list(spread.values.values())
    figure = Figure(figsize=(5, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    panel.boxplot(
        values, positions=[0], widths=0.5, showfliers=False, patch_artist=True,
        boxprops={"facecolor": _FILL, "edgecolor": _INK}, medianprops={"color": _INK},
    )  # fmt: skip
    for place, (name, value) in enumerate(sorted(spread.values.items(), key=lambda one: one[1])):
        across = (place % 3 - 1) * 0.12  # side by side, so that points of nearly one value are seen each
        panel.plot(across, value, "o", color=_INK, markersize=5, alpha=0.8)
        panel.annotate(
            name, (across, value), xytext=(5, 2), textcoords="offset points", fontsize=7, color="0.35"
        )
    ends = spread.interval()
    far = None if ends is None else [[spread.mean - ends[0]], [ends[1] - spread.mean]]
    panel.errorbar([0.6], [spread.mean], yerr=far, fmt="D", color="#d7191c", capsize=5)
    panel.set_xticks([0, 0.6], ["trainings", "mean, 95 %"])
    panel.set_xlim(-0.4, 0.9)
    panel.set_ylabel(spread.figure.replace("_", " "))
    panel.set_title(f"{spread.trained}: {spread.words()}", fontsize=9)
    panel.grid(axis="y", alpha=0.3)
    figure.savefig(path, dpi=120)
