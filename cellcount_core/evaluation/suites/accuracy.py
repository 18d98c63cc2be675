"""Accuracy: objects and counts on labelled images, one column per package and engine, beside what is required of the
shipped packages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from cellcount_core.evaluation.suites.base import (
    Asked,
    Counter,
    SuiteCell,
    SuiteColumn,
    SuiteResult,
    SuiteTable,
    Verdict,
    cell,
    shown_diameter,
)
from cellcount_core.labelled.image import ImageEntry, Pictured
from cellcount_core.tasks.matching import ImageScore, Report


@dataclass(frozen=True, slots=True)
class ReportFigure:
    """One figure of a set of scored images, and the format it is written in."""

    name: str
    title: str
    of: Callable[[Report], float]
    form: str


@dataclass(frozen=True, slots=True)
class Requirement:
    """What is required of a figure: a `goal`, and a `floor` that must not be missed.

    The figure must be at least so much or, with `side` "most", at most so much in absolute value.
    """

    goal: float
    floor: float
    side: str = "least"

    def verdict(self, value: float) -> Verdict:
        """Which of the two the value reaches."""
        if self._reaches(value, self.goal):
            return "goal"
        return "floor" if self._reaches(value, self.floor) else "missed"

    def shown(self, value: float, form: str) -> SuiteCell:
        """A required value as the table shows it."""
        sign = "≤" if self.side == "most" else "≥"
        return SuiteCell(value, f"{sign} {format(value, form.lstrip('+'))}")

    def _reaches(self, value: float, bar: float) -> bool:
        return abs(value) <= bar if self.side == "most" else value >= bar


FIGURES = (
    ReportFigure("ap_50", "AP@0.5", Report.ap, ".3f"),
    ReportFigure("ap_mean", "mean AP 0.5-0.9", Report.mean_ap, ".3f"),
    ReportFigure("f1_50", "F1@0.5", Report.f1, ".3f"),
    ReportFigure("count_mape", "count MAPE", Report.count_mape, ".1%"),
    ReportFigure("count_bias", "count bias", Report.count_bias, "+.1%"),
    ReportFigure("ap_70", "AP@0.7", lambda report: report.ap(0.7), ".3f"),
    ReportFigure("ap_90", "AP@0.9", lambda report: report.ap(0.9), ".3f"),
)

BARS: Mapping[str, Mapping[str, Requirement]] = {
    "fluorescence": {
        "ap_50": Requirement(0.87, 0.83),
        "ap_mean": Requirement(0.72, 0.66),
        "f1_50": Requirement(0.92, 0.895),
        "count_mape": Requirement(0.06, 0.08, "most"),
        "count_bias": Requirement(0.02, 0.03, "most"),
    },
    "histology": {"f1_50": Requirement(0.75, 0.75)},
}
"""What is required of a package on images of each modality."""


def accuracy(asked: Asked) -> SuiteResult:
    """Count every image with every counter, and compare the counts with its labels."""
    entries = asked.entries
    total = len(entries) * len(asked.counters)
    reports = []
    for number, counter in enumerate(asked.counters):
        scores = asked.in_turn(partial(_scored, counter), entries, total, number * len(entries))
        reports.append(Report(tuple(scores)))
    modalities = {score.modality for score in reports[0].images}
    objects = sum(score.true for score in reports[0].images)
    modality = next(iter(modalities)) if len(modalities) == 1 else ""
    caption = (
        f"{len(entries)} {modality}{' ' if modality else ''}images, {objects:,} objects, "
        f"diameter {shown_diameter(asked.counter.diameter)}."
    )
    return SuiteResult(caption, (accuracy_table(asked.counters, reports, BARS.get(modality, {})),))


def _scored(counter: Counter, entry: ImageEntry[Pictured]) -> ImageScore:
    image = entry.load(counter.package.input.channels)
    return counter.score(image, counter.count(image))


def titles_of(counters: Sequence[Counter]) -> list[str]:
    """A heading for each counter: package and engine. If two packages share a name (seeds, versions), their folders
    are shown instead."""
    named = [counter.title for counter in counters]
    titles = [
        title if named.count(title) == 1 else f"{counter.package.folder.resolve().name}, {counter.engine}"
        for title, counter in zip(named, counters, strict=True)
    ]
    return [
        title if titles.count(title) == 1 else f"{title} ({number})" for number, title in enumerate(titles, 1)
    ]


def accuracy_table(
    counters: Sequence[Counter], reports: Sequence[Report], bars: Mapping[str, Requirement]
) -> SuiteTable:
    """The table with one row per figure: what is required first, then one column per counter."""
    titles = titles_of(counters)
    rows = []
    for figure in FIGURES:
        bar = bars.get(figure.name)
        values = [figure.of(report) for report in reports]
        rows.append(
            (
                cell(figure.title),
                cell(None) if bar is None else bar.shown(bar.goal, figure.form),
                cell(None) if bar is None else bar.shown(bar.floor, figure.form),
                *(cell(value, figure.form, "" if bar is None else bar.verdict(value)) for value in values),
            )
        )
    columns = (
        SuiteColumn("figure", ""),
        SuiteColumn("goal", "goal", "bars"),
        SuiteColumn("floor", "floor", "bars"),
    )
    return SuiteTable("figures", (*columns, *(SuiteColumn(title, title) for title in titles)), tuple(rows))
