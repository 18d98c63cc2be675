"""The page of an evaluation: first everything it shows as one value, then that value as one HTML file without
scripts, with its pictures inside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cellcount_core.evaluation.assess import Evaluation, GroupFigures, Shown
from cellcount_core.evaluation.figures import (
    RESAMPLES,
    SEED,
    Interval,
    meaning,
    shown,
    shown_with_interval,
)
from cellcount_core.evaluation.pictures import (
    BOTH,
    COUNTED,
    TRUE,
    calibration_png,
    f1_by_size_png,
    outlines_png,
)
from cellcount_core.report.html import Card, inline_png, render
from cellcount_core.tasks.object_size.looks import tells_sizes

CARDS = ("ap_50", "ap_mean", "f1_50", "pq", "count_mape", "count_bias")
"""The figures at the top of the page."""

GROUP_FIGURES = ("ap_50", "ap_mean", "f1_50", "pq", "count_mape", "count_bias", "missed", "extra")
"""The columns of the tables by group."""


@dataclass(frozen=True, slots=True)
class ShownFigure:
    """A figure in words: its title, its value, the ends of its interval ("" if it has none), and what it means."""

    title: str
    value: str
    ends: str
    meaning: str


@dataclass(frozen=True, slots=True)
class ShownGroup:
    """One row of a table by group."""

    name: str
    images: str
    objects: str
    figures: tuple[ShownFigure, ...]


@dataclass(frozen=True, slots=True)
class ShownGroups:
    """A table by group."""

    title: str
    groups: tuple[ShownGroup, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture in the page: what it shows, and the picture itself as the `src` of an image."""

    text: str
    source: str


@dataclass(frozen=True, slots=True)
class Key:
    """What one colour of outline means."""

    colour: str
    text: str


@dataclass(frozen=True, slots=True)
class WorstImage:
    """An image to look at, with true and counted outlines, `width` x `height` px."""

    name: str
    about: str
    counts: str
    errors: str
    width: int
    height: int
    source: str


@dataclass(frozen=True, slots=True)
class EvaluationPage:
    """Everything that the page of an evaluation shows, in words."""

    name: str
    digest: str
    data: str
    engine: str
    diameter: str
    notices: tuple[str, ...]
    cards: tuple[Card, ...]
    resamples: str
    seed: int
    figures: tuple[ShownFigure, ...]
    plots: tuple[Picture, ...]
    sizes: str
    group_heads: tuple[str, ...]
    groups: tuple[ShownGroups, ...]
    keys: tuple[Key, ...]
    worst: tuple[WorstImage, ...]


def page(evaluation: Evaluation) -> str:
    """The whole page as HTML. Equal evaluations give equal pages."""
    return render("evaluation.html", page=evaluation_page(evaluation))


def evaluation_page(evaluation: Evaluation) -> EvaluationPage:
    """Put everything that the page of this evaluation shows into words and pictures."""
    package = evaluation.package
    return EvaluationPage(
        name=f"{package.name} {package.version}",
        digest=package.digest,
        data=data_words(evaluation),
        engine=evaluation.engine,
        diameter=diameter_words(evaluation),
        notices=tuple(notices(evaluation)),
        cards=tuple(Card(one.title, one.value, one.ends) for one in _figures(evaluation.figures, CARDS)),
        resamples=f"{RESAMPLES:,}",
        seed=SEED,
        figures=_figures(evaluation.figures, evaluation.figures),
        plots=_plots(evaluation),
        sizes=_sizes(evaluation),
        # A dash between letters must not end a line.
        group_heads=tuple(meaning(name).title.replace("–", "\u2060–\u2060") for name in GROUP_FIGURES),
        groups=tuple(
            ShownGroups(table.title, tuple(map(_group, table.groups))) for table in evaluation.tables
        ),
        keys=tuple(
            Key(f"rgb{colour}", text)
            for colour, text in ((TRUE, "true"), (COUNTED, "counted"), (BOTH, "both"))
        ),
        worst=tuple(map(_worst, evaluation.worst)),
    )


def diameter_words(evaluation: Evaluation) -> str:
    """A sentence on how images were brought to the model's scale."""
    own = evaluation.package.input.diameter_px
    if not evaluation.scores:
        return "images as the package takes them"
    if own is None:
        return "images as they are (the package counts at any scale)"
    if evaluation.diameter == "auto" and not tells_sizes(evaluation.package):
        return f"images as they are (the package tells no object size; the model's objects are {own:g} px)"
    if evaluation.diameter == "auto":
        return f"each image resized by its own estimate of the object size, to {own:g} px"
    if evaluation.diameter == "model":
        return f"images as they are (the model's objects are {own:g} px)"
    return f"every image resized from objects of {evaluation.diameter:g} px to {own:g} px"


def data_words(evaluation: Evaluation) -> str:
    """A sentence on the images: path, split, modalities and numbers."""
    data = evaluation.data
    split = f", split {data.split}" if data.split else ""
    modality = f", {', '.join(data.modality)}" if data.modality else ""
    images = len(evaluation.rows)
    listed = f"{data.path}{split}{modality}: {images:,} image{'' if images == 1 else 's'}"
    return (
        f"{listed} with {evaluation.objects:,} objects, {evaluation.counted:,} counted"
        if evaluation.scores
        else listed
    )


def notices(evaluation: Evaluation) -> list[str]:
    """What a reader must know before reading the figures."""
    told = list(evaluation.data.left_out)
    splits = Counter(entry.split for entry in evaluation.data.entries if entry.split)
    if splits and not evaluation.data.split:
        told.append(
            f"images of all splits are measured ({', '.join(f'{name!r}: {number:,}' for name, number in sorted(splits.items()))}); those that trained "
            "the package do not measure it (--split names one)"
        )
    meant = evaluation.package.modality
    others = sorted({row.modality for row in evaluation.rows} - {*meant, ""})
    if meant and others:
        number = sum(row.modality in others for row in evaluation.rows)
        told.append(
            f"{number} of {len(evaluation.rows)} images are of a modality the package is not for ({', '.join(others)}; it is for "
            f"{', '.join(meant)}): see the figures by modality"
        )
    sizes = evaluation.sizes
    if sizes is not None and sizes.not_told:
        told.append(
            f"{sizes.not_told} of {sizes.images} images with objects gave no estimate of the object size and were counted as they are"
        )
    return told


def _figures(figures: Mapping[str, Interval], names: Iterable[str]) -> tuple[ShownFigure, ...]:
    return tuple(
        ShownFigure(
            meaning(name).title,
            shown(name, figures[name].value),
            _ends(name, figures[name]),
            meaning(name).sentence,
        )
        for name in names
    )


def _group(group: GroupFigures) -> ShownGroup:
    return ShownGroup(
        group.name, f"{group.images:,}", f"{group.objects:,}", _figures(group.figures, GROUP_FIGURES)
    )


def _plots(evaluation: Evaluation) -> tuple[Picture, ...]:
    scores = evaluation.scores
    by_size = next(table.groups for table in evaluation.tables if table.key == "size")
    return (
        Picture("Counted against true objects, a point an image", inline_png(calibration_png(scores))),
        Picture("F1 at IoU 0.5 against the size of the objects", inline_png(f1_by_size_png(scores, by_size))),
    )


def _sizes(evaluation: Evaluation) -> str:
    sizes = evaluation.sizes
    if sizes is None:
        return ""
    return (
        f"Estimate of the object size: within 1.25 times the true median for {sizes.within_1_25 * 100:.1f} % and within 1.5 times "
        f"for {sizes.within_1_5 * 100:.1f} % of {sizes.images} images with objects."
    )


def _worst(each: Shown) -> WorstImage:
    score, match = each.score, each.score.matches[0]
    png, width, height = outlines_png(each.plane, each.truth, each.found)
    modality = f" · {score.modality}" if score.modality else ""
    diameter = f" · objects of {score.diameter_px:.0f} px" if score.true else ""
    return WorstImage(
        name=score.id,
        about=f"{modality}{diameter}",
        counts=f"true {score.true}, counted {score.counted}; AP {match.ap:.3f}, F1 {match.f1:.3f}",
        errors=f"{match.misses} missed, {match.extras} extra, {score.splits} split, {score.merges} merged",
        width=width,
        height=height,
        source=inline_png(png),
    )


def _ends(name: str, interval: Interval) -> str:
    """The ends of an interval as "0.851 – 0.890", or "" if it has none."""
    _, bracket, rest = shown_with_interval(name, interval).partition("(")
    return rest.rstrip(")") if bracket else ""
