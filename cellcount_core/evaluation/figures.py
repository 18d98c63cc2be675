"""The figures of a set of scored images, each with its bootstrap interval, and the groups that images fall into.

A figure is a function of how often each image is taken: weights (R, n) give values (R,). Weights of 1 give the figure
itself, and multinomial weights give its bootstrap sample (Efron 1979), so one definition serves both. Images are
grouped by modality, by the size of their objects and by how many objects they hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.columns import Value
from cellcount_core.tasks.matching import THRESHOLDS, ImageScore

RESAMPLES = 2000
SEED = 0
LEVEL = 0.95
_BLOCK = 1 << 22
"""The most weights held in memory at once."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and the ends of its bootstrap interval. None if undefined, such as a share of objects where there are
    none."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Columns:
    """What each image of a set contributes, as arrays (n,) float64; `ap` and `f1` are (n, thresholds)."""

    true: Floats
    counted: Floats
    misses: Floats
    extras: Floats
    splits: Floats
    merges: Floats
    pq: Floats
    ap: Floats
    f1: Floats


WeightedFigure = Callable[[Columns, Floats], Floats]


@dataclass(frozen=True, slots=True)
class FigureText:
    """How a figure is shown: its title, whether it is a share (shown in %), whether it has a sign, and a sentence
    that explains it."""

    title: str
    share: bool
    signed: bool
    sentence: str


def columns(scores: Sequence[ImageScore]) -> Columns:
    """The columns of these images. Misses and extras are those at IoU 0.5."""

    def floats(values: list[float] | list[int]) -> Floats:
        return np.array(values, np.float64)

    shape = (len(scores), len(THRESHOLDS))
    return Columns(
        true=floats([score.true for score in scores]),
        counted=floats([score.counted for score in scores]),
        misses=floats([score.matches[0].misses for score in scores]),
        extras=floats([score.matches[0].extras for score in scores]),
        splits=floats([score.splits for score in scores]),
        merges=floats([score.merges for score in scores]),
        pq=floats([score.panoptic_quality for score in scores]),
        ap=np.array([[match.ap for match in score.matches] for score in scores], np.float64).reshape(shape),
        f1=np.array([[match.f1 for match in score.matches] for score in scores], np.float64).reshape(shape),
    )


def _ratio(over: Floats, under: Floats) -> Floats:
    """over / under, NaN where `under` is 0."""
    return np.divide(over, under, out=np.full_like(over, np.nan), where=under > 0)


def _mean(pick: Callable[[Columns], Floats]) -> WeightedFigure:
    return lambda data, weights: _ratio(weights @ pick(data), weights.sum(axis=1))


def _per_true(pick: Callable[[Columns], Floats]) -> WeightedFigure:
    return lambda data, weights: _ratio(weights @ pick(data), weights @ data.true)


def _mape(data: Columns, weights: Floats) -> Floats:
    some = data.true > 0
    error = np.where(some, np.abs(data.counted - data.true) / np.maximum(data.true, 1), 0.0)
    return _ratio(weights @ error, weights @ some.astype(np.float64))


def _pearson(data: Columns, weights: Floats) -> Floats:
    # About the unweighted means: sums of squares of raw counts would lose digits.
    x, y = data.true - data.true.mean(), data.counted - data.counted.mean()
    total = weights.sum(axis=1)
    mean_x, mean_y = weights @ x / total, weights @ y / total
    var_x = weights @ (x * x) / total - mean_x**2
    var_y = weights @ (y * y) / total - mean_y**2
    floor = 1e-12 * (1 + (x * x).max(initial=0.0) + (y * y).max(initial=0.0))
    known = (var_x > floor) & (var_y > floor)
    spread = np.sqrt(np.where(known, var_x * var_y, 0.0))
    return np.clip(_ratio(weights @ (x * y) / total - mean_x * mean_y, spread), -1.0, 1.0)


def _ap(at: int) -> WeightedFigure:
    return _mean(lambda data: data.ap[:, at])


def _f1(at: int) -> WeightedFigure:
    return _mean(lambda data: data.f1[:, at])


FIGURES: Mapping[str, WeightedFigure] = {
    **{f"ap_{round(100 * threshold)}": _ap(at) for at, threshold in enumerate(THRESHOLDS)},
    "ap_mean": _mean(lambda data: data.ap.mean(axis=1)),
    **{f"f1_{round(100 * threshold)}": _f1(at) for at, threshold in enumerate(THRESHOLDS)},
    "pq": _mean(lambda data: data.pq),
    "count_mae": _mean(lambda data: np.abs(data.counted - data.true)),
    "count_mape": _mape,
    "count_bias": _per_true(lambda data: data.counted - data.true),
    "count_r": _pearson,
    "missed": _per_true(lambda data: data.misses),
    "extra": _per_true(lambda data: data.extras),
    "split": _per_true(lambda data: data.splits),
    "merged": _per_true(lambda data: data.merges),
}
"""Every figure, by its name in evaluation.json."""

_HEADLINE = {
    "ap_mean": FigureText("mean AP 0.5–0.9", False, False, "mean of AP at IoU 0.5, 0.6, 0.7, 0.8 and 0.9"),
    "pq": FigureText("PQ", False, False, "panoptic quality at IoU 0.5: mean IoU of the pairs times F1, mean over images"),
    "count_mae": FigureText("count MAE", False, False, "mean over images of |counted − true|, in objects"),
    "count_mape": FigureText("count MAPE", True, False, "mean over images with objects of |counted − true| / true"),
    "count_bias": FigureText("count bias", True, True, "(counted − true) / true over all objects of all images"),
    "count_r": FigureText("count R", False, False, "Pearson correlation of counted with true over images"),
    "missed": FigureText("missed", True, False, "true objects without a counted one at IoU 0.5, of the true objects"),
    "extra": FigureText("extra", True, False, "counted objects without a true one at IoU 0.5, per true object"),
    "split": FigureText("split", True, False, "true objects that two or more counted objects lie in by more than half, of the true objects"),
    "merged": FigureText("merged", True, False, "counted objects that two or more true objects lie in by more than half, per true object"),
}  # fmt: skip


def meaning(name: str) -> FigureText:
    """How a figure is shown. One of the task itself has its name as title, and no sentence."""
    if name in _HEADLINE:
        return _HEADLINE[name]
    if name not in FIGURES:
        return FigureText(name.replace("_", " "), False, False, "")
    kind, _, percent = name.partition("_")
    threshold = f"{int(percent) / 100:g}"
    formula = "hits / (hits + misses + extras)" if kind == "ap" else "2 hits / (2 hits + misses + extras)"
    return FigureText(
        f"{kind.upper()} @ {threshold}", False, False, f"{formula} at IoU {threshold}, mean over images"
    )


def measure(
    scores: Sequence[ImageScore], *, resamples: int = RESAMPLES, seed: int = SEED
) -> dict[str, Interval]:
    """Every figure of these images, with the middle 95 % of its bootstrap sample as interval.

    The bootstrap draws as many images as there are, with replacement, `resamples` times; `seed` seeds its generator.
    A single image says nothing about the spread and has no interval. Raises ValueError if there is no image.
    """
    if not scores:
        raise ValueError("figures need at least one image")
    data = columns(scores)
    ones = np.ones((1, len(scores)))
    drawn: dict[str, list[Floats]] = {name: [] for name in FIGURES}
    random = np.random.default_rng(seed)
    block = max(1, _BLOCK // len(scores))
    for start in range(0, resamples if len(scores) > 1 else 0, block):
        size = min(block, resamples - start)
        weights = random.multinomial(len(scores), np.full(len(scores), 1 / len(scores)), size).astype(float)
        for name, figure in FIGURES.items():
            drawn[name].append(figure(data, weights))
    return {
        name: _interval(float(figure(data, ones)[0]), np.concatenate([*drawn[name], np.zeros(0)]))
        for name, figure in FIGURES.items()
    }


def plain_figure(value: Value) -> Interval:
    """A figure of the task itself, which has no interval here. Raises TypeError if it is not a number."""
    if value is not None and not isinstance(value, int | float):
        raise TypeError(f"figures are numbers (got {value!r:.80})")
    return Interval(None if value is None else float(value), None, None)


def _interval(value: float, sample: Floats) -> Interval:
    known = sample[np.isfinite(sample)]
    if not isfinite(value) or known.size == 0:
        return Interval(value if isfinite(value) else None, None, None)
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high))


def shown(name: str, value: float | None) -> str:
    """A figure in words: "12.3 %", "−2.1 %" (with a true minus sign), "0.872", or "–" if it is not defined."""
    how = meaning(name)
    if value is None:
        return "–"
    if how.share:
        text = f"{100 * value:+.1f} %" if how.signed else f"{100 * value:.1f} %"
    elif name.partition("_")[0] == "images":
        text = f"{value:,.0f}"
    else:
        text = f"{value:.2f}" if name == "count_mae" else f"{value:.3f}"
    return text.replace("-", "−")


def shown_with_interval(name: str, interval: Interval) -> str:
    """A figure followed by the ends of its interval in brackets: "0.872 (0.851 – 0.890)"."""
    if interval.low is None or interval.high is None:
        return shown(name, interval.value)
    low, high = shown(name, interval.low), shown(name, interval.high)
    return f"{shown(name, interval.value)} ({low.removesuffix(' %')} – {high.removesuffix(' %')})"


SIZE_EDGES_PX = (8, 12, 16, 24, 32, 48)
"""Median diameters (px) at which the size bins meet. A diameter on an edge belongs to the upper bin."""

DENSITY_EDGES = (5, 20, 50, 100)
"""The most objects an image of each density bin holds. The last bin has no upper end."""

_EMPTY = "no object"
_UNNAMED = "not stated"


class Scored(Protocol):
    """The values that decide which groups an image falls into."""

    @property
    def modality(self) -> str:
        """Its modality, "" if none is stated."""
        ...

    @property
    def true(self) -> int:
        """Its number of true objects."""
        ...

    @property
    def diameter_px(self) -> float:
        """The median diameter of its true objects in px."""
        ...


@dataclass(frozen=True, slots=True)
class Grouping:
    """One way to group images: the `title` of its table, the groups' `names` in the order shown, and a function that
    names an image's group."""

    title: str
    names: tuple[str, ...]
    of: Callable[[Scored], str]


def groupings(images: Sequence[Scored]) -> dict[str, Grouping]:
    """The three groupings of these images, by their names in evaluation.json."""
    modalities = sorted({modality_of(image) for image in images})
    return {
        "modality": Grouping("modality", tuple(modalities), modality_of),
        "size": Grouping("median object diameter, px", (_EMPTY, *size_names()), size_of),
        "density": Grouping("objects an image", (_EMPTY, *density_names()), density_of),
    }


def modality_of(image: Scored) -> str:
    """The image's modality in words."""
    return image.modality or _UNNAMED


def size_names() -> tuple[str, ...]:
    """The names of the size bins, from small to large."""
    inner = [f"{low} to {high}" for low, high in pairwise(SIZE_EDGES_PX)]
    return (f"below {SIZE_EDGES_PX[0]}", *inner, f"{SIZE_EDGES_PX[-1]} and more")


def size_of(image: Scored) -> str:
    """The name of the image's size bin."""
    if not image.true:
        return _EMPTY
    return size_names()[sum(image.diameter_px >= edge for edge in SIZE_EDGES_PX)]


def density_names() -> tuple[str, ...]:
    """The names of the density bins, from few objects to many."""
    edges = (0, *DENSITY_EDGES)
    return (*(f"{low + 1} to {high}" for low, high in pairwise(edges)), f"above {DENSITY_EDGES[-1]}")


def density_of(image: Scored) -> str:
    """The name of the image's density bin."""
    if not image.true:
        return _EMPTY
    return density_names()[sum(image.true > edge for edge in DENSITY_EDGES)]


def grouped(images: Sequence[Scored], grouping: Grouping) -> Mapping[str, list[int]]:
    """The positions of the images of each group, in the order of the grouping's names; empty groups are left out."""
    places: dict[str, list[int]] = {name: [] for name in grouping.names}
    for at, image in enumerate(images):
        places[grouping.of(image)].append(at)
    return {name: members for name, members in places.items() if members}
