"""The whole run in one value, as JSON and as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cellcount_core.domain.columns import SCHEMA_VERSION, Features, measured, plates_columns
from cellcount_core.domain.doubts import PACKAGE_HELPS, Doubt, by_weight, sentence
from cellcount_core.domain.errors import ModelFault, Status
from cellcount_core.domain.moments import Moments
from cellcount_core.models.package import shipped_packages
from cellcount_core.reduce.ledger import RunInfo
from cellcount_core.reduce.plates import Plate, plate_row
from cellcount_core.tables.rows import known

ALL = "all"
"""Name of the last row of summary.csv, over all plates."""

_NO_UNIT = ("", "1")
_SHOWN_PLATES = 10


@dataclass(frozen=True, slots=True)
class PlateDoubt:
    """A plate in doubt as a whole: why, and how many of its counted fields (`ok`) say so."""

    plate: str
    doubt: Doubt
    fields: int
    ok: int


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run came to.

    `model` is the name of the package it was counted with, `noun` what its fields are called ("image", "field").
    `fields` = ok + failed + missing + skipped of `statuses`; `reasons` counts the fields that are not ok, `warnings` the counted
    fields by the codes of their warnings, `warned` those that have any. `doubts` are the plates in doubt. `count` is None where
    no field was counted. `digests`: SHA-256 of the files wells.parquet and plates.parquet (`wells`, `plates`), and of the
    rows of the fields and objects tables (`fields_rows`, `objects_rows`), which no cut into parts can change.
    `moments` are those of the measured columns over all objects, by the column's name. `examples`: for each reason, what was
    said of the first field that has it.
    """

    fingerprint: str
    features: Features
    model: str
    noun: str
    plates: int
    wells: int
    wells_complete: int
    fields: int
    statuses: Mapping[str, int]
    reasons: Mapping[str, int]
    warnings: Mapping[str, int]
    warned: int
    doubts: tuple[PlateDoubt, ...]
    count: int | None
    count_per_field_mean: float | None
    count_per_field_sd: float | None
    area_mm2: float | None
    count_per_mm2: float | None
    moments: Mapping[str, Moments]
    digests: Mapping[str, str]
    examples: Mapping[str, str]


def summarise(
    run: RunInfo,
    plates: Sequence[Plate],
    everything: Plate,
    doubts: Mapping[str, Doubt],
    digests: Mapping[str, str],
    examples: Mapping[str, str],
) -> Summary:
    """The summary of a run from its plates, the totals over all of them and the plates in doubt."""
    tally = everything.tally
    return Summary(
        fingerprint=run.fingerprint,
        features=run.features,
        model=run.model,
        noun=run.noun,
        plates=len(plates),
        wells=everything.wells,
        wells_complete=everything.complete,
        fields=tally.fields,
        statuses={status.value: tally.statuses[status.value] for status in Status},
        reasons=dict(sorted(tally.reasons.items())),
        warnings=dict(sorted(tally.warnings.items())),
        warned=tally.warned,
        doubts=tuple(_plate_doubt(plate, doubts[plate.name]) for plate in plates if plate.name in doubts),
        count=tally.count,
        count_per_field_mean=tally.mean,
        count_per_field_sd=tally.sd,
        area_mm2=tally.area_mm2,
        count_per_mm2=tally.per_mm2,
        moments={column.name: its for column, its in zip(measured(run.features), tally.moments, strict=True)},
        digests=dict(digests),
        examples=dict(examples),
    )


def _plate_doubt(plate: Plate, doubt: Doubt) -> PlateDoubt:
    tally = plate.tally
    return PlateDoubt(
        plate.name, doubt, tally.ok if doubt is Doubt.NO_OBJECTS else tally.warnings[doubt], tally.ok
    )


def told_doubts(summary: Summary) -> list[str]:
    """What the rows warn of, in words, a line a code, the most frequent first; then a line for each plate in doubt, where there
    are several plates. Each says what can be done about it, and names the shipped package that fits where there is one."""
    ok, noun, model = summary.statuses[Status.OK.value], summary.noun, summary.model
    shown = summary.doubts[: _SHOWN_PLATES if summary.plates > 1 else 0]
    codes = {*summary.warnings, *(one.doubt.value for one in shown)}
    packages = {code: better_package(code, summary.warnings, model) for code in codes}
    lines = [
        sentence(code, fields, ok, noun=noun, model=model, package=packages[code])
        for code, fields in by_weight(summary.warnings)
    ]
    lines += [
        f"plate {one.plate!r}: "
        + sentence(one.doubt, one.fields, one.ok, noun=noun, model=model, package=packages[one.doubt])
        for one in shown
    ]
    left = len(summary.doubts) - _SHOWN_PLATES
    return [*lines, f"… and {left} more plates in doubt"] if left > 0 else lines


def better_package(code: str, warnings: Mapping[str, int], model: str) -> str:
    """The shipped package that settles the doubt `code` about images counted with `model`; "" where none is known to.

    What speaks for another one is a background of the other kind: bright under a model for fluorescence, dark under one for stains. A
    model of any scale cannot be told a size; one of the same modality that has a size can.
    """
    if code not in PACKAGE_HELPS:
        return ""
    try:
        shipped = shipped_packages()
    except ModelFault:
        # A damaged package is told where somebody counts with it; what was counted is told all the same.
        return ""
    own = next((package for package in shipped if package.name == model), None)
    trained = [package for package in shipped if package.domain is not None and package.name != model]
    if code == Doubt.SIZE_UNLIKE:
        free = own is not None and own.input.diameter_px is None
        return next(
            (one.name for one in trained if free and own and set(one.modality) & set(own.modality)), ""
        )
    for doubt, dark in ((Doubt.BRIGHT_BACKGROUND, True), (Doubt.DARK_BACKGROUND, False)):
        if 2 * warnings.get(doubt, 0) > max(1, warnings.get(Doubt.OUT_OF_DOMAIN, 0)):
            return next((one.name for one in trained if (one.input.polarity == "dark") == dark), "")
    return ""


def summary_json(summary: Summary) -> bytes:
    """The bytes of summary.json."""
    data = {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": summary.fingerprint,
        "object_name": summary.features.object_name,
        "channels": list(summary.features.channels),
        "plates": summary.plates,
        "wells": summary.wells,
        "wells_complete": summary.wells_complete,
        "fields": {"expected": summary.fields, **summary.statuses},
        "reasons": dict(summary.reasons),
        "fields_warned": summary.warned,
        "warnings": dict(summary.warnings),
        "plates_in_doubt": dict(Counter(one.doubt.value for one in summary.doubts)),
        "count": summary.count,
        "count_per_field_mean": summary.count_per_field_mean,
        "count_per_field_sd": summary.count_per_field_sd,
        "area_mm2": summary.area_mm2,
        "count_per_mm2": summary.count_per_mm2,
        "features": {name: _spread(moments) for name, moments in summary.moments.items()},
        "digests": dict(summary.digests),
    }
    return (json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def summary_csv(
    plates: Sequence[Plate], everything: Plate, doubts: Mapping[str, Doubt], features: Features
) -> bytes:
    """The bytes of summary.csv: the plates table with the unit in each header that has one, and a last row "all".

    Unknown cells are empty. Lines end with a line feed.
    """
    columns = plates_columns(features)
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(
        column.name if column.unit in _NO_UNIT else f"{column.name} ({column.unit})" for column in columns
    )
    for plate in (*plates, everything):
        row = plate_row(plate, features, {} if plate is everything else doubts)
        writer.writerow(row[column.name] for column in columns)
    return sink.getvalue().encode()


def _spread(moments: Moments) -> dict[str, float | int | None]:
    return {
        "n": moments.n,
        "mean": known(moments.mean),
        "sd": known(moments.sd),
        "min": known(moments.low),
        "max": known(moments.high),
    }
