"""What a training of classes came to, for people: verdicts in words, and a picture with a panel of images, confusion and calibration."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cellcount_core.tasks.classes.judge import (
    CHANCE,
    Curves,
    balanced_accuracy,
    calibration_error,
    chance_of_as_good,
    confusion,
    distinguishable,
    what_curves_say,
)
from cellcount_core.training.watching import written_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

JSON_FILE = "learning.json"
PNG_FILE = "learning.png"
_SHOWN, _IN_A_ROW = 24, 8
_ROW_IN, _PLOTS_IN = 1.7, 3.4
"""Height in inches of a row of images, and of the plots below them."""

_FEW_POINTS = 12
_BINS = 5
_RIGHT, _WRONG = "#1a9641", "#d7191c"


@dataclass(frozen=True, slots=True, eq=False)
class ToldClasses:
    """The images that did not train, as a package tells them.

    `true` and `told` (n,) are places among `classes`, `sure` (n,) the probability of the told class, `groups` what each image belongs to.
    `train_curve` and `held_out_curve` are the accuracies at the points of the curves, the second over
    `watched` images. `leaks` names pairs on both sides of the split, and `taught_nothing` says why there was nothing to learn, if so.
    """

    classes: tuple[str, ...]
    true: NDArray[np.int64]
    told: NDArray[np.int64]
    sure: NDArray[np.float64]
    groups: tuple[str, ...]
    train_curve: tuple[float, ...]
    held_out_curve: tuple[float, ...]
    watched: int
    leaks: tuple[str, ...] = ()
    taught_nothing: str = ""

    @property
    def chance(self) -> float:
        """See `chance_of_as_good`."""
        return chance_of_as_good(self.true, self.told, self.groups)

    def verdicts(self) -> list[str]:
        """What is to be known of the training, in words."""
        right = balanced_accuracy(self.true, self.told)
        majority = float(np.bincount(self.true).max()) / len(self.true)
        error = calibration_error(self.sure, self.true == self.told)
        told = [
            *([f"BASELINE: {self.taught_nothing}"] if self.taught_nothing else []),
            what_curves_say(
                Curves(self.train_curve, self.held_out_curve, self.watched, right, len(self.true)),
                len(self.classes),
            ),
            f"balanced accuracy {right:.3f} on {len(self.true)} images of {len(set(self.groups))} groups that did not train; always telling the "
            f"largest class is right for {majority:.1%} of them; {distinguishable(self.chance)}",
            f"probabilities are off by {error:.3f} on average (calibration error)",
        ]
        return (
            [
                *told,
                f"LEAKS: {len(self.leaks)} pairs of images that show the same stand on both sides of the split",
            ]
            if self.leaks
            else told
        )

    def plain(self) -> dict[str, object]:
        """The same as plain data, with the confusion (rows: true classes)."""
        return {
            "classes": list(self.classes),
            "balanced_accuracy": round(balanced_accuracy(self.true, self.told), 4),
            "chance_of_as_good": round(self.chance, 4),
            "calibration_error": round(calibration_error(self.sure, self.true == self.told), 4),
            "confusion": confusion(self.true, self.told, len(self.classes)).tolist(),
            "verdicts": self.verdicts(),
            "leaks": list(self.leaks),
            **({"taught_nothing": self.taught_nothing} if self.taught_nothing else {}),
        }


def write_told(folder: Path, found: ToldClasses, pictures: Sequence[NDArray[np.float32]]) -> None:
    """Write learning.json and learning.png. `pictures` (h, w, C), 0 for the background to about 1, are those of the first images."""
    text = json.dumps(found.plain(), indent=1, ensure_ascii=False)
    with written_whole(folder / JSON_FILE) as path:
        path.write_text(text + "\n", encoding="utf-8")
    with written_whole(folder / PNG_FILE) as path:
        _draw(path, found, pictures)


def shown_places(found: ToldClasses) -> list[int]:
    """The images that the panel shows: as many of each class as there is room for, evenly spread; none if classes are not told apart."""
    if found.chance >= CHANCE:
        return []
    each = max(1, _SHOWN // len(found.classes))
    places: list[int] = []
    for one in range(len(found.classes)):
        own = np.flatnonzero(found.true == one)
        places += [int(at) for at in own[:: max(1, len(own) // each)][:each]]
    return places[:_SHOWN]


def _draw(path: Path, found: ToldClasses, pictures: Sequence[NDArray[np.float32]]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    places = shown_places(found)
    rows = max(1, math.ceil(len(places) / _IN_A_ROW))
    heights = (_ROW_IN * rows, _PLOTS_IN)
    figure = Figure(figsize=(11, sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    if found.taught_nothing:
        figure.suptitle(f"BASELINE: {found.taught_nothing}", fontsize=10)
    upper, lower = np.ravel(np.asarray(figure.subfigures(2, 1, height_ratios=heights), dtype=object))
    if places:
        for panel, place, picture in zip(
            upper.subplots(rows, _IN_A_ROW, squeeze=False).ravel(), places, pictures, strict=False
        ):
            _draw_image(panel, found, place, picture)
        for panel in upper.axes[len(places) :]:
            panel.set_axis_off()
    else:
        upper.text(
            0.5,
            0.5,
            distinguishable(found.chance).replace(": ", ":\n", 1),
            ha="center",
            va="center",
            fontsize=15,
            wrap=True,
        )
    curves, table, sure = lower.subplots(1, 3)
    count = len(found.train_curve)
    # A line of one point is not seen.
    mark = "o" if count < _FEW_POINTS else None
    for shares, label in ((found.train_curve, "training"), (found.held_out_curve, "held out")):
        curves.plot(range(1, count + 1), shares, marker=mark, label=label)
    curves.axhline(1 / len(found.classes), color="grey", linestyle=":", label="guessing")
    curves.set(xlabel="point of the curve", ylabel="accuracy", xlim=(0.5, count + 0.5), ylim=(0, 1.02))
    curves.xaxis.get_major_locator().set_params(integer=True)
    curves.legend(fontsize=8)
    _draw_confusion(table, found)
    _draw_calibration(sure, found)
    figure.savefig(path, dpi=110)


def _draw_image(panel: Axes, found: ToldClasses, place: int, picture: NDArray[np.float32]) -> None:
    right = found.true[place] == found.told[place]
    shown = picture if picture.shape[-1] == 3 else picture[..., 0]
    panel.imshow(np.clip(shown, 0, 1), cmap="gray", vmin=0, vmax=1)
    panel.set(xticks=[], yticks=[])
    for spine in panel.spines.values():
        spine.set(color=_RIGHT if right else _WRONG, linewidth=3)
    name = found.classes[found.told[place]]
    panel.set_title(f"{name[:12]} {found.sure[place]:.0%}", fontsize=7, color=_RIGHT if right else _WRONG)


def _draw_confusion(panel: Axes, found: ToldClasses) -> None:
    numbers = confusion(found.true, found.told, len(found.classes))
    shares = numbers / np.maximum(1, numbers.sum(axis=1, keepdims=True))
    panel.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), number in np.ndenumerate(numbers):
        ink = "white" if shares[row, column] > 0.5 else "black"
        panel.text(column, row, str(number), ha="center", va="center", fontsize=8, color=ink)
    names = [name[:12] for name in found.classes]
    panel.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=7)
    panel.set_yticks(range(len(names)), names, fontsize=7)
    panel.set(xlabel="told", ylabel="true")


def _draw_calibration(panel: Axes, found: ToldClasses) -> None:
    bins = np.minimum((found.sure * _BINS).astype(int), _BINS - 1)
    some = np.unique(bins)
    panel.plot([0, 1], [0, 1], color="grey", linestyle=":")
    panel.plot(
        [found.sure[bins == one].mean() for one in some],
        [(found.true == found.told)[bins == one].mean() for one in some],
        "o-",
    )
    panel.set(
        xlabel="probability of the told class", ylabel="share that is right", xlim=(0, 1.02), ylim=(0, 1.02)
    )
