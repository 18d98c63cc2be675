"""How well counts follow a dilution series: the quality indicators of ISO 20391-2:2019, from a run and a plate map.

They say how repeatable a way of counting is, and how proportional to the dilution. They do not say how accurate it is: a method that
misses every second cell is as proportional as one that misses none.

With target fractions x_i (1 is undiluted) and the means m_i of n_i replicates:

- CV: standard deviation (n - 1) of the replicates of a fraction over their mean, and its mean over the fractions;
- proportional fit: m = b x, by least squares with the weights n_i / x_i (the variance of counts grows with their number);
- R²: 1 - sum w (m - b x)² / sum w m², which is that of a fit through the origin;
- proportionality index: the sum over the fractions of |m_i - b x_i| / (b x_i). 0 is proportional. ISO 20391-2 smooths the means by a
  polynomial first; that of the degree of fractions - 1, which is taken here, goes through every mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.plan.platemap import MapRow, read_platemap
from cellcount_core.report.samples import Samples, WellSample

_FEWEST_FRACTIONS, _FEWEST_REPLICATES = 4, 3
"""What ISO 20391-2 asks of a design: with less, the report says so."""

_MEASURES = (
    ("viable_cells_per_ml", "viable cells/mL"),
    ("cells_per_ml", "cells/mL"),
    ("live", "live cells a field"),
    ("count", "cells a field"),
)
"""Numbers of cells are taken by the field: a well of which a field failed has not fewer cells for that."""


@dataclass(frozen=True, slots=True)
class FractionResult:
    """One fraction of the series: its target, the values of its replicates, their mean and coefficient of variation (None for one)."""

    fraction: float
    values: tuple[float, ...]
    mean: float
    cv: float | None
    fitted: float


@dataclass(frozen=True, slots=True)
class DilutionReport:
    """The indicators of one sample and measure. `slope` is what the proportional fit gives for the undiluted sample."""

    sample: str
    measure: str
    fractions: tuple[FractionResult, ...]
    mean_cv: float | None
    slope: float
    r_squared: float
    proportionality_index: float
    notes: tuple[str, ...]


def assess_series(sample: str, measure: str, series: Mapping[float, Sequence[float]]) -> DilutionReport:
    """The indicators of the values measured at each target fraction.

    Raises ConfigFault if there are less than two fractions, or nothing was counted in any.
    """
    fractions = sorted(series)
    means = {x: math.fsum(series[x]) / len(series[x]) for x in fractions}
    if len(fractions) < 2 or not any(means.values()):
        raise ConfigFault(
            f"sample {sample!r}: a dilution series has two fractions at least, and cells in one of them (got {len(fractions)})"
        )
    weights = {x: len(series[x]) / x for x in fractions}
    slope = math.fsum(weights[x] * x * means[x] for x in fractions) / math.fsum(
        weights[x] * x * x for x in fractions
    )
    left = math.fsum(weights[x] * (means[x] - slope * x) ** 2 for x in fractions)
    whole = math.fsum(weights[x] * means[x] ** 2 for x in fractions)
    results = tuple(
        FractionResult(x, tuple(series[x]), means[x], _cv(series[x], means[x]), slope * x) for x in fractions
    )
    known = [each.cv for each in results if each.cv is not None]
    return DilutionReport(
        sample,
        measure,
        results,
        math.fsum(known) / len(known) if known else None,
        slope,
        1 - left / whole,
        math.fsum(abs(means[x] - slope * x) / (slope * x) for x in fractions),
        tuple(_notes(results)),
    )


def _cv(values: Sequence[float], mean: float) -> float | None:
    if len(values) < 2 or not mean:
        return None
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)) / mean


def _notes(results: Sequence[FractionResult]) -> list[str]:
    notes = []
    if len(results) < _FEWEST_FRACTIONS:
        notes.append(f"{len(results)} fractions; ISO 20391-2 asks for {_FEWEST_FRACTIONS} at least")
    if (least := min(len(each.values) for each in results)) < _FEWEST_REPLICATES:
        notes.append(f"{least} replicates of a fraction; ISO 20391-2 asks for {_FEWEST_REPLICATES} at least")
    return notes


def dilution_reports(samples: Samples, platemap: Path) -> list[DilutionReport]:
    """The report of each sample that a plate map lists, by its columns `well`, `sample` and `dilution` (times: 1, 2, 4 …).

    What is measured is what the run has: viable cells/mL where the volume is known, else live cells a field.
    Wells of the map that the run has not are told in `notes`. Raises ConfigFault if the map is wrong or no well of it was counted.
    """
    rows = read_platemap(str(platemap), needed=("sample", "dilution")).rows
    measure, title = _measure(samples)
    series: dict[str, dict[float, list[float]]] = {}
    absent: list[str] = []
    partial: set[str] = set()
    for row in rows:
        if not row.columns["dilution"]:
            continue
        values = _values_of(row, samples, measure)
        if not values:
            absent.append(row.well)
            continue
        partial.update(sample.well for sample in samples.wells if _is_of(sample, row) and sample.is_partial)
        series.setdefault(row.columns["sample"], {}).setdefault(1 / _times(row, platemap), []).extend(values)
    if not series:
        raise ConfigFault(f"{platemap}: none of its wells with a dilution was counted in this run")
    reports = [assess_series(sample, title, each) for sample, each in series.items()]
    crowded = sorted({one.well for one in samples.wells if "too_dense" in str(one.values.get("warnings"))})
    notes = [f"not counted in this run: {', '.join(absent)}"] if absent else []
    notes += [f"some fields could not be counted: {', '.join(sorted(partial))}"] if partial else []
    notes += [f"too dense, where cells lie on each other: {', '.join(crowded)}"] if crowded else []
    return [_with_notes(report, notes) for report in reports]


def _with_notes(report: DilutionReport, notes: Sequence[str]) -> DilutionReport:
    return replace(report, notes=(*report.notes, *notes))


def _measure(samples: Samples) -> tuple[str, str]:
    for column, title in _MEASURES:
        if any(sample.number(column) is not None for sample in samples.wells):
            return column, title
    raise ConfigFault("no well of this run was counted")


def _values_of(row: MapRow, samples: Samples, measure: str) -> list[float]:
    """What was measured in the wells of a row."""
    return [
        value / (sample.number("fields_ok") or 1.0) if measure in ("live", "count") else value
        for sample in samples.wells
        if _is_of(sample, row) and (value := sample.number(measure)) is not None
    ]


def _is_of(sample: WellSample, row: MapRow) -> bool:
    return sample.well == row.well and row.plate in ("", sample.plate)


def _times(row: MapRow, path: Path) -> float:
    try:
        times = float(row.columns["dilution"])
    except ValueError:
        times = 0.0
    if not (math.isfinite(times) and times >= 1):
        raise ConfigFault(
            f"{path}: well {row.well}: the dilution is how many times the sample was diluted, 1 or more (got {row.columns['dilution']!r})"
        )
    return times


def report_lines(report: DilutionReport) -> list[str]:
    """A report as lines of text."""
    lines = [f"sample {report.sample!r}, {report.measure}:"]
    lines += [
        f"  fraction {each.fraction:<8.4g} {len(each.values)} replicates, mean {each.mean:.4g}, CV {_percent(each.cv)}, proportional fit {each.fitted:.4g}"
        for each in report.fractions
    ]
    lines.append(
        f"  mean CV {_percent(report.mean_cv)}, R² of the proportional fit {report.r_squared:.4f}, proportionality index "
        f"{report.proportionality_index:.3f} (0 is proportional)"
    )
    return [
        *lines,
        *(f"  note: {note}" for note in report.notes),
        "  these indicators tell repeatability and proportionality, not accuracy",
    ]


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def report_data(reports: Sequence[DilutionReport]) -> dict[str, object]:
    """The reports as plain data, for JSON."""
    return {
        "method": "ISO 20391-2:2019, dilution series; tells repeatability and proportionality, not accuracy",
        "samples": [
            {
                "sample": report.sample,
                "measure": report.measure,
                "mean_cv": report.mean_cv,
                "slope": report.slope,
                "r_squared": report.r_squared,
                "proportionality_index": report.proportionality_index,
                "notes": list(report.notes),
                "fractions": [
                    {
                        "fraction": each.fraction, "values": list(each.values), "mean": each.mean, "cv": each.cv, "fitted": each.fitted,
                    }
                    for each in report.fractions
                ],
            }
            for report in reports
        ],
    }  # fmt: skip
